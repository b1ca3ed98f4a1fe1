"""The one table between our errors, gRPC statuses, HTTP statuses and exit statuses.

On the wire an error is a `google.rpc.Status` with one `ErrorInfo`: its `reason` names our class,
its `metadata` carries the class's fields. Servicers raise; the interceptor translates.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from thunderserve.core import errors

__all__ = ["ERROR_DOMAIN", "error_from_rpc", "exit_status", "http_status", "rpc_status_of"]

ERROR_DOMAIN = "thunderserve"


class _Row(NamedTuple):
    error: type[errors.ThunderServeError]
    code: grpc.StatusCode
    http: int
    exit: int


# The most derived class of a line of descent comes first: the first match wins.
_TABLE = (
    _Row(errors.ConfigError, grpc.StatusCode.INVALID_ARGUMENT, 400, 2),
    _Row(errors.InvalidArgumentError, grpc.StatusCode.INVALID_ARGUMENT, 400, 2),
    _Row(errors.UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED, 401, 5),
    _Row(errors.PermissionDeniedError, grpc.StatusCode.PERMISSION_DENIED, 403, 5),
    _Row(errors.NotFoundError, grpc.StatusCode.NOT_FOUND, 404, 3),
    _Row(errors.ConflictError, grpc.StatusCode.ABORTED, 409, 4),
    _Row(errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION, 409, 4),
    _Row(errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 6),
    _Row(errors.DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED, 504, 124),
    _Row(errors.EngineBusyError, grpc.StatusCode.UNAVAILABLE, 503, 6),
    _Row(errors.TransferError, grpc.StatusCode.UNAVAILABLE, 503, 6),
    _Row(errors.UnreachableError, grpc.StatusCode.UNAVAILABLE, 503, 6),
    _Row(errors.UnavailableError, grpc.StatusCode.UNAVAILABLE, 503, 6),
    _Row(errors.LegsDisagreeError, grpc.StatusCode.INTERNAL, 500, 1),
    _Row(errors.EngineFailedError, grpc.StatusCode.INTERNAL, 500, 1),
    _Row(errors.ThunderServeError, grpc.StatusCode.INTERNAL, 500, 1),
)

# A bare status means the nearest common class; gRPC itself says UNAVAILABLE, without details, for
# a peer that it cannot reach.
_NEVER_WITHOUT_DETAILS = {
    errors.ConfigError,
    errors.EngineBusyError,
    errors.TransferError,
    errors.LegsDisagreeError,
}


def http_status(error: errors.ThunderServeError) -> int:
    """The HTTP status of an error."""
    return _row(error).http


def exit_status(error: errors.ThunderServeError) -> int:
    """The exit status of a command that ends with an error.

    1 error, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable, 124 timeout.
    """
    return _row(error).exit


def rpc_status_of(error: errors.ThunderServeError) -> grpc.Status:
    """The rich gRPC status of an error: code, details and trailing metadata."""
    row = _row(error)
    metadata: dict[str, str] = {}
    if isinstance(error, errors.InvalidArgumentError) and error.param:
        metadata["param"] = error.param
    if isinstance(error, errors.OverloadedError):
        metadata["retry_after_s"] = str(error.retry_after_s)
    info = AnyMessage()
    info.Pack(ErrorInfo(reason=row.error.__name__, domain=ERROR_DOMAIN, metadata=metadata))
    number = row.code.value[0]  # a pair: the number and its name
    return rpc_status.to_status(Status(code=number, message=str(error), details=[info]))


def error_from_rpc(error: grpc.aio.AioRpcError | grpc.RpcError) -> errors.ThunderServeError:
    """Our error for a failed call: the server's own, or what its status code says."""
    code, message = error.code(), error.details() or ""
    status = rpc_status.from_call(cast("grpc.Call", error))  # has all that is read of a call
    for detail in status.details if status is not None else ():
        info = ErrorInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            return _rebuild(info, message)
    for row in _TABLE:
        if row.code is code and row.error not in _NEVER_WITHOUT_DETAILS:
            return row.error(message or code.name)
    if code is grpc.StatusCode.CANCELLED:
        return errors.UnavailableError(message or "the call was cancelled")
    return errors.ThunderServeError(f"{code.name}: {message}")


def _row(error: errors.ThunderServeError) -> _Row:
    return next(row for row in _TABLE if isinstance(error, row.error))


def _rebuild(info: ErrorInfo, message: str) -> errors.ThunderServeError:
    kind = next((row.error for row in _TABLE if row.error.__name__ == info.reason), None)
    if kind is None:
        return errors.ThunderServeError(message)
    if issubclass(kind, errors.InvalidArgumentError):
        return kind(message, param=info.metadata.get("param"))
    if issubclass(kind, errors.OverloadedError):
        return kind(message, retry_after_s=float(info.metadata.get("retry_after_s", 1.0)))
    return kind(message)
