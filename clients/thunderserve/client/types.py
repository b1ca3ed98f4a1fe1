"""What an application gives to the SDK and gets from it."""

from __future__ import annotations

from dataclasses import dataclass

from thunderserve.core.request import FinishReason, GenerationReport

__all__ = ["Generation", "Message", "Model", "RouteCount", "RouterStatus", "TokenDelta"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """What a stream brought since the last delta.

    Attributes:
        finish_reason: Set in the last delta alone, as is `report`.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    report: GenerationReport | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    report: GenerationReport


@dataclass(frozen=True, slots=True)
class Model:
    """A served model; `context_tokens` holds prompt and answer together."""

    id: str
    context_tokens: int


@dataclass(frozen=True, slots=True)
class RouteCount:
    """Requests sent through one pair of groups since the router started."""

    prefill: str
    decode: str
    dispatched: int


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """Plan, load and counts as one router sees them."""

    plan_epoch: int
    ready: bool
    in_flight: int
    route_counts: tuple[RouteCount, ...]
