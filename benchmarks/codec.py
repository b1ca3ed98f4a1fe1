"""How fast int4 is on one core, beside memcpy, PyTorch and what the core can read or write.

    .venv/bin/python benchmarks/codec.py [-o json] [--compile]

Everything is measured in one process, in turns, in short bursts, and the best of many counts: the
machine may have other work. Rates are bytes of 16-bit values a second of processor time; memcpy's
are bytes copied. `--compile` adds torch.compile, whose first call takes a minute.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch_int4

from thunderserve.kvlink.codec.backends import ReferenceCodec
from thunderserve.kvlink.codec.float16 import from_float32
from thunderserve.kvlink.codec.native import NativeCodec, load_library
from thunderserve.kvlink.codec.packing import packed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHAPE = (64, 1024, 1024)  # 134 MB: nothing of it stays in a cache
PART_ROWS, TORCH_ROWS = 4, 32  # what the slow ones get; still more than a cache
ROUNDS, SLOW_ROUNDS = 25, 3
Work = tuple[int, "Callable[[], object]"]


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(compiled=arguments.compile)
    if arguments.output == "json":
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:40} {value:9.3f}" if isinstance(value, float) else f"{name:40} {value}")


def measure(*, compiled: bool) -> dict[str, float | str]:
    """GB/s by name, then the ratios."""
    library = load_library()
    if library is None:
        sys.exit("there is no compiled codec; run `python services/kvlink/build_native.py`")
    values = _aligned(np.prod(SHAPE) * 2).view(np.uint16).reshape(SHAPE)
    part = np.random.default_rng(0).normal(size=SHAPE[1:]).astype(np.float32)
    values[:] = from_float32(part, "bfloat16")
    out = _aligned(values.nbytes).view(np.uint16).reshape(SHAPE)
    backends = [NativeCodec(library, n) for n in range(library.kvlink_int4_level() + 1)]
    rates = _best(_limits(values, out), ROUNDS)
    for dtype in ("bfloat16", "float16"):
        if dtype == "float16":
            values[:] = from_float32(part, "float16")
        rates |= _best(_native(backends, values, out, dtype), ROUNDS)
        if dtype == "bfloat16":
            rates |= _best(_numpy(values) | _torch(values, "eager"), SLOW_ROUNDS)
            if compiled:
                rates |= _best(_torch(values, "compile"), 5)
    best = backends[-1].name
    return {"machine": _machine(), "backend": best, **rates, **_ratios(rates, best)}


def _limits(values: np.ndarray, out: np.ndarray) -> dict[str, Work]:
    copy = ctypes.CDLL(None).memcpy
    copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    source, target, size = values.ctypes.data, out.ctypes.data, values.nbytes
    works: dict[str, Work] = {"memcpy": (size, lambda: copy(target, source, size))}
    probe = _probe()
    if probe is not None:
        works["read_limit"] = (size, lambda: probe.read_all(source, size))
        works["write_limit"] = (size, lambda: probe.stream_all(target, size))
    return works


def _native(
    backends: list[NativeCodec], values: np.ndarray, out: np.ndarray, dtype: str
) -> dict[str, Work]:
    packed = _aligned(packed_bytes(*SHAPE))
    works: dict[str, Work] = {}
    for backend in backends:
        rows = PART_ROWS if backend.name == "scalar" else SHAPE[0]
        some, there = values[:rows], out[:rows]
        payload = packed[: packed_bytes(*some.shape)]
        name = f"{backend.name}_{dtype}"
        works[f"quantize_{name}"] = (
            some.nbytes,
            lambda b=backend, v=some, p=payload: b.quantise(v, dtype, p),
        )
        works[f"dequantize_{name}"] = (
            some.nbytes,
            lambda b=backend, p=payload, o=there: b.dequantise(p, dtype, o),
        )
    return works


def _numpy(values: np.ndarray) -> dict[str, Work]:
    some, reference = values[:PART_ROWS], ReferenceCodec()
    packed, back = np.empty(packed_bytes(*some.shape), np.uint8), np.empty_like(some)
    return {
        "quantize_numpy": (some.nbytes, lambda: reference.quantise(some, "bfloat16", packed)),
        "dequantize_numpy": (some.nbytes, lambda: reference.dequantise(packed, "bfloat16", back)),
    }


def _torch(values: np.ndarray, kind: str) -> dict[str, Work]:
    """After a check that the bits are the codec's."""
    some = values[:TORCH_ROWS]
    quantise, dequantise = torch_int4.quantise, torch_int4.dequantise
    if kind == "compile":
        quantise, dequantise = torch.compile(quantise), torch.compile(dequantise)
    tensor = torch.from_numpy(some.copy()).view(torch.bfloat16)
    packed = quantise(tensor)
    want, back = np.empty(packed_bytes(*some.shape), np.uint8), np.empty_like(some)
    ReferenceCodec().quantise(some, "bfloat16", want)
    ReferenceCodec().dequantise(want, "bfloat16", back)
    restored = dequantise(packed, torch.bfloat16)
    if packed.numpy().tobytes() != want.tobytes() or not torch.equal(
        restored.view(torch.uint16), torch.from_numpy(back)
    ):
        print(f"torch {kind} makes other bits than the codec", file=sys.stderr)
    return {
        f"quantize_torch_{kind}": (some.nbytes, lambda: quantise(tensor)),
        f"dequantize_torch_{kind}": (some.nbytes, lambda: dequantise(packed, torch.bfloat16)),
    }


def _best(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """GB of 16-bit values a second of this thread's processor time; all in turn, best of many."""
    best_s = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, (_, run) in works.items():
            start_s = time.thread_time()
            run()
            best_s[name] = min(best_s[name], time.thread_time() - start_s)
    return {f"{name}_gb_per_s": works[name][0] / best_s[name] / 1e9 for name in works}


def _ratios(rates: dict[str, float], best: str) -> dict[str, float]:
    ratios = {"bits_per_value": 8 * packed_bytes(*SHAPE) / float(np.prod(SHAPE))}
    limits = {"quantize": "read_limit", "dequantize": "write_limit"}
    for verb, limit in limits.items():
        own = rates[f"{verb}_{best}_bfloat16_gb_per_s"]
        others = ("memcpy", limit, f"{verb}_numpy", f"{verb}_torch_eager", f"{verb}_torch_compile")
        for other in others:
            if f"{other}_gb_per_s" in rates:
                name = f"{verb}_x_{other.removeprefix(verb + '_')}"
                ratios[name] = own / rates[f"{other}_gb_per_s"]
    return ratios


def _aligned(size: int) -> np.ndarray:
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _probe() -> ctypes.CDLL | None:
    """None without g++ or AVX-512."""
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        return None
    source = Path(__file__).with_name("bandwidth.cpp")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bandwidth.so"
        command = ["g++", "-O2", "-shared", "-fPIC", "-w", "-o", str(library), str(source)]
        subprocess.run(command, check=True)  # noqa: S603 - our own source
        probe = ctypes.CDLL(str(library))
    for function in (probe.read_all, probe.stream_all):
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return probe


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    return f"{model}, one core, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    main()
