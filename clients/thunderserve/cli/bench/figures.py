"""Named figures of one run, and why those that are missing could not be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "CODEC_KEYS",
    "COMPILE_KEYS",
    "HIDING_KEYS",
    "QUALITY_KEYS",
    "Effort",
    "Figures",
    "link_keys",
]

Value = float | int | str

COMPILE_KEYS = ("quantize_x_torch_compile", "dequantize_x_torch_compile")
CODEC_KEYS = (
    "bits_per_value",
    "quantize_x_memcpy",
    "quantize_x_memcpy_fp16",
    "quantize_x_read_limit",
    "quantize_x_torch_eager",
    "dequantize_x_memcpy",
    "dequantize_x_memcpy_fp16",
    "dequantize_x_write_limit",
    "dequantize_x_torch_eager",
    "memcpy_gb_per_s",
    "read_limit_gb_per_s",
    "write_limit_gb_per_s",
    "quantize_gb_per_s",
    "dequantize_gb_per_s",
)
QUALITY_KEYS = (
    "perplexity_x_raw16",
    "perplexity_raw16",
    "greedy_agreement_ratio",
    "top_token_agreement_ratio",
    "divergence_nats",
)
HIDING_KEYS = ("hidden_transfer_ratio", "transfer_alone_ms", "transfer_exposed_ms")


def link_keys(link: str) -> tuple[str, ...]:
    """The figures of one link."""
    names = (
        "wire_x_iperf3",
        "wire_raw16_x_iperf3",
        "delivered_x_raw16",
        "delivered_x_bf16_at_iperf3",
        "iperf3_gbit_per_s",
        "delivered_gbit_per_s",
    )
    return tuple(f"{name}_{link}" for name in names)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done for each figure.

    Attributes:
        codec_rows: Rows of 2 MB that the codec works on; 64 of them leave nothing in a cache.
        codec_rounds: Best of so many.
        torch_rows: The same for PyTorch, which is much slower.
        quality_samples: Pieces of held-out text.
        link_s: For which each transfer mode and iperf3 fill a link.
        prompts: Whose prefill hides their transfer.
    """

    codec_rows: int = 64
    codec_rounds: int = 25
    torch_rows: int = 32
    quality_samples: int = 32
    link_s: float = 3.0
    prompts: int = 5

    @classmethod
    def quick(cls) -> Effort:
        """A rough look."""
        return cls(
            codec_rows=4,
            codec_rounds=3,
            torch_rows=1,
            quality_samples=2,
            link_s=0.5,
            prompts=1,
        )


@dataclass(slots=True)
class Figures:
    """What was measured.

    Attributes:
        values: By name, in the order in which they are shown.
        missing: By name: why there is no value, and the command that would change that.
    """

    values: dict[str, Value] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, values: Mapping[str, Value]) -> None:
        """Take values in."""
        self.values.update(values)

    def miss(self, names: Iterable[str], reason: str) -> None:
        """Say why there are none; those that are there stay."""
        self.missing |= {name: reason for name in names if name not in self.values}

    def reasons(self) -> list[str]:
        """A line for each reason, with the figures that it cost."""
        lines = []
        for reason in dict.fromkeys(self.missing.values()):
            names = [name for name, why in self.missing.items() if why == reason]
            lines.append(f"thunderserve: no {', '.join(names)}: {reason}")
        return lines

    def flat(self) -> dict[str, Value | None]:
        """Every figure by name; None where there is no value."""
        return {**self.values, **dict.fromkeys(self.missing)}
