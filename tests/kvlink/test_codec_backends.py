"""Every backend of int4 makes the same bits, and none of them trusts its input."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.kv import KvLayout
from thunderserve.kvlink.codec import Int4Codec
from thunderserve.kvlink.codec.backends import Backend, ReferenceCodec, best_backend
from thunderserve.kvlink.codec.float16 import from_float32, to_float32
from thunderserve.kvlink.codec.native import LEVELS, NativeCodec, load_library
from thunderserve.kvlink.codec.packing import packed_bytes
from thunderserve.kvlink.protocol import PROTOCOL_VERSION, FrameError, NonFiniteKvError

BUILD = Path(__file__).parents[2] / "services" / "kvlink" / "build_native.py"
EXPONENT = {"bfloat16": 0x7F80, "float16": 0x7C00}
EDGES = {  # zeros, subnormals, both sides of the smallest group, the largest numbers
    "bfloat16": (0, 0x8000, 1, 0x8001, 0x7F, 0x0D7F, 0x0D80, 0x8D80, 0x7F7F, 0xFF7F),
    "float16": (0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF),
}
SHAPES = [(1, 1, 2), (2, 5, 16), (3, 64, 48), (2, 130, 66), (1, 127, 1040), (2, 200, 128)]
dtypes = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


def native_backends() -> list[NativeCodec]:
    library = load_library()
    if library is None:
        return []
    return [NativeCodec(library, level) for level in range(library.kvlink_int4_level() + 1)]


@pytest.fixture(params=LEVELS)
def native(request: pytest.FixtureRequest) -> NativeCodec:
    """One level of the compiled codec; skipped where compiler or instructions are missing."""
    found = {backend.name: backend for backend in native_backends()}
    if request.param not in found:
        pytest.skip(f"no compiled codec with {request.param} here")
    return found[request.param]


def encoded(backend: Backend, values: np.ndarray, dtype: str) -> np.ndarray:
    out = np.full(packed_bytes(*values.shape), 0xAB, np.uint8)
    backend.quantise(values, dtype, out)
    return out


def decoded(
    backend: Backend, payload: np.ndarray, shape: tuple[int, ...], dtype: str
) -> np.ndarray:
    out = np.full(shape, 0x7FFF, np.uint16)
    backend.dequantise(payload, dtype, out)
    return out


def is_finite(values: np.ndarray, dtype: str) -> bool:
    return bool(((values & 0x7FFF) < EXPONENT[dtype]).all())


def inputs(shape: tuple[int, int, int], dtype: str) -> list[np.ndarray]:
    """Values as a cache has them, any finite bits, edges, and channels of one sign with zeros."""
    rng = np.random.default_rng(shape)
    scale = np.exp(2 * rng.normal(size=(1, 1, shape[2])))
    usual = (rng.normal(size=shape) * scale + 5 * scale).astype(np.float32)
    any_bits = rng.integers(0, 2**16, shape, dtype=np.uint16)
    any_bits[(any_bits & 0x7FFF) >= EXPONENT[dtype]] &= 0x83FF
    edges = rng.choice(EDGES[dtype], shape).astype(np.uint16)
    one_sign = any_bits & 0x7FFF | rng.choice([0, 0x8000], shape[2]).astype(np.uint16)
    zeros = rng.choice([0, 0x8000], shape).astype(np.uint16)
    one_sign = np.where(rng.random(shape) < 0.1, zeros, one_sign)
    return [from_float32(usual, dtype), any_bits, edges, one_sign]


@dtypes
@pytest.mark.parametrize("shape", SHAPES)
def test_native_equals_the_reference_when_any_finite_bits(
    native: NativeCodec, shape: tuple[int, int, int], dtype: str
) -> None:
    """In both directions; widths and token counts that fill no vector, word or group too."""
    for values in inputs(shape, dtype):
        want = encoded(ReferenceCodec(), values, dtype)

        assert np.array_equal(encoded(native, values, dtype), want)
        got = decoded(native, want, shape, dtype)
        assert np.array_equal(got, decoded(ReferenceCodec(), want, shape, dtype))
        assert is_finite(got, dtype)


def test_native_equals_the_reference_when_output_is_streamed(native: NativeCodec) -> None:
    """Large aligned outputs are written around the cache."""
    shape = (2, 2048, 128)
    payload = encoded(ReferenceCodec(), inputs(shape, "bfloat16")[0], "bfloat16")
    memory = np.empty(np.prod(shape) * 2 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    aligned = memory[start : start + np.prod(shape) * 2].view(np.uint16).reshape(shape)

    native.dequantise(payload, "bfloat16", aligned)

    assert np.array_equal(aligned, decoded(ReferenceCodec(), payload, shape, "bfloat16"))


@dtypes
def test_reference_keeps_within_half_a_step_when_values_are_usual(dtype: str) -> None:
    """And 16-bit rounding; the ends of a channel come back as they were."""
    values = inputs((2, 64, 16), dtype)[0]

    got = to_float32(
        decoded(ReferenceCodec(), encoded(ReferenceCodec(), values, dtype), values.shape, dtype),
        dtype,
    )

    want = to_float32(values, dtype)
    span = want.max(axis=1, keepdims=True) - want.min(axis=1, keepdims=True)
    assert (np.abs(got - want) <= span / 30 + np.abs(want) * 2.0**-8).all()
    for end in (np.min, np.max):
        assert np.array_equal(end(got, axis=1), end(want, axis=1))


@dtypes
@pytest.mark.parametrize("bits", [0, 1, 0x8000])  # infinity, NaN, and both with the sign
def test_native_refuses_a_block_when_one_value_is_not_finite(
    native: NativeCodec, dtype: str, bits: int
) -> None:
    """Wherever it is."""
    for place in np.ndindex(2, 9, 18):
        values = np.zeros((2, 9, 18), np.uint16)
        values[place] = EXPONENT[dtype] | bits
        with pytest.raises(NonFiniteKvError):
            encoded(native, values, dtype)


@dtypes
@settings(max_examples=60, derandomize=True, deadline=None)
@given(data=st.data())
def test_backends_agree_when_encoded_bytes_are_mutated(dtype: str, data: st.DataObject) -> None:
    """The same error from all of them, or the same finite values."""
    shape = data.draw(st.sampled_from(SHAPES[:4]))
    payload = encoded(ReferenceCodec(), inputs(shape, dtype)[0], dtype)
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, payload.size - 1))
        patch = np.frombuffer(data.draw(st.binary(min_size=1, max_size=64)), np.uint8)
        payload[start : start + patch.size] = patch[: payload.size - start]

    outcomes = []
    for backend in (ReferenceCodec(), *native_backends()):
        try:
            values = decoded(backend, payload, shape, dtype)
        except FrameError as error:
            outcomes.append(str(error).encode())
        else:
            assert is_finite(values, dtype)
            outcomes.append(values.tobytes())

    assert len(set(outcomes)) == 1


@dtypes
@settings(max_examples=60, derandomize=True, deadline=None)
@given(noise=st.binary(max_size=600))
def test_decode_gives_finite_values_or_an_error_when_bytes_are_noise(
    dtype: str, noise: bytes
) -> None:
    """Any length; nothing but a named error."""
    layout = KvLayout("m", 1, 1, 16, 8, dtype)
    for pages in (1, 2):
        try:
            values = Int4Codec(layout).decode(memoryview(noise), 1, pages)
        except FrameError:
            continue
        assert values.shape == layout.block_shape(1, pages)
        assert is_finite(values, dtype)


@dtypes
@pytest.mark.parametrize(
    ("least", "greatest"),
    [(0x7FFF, 0x7FFF), (0x7F80, 0x7F80), (0, 0x7F80), (0xFF80, 0), (0x3F80, 0xBF80), (0x4000, 0)],
)
def test_decode_refuses_a_payload_when_scales_are_not_a_codecs(
    dtype: str, least: int, greatest: int
) -> None:
    """NaN, infinity, or a least value above the greatest."""
    payload = np.zeros(packed_bytes(1, 8, 16), np.uint8)
    payload[:64].view(np.uint16)[[3, 19]] = least, greatest
    for backend in (ReferenceCodec(), *native_backends()):
        with pytest.raises(FrameError, match="scales"):
            decoded(backend, payload, (1, 8, 16), dtype)


def test_payload_stays_when_the_protocol_version_does() -> None:
    """A peer of another build reads these bytes: a new digest here needs a new version there."""
    values = inputs((3, 150, 32), "bfloat16")[1]

    digest = hashlib.sha256(encoded(ReferenceCodec(), values, "bfloat16")).hexdigest()[:16]

    assert digest == "954ba1630e57a9ae"
    assert PROTOCOL_VERSION >= 2  # the first with these bytes


def test_native_is_refused_when_the_machine_lacks_its_level() -> None:
    """Rather than an illegal instruction."""

    class OldMachine:
        def kvlink_int4_level(self) -> int:
            return 0

    with pytest.raises(ValueError, match="avx512"):
        NativeCodec(OldMachine(), 2)  # type: ignore[arg-type]


def test_backend_is_numpy_with_one_warning_when_nothing_was_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says how to get the compiled one."""
    monkeypatch.setattr("thunderserve.kvlink.codec.backends.load_library", lambda: None)
    best_backend.cache_clear()
    try:
        names = [best_backend().name for _ in range(2)]
    finally:
        best_backend.cache_clear()

    assert names == ["numpy", "numpy"]
    assert [("g++" in r.message, "build_native.py" in r.message) for r in caplog.records] == [
        (True, True)
    ]


def test_library_is_none_when_its_file_is_missing_or_damaged(tmp_path: Path) -> None:
    """A half-written file is no reason to stop."""
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(b"\x7fELF")

    assert load_library(tmp_path / "absent.so") is None
    assert load_library(damaged) is None


@pytest.mark.parametrize("command", ["", "no-such-compiler", "false"])
def test_build_goes_on_when_nothing_compiles(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    """One line says why, and no old library is left to be mistaken for a new one."""
    build = runpy.run_path(str(BUILD))["build"]
    if command:
        monkeypatch.setenv("CXX", command)
    else:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    library = tmp_path / "old.so"
    library.write_bytes(b"")

    assert build(library) is None
    assert not library.exists()
    assert "apt-get install g++" in capsys.readouterr().err


@pytest.mark.sweep
def test_scalar_code_is_clean_when_sanitizers_watch_it(tmp_path: Path) -> None:
    """Round trips and a few thousand mutated payloads, each in memory of its exact size."""
    module = runpy.run_path(str(BUILD))
    command = module["compiler"]()
    if command is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "sanitized"
    sources = [
        module["SOURCES"] / name for name in ("int4.cpp", "scalar.cpp", "avx2.cpp", "avx512.cpp")
    ]
    flags = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fsanitize=address,undefined"]
    driver = Path(__file__).parent / "sanitized.cpp"
    arguments = [
        *command,
        *flags,
        "-fno-sanitize-recover=all",
        "-w",
        "-o",
        program,
        driver,
        *sources,
    ]
    built = subprocess.run(arguments, check=False, capture_output=True, text=True)
    if built.returncode != 0:
        pytest.skip(f"this compiler has no sanitizers: {built.stderr[-200:]}")

    done = subprocess.run([program], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000
