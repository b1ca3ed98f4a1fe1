"""The ThunderServe SDK: generate text from a fleet, streamed, synchronously or with asyncio.

::

    from thunderserve.client import Client

    with Client("127.0.0.1:50051") as client:
        for delta in client.stream("def add(a, b):", max_tokens=32):
            print(delta.text, end="", flush=True)

Every failure is one of `ThunderServeError`'s children, whose messages name the value and the way
out; `ControlClient` is what operators' tools use.
"""

from __future__ import annotations

from thunderserve.client.async_client import AsyncClient, AsyncGenerationStream
from thunderserve.client.control import ControlClient
from thunderserve.client.sync_client import Client, GenerationStream
from thunderserve.client.types import (
    Generation,
    Message,
    Model,
    RouteCount,
    RouterStatus,
    TokenDelta,
)
from thunderserve.core.errors import (
    ConflictError,
    DeadlineError,
    EngineFailedError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PreconditionError,
    ThunderServeError,
    UnauthenticatedError,
    UnavailableError,
)
from thunderserve.core.request import (
    FinishReason,
    GenerationReport,
    SamplingParams,
    TransferReport,
    Usage,
    WireMode,
)

__all__ = [
    "AsyncClient",
    "AsyncGenerationStream",
    "Client",
    "ConflictError",
    "ControlClient",
    "DeadlineError",
    "EngineFailedError",
    "FinishReason",
    "Generation",
    "GenerationReport",
    "GenerationStream",
    "InvalidArgumentError",
    "Message",
    "Model",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "PreconditionError",
    "RouteCount",
    "RouterStatus",
    "SamplingParams",
    "ThunderServeError",
    "TokenDelta",
    "TransferReport",
    "UnauthenticatedError",
    "UnavailableError",
    "Usage",
    "WireMode",
]
