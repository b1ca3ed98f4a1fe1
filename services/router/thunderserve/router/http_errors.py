"""Our errors as the OpenAI API spells them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from starlette.responses import JSONResponse

from thunderserve.core import errors
from thunderserve.router.admission import ContextLengthError
from thunderserve.runtime.errors import http_status

__all__ = ["error_body", "error_response", "plain_error"]


class _Spelling(NamedTuple):
    error: type[errors.ThunderServeError]
    type: str
    code: str


# The most derived class comes first: the first match wins.
_SPELLINGS = (
    _Spelling(ContextLengthError, "invalid_request_error", "context_length_exceeded"),
    _Spelling(errors.InvalidArgumentError, "invalid_request_error", "invalid_value"),
    _Spelling(errors.UnauthenticatedError, "authentication_error", "invalid_api_key"),
    _Spelling(errors.PermissionDeniedError, "permission_error", "permission_denied"),
    _Spelling(errors.NotFoundError, "invalid_request_error", "model_not_found"),
    _Spelling(errors.OverloadedError, "rate_limit_error", "rate_limit_exceeded"),
    _Spelling(errors.DeadlineError, "server_error", "timeout"),
    _Spelling(errors.UnavailableError, "server_error", "service_unavailable"),
    _Spelling(errors.LegsDisagreeError, "server_error", "legs_disagree"),
    _Spelling(errors.ThunderServeError, "server_error", "internal_error"),
)


def error_body(error: errors.ThunderServeError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`."""
    spelling = next(s for s in _SPELLINGS if isinstance(error, s.error))
    param = error.param if isinstance(error, errors.InvalidArgumentError) else None
    if isinstance(error, errors.NotFoundError):
        param = "model"
    return _body(str(error), spelling.type, param, spelling.code)


def error_response(error: errors.ThunderServeError) -> JSONResponse:
    """The whole response, with `Retry-After` where trying again can help."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.OverloadedError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    elif isinstance(error, errors.UnavailableError):
        headers["retry-after"] = "1"
    return JSONResponse(error_body(error), http_status(error), headers)


def plain_error(
    status: int, message: str, code: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A response for what HTTP itself finds wrong."""
    kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - HTTP
    return JSONResponse(_body(message, kind, None, code), status, headers)


def _body(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
