"""A request on its way: as it was asked, and as it goes to the workers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from thunderserve.core.request import (
    DecodeLeg,
    PrefillLeg,
    SamplingParams,
    TransferTicket,
    WireMode,
)

__all__ = ["ChatMessage", "GenerationRequest", "Job", "Prompt", "is_harmless_id"]

_HARMLESS_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


Prompt = str | tuple[int, ...] | tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a client asks for.

    Attributes:
        model: Empty is the served model.
        sampling: Its `max_tokens` is overruled by the field below.
        max_tokens: None is all that the context has room for.
        stop: Strings that end the answer and are not part of it.
    """

    request_id: str
    model: str
    prompt: Prompt
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    wire_mode: WireMode = WireMode.DEFAULT


@dataclass(frozen=True, slots=True)
class Job:
    """A request that was tokenised and admitted.

    Attributes:
        end_token_ids: The model's own end tokens.
        arrived_s: When it came, on the router's monotonic clock.
        deadline_s: When the client stops waiting, on the same clock.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    wire_mode: WireMode
    end_token_ids: frozenset[int]
    arrived_s: float
    deadline_s: float

    def after(self, token_ids: tuple[int, ...]) -> Job:
        """What is left to do once these tokens were produced."""
        left = self.sampling.max_tokens - len(token_ids)
        return replace(
            self,
            prompt_token_ids=self.prompt_token_ids + token_ids,
            sampling=replace(self.sampling, max_tokens=left),
        )

    def ends_at(self, token_id: int) -> bool:
        """True when this token is the last of an answer."""
        if token_id in self.sampling.stop_token_ids:
            return True
        return token_id in self.end_token_ids and not self.sampling.ignore_eos

    def prefill_leg(self, ticket: TransferTicket, epoch: int) -> PrefillLeg:
        """What the prefill group gets; the id is unique for every attempt."""
        leg_id = f"{self.request_id}-{ticket.room:x}"
        return PrefillLeg(leg_id, self.prompt_token_ids, self.sampling, ticket, epoch)

    def decode_leg(self, ticket: TransferTicket, epoch: int, *, colocated: bool) -> DecodeLeg:
        """What the decode group gets; a colocated one gets no ticket."""
        leg_id = f"{self.request_id}-{ticket.room:x}"
        transfer = None if colocated else ticket
        return DecodeLeg(leg_id, self.prompt_token_ids, self.sampling, transfer, epoch)


def is_harmless_id(given: str) -> bool:
    """True when a client's request id may appear in logs and headers as it is."""
    return _HARMLESS_ID.fullmatch(given) is not None
