"""From pair to pair until a request is answered: retried before its first token, continued after.

A retry is a new attempt on another pair, in a new room. After the first token the new attempt
goes on from the prompt and the tokens shown so far, so no token is ever shown twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.errors import (
    ConflictError,
    DeadlineError,
    EngineFailedError,
    LegsDisagreeError,
    OverloadedError,
    PreconditionError,
    TransferError,
    UnavailableError,
    UnreachableError,
)
from thunderserve.core.request import (
    FinishReason,
    GenerationReport,
    TokenChunk,
    TransferReport,
    TransferTicket,
    Usage,
)
from thunderserve.router.attempt import Attempt, LegFailure
from thunderserve.router.routing import Avoid

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from thunderserve.core.fleet import Worker
    from thunderserve.router.attempt import Legs
    from thunderserve.router.job import Job
    from thunderserve.router.routing import Pair, RouteTable
    from thunderserve.router.suspicion import Suspicion

__all__ = ["Answer", "DispatchStatistics", "Dispatcher"]

_log = logging.getLogger(__name__)

# Another pair may well answer after one of these.
RETRYABLE = (
    UnavailableError,
    PreconditionError,
    ConflictError,
    OverloadedError,
    EngineFailedError,
)


@dataclass(frozen=True, slots=True)
class DispatchStatistics:
    """Counts since the router started.

    Attributes:
        retries: Attempts abandoned before the first token.
        continuations: Attempts abandoned after it, and taken up elsewhere.
        disagreements: Requests ended because the legs differed on the first token.
    """

    retries: int = 0
    continuations: int = 0
    disagreements: int = 0


class Dispatcher:
    """Sends jobs to pairs of workers.

    Args:
        table: Picks the pairs.
        suspicion: Remembers unreachable workers.
        legs_of: The client of a worker.
        new_room: A fresh transfer id in [1, 2**63).
        clock: Monotonic seconds.
        max_retries: Pairs tried after the first, per request.
    """

    def __init__(
        self,
        *,
        table: RouteTable,
        suspicion: Suspicion,
        legs_of: Callable[[Worker], Legs],
        new_room: Callable[[], int],
        clock: Callable[[], float],
        max_retries: int,
    ) -> None:
        self.table = table
        self.suspicion = suspicion
        self.legs_of = legs_of
        self.new_room = new_room
        self.clock = clock
        self.max_retries = max_retries
        self._statistics = DispatchStatistics()

    def start(self, job: Job) -> Answer:
        """The answer to a job; nothing is sent before its tokens are read."""
        return Answer(self, job)

    def statistics(self) -> DispatchStatistics:
        """Counts since the router started."""
        return self._statistics

    def draw(self, tried: Avoid) -> Pair | None:
        """The next pair: not one that was tried, and a suspected worker only if need be."""
        suspected = self.suspicion.avoid(self.table.workers, self.clock())
        return self.table.draw(tried | suspected) or self.table.draw(tried)

    def count(self, *, retries: int = 0, continuations: int = 0, disagreements: int = 0) -> None:
        """Add to the statistics."""
        s = self._statistics
        self._statistics = DispatchStatistics(
            s.retries + retries, s.continuations + continuations, s.disagreements + disagreements
        )


class Answer:
    """The tokens of one job, and what it took to get them."""

    def __init__(self, dispatcher: Dispatcher, job: Job) -> None:
        self._dispatcher = dispatcher
        self._job = job
        self._tokens: list[int] = []
        self._tried = Avoid()
        self._retries = 0
        self._pair: Pair | None = None
        self._transfer: TransferReport | None = None
        self._first_token_s: float | None = None
        self._last_token_s = job.arrived_s

    async def chunks(self) -> AsyncGenerator[TokenChunk]:
        """Every token once, across all attempts; close the iterator to cancel both legs.

        Raises:
            UnavailableError: No pair is live, or every one that was tried failed.
            DeadlineError: The client's time was up.
            LegsDisagreeError: The legs differ on the first token.
            ThunderServeError: What a leg refused the request with.
        """
        failure: LegFailure | None = None
        while (ended := self._ended()) is None:
            pair = self._pair = self._next_pair(failure)
            try:
                async with self._attempt(pair) as attempt:
                    async for chunk in attempt.tokens():
                        self._note(chunk, attempt)
                        yield chunk
                    await attempt.wait_report()
                    self._transfer = attempt.transfer
            except LegFailure as error:
                self._abandon(pair, error)
                failure = error
            except LegsDisagreeError as error:
                self._dispatcher.count(disagreements=1)
                _log.error("request %s on %s: %s", self._job.request_id, pair.ends, error)
                raise
            else:
                return
        yield TokenChunk((), ended)

    def report(self) -> GenerationReport:
        """What it took so far."""
        count = len(self._tokens)
        arrived_s, last_s = self._job.arrived_s, self._last_token_s
        first_s = last_s if self._first_token_s is None else self._first_token_s
        return GenerationReport(
            usage=Usage(len(self._job.prompt_token_ids), count),
            ttft_s=first_s - arrived_s,
            tpot_s=(last_s - first_s) / (count - 1) if count > 1 else 0.0,
            total_s=last_s - arrived_s,
            prefill_group=self._pair.prefill.group_id if self._pair else "",
            decode_group=self._pair.decode.group_id if self._pair else "",
            plan_epoch=self._pair.epoch if self._pair else 0,
            transfer=self._transfer,
            retries=self._retries,
        )

    def _attempt(self, pair: Pair) -> Attempt:
        job = self._job.after(tuple(self._tokens))
        room = self._dispatcher.new_room()
        ticket = TransferTicket(room, pair.prefill.kvlink_address, job.wire_mode)
        return Attempt(
            pair,
            self._dispatcher.legs_of,
            None if pair.colocated else job.prefill_leg(ticket, pair.epoch),
            job.decode_leg(ticket, pair.epoch, colocated=pair.colocated),
            job.deadline_s - self._dispatcher.clock(),
        )

    def _next_pair(self, failure: LegFailure | None) -> Pair:
        if self._dispatcher.clock() >= self._job.deadline_s:
            raise DeadlineError("the request's time was up before a pair answered")
        if self._retries <= self._dispatcher.max_retries and (
            pair := self._dispatcher.draw(self._tried)
        ):
            return pair
        if failure is None:
            raise UnavailableError("no live pair of a prefill and a decode group; try again later")
        raise _exhausted(failure, self._retries)

    def _note(self, chunk: TokenChunk, attempt: Attempt) -> None:
        self._transfer = attempt.transfer
        if not chunk.token_ids:
            return
        self._tokens += chunk.token_ids
        self._last_token_s = self._dispatcher.clock()
        if self._first_token_s is None:
            self._first_token_s = self._last_token_s

    def _abandon(self, pair: Pair, failure: LegFailure) -> None:
        """Note why the pair failed; raise when no other one would do better."""
        error = failure.error
        _log.warning("request %s: %s", self._job.request_id, failure)
        if not isinstance(error, RETRYABLE):
            raise error
        if isinstance(error, UnreachableError):
            self._dispatcher.suspicion.suspect(failure.worker, self._dispatcher.clock())
        self._tried |= _blame(pair, failure)
        self._retries += 1
        began = bool(self._tokens)
        self._dispatcher.count(retries=not began, continuations=began)

    def _ended(self) -> FinishReason | None:
        """Whether the tokens so far are the whole answer, as when only its end was lost."""
        if not self._tokens:
            return None
        if self._job.ends_at(self._tokens[-1]):
            return FinishReason.STOP
        if len(self._tokens) >= self._job.sampling.max_tokens:
            return FinishReason.LENGTH
        return None


def _blame(pair: Pair, failure: LegFailure) -> Avoid:
    """A transfer has two ends, so only the pair is avoided; else it is the leg's own group."""
    if isinstance(failure.error, TransferError):
        return Avoid(pairs=frozenset({pair.ends}))
    return Avoid(groups=frozenset({failure.worker.group_id}))


def _exhausted(failure: LegFailure, tries: int) -> UnavailableError | OverloadedError:
    """What the client is told when every pair failed; addresses stay in the log."""
    if isinstance(failure.error, OverloadedError):
        return failure.error
    group = failure.worker.group_id
    unreachable = isinstance(failure.error, UnreachableError)
    cause = f"group {group} is unreachable" if unreachable else f"group {group}: {failure.error}"
    return UnavailableError(f"no pair could serve the request, {tries} tried; the last: {cause}")
