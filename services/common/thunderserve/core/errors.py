"""Every error that ThunderServe raises on purpose.

::

    ThunderServeError
    ├── InvalidArgumentError        the caller's value is wrong            400
    │   └── ConfigError             a configuration value is wrong
    ├── UnauthenticatedError        no or bad credentials                  401
    ├── PermissionDeniedError       known, but not allowed                 403
    ├── NotFoundError               no such node, group, plan, model       404
    ├── ConflictError               stale epoch or etag; read and retry    409
    ├── PreconditionError           not allowed in the present state       409
    ├── OverloadedError             shed; try again after `retry_after_s`  429
    ├── DeadlineError               took longer than the caller allowed    504
    ├── UnavailableError            nobody can serve it now                503
    │   ├── EngineBusyError         not idle; nothing was changed
    │   ├── TransferError           the KV cache did not arrive
    │   └── UnreachableError        no answer: its process or network is gone
    ├── LegsDisagreeError           prefill and decode differ on a token   500
    └── EngineFailedError           the engine is lost; restart it         500

`runtime.errors` holds the one table that turns these into gRPC and HTTP statuses and back.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "ConflictError",
    "DeadlineError",
    "EngineBusyError",
    "EngineFailedError",
    "InvalidArgumentError",
    "LegsDisagreeError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "PreconditionError",
    "ThunderServeError",
    "TransferError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnreachableError",
]


class ThunderServeError(Exception):
    """Base of all errors; `str(error)` is one line that names the value and the way out."""


class InvalidArgumentError(ThunderServeError):
    """The caller's value is wrong.

    Attributes:
        param: Name of the offending field, as the caller spells it; None for the whole request.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ConfigError(InvalidArgumentError):
    """A configuration value is wrong."""


class UnauthenticatedError(ThunderServeError):
    """No credentials, or bad ones."""


class PermissionDeniedError(ThunderServeError):
    """The caller is known and may not do this."""


class NotFoundError(ThunderServeError):
    """There is no such thing."""


class ConflictError(ThunderServeError):
    """Somebody else was first: the caller's epoch or etag is stale."""


class PreconditionError(ThunderServeError):
    """Not allowed in the present state."""


class OverloadedError(ThunderServeError):
    """Refused under load.

    Attributes:
        retry_after_s: When to try again.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(ThunderServeError):
    """It took longer than the caller allowed."""


class UnavailableError(ThunderServeError):
    """Nobody can serve it now; a later try may succeed."""


class EngineBusyError(UnavailableError):
    """The engine is not idle; nothing was changed."""


class TransferError(UnavailableError):
    """The KV cache did not arrive."""


class UnreachableError(UnavailableError):
    """The peer did not answer: its process or the network between is gone."""


class LegsDisagreeError(ThunderServeError):
    """The decode leg repeated another first token than the prefill leg gave: the KV is suspect."""


class EngineFailedError(ThunderServeError):
    """The engine is lost; its process must be restarted."""
