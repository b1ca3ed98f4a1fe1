"""What an emulated fleet answers: the same function that its engines compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from thunderserve.core.request import SamplingParams
from thunderserve.demo_model import model_path
from thunderserve.engine.emulated.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VOCABULARY", "expected_tokens"]

VOCABULARY = int(
    json.loads((model_path() / "config.json").read_text(encoding="utf-8"))["vocab_size"]
)
"""Of the demo's model, and of every emulated one."""


def expected_tokens(prompt: Sequence[int], count: int) -> list[int]:
    """The first tokens that follow a prompt."""
    if count == 0:
        return []
    answer = Answer(prompt, SamplingParams(max_tokens=count, ignore_eos=True), VOCABULARY)
    return list(answer.take(count).token_ids)
