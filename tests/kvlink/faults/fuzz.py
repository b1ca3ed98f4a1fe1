"""Coverage-guided fuzzing of kvlink's parsers: `python fuzz.py TARGET INPUTS [SECONDS]`.

Starts from the seeds and the kept corpus (`corpus/TARGET.txt`, one input a line in hex). Inputs
that reach new code are kept there when it ends well; one that breaks a promise is printed and
written to `crash-*` in the current folder: make it a line of the corpus, which the tests replay.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atheris  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).with_name("corpus")
MOST_BYTES = 2048

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "support"))


def kept(target: str) -> list[bytes]:
    """The corpus of a target."""
    path = CORPUS / f"{target}.txt"
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


def fuzz(target: str, folder: Path, inputs: int, seconds: int) -> None:
    """Run in this process, which libFuzzer ends."""
    with atheris.instrument_imports(include=["thunderserve.kvlink", "thunderserve.wire"]):
        from fuzz_targets import TARGETS  # noqa: PLC0415 - instrumented while it is imported
    bounds = [f"-runs={inputs}", f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}"]
    atheris.Setup([sys.argv[0], *bounds, "-print_final_stats=1", str(folder)], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    """Fuzz in a child, then keep what it found."""
    target, inputs = sys.argv[1], int(sys.argv[2])
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if len(sys.argv) > 4:
        fuzz(target, Path(sys.argv[4]), inputs, seconds)
        return 0
    from fuzz_targets import SEEDS, TARGETS  # noqa: PLC0415 - the child imports it instrumented

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(SEEDS[target] + kept(target)):
            Path(folder, f"seed-{number}").write_bytes(data)
        child = [sys.executable, __file__, target, str(inputs), str(seconds), folder]
        if status := subprocess.run(child, check=False).returncode:
            return status
        found = [path.read_bytes() for path in Path(folder).iterdir()]
    kept_now = smallest_cover(TARGETS[target], found)
    (CORPUS / f"{target}.txt").write_text("".join(f"{data.hex()}\n" for data in kept_now))
    return 0


def smallest_cover(target: Callable[[bytes], None], inputs: list[bytes]) -> list[bytes]:
    """The shortest inputs that reach every line of kvlink that all of them reach."""
    reached: set[tuple[str, int, int]] = set()
    kept = []
    for data in sorted(inputs, key=lambda each: (len(each), each)):
        lines = steps_of(target, data)
        if not lines <= reached:
            reached |= lines
            kept.append(data)
    return kept


def steps_of(target: Callable[[bytes], None], data: bytes) -> set[tuple[str, int, int]]:
    """Steps from line to line that one input makes within kvlink."""
    steps, last = set(), 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal last
        if "thunderserve" not in frame.f_code.co_filename:
            return None
        if event == "line":
            steps.add((frame.f_code.co_filename, last, frame.f_lineno))
            last = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return steps


if __name__ == "__main__":
    raise SystemExit(main())
