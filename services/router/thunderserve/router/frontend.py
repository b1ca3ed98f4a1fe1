"""The walk of a request, whichever protocol it came by: admit, tokenise, dispatch, detokenise."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.core.errors import UnavailableError
from thunderserve.core.finished import FinishedRequest, Outcome
from thunderserve.core.request import FinishReason, GenerationReport, TokenChunk
from thunderserve.router.admission import Admission, check_model, room_for_answer
from thunderserve.router.detokenizer import Detokenizer, StopMatcher
from thunderserve.router.job import Job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from tokenizers import Tokenizer

    from thunderserve.router.dispatch import Answer, Dispatcher, DispatchStatistics
    from thunderserve.router.job import GenerationRequest
    from thunderserve.router.routing import RouteTable
    from thunderserve.router.tokenizer import ModelTokenizer
    from thunderserve.router.workload_window import WorkloadWindow

__all__ = ["Frontend", "TextChunk", "TextStream"]


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Text and tokens since the last chunk; `finish_reason` is set in the last chunk alone.

    Text lags behind its tokens while it may be half a character or the start of a stop string.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None


class TextStream:
    """The answer to one job, as text.

    Args:
        answer: Its tokens.
        stop: Strings that end it and are not part of it.
    """

    def __init__(
        self, job: Job, answer: Answer, tokenizer: Tokenizer, stop: tuple[str, ...]
    ) -> None:
        self.finished = False
        self._job = job
        self._answer = answer
        self._detokenizer = Detokenizer(tokenizer, job.prompt_token_ids)
        self._stop = StopMatcher(stop)

    async def chunks(self) -> AsyncGenerator[TextChunk]:
        """Pieces of the answer as they come; closing the iterator ends the request.

        Raises:
            ThunderServeError: As `Answer.chunks`.
        """
        async with aclosing(self._answer.chunks()) as chunks:
            async for chunk in chunks:
                text, stopped = self._text(chunk)
                reason = FinishReason.STOP if stopped else chunk.finish_reason
                self.finished = reason is not None
                yield TextChunk(text, chunk.token_ids, reason)
                if stopped:
                    return

    def report(self) -> GenerationReport:
        """What it took so far; complete once `chunks` has ended."""
        return self._answer.report()

    def _text(self, chunk: TokenChunk) -> tuple[str, bool]:
        """What these tokens let show, and whether a stop string was reached."""
        token_ids, ended = chunk.token_ids, chunk.finish_reason is not None
        if token_ids and self._job.ends_at(token_ids[-1]):
            token_ids = token_ids[:-1]  # an end token is not part of the text
        text = self._detokenizer.push(token_ids)
        if ended:
            text += self._detokenizer.flush()
        shown, stopped = self._stop.push(text)
        if ended and not stopped:
            shown += self._stop.flush()
        return shown, stopped


class Frontend:
    """What HTTP and gRPC call.

    Args:
        model_name: What clients call the model.
        admission: Counts requests in flight.
        table: Knows whether a pair is live.
        window: Gets every finished request.
        clock: Monotonic seconds.
        unix_clock: Seconds since 1970, for records that other machines read.
        request_timeout_s: Longest time that one request may take.
    """

    def __init__(
        self,
        *,
        model_name: str,
        tokenizer: ModelTokenizer,
        admission: Admission,
        table: RouteTable,
        dispatcher: Dispatcher,
        window: WorkloadWindow,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        request_timeout_s: float,
    ) -> None:
        self.model_name = model_name
        self.tokenizer = tokenizer
        self.admission = admission
        self.table = table
        self._dispatcher = dispatcher
        self._window = window
        self._clock = clock
        self._unix_clock = unix_clock
        self.request_timeout_s = request_timeout_s

    @property
    def ready(self) -> bool:
        """True when a request could be served now."""
        return self.table.ready

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together: the model's, or less where a worker holds less."""
        held = [w.capabilities.context_tokens for w in self.table.workers]
        return min([self.tokenizer.context_tokens, *(tokens for tokens in held if tokens > 0)])

    def statistics(self) -> DispatchStatistics:
        """Counts since the router started."""
        return self._dispatcher.statistics()

    @asynccontextmanager
    async def generate(
        self, request: GenerationRequest, timeout_s: float | None = None
    ) -> AsyncIterator[TextStream]:
        """Serve a request while the block runs; leaving it frees all that the request holds.

        Args:
            request: What the client asks for.
            timeout_s: How long it waits; None, or more than configured, is what is configured.

        Raises:
            NotFoundError: The model is not served here.
            OverloadedError: Too many requests are in flight.
            UnavailableError: No pair is live.
            InvalidArgumentError: The prompt is wrong or does not fit.
        """
        arrived_s, arrived_unix_s = self._clock(), self._unix_clock()
        check_model(request.model, self.model_name)
        with self.admission:
            if not self.ready:
                raise UnavailableError(
                    "no live pair of a prefill and a decode group; try again later"
                )
            job = await self._job(request, arrived_s, timeout_s)
            answer = self._dispatcher.start(job)
            stream = TextStream(job, answer, self.tokenizer.tokenizer, request.stop)
            outcome = Outcome.CANCELLED
            try:
                yield stream
                outcome = Outcome.FINISHED if stream.finished else Outcome.CANCELLED
            except Exception:
                outcome = Outcome.FAILED
                raise
            finally:
                self._window.record(FinishedRequest.of(stream.report(), arrived_unix_s, outcome))

    async def _job(
        self, request: GenerationRequest, arrived_s: float, timeout_s: float | None
    ) -> Job:
        token_ids = await self.tokenizer.encode(request.prompt)
        max_tokens = room_for_answer(len(token_ids), request.max_tokens, self.context_tokens)
        limit_s = self.request_timeout_s
        return Job(
            request_id=request.request_id,
            prompt_token_ids=token_ids,
            sampling=replace(request.sampling, max_tokens=max_tokens),
            wire_mode=request.wire_mode,
            end_token_ids=self.tokenizer.end_token_ids,
            arrived_s=arrived_s,
            deadline_s=arrived_s + (limit_s if timeout_s is None else min(timeout_s, limit_s)),
        )
