"""A request's life: what was asked, what each leg carries, what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from thunderserve.core.errors import InvalidArgumentError

__all__ = [
    "DecodeLeg",
    "FinishReason",
    "GenerationReport",
    "PrefillLeg",
    "SamplingParams",
    "TokenChunk",
    "TransferReport",
    "TransferTicket",
    "Usage",
    "WireMode",
]

HIGHEST_TEMPERATURE = 2.0


class WireMode(StrEnum):
    """How KV bytes travel between two groups.

    `DEFAULT` leaves it to the sending sidecar's configuration, `AUTO` to what it measures; the
    others are codecs.
    """

    DEFAULT = "default"
    RAW16 = "raw16"
    INT4 = "int4"
    AUTO = "auto"


class FinishReason(StrEnum):
    """Why a generation ended; the values are the OpenAI API's where it has one."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    Attributes:
        max_tokens: Tokens to produce at most, > 0.
        temperature: In [0, 2]; 0 is greedy.
        top_p: In (0, 1].
        top_k: Tokens considered; 0 is all.
        stop_token_ids: Token ids that end the generation.
        ignore_eos: Go on past the model's end token.
        seed: Seed of the draw; None is unseeded.
    """

    max_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens <= 0:
            raise InvalidArgumentError(
                f"max_tokens is {self.max_tokens}; it must be at least 1", param="max_tokens"
            )
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= HIGHEST_TEMPERATURE):
            raise InvalidArgumentError(
                f"temperature is {self.temperature}; it must be in [0, 2]", param="temperature"
            )
        if not 0 < self.top_p <= 1:
            raise InvalidArgumentError(
                f"top_p is {self.top_p}; it must be in (0, 1]", param="top_p"
            )
        if self.top_k < 0:
            raise InvalidArgumentError(f"top_k is {self.top_k}; it must be >= 0", param="top_k")


@dataclass(frozen=True, slots=True)
class TransferTicket:
    """Where a request's KV cache goes.

    Attributes:
        room: Names the transfer on both sides, in [1, 2**63); unique for every attempt.
        prefill_kvlink_address: `host:port` of the prefill group's sidecar.
    """

    room: int
    prefill_kvlink_address: str
    wire_mode: WireMode = WireMode.DEFAULT

    def __post_init__(self) -> None:
        if not 0 < self.room < 2**63:
            raise InvalidArgumentError(f"room {self.room} is not in [1, 2**63)", param="room")


@dataclass(frozen=True, slots=True)
class PrefillLeg:
    """What a prefill group gets of a request."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    transfer: TransferTicket
    plan_epoch: int = 0


@dataclass(frozen=True, slots=True)
class DecodeLeg:
    """What a decode group gets of a request; without a transfer it computes the prompt itself."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    transfer: TransferTicket | None
    plan_epoch: int = 0


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Tokens since the last chunk; `finish_reason` is set in the last chunk alone."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What moving one request's KV cache took.

    Attributes:
        raw_bytes: KV bytes as the engine holds them.
        wire_bytes: Bytes that crossed the network, headers included.
        seconds: From the first byte offered to the last one acknowledged.
        wire_mode: The codec; short blocks of an int4 transfer go as raw16 all the same.
        wire_reason: Why it was that one, for people.
        exposed_s: From the end of prefill to the last byte acknowledged: what decode waited
            for. A side that does not hear when prefill ends counts the whole transfer.
        exposed_bytes: Of the wire bytes, those that were not under way when prefill ended.
    """

    raw_bytes: int
    wire_bytes: int
    seconds: float
    wire_mode: WireMode
    wire_reason: str = ""
    exposed_s: float = 0.0
    exposed_bytes: int = 0

    @property
    def hidden_ratio(self) -> float:
        """Share of the wire bytes that were under way before prefill had ended."""
        return 1 - self.exposed_bytes / self.wire_bytes if self.wire_bytes else 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted as the OpenAI API counts them."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """What one request took.

    Attributes:
        ttft_s: First token - arrival.
        tpot_s: (end-to-end - TTFT) / (output tokens - 1); 0 for a single token.
        retries: Pairs tried before the one that answered.
    """

    usage: Usage
    ttft_s: float
    tpot_s: float
    total_s: float
    prefill_group: str
    decode_group: str
    plan_epoch: int
    transfer: TransferReport | None
    retries: int
