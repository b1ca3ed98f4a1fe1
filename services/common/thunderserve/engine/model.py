"""What a model's folder says of its shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import ConfigError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ModelShape", "read_model_shape"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The figures of a model that serving needs, without its weights.

    Attributes:
        context_tokens: Prompt and answer together.
        kv_dtype: `bfloat16` or `float16`.
        latent_attention: Its cache is not keys and values but what they are computed from (MLA).
    """

    layers: int
    kv_heads: int
    head_dim: int
    vocab_tokens: int
    context_tokens: int
    kv_dtype: str
    latent_attention: bool = False

    def check(self, prompt: Sequence[int], answer_tokens: int, context_tokens: int) -> None:
        """Refuse a prompt that cannot be served.

        Args:
            prompt: Token ids.
            answer_tokens: Tokens to be produced at most.
            context_tokens: What the engine holds; at most the model's own.

        Raises:
            InvalidArgumentError: It is empty, too long, or has an id outside the vocabulary.
        """
        if not prompt:
            raise InvalidArgumentError("the prompt is empty", param="prompt_token_ids")
        if len(prompt) >= context_tokens:
            raise InvalidArgumentError(
                f"the prompt has {len(prompt)} tokens; it and its answer may have "
                f"{context_tokens} together",
                param="prompt_token_ids",
            )
        if len(prompt) + answer_tokens > context_tokens:
            raise InvalidArgumentError(
                f"prompt ({len(prompt)} tokens) and max_tokens ({answer_tokens}) are "
                f"{len(prompt) + answer_tokens} together; the context holds {context_tokens}",
                param="max_tokens",
            )
        # SGLang's scheduler dies of an id outside the embedding table.
        if not 0 <= min(prompt) <= max(prompt) < self.vocab_tokens:
            stray = next(i for i in prompt if not 0 <= i < self.vocab_tokens)
            raise InvalidArgumentError(
                f"token id {stray} is not in [0, {self.vocab_tokens})", param="prompt_token_ids"
            )


def read_model_shape(model_path: Path) -> ModelShape:
    """The shape of the model in a folder with a `config.json` as Hugging Face writes it.

    Raises:
        ConfigError: There is no such file, or it lacks a figure.
    """
    path = model_path / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        heads = int(config["num_attention_heads"])
        return ModelShape(
            layers=int(config["num_hidden_layers"]),
            kv_heads=int(config.get("num_key_value_heads", heads)),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            vocab_tokens=int(config["vocab_size"]),
            context_tokens=int(config["max_position_embeddings"]),
            kv_dtype=str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"),
            latent_attention=bool(config.get("kv_lora_rank")),
        )
    except OSError as error:
        raise ConfigError(
            f"model_path is {model_path}; cannot read its config.json: {error.strerror}",
            param="model_path",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a usable model configuration: {error!r}", param="model_path"
        ) from error
