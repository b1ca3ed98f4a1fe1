"""How a fleet serves: what the simulated systems decide differently."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["AS_BUILT", "ColocatedBatching", "Dispatch", "Reservation", "ServingPolicy"]


class Dispatch(StrEnum):
    """Who gets the next request.

    WEIGHTED: the plan's weights, matched from the first request on, as the router draws.
    SHORTEST_QUEUE: of the plan's routes, the prefill group with the fewest prompt tokens ahead;
        of those it feeds, the decode group with the fewest tokens promised. Source: Splitwise.
    """

    WEIGHTED = "weighted"
    SHORTEST_QUEUE = "shortest_queue"


class ColocatedBatching(StrEnum):
    """How a group that does both phases shares its passes.

    CHUNKED: chunks of prompts ride along in decode steps. Source: Sarathi-Serve; SGLang and vLLM.
    PREFILL_FIRST: whole prompts, while all answers wait. Source: vLLM before chunked prefill.
    """

    CHUNKED = "chunked"
    PREFILL_FIRST = "prefill_first"


class Reservation(StrEnum):
    """When a decode group sets memory aside for a request.

    BEFORE_PREFILL: when it arrives; prefill waits for it. Source: SGLang's bootstrap queue.
    BEFORE_TRANSFER: when the first chunk is computed; the transfer waits. Source: DistServe.
    """

    BEFORE_PREFILL = "before_prefill"
    BEFORE_TRANSFER = "before_transfer"


@dataclass(frozen=True, slots=True)
class ServingPolicy:
    """What a system does with a plan."""

    dispatch: Dispatch = Dispatch.WEIGHTED
    colocated: ColocatedBatching = ColocatedBatching.CHUNKED
    reservation: Reservation = Reservation.BEFORE_PREFILL


AS_BUILT = ServingPolicy()
"""What this system does."""
