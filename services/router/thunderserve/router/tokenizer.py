"""Text to tokens: the model's own tokenizer and chat template, from a local folder."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from thunderserve.core.errors import ConfigError, InvalidArgumentError
from thunderserve.router.job import ChatMessage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from thunderserve.router.job import Prompt

__all__ = ["ModelTokenizer", "load_tokenizer"]

# Up to here encoding takes well under a millisecond; longer prompts go to a thread.
INLINE_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class ModelTokenizer:
    """What the router knows of the model.

    Attributes:
        context_tokens: Prompt and answer together.
        end_token_ids: Tokens that end an answer.
        chat_template: None when the model has none; then there is no chat.
        special_tokens: Names that chat templates use, such as `bos_token`.
    """

    tokenizer: Tokenizer
    context_tokens: int
    end_token_ids: frozenset[int]
    chat_template: Template | None
    special_tokens: dict[str, str]

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        return int(self.tokenizer.get_vocab_size())

    async def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """Tokens of a text, a chat or a list of tokens; long texts leave the event loop free.

        Raises:
            InvalidArgumentError: The prompt is empty, a token is none of the model's, or the
                chat template refuses the messages.
        """
        if isinstance(prompt, str):
            token_ids = await self._encode_text(prompt, add_special_tokens=True)
        elif prompt and isinstance(prompt[0], ChatMessage):
            text = self.render_chat(m for m in prompt if isinstance(m, ChatMessage))
            token_ids = await self._encode_text(text, add_special_tokens=False)
        else:
            token_ids = self._checked(tuple(t for t in prompt if isinstance(t, int)))
        if not token_ids:
            raise InvalidArgumentError("the prompt is empty", param="prompt")
        return token_ids

    def render_chat(self, messages: Iterable[ChatMessage]) -> str:
        """The text that the model was trained to see for these messages.

        Raises:
            InvalidArgumentError: There is no template, or it refuses the messages.
        """
        if self.chat_template is None:
            raise InvalidArgumentError(
                "the model has no chat template; use /v1/completions", param="messages"
            )
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.chat_template.render(
                messages=turns, add_generation_prompt=True, **self.special_tokens
            )
        except (TemplateError, TypeError, ValueError) as error:
            message = f"the model's chat template refuses these messages: {error}"
            raise InvalidArgumentError(message, param="messages") from error

    async def _encode_text(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        def encode() -> tuple[int, ...]:
            return tuple(self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

        return encode() if len(text) <= INLINE_CHARACTERS else await asyncio.to_thread(encode)

    def _checked(self, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        size = self.vocabulary_size
        for token_id in token_ids:
            if not 0 <= token_id < size:
                raise InvalidArgumentError(
                    f"token {token_id} is not in [0, {size}), the model's vocabulary",
                    param="prompt",
                )
        return token_ids


def load_tokenizer(folder: Path) -> ModelTokenizer:
    """Read `tokenizer.json`, `tokenizer_config.json` and `config.json`.

    Raises:
        ConfigError: A file is missing or is not what it should be.
    """
    tokenizer_config = _read_json(folder / "tokenizer_config.json")
    config = _read_json(folder / "config.json")
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"cannot read {path}: {error}", param="model_path") from error
    special = _special_tokens(tokenizer_config)
    return ModelTokenizer(
        tokenizer=tokenizer,
        context_tokens=_context_tokens(config, folder),
        end_token_ids=_end_token_ids(config, special, tokenizer),
        chat_template=_chat_template(tokenizer_config, folder),
        special_tokens=special,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", param="model_path") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}", param="model_path") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a JSON object", param="model_path")
    return values


def _special_tokens(tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """Each is a string, or an object with the string in `content`."""
    found: dict[str, str] = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = tokenizer_config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            found[name] = content
    return found


def _context_tokens(config: dict[str, Any], folder: Path) -> int:
    tokens = config.get("max_position_embeddings")
    if not isinstance(tokens, int) or tokens <= 0:
        raise ConfigError(
            f"{folder / 'config.json'}: max_position_embeddings is {tokens!r}; "
            "it must be a positive number",
            param="model_path",
        )
    return tokens


def _end_token_ids(
    config: dict[str, Any], special: dict[str, str], tokenizer: Tokenizer
) -> frozenset[int]:
    configured = config.get("eos_token_id")
    ids = set(configured) if isinstance(configured, list) else {configured}
    ids.add(tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None)
    return frozenset(i for i in ids if isinstance(i, int))


def _chat_template(tokenizer_config: dict[str, Any], folder: Path) -> Template | None:
    """A model's template is code by a stranger: it runs in the sandbox."""
    source = tokenizer_config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {t["name"]: t["template"] for t in source}.get("default")
    file = folder / "chat_template.jinja"
    if source is None and file.exists():
        source = file.read_text(encoding="utf-8")
    if source is None:
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(source)
    except TemplateError as error:
        message = f"the chat template of {folder} does not compile: {error}"
        raise ConfigError(message, param="model_path") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
