"""Prompts of the demo: Python, which its model has read, from a few tokens to several chunks."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["CHAT", "COMPLETIONS", "LONG", "exactness_prompts", "tokenizer_of"]

CHAT = "Write a function that reads a file and returns its lines."
COMPLETIONS = (
    "def read_lines(path):\n",
    "class Stack:\n    def __init__(self):\n",
    "import unittest\n\nclass TestCase(unittest.TestCase):\n    def test_",
    "    def __repr__(self):\n        return ",
)
# The beginning of a module that everybody has; several hundred tokens.
LONG = inspect.getsource(textwrap)[:3000]
# Lengths in tokens: within one page of 16, several pages, and more than one chunk of 256.
LENGTHS = (5, 16, 17, 70, 150, 300, 600)


def tokenizer_of(model: Path) -> Tokenizer:
    """The tokenizer in a model's folder."""
    return Tokenizer.from_file(str(model / "tokenizer.json"))


def exactness_prompts(
    tokenizer: Tokenizer, lengths: Sequence[int] = LENGTHS
) -> tuple[tuple[int, ...], ...]:
    """One prompt of each length, cut from different places of a module everybody has."""
    source = tokenizer.encode(inspect.getsource(textwrap), add_special_tokens=False).ids
    starts = (number * 97 % max(1, len(source) - max(lengths)) for number in range(len(lengths)))
    return tuple(
        tuple(source[start : start + length]) for start, length in zip(starts, lengths, strict=True)
    )
