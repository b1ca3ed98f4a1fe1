"""The two legs of a request, as a caller of a worker sees them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc

from thunderserve.api.worker.v1.worker_pb2_grpc import DecodeServiceStub, PrefillServiceStub
from thunderserve.runtime.errors import error_from_rpc
from thunderserve.wire.requests import (
    chunk_from_proto,
    decode_leg_to_proto,
    prefill_leg_to_proto,
    transfer_report_from_proto,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from thunderserve.core.request import DecodeLeg, PrefillLeg, TokenChunk, TransferReport

__all__ = ["WorkerLegs"]


class WorkerLegs:
    """Streams from one worker; closing an iterator, or cancelling its reader, ends the call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._prefill = PrefillServiceStub(channel).Prefill
        self._decode = DecodeServiceStub(channel).Decode
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Return once no leg runs."""
        await self._idle.wait()

    async def prefill(
        self, leg: PrefillLeg, timeout_s: float
    ) -> AsyncGenerator[int | TransferReport]:
        """The first token, then the report of the KV transfer.

        Raises:
            ThunderServeError: What the worker raised, or UnreachableError.
        """
        call = self._prefill(prefill_leg_to_proto(leg), timeout=timeout_s)
        with self._running_until_end(call):
            async for message in call:
                if message.WhichOneof("event") == "transfer":
                    yield transfer_report_from_proto(message.transfer)
                else:
                    yield message.first_token_id

    async def decode(self, leg: DecodeLeg, timeout_s: float) -> AsyncGenerator[TokenChunk]:
        """Every token of the answer, the first one included.

        Raises:
            ThunderServeError: What the worker raised, or UnreachableError.
        """
        call = self._decode(decode_leg_to_proto(leg), timeout=timeout_s)
        with self._running_until_end(call):
            async for message in call:
                yield chunk_from_proto(message)

    @contextlib.contextmanager
    def _running_until_end(self, call: grpc.aio.Call) -> Iterator[None]:
        """Counts the call, gives errors as ours, and never lets the call outlive the block."""
        self._running += 1
        self._idle.clear()
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        finally:
            call.cancel()
            self._running -= 1
            if self._running == 0:
                self._idle.set()
