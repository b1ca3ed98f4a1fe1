"""A short, seeded share of the fuzzing; `make fuzz` runs as much as one likes, led by coverage."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz_targets import SEEDS, TARGETS

CORPUS = Path(__file__).with_name("corpus")
INPUTS = 3000


def corpus(name: str) -> list[bytes]:
    """Inputs that were found to reach code that others do not, one a line."""
    return [bytes.fromhex(line) for line in (CORPUS / f"{name}.txt").read_text().split()]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or set to the edges of numbers."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(changed) + 1), rng.choice((1, 1, 2, 4, 8))
        new = rng.choice(
            (
                rng.randbytes(size),
                b"\0" * size,
                b"\xff" * size,
                bytes(changed[at : at + size]) * 2,
                b"",
            )
        )
        changed[at : at + size] = new
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_parser_keeps_its_promises_when_inputs_are_mutated(name: str) -> None:
    """Our error or a value that means the bytes; nothing else is raised, nothing is huge."""
    rng, known = random.Random(7), SEEDS[name] + corpus(name)  # noqa: S311 - the same every time
    for data in known:
        TARGETS[name](data)

    for _ in range(INPUTS):
        TARGETS[name](mutated(rng.choice(known), rng))
