"""How fast int4 is on one core, beside memcpy, PyTorch, and what the core can read or write.

Everything is measured in one process, in turns, in short bursts, and the best of many counts: the
machine may have other work. Rates are bytes of 16-bit values a second of processor time, memcpy's
are bytes copied. What the core can read and write at all is what libc's memchr and memset reach.
"""

from __future__ import annotations

import ctypes
import logging
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from thunderserve.cli.bench import torch_int4
from thunderserve.cli.bench.machine import one_thread
from thunderserve.kvlink.codec.backends import ReferenceCodec, best_backend
from thunderserve.kvlink.codec.float16 import from_float32
from thunderserve.kvlink.codec.packing import packed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thunderserve.cli.bench.figures import Effort
    from thunderserve.kvlink.codec.backends import Backend

__all__ = ["codec_figures", "compiled_figures", "ratios"]

_log = logging.getLogger(__name__)
_ROW = (1024, 1024)  # tokens, channels: 2 MB
_SLOW_ROUNDS = 3
_VERBS = ("quantize", "dequantize")

Work = tuple[int, "Callable[[], object]"]
Rates = dict[str, float]


def codec_figures(effort: Effort) -> dict[str, float]:
    """`CODEC_KEYS`; rates are in GB/s."""
    with one_thread():
        rates = _rates(effort)
    shown = ("memcpy", "read_limit", "write_limit", *_VERBS)
    return {
        "bits_per_value": 8 * packed_bytes(1, *_ROW) / float(np.prod(_ROW)),
        **ratios(rates),
        **{f"{name}_gb_per_s": rates[name] / 1e9 for name in shown},
    }


def compiled_figures(effort: Effort) -> dict[str, float]:
    """`COMPILE_KEYS`, against the codec on the same values in the same turns."""
    values = _usual((effort.torch_rows, *_ROW), "bfloat16")
    works = _torch(values, compiled=True)
    works |= _codec(best_backend(), values, np.empty_like(values), "bfloat16", "")
    with one_thread():
        rates = _best(works, _SLOW_ROUNDS)
    return {f"{verb}_x_torch_compile": rates[verb] / rates[f"{verb}_torch"] for verb in _VERBS}


def ratios(rates: Mapping[str, float]) -> dict[str, float]:
    """What each direction reaches, over what else was measured."""
    found = {}
    for verb, limit in zip(_VERBS, ("read_limit", "write_limit"), strict=True):
        found[f"{verb}_x_memcpy"] = rates[verb] / rates["memcpy"]
        found[f"{verb}_x_memcpy_fp16"] = rates[f"{verb}_fp16"] / rates["memcpy"]
        found[f"{verb}_x_{limit}"] = rates[verb] / rates[limit]
        found[f"{verb}_x_torch_eager"] = rates[verb] / rates[f"{verb}_torch"]
    return found


def _rates(effort: Effort) -> Rates:
    """Bytes of 16-bit values a second, each the best of its rounds."""
    shape = (effort.codec_rows, *_ROW)
    out = _aligned(2 * int(np.prod(shape))).view(np.uint16).reshape(shape)
    values = _usual(shape, "float16")
    rates = _best(_codec(best_backend(), values, out, "float16", "_fp16"), effort.codec_rounds)
    values = _usual(shape, "bfloat16")
    works = _limits(values, out) | _codec(best_backend(), values, out, "bfloat16", "")
    rates |= _best(works, effort.codec_rounds)
    return rates | _best(_torch(values[: effort.torch_rows], compiled=False), _SLOW_ROUNDS)


def _usual(shape: tuple[int, int, int], dtype: str) -> np.ndarray:
    """The same row of normal values again and again, in memory of its own."""
    values = _aligned(2 * int(np.prod(shape))).view(np.uint16).reshape(shape)
    row = np.random.default_rng(0).normal(size=shape[1:]).astype(np.float32)
    values[:] = from_float32(row, dtype)
    return values


def _limits(values: np.ndarray, out: np.ndarray) -> dict[str, Work]:
    libc = ctypes.CDLL(None)
    zeros = _aligned(values.nbytes)
    source, target, blank = (ctypes.c_void_p(array.ctypes.data) for array in (values, out, zeros))
    size = ctypes.c_size_t(values.nbytes)
    return {
        "memcpy": (values.nbytes, lambda: libc.memcpy(target, source, size)),
        # There is no 1 among the zeros, so it reads all of them.
        "read_limit": (zeros.nbytes, lambda: libc.memchr(blank, 1, size)),
        "write_limit": (values.nbytes, lambda: (libc.memset(target, 1, size), zeros)),
    }


def _codec(
    backend: Backend, values: np.ndarray, out: np.ndarray, dtype: str, suffix: str
) -> dict[str, Work]:
    packed = _aligned(packed_bytes(*values.shape))
    return {
        f"quantize{suffix}": (values.nbytes, lambda: backend.quantise(values, dtype, packed)),
        f"dequantize{suffix}": (values.nbytes, lambda: backend.dequantise(packed, dtype, out)),
    }


def _torch(values: np.ndarray, *, compiled: bool) -> dict[str, Work]:
    """The same in PyTorch, after a check that its bits are the codec's."""
    quantise, dequantise = torch_int4.quantise, torch_int4.dequantise
    if compiled:
        quantise, dequantise = torch.compile(quantise), torch.compile(dequantise)
    tensor = torch.from_numpy(values.copy()).view(torch.bfloat16)
    packed = quantise(tensor)
    _check_bits(values, packed, dequantise(packed, torch.bfloat16))
    return {
        "quantize_torch": (values.nbytes, lambda: quantise(tensor)),
        "dequantize_torch": (values.nbytes, lambda: dequantise(packed, torch.bfloat16)),
    }


def _check_bits(values: np.ndarray, packed: torch.Tensor, restored: torch.Tensor) -> None:
    want, back = np.empty(packed_bytes(*values.shape), np.uint8), np.empty_like(values)
    ReferenceCodec().quantise(values, "bfloat16", want)
    ReferenceCodec().dequantise(want, "bfloat16", back)
    same = packed.numpy().tobytes() == want.tobytes()
    if not same or restored.view(torch.uint16).numpy().tobytes() != back.tobytes():
        _log.warning("torch makes other bits than the codec")


def _best(works: Mapping[str, Work], rounds: int) -> Rates:
    """All in turn, the best of many, by this thread's processor time."""
    best_s = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, (_, run) in works.items():
            start_s = time.thread_time()
            run()
            best_s[name] = min(best_s[name], time.thread_time() - start_s)
    return {name: works[name][0] / best_s[name] for name in works}


def _aligned(size: int) -> np.ndarray:
    """Zeroed memory at a cache line's start, every page of it there."""
    memory = np.empty(size + 64, np.uint8)
    memory[:] = 0
    start = -memory.ctypes.data % 64
    return memory[start : start + size]
