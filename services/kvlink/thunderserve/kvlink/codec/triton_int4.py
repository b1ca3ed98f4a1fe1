"""The int4 codec on a GPU, for engines that hand over CUDA tensors; the reference's bits.

One program does one group of a few channels, one channel a lane: loads are contiguous over
channels, and neither direction needs a reduction across lanes. Nothing here is imported unless it
is used: Triton comes with CUDA builds of PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from thunderserve.kvlink.codec.packing import GROUP_TOKENS, WORD_TOKENS, packed_bytes
from thunderserve.kvlink.protocol.errors import FrameError, NonFiniteKvError

__all__ = ["dequantise", "quantise"]

_LANES = 128
_FULL_LINES = 1 + GROUP_TOKENS // WORD_TOKENS
_GROUP = tl.constexpr(GROUP_TOKENS)
_WORD = tl.constexpr(WORD_TOKENS)
_LINES = tl.constexpr(_FULL_LINES)
_FIFTEENTH = tl.constexpr(1 / 15)
_HALF_STEP_MASK = tl.constexpr(-16)


def quantise(values: Tensor) -> Tensor:
    """(rows, tokens, channels) bfloat16 or float16 to `packed_bytes` bytes, uint8.

    Raises:
        NonFiniteKvError: A value is NaN or infinite.
    """
    size = packed_bytes(*values.shape)
    payload = torch.empty(size, dtype=torch.uint8, device=values.device)
    if not _launch(_quantise, values.contiguous(), payload):
        raise NonFiniteKvError("the KV cache holds NaN or infinity; int4 cannot carry it")
    return payload


def dequantise(payload: Tensor, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Bytes to (rows, tokens, channels) values, all of them finite.

    Raises:
        FrameError: Another size, or scales that no codec writes.
    """
    if payload.numel() != packed_bytes(*shape):
        raise FrameError(
            f"an int4 payload of {payload.numel()} bytes; expected {packed_bytes(*shape)}"
        )
    values = torch.empty(shape, dtype=dtype, device=payload.device)
    if not _launch(_dequantise, values, payload):
        raise FrameError("an int4 payload with scales that no codec writes")
    return values


def _launch(kernel: Any, values: Tensor, payload: Tensor) -> bool:
    """Run over rows, groups and channels; False when a program met what it refuses."""
    rows, tokens, channels = values.shape
    groups = max(1, tokens // GROUP_TOKENS)
    grid = (rows, groups, triton.cdiv(channels, _LANES))
    refused = torch.zeros(1, dtype=torch.int32, device=values.device)
    kernel[grid](
        values.view(torch.int16),
        payload.view(torch.int16),
        payload.view(torch.int32),
        refused,
        tokens,
        channels,
        payload.numel() // (4 * rows * channels),
        values.dtype is torch.bfloat16,
        _LANES,
        # A fused z - n would not be the rounded product less n.
        enable_fp_fusion=False,
    )
    return not bool(refused.item())


@triton.jit
def _place(tokens, channels, lines, LANES: tl.constexpr):
    """First value, tokens and first line of this program's group; its channels, which exist."""
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.program_id(2) * LANES + tl.arange(0, LANES)
    count = tl.where(group + 1 == tl.num_programs(1), tokens - group * _GROUP, _GROUP)
    value = (row * tokens + group * _GROUP) * channels
    line = (row * lines + group * _LINES) * channels
    return value, line, count, channel, channel < channels


@triton.jit
def _widen(bits, BFLOAT16: tl.constexpr):
    if BFLOAT16:
        wide = (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        wide = bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return wide


@triton.jit
def _narrow(x, BFLOAT16: tl.constexpr):
    if BFLOAT16:
        b = x.to(tl.int32, bitcast=True)
        bits = ((b + 0x7FFF + ((b >> 16) & 1)) >> 16).to(tl.int16)
    else:
        bits = x.to(tl.float16).to(tl.int16, bitcast=True)
    return bits


@triton.jit
def _canonical(least, greatest, BFLOAT16: tl.constexpr):
    """Ends (int32) with +0 for -0 and for a group of nothing; whether both are finite."""
    exponent: tl.constexpr = 0x7F80 if BFLOAT16 else 0x7C00
    smallest: tl.constexpr = 0x0D80 if BFLOAT16 else 0x0001
    size = tl.maximum(least & 0x7FFF, greatest & 0x7FFF)
    least = tl.where((size < smallest) | ((least & 0xFFFF) == 0x8000), 0, least)
    greatest = tl.where((size < smallest) | ((greatest & 0xFFFF) == 0x8000), 0, greatest)
    return least, greatest, size < exponent


@triton.jit
def _half_step(least, greatest):
    exact = (greatest * 0.5 - least * 0.5) * _FIFTEENTH
    return (exact.to(tl.int32, bitcast=True) & _HALF_STEP_MASK).to(tl.float32, bitcast=True)


@triton.jit
def _quantise(
    values,
    ends,
    words,
    refused,
    tokens,
    channels,
    lines,
    BFLOAT16: tl.constexpr,
    LANES: tl.constexpr,
):
    value, line, count, channel, there = _place(tokens, channels, lines, LANES)
    low = tl.full((LANES,), 0x7FFF, tl.int32)
    high = tl.full((LANES,), -0x8000, tl.int32)
    for token in range(count):
        bits = tl.load(values + value + token * channels + channel, there, other=0).to(tl.int32)
        ordered = bits ^ ((bits >> 15) & 0x7FFF)  # as a number it orders as the floats do
        low, high = tl.minimum(low, ordered), tl.maximum(high, ordered)
    low, high = low ^ ((low >> 15) & 0x7FFF), high ^ ((high >> 15) & 0x7FFF)
    low, high, finite = _canonical(low, high, BFLOAT16)
    tl.atomic_or(refused, tl.max(tl.where(there & ~finite, 1, 0), axis=0))
    tl.store(ends + 2 * line + channel, low.to(tl.int16), there)
    tl.store(ends + 2 * line + channels + channel, high.to(tl.int16), there)
    least, greatest = _widen(low, BFLOAT16), _widen(high, BFLOAT16)
    step = _half_step(least, greatest)
    inverse = tl.where(step > 0, tl.div_rn(1.0, tl.where(step > 0, step, 1.0)), 0.0)
    for word in range(tl.cdiv(count, _WORD)):
        packed = tl.zeros((LANES,), tl.int32)
        for place in range(tl.minimum(count - word * _WORD, _WORD)):
            at = values + value + (word * _WORD + place) * channels + channel
            x = _widen(tl.load(at, there, other=0), BFLOAT16)
            z = (x * 0.5 - least * 0.5) * inverse
            code = z.to(tl.int32)
            rest = z - code.to(tl.float32)
            code += tl.where((rest > 0.5) | ((rest == 0.5) & (code % 2 == 1)), 1, 0)
            packed |= code << (4 * place)
        tl.store(words + line + (1 + word) * channels + channel, packed, there)


@triton.jit
def _dequantise(
    values,
    ends,
    words,
    refused,
    tokens,
    channels,
    lines,
    BFLOAT16: tl.constexpr,
    LANES: tl.constexpr,
):
    value, line, count, channel, there = _place(tokens, channels, lines, LANES)
    low = tl.load(ends + 2 * line + channel, there, other=0).to(tl.int32)
    high = tl.load(ends + 2 * line + channels + channel, there, other=0).to(tl.int32)
    low, high, finite = _canonical(low, high, BFLOAT16)
    least, greatest = _widen(low, BFLOAT16), _widen(high, BFLOAT16)
    wrong = there & ~(finite & (least <= greatest))
    tl.atomic_or(refused, tl.max(tl.where(wrong, 1, 0), axis=0))
    step, middle = _half_step(least, greatest), least * 0.5 + greatest * 0.5
    for word in range(tl.cdiv(count, _WORD)):
        packed = tl.load(words + line + (1 + word) * channels + channel, there, other=0)
        for place in range(tl.minimum(count - word * _WORD, _WORD)):
            level = (((packed >> (4 * place)) & 15) * 2 - 15).to(tl.float32)
            at = values + value + (word * _WORD + place) * channels + channel
            tl.store(at, _narrow(level * step + middle, BFLOAT16), there)
