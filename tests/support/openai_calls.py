"""Requests of OpenAI clients, and the events that answer them."""

from __future__ import annotations

import json
from typing import Any

CHAT = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Write a function."}],
    "max_tokens": 8,
    "temperature": 0,
}
PROMPT = [10, 11, 12]
COMPLETION = {"model": "demo", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}


def events(text: str) -> list[dict[str, Any]]:
    """The JSON of every event; the stream must end with [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]
