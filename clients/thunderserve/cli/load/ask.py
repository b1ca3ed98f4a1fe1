"""One request to a router, by gRPC or by the OpenAI API, noted as it goes on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, Self

from thunderserve.cli.load.history import Ending
from thunderserve.cli.openai_http import get_json, stream_events
from thunderserve.client import AsyncClient
from thunderserve.core.errors import ThunderServeError, UnavailableError

if TYPE_CHECKING:
    from types import TracebackType

    from thunderserve.cli.load.history import History, RequestRecord

__all__ = ["Asker", "GrpcAsker", "HttpAsker", "asker_of"]

_MOST_AT_ONCE = 1024


class Asker(Protocol):
    """A way to ask; an asynchronous context."""

    async def ask(self, record: RequestRecord, history: History) -> None:
        """Send a request and note what comes until it has ended, well or badly."""

    async def model(self) -> str:
        """What the router serves; raises UnavailableError when that is nothing."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class GrpcAsker:
    """By the SDK; every token is seen."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._client = AsyncClient(address, timeout_s=timeout_s)

    async def ask(self, record: RequestRecord, history: History) -> None:
        """See `Asker.ask`."""
        try:
            async with self._client.stream(
                token_ids=record.prompt, max_tokens=record.output_tokens, ignore_eos=True
            ) as stream:
                async for delta in stream:
                    history.note_tokens(record, delta.token_ids)
                record.report = (await stream.result()).report
        except ThunderServeError as error:
            history.note_failure(record, error)
        except asyncio.CancelledError:
            history.note_end(record, Ending.GIVEN_UP)
            raise
        else:
            history.note_end(record, Ending.FINISHED)

    async def model(self) -> str:
        """See `Asker.model`."""
        return _one_of([model.id for model in await self._client.models()])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()


class HttpAsker:
    """By the OpenAI API, which streams text: of tokens only the first one's time and their number.

    A thread waits for each answer; ask for the model first, requests name it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._model = ""
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="load")

    async def ask(self, record: RequestRecord, history: History) -> None:
        """See `Asker.ask`."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._read, record, history)
        except ThunderServeError as error:
            history.note_failure(record, error)
        else:
            history.note_end(record, Ending.FINISHED)

    def _read(self, record: RequestRecord, history: History) -> None:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(record.prompt),
            "max_tokens": record.output_tokens,
            "ignore_eos": True,
            "stream_options": {"include_usage": True},
        }
        for event in stream_events(self._address, "/v1/completions", body):
            if event["choices"]:
                record.token_times_s.append(history.now_s())
            if usage := event.get("usage"):
                record.counted_tokens = usage["completion_tokens"]

    async def model(self) -> str:
        """See `Asker.model`."""
        listed = await asyncio.to_thread(get_json, self._address, "/v1/models")
        self._model = _one_of([model["id"] for model in listed["data"]])
        return self._model

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _one_of(models: list[str]) -> str:
    if not models:
        raise UnavailableError("the router serves no model now")
    return models[0]


def asker_of(against: str, timeout_s: float) -> Asker:
    """By the OpenAI API where `against` begins with http://, else by gRPC."""
    if against.startswith("http://"):
        return HttpAsker(against.removeprefix("http://").rstrip("/"))
    return GrpcAsker(against, timeout_s)
