"""A failed call as one of our errors, with the address that a transport failure leaves out."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_status import rpc_status

from thunderserve.core.errors import DeadlineError, ThunderServeError, UnreachableError
from thunderserve.runtime.errors import error_from_rpc

__all__ = ["failure_of"]


def failure_of(error: grpc.RpcError, peer: str, timeout_s: float) -> ThunderServeError:
    """Our error for a failed call to `peer`, for example `the router at 127.0.0.1:50051`."""
    call: Any = error  # a failed call raises itself
    if rpc_status.from_call(call) is not None:  # the server answered, and says what is wrong
        return error_from_rpc(error)
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"no answer from {peer} within {timeout_s:g} s")
    if code is grpc.StatusCode.UNAVAILABLE:
        return UnreachableError(f"cannot reach {peer}: {_reason(error)}")
    return error_from_rpc(error)


def _reason(error: grpc.RpcError) -> str:
    """The last, most telling part of gRPC's account of a broken connection."""
    return (error.details() or "no answer").rpartition(": ")[2]
