"""Holds the Triton backend against the reference on one device; run by test_codec_triton.py."""

from __future__ import annotations

import sys

import numpy as np
import torch

from thunderserve.kvlink.codec import reference, triton_int4
from thunderserve.kvlink.codec.packing import packed_bytes
from thunderserve.kvlink.protocol import FrameError, NonFiniteKvError

EXPONENT = {"bfloat16": 0x7F80, "float16": 0x7C00}
SHAPES = [(2, 3, 130), (1, 66, 6), (1, 129, 4)]
EDGES = (0, 0x8000, 1, 0x8001, 0x3FF, 0x0D7F, 0x0D80, 0x8D80, 0x7BFF, 0xFBFF)


def main(device: str) -> None:
    """Every shape and dtype."""
    for dtype, exponent in EXPONENT.items():
        for shape in SHAPES:
            check(values(shape, dtype, exponent), dtype, device)
        check_refusals(values((1, 9, 4), dtype, exponent), dtype, exponent, device)
    print("equal")  # noqa: T201 - what the test reads


def values(shape: tuple[int, int, int], dtype: str, exponent: int) -> np.ndarray:
    """Channels of any finite bits, of usual values, and of edges, in turn."""
    rng = np.random.default_rng(shape)
    bits = rng.integers(0, 2**16, shape, dtype=np.uint16)
    bits[(bits & 0x7FFF) >= exponent] &= 0x83FF
    usual = torch.from_numpy(rng.normal(3, 1, shape)).to(getattr(torch, dtype))
    bits[..., 1::3] = usual.view(torch.uint16).numpy()[..., 1::3]
    bits[..., 2::3] = rng.choice(EDGES, shape)[..., 2::3]
    return bits


def check(bits: np.ndarray, dtype: str, device: str) -> None:
    """Both directions."""
    want = np.zeros(packed_bytes(*bits.shape), np.uint8)
    reference.quantise(bits, dtype, want)
    payload = triton_int4.quantise(on(bits, dtype, device))
    assert np.array_equal(payload.cpu().numpy(), want)
    back = np.zeros(bits.shape, np.uint16)
    reference.dequantise(want, dtype, back)
    values = triton_int4.dequantise(payload, bits.shape, getattr(torch, dtype))
    assert np.array_equal(values.cpu().view(torch.uint16).numpy(), back)


def check_refusals(bits: np.ndarray, dtype: str, exponent: int, device: str) -> None:
    """NaN in, NaN or crossed scales, a missing byte."""
    payload = triton_int4.quantise(on(bits, dtype, device))
    wrong = bits.copy()
    wrong[-1, -1, -1] = exponent | 1
    crossed = payload.clone()
    crossed.view(torch.int16)[[0, bits.shape[2]]] = torch.tensor(
        [0x3C00, 0], dtype=torch.int16, device=device
    )
    refused(NonFiniteKvError, lambda: triton_int4.quantise(on(wrong, dtype, device)))
    for hostile in (crossed, payload[:-4], torch.full_like(payload, 0xFF)):
        refused(
            FrameError,
            lambda h=hostile: triton_int4.dequantise(h, bits.shape, getattr(torch, dtype)),
        )


def refused(error: type[Exception], call: object) -> None:
    """`call` raises `error`."""
    try:
        call()  # type: ignore[operator]
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


def on(bits: np.ndarray, dtype: str, device: str) -> torch.Tensor:
    """Bit patterns as a tensor of the dtype."""
    return torch.from_numpy(bits.copy()).view(getattr(torch, dtype)).to(device)


if __name__ == "__main__":
    main(sys.argv[1])
