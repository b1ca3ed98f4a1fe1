"""Ways to put keys and values into about 4 bits, written plainly and without packing.

Each takes and gives (B, layers, T, heads, d) float32. Scales are 16 bits, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thunderserve.cli.bench.quality import PAGE_TOKENS, demo_layout, through_int4
from thunderserve.kvlink.codec import Int4Codec

if TYPE_CHECKING:
    from thunderserve.demo_model.network import LlamaConfig

__all__ = ["Scheme", "schemes"]

CLIPS = (0.0, 0.03, 0.06, 0.09, 0.12)
LEVELS = 15


@dataclass(frozen=True, slots=True)
class Scheme:
    """How keys and values (B, layers, T, heads, d) come back, and what they cost."""

    name: str
    bits_per_value: float
    keys: Callable[[Tensor], Tensor]
    values: Callable[[Tensor], Tensor]


def schemes(config: LlamaConfig, tokens: int) -> list[Scheme]:
    """All of 4.25 to 4.65 bits, for caches of `tokens` tokens; the first is the codec itself."""
    token, channel = _by_token(_uniform), _by_channel(_uniform)
    searched = _by_token(_clip_search), _by_channel(_clip_search)
    statistics = 32 / tokens
    pages = tokens // PAGE_TOKENS
    layout = demo_layout(config)
    bits = Int4Codec(layout).payload_bytes(config.layers, pages) * 16 / (layout.page_bytes * pages)
    return [
        Scheme("int4: per channel, 64 tokens", bits, *[_codec(config)] * 2),
        Scheme("per channel, 128 tokens", 4.25, *[_by_channel(_uniform, 128)] * 2),
        Scheme("per channel, levels of a cubic", 4.5, *[_by_channel(_companded)] * 2),
        Scheme("per channel, clip search", 4.5, *[searched[1]] * 2),
        Scheme("per channel, 32 tokens in 256, 8-bit", 4.625, *[_two_level] * 2),
        Scheme("KIVI: keys per channel", 4.5, channel, token),
        Scheme("KIVI, clip search", 4.5, searched[1], searched[0]),
        Scheme("per token, 64 channels", 4.5, token, token),
        Scheme("per token, clip search", 4.5, searched[0], searched[0]),
        Scheme("chunk normalised, per token", 4.5 + statistics, *[_normalised(token)] * 2),
        Scheme("chunk normalised, clip search", 4.5 + statistics, *[_normalised(searched[0])] * 2),
        Scheme("Hadamard, per token", 4.5, *[_rotated(token)] * 2),
        Scheme(
            "chunk mean, Hadamard, per token",
            4.5 + statistics / 2,
            *[_normalised(_rotated(token), deviation=False)] * 2,
        ),
        Scheme("keys per channel, values Hadamard", 4.5, channel, _rotated(token)),
    ]


def _codec(config: LlamaConfig) -> Callable[[Tensor], Tensor]:
    """The real one; keys and values travel together there, and do not mix."""
    return lambda x: through_int4(config, torch.stack((x, x), dim=2).bfloat16())[:, :, 0].float()


def _uniform(x: Tensor, dim: int) -> Tensor:
    return _between(x, *_ends(x, dim))


def _ends(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)


def _between(x: Tensor, least: Tensor, greatest: Tensor) -> Tensor:
    """Sixteen even levels between two 16-bit scales."""
    least, greatest = (end.bfloat16().float() for end in (least, greatest))
    step = ((greatest - least) / LEVELS).clamp_min(1e-30)
    return least + torch.round((x - least) / step).clamp(0, LEVELS) * step


def _clip_search(x: Tensor, dim: int) -> Tensor:
    """The ends drawn in, each by up to 12 % of the range, where that lessens the squared error."""
    least, greatest = _ends(x, dim)
    span, best, lowest = greatest - least, x, torch.full_like(least, torch.inf)
    for low in CLIPS:
        for high in CLIPS:
            tried = _between(x, least + low * span, greatest - high * span)
            error = (tried - x).pow(2).sum(dim, keepdim=True)
            best, lowest = torch.where(error < lowest, tried, best), torch.minimum(error, lowest)
    return best


def _companded(x: Tensor, dim: int) -> Tensor:
    """Levels closer together in the middle of the range: 0.8 t + 0.2 t^3."""
    least, greatest = _ends(x, dim)
    middle, half = (least + greatest) / 2, ((greatest - least) / 2).clamp_min(1e-30)
    even = torch.linspace(-1, 1, LEVELS + 1)
    levels = 0.8 * even + 0.2 * even**3
    place = torch.bucketize(((x - middle) / half).contiguous(), (levels[1:] + levels[:-1]) / 2)
    return middle + half * levels[place]


def _by_token(
    quantise: Callable[[Tensor, int], Tensor], group: int = 64
) -> Callable[[Tensor], Tensor]:
    return lambda x: quantise(x.reshape(*x.shape[:3], -1, group), -1).reshape(x.shape)


def _by_channel(
    quantise: Callable[[Tensor, int], Tensor], group: int = 64
) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.cat([quantise(part, 2) for part in x.split(group, dim=2)], dim=2)


def _two_level(x: Tensor) -> Tensor:
    """Ends of 32 tokens in 8 bits each, between 16-bit ends of 256."""
    parts = []
    for outer in x.split(256, dim=2):
        least, greatest = _ends(outer, 2)
        grain = ((greatest - least) / 255).clamp_min(1e-30)
        for inner in outer.split(32, dim=2):
            low, high = _ends(inner, 2)
            low = least + ((low - least) / grain).floor() * grain
            high = least + ((high - least) / grain).ceil() * grain
            step = ((high - low) / LEVELS).clamp_min(1e-30)
            parts.append(low + torch.round((inner - low) / step).clamp(0, LEVELS) * step)
    return torch.cat(parts, dim=2)


def _normalised(
    inner: Callable[[Tensor], Tensor], *, deviation: bool = True
) -> Callable[[Tensor], Tensor]:
    """Each channel's mean and deviation over the chunk taken out, in 16 bits each."""

    def transfer(x: Tensor) -> Tensor:
        mean = x.mean(2, keepdim=True).bfloat16().float()
        spread = (x - mean).pow(2).mean(2, keepdim=True).sqrt().clamp_min(1e-30)
        factor = spread.bfloat16().float() if deviation else torch.ones(())
        return inner((x - mean) / factor) * factor + mean

    return transfer


def _rotated(inner: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Each head's channels mixed by a Hadamard matrix, which is its own inverse."""

    def transfer(x: Tensor) -> Tensor:
        matrix = torch.ones(1, 1)
        while len(matrix) < x.shape[-1]:
            matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
        matrix /= math.sqrt(len(matrix))
        return inner(x @ matrix) @ matrix

    return transfer
