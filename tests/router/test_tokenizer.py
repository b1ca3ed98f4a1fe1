"""Prompts become the model's tokens."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.errors import ConfigError, InvalidArgumentError
from thunderserve.demo_model import model_path
from thunderserve.router.job import ChatMessage
from thunderserve.router.tokenizer import ModelTokenizer, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model's folder without its weights."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(model_path() / name, tmp_path)
    return tmp_path


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


async def test_encode_round_trips_when_the_prompt_is_text(tokenizer: ModelTokenizer) -> None:
    """Tokens decode to the text they came from."""
    tokens = await tokenizer.encode("def f(x): return 'é🎉'")

    assert tokenizer.tokenizer.decode(list(tokens)) == "def f(x): return 'é🎉'"


async def test_encode_uses_the_chat_template_when_the_prompt_is_a_chat(
    tokenizer: ModelTokenizer,
) -> None:
    """Turns are framed by the model's special tokens, and the answer is opened."""
    chat = (ChatMessage("user", "hi"), ChatMessage("assistant", "yes"), ChatMessage("user", "?"))

    tokens = await tokenizer.encode(chat)

    user, assistant, end = (
        tokenizer.tokenizer.token_to_id(f"<|{n}|>") for n in ("user", "assistant", "end")
    )
    assert [t for t in tokens if t in {user, assistant, end}] == [
        *(user, end, assistant, end, user, end, assistant)
    ]


@dataclass
class HeldTokenizer:
    """Encodes only once it is let go, from outside the thread that called it."""

    let_go: threading.Event = field(default_factory=threading.Event)

    def encode(self, _text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        assert add_special_tokens
        assert self.let_go.wait(timeout=10), "the event loop stood still while a text was encoded"
        return SimpleNamespace(ids=[1, 2, 3])


async def test_encode_leaves_the_event_loop_free_when_the_prompt_is_long(
    tokenizer: ModelTokenizer,
) -> None:
    """Other requests go on while a long prompt is tokenised."""
    held = HeldTokenizer()
    encoding = asyncio.create_task(replace(tokenizer, tokenizer=held).encode("word " * 4_000))
    asyncio.get_running_loop().call_soon(held.let_go.set)

    assert await encoding == (1, 2, 3)


@pytest.mark.parametrize("prompt", ["", ()])
async def test_encode_refuses_when_the_prompt_is_empty(
    tokenizer: ModelTokenizer, prompt: str | tuple[int, ...]
) -> None:
    """No engine can start from nothing."""
    with pytest.raises(InvalidArgumentError, match="empty"):
        await tokenizer.encode(prompt)


@pytest.mark.parametrize("token", [-1, 4096])
async def test_encode_refuses_when_a_token_is_none_of_the_models(
    tokenizer: ModelTokenizer, token: int
) -> None:
    """The token and the vocabulary are named."""
    with pytest.raises(InvalidArgumentError, match=rf"{token} is not in \[0, 4096\)"):
        await tokenizer.encode((1, token))


def test_load_tokenizer_knows_the_model(tokenizer: ModelTokenizer) -> None:
    """Context length and end token come from the model's own files."""
    assert tokenizer.context_tokens == 2048
    assert tokenizer.end_token_ids == {tokenizer.tokenizer.token_to_id("<|end|>")}


def test_chat_is_refused_when_the_template_raises(folder: Path) -> None:
    """What the template says reaches the client."""
    source = "{{ raise_exception('only one turn') }}"
    rewrite(folder / "tokenizer_config.json", lambda c: c.update(chat_template=source))

    with pytest.raises(InvalidArgumentError, match="only one turn"):
        load_tokenizer(folder).render_chat([ChatMessage("user", "hi")])


def test_chat_template_cannot_leave_its_sandbox(folder: Path) -> None:
    """A downloaded template is code by a stranger."""
    source = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    rewrite(folder / "tokenizer_config.json", lambda c: c.update(chat_template=source))

    with pytest.raises(InvalidArgumentError, match="unsafe"):
        load_tokenizer(folder).render_chat([ChatMessage("user", "hi")])


def test_chat_is_refused_when_the_model_has_no_template(folder: Path) -> None:
    """With the way out."""
    rewrite(folder / "tokenizer_config.json", lambda c: c.pop("chat_template"))

    with pytest.raises(InvalidArgumentError, match="/v1/completions"):
        load_tokenizer(folder).render_chat([ChatMessage("user", "hi")])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("config.json", "not json"),
        ("config.json", "[]"),
        ("config.json", "{}"),
    ],
)
def test_load_tokenizer_names_the_file_when_it_is_wrong(
    folder: Path, name: str, content: str
) -> None:
    """A wrong model folder is a configuration error."""
    (folder / name).write_text(content)

    with pytest.raises(ConfigError, match=name):
        load_tokenizer(folder)


def test_load_tokenizer_names_the_file_when_it_is_missing(tmp_path: Path) -> None:
    """So that a mistyped path is seen at once."""
    with pytest.raises(ConfigError, match=r"tokenizer_config.json: No such file"):
        load_tokenizer(tmp_path)
