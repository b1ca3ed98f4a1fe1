"""The int4 codec in PyTorch, for full groups: what compiled code is compared with.

It makes the codec's bits; `benchmarks/codec.py` checks that before it measures.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dequantise", "quantise"]

_GROUP_TOKENS, _WORD_TOKENS = 64, 8


def quantise(values: Tensor) -> Tensor:
    """(rows, tokens, channels) to (rows, groups, 1 + words, channels) int32; tokens are 64 n."""
    rows, _, channels = values.shape
    groups = values.view(rows, -1, _GROUP_TOKENS, channels)
    ends = torch.stack((groups.amin(2), groups.amax(2)), dim=2) + 0.0  # +0 for -0
    least, greatest = ends.float().unbind(2)
    step = _half_step(least, greatest)
    inverse = torch.where(step > 0, 1 / step, torch.zeros_like(step))
    offset = groups.float() * 0.5 - (least * 0.5)[:, :, None]
    codes = torch.round(offset * inverse[:, :, None]).int()
    words = codes.view(rows, -1, _GROUP_TOKENS // _WORD_TOKENS, _WORD_TOKENS, channels)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)[:, None]
    packed = (words << shifts).sum(3, dtype=torch.int32)
    line = ends.view(torch.int16).flatten(2).view(torch.int32)[:, :, None]
    return torch.cat((line, packed), dim=2)


def dequantise(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse, for scales that `quantise` wrote: (rows, tokens, channels)."""
    rows, groups, _, channels = packed.shape
    ends = packed[:, :, 0].contiguous().view(dtype).view(rows, groups, 2, channels).float()
    least, greatest = ends.unbind(2)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)[:, None]
    codes = (packed[:, :, 1:, None] >> shifts) & 15
    levels = codes.view(rows, groups, _GROUP_TOKENS, channels).float() * 2 - 15
    middle = least * 0.5 + greatest * 0.5
    values = levels * _half_step(least, greatest)[:, :, None] + middle[:, :, None]
    return values.to(dtype).view(rows, -1, channels)


def _half_step(least: Tensor, greatest: Tensor) -> Tensor:
    exact = (greatest * 0.5 - least * 0.5) * (1 / 15)
    return (exact.view(torch.int32) & -16).view(torch.float32)
