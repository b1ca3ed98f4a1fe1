"""The shape of a dense decoder-only transformer, and what follows from it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import check_positive

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MODELS", "ModelSpec", "model_preset"]

_DTYPE_BYTES = MappingProxyType(
    {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "int8": 1}
)
# What the arithmetic below does not describe; a wrong number would be worse than a refusal.
_UNSUPPORTED = MappingProxyType(
    {
        "kv_lora_rank": "latent attention",
        "num_experts": "a mixture of experts",
        "num_local_experts": "a mixture of experts",
        "n_routed_experts": "a mixture of experts",
    }
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A dense decoder-only transformer.

    Attributes:
        kv_heads: Fewer than `heads` under grouped-query attention.
        intermediate: Width of the MLP.
        mlp_matrices: 3 for a gated MLP (up, gate, down), else 2.
        tied_embeddings: The output projection is the embedding.
        dtype_bytes: Of one weight, and of one value of the KV cache.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    dtype_bytes: int = 2
    mlp_matrices: int = 3
    tied_embeddings: bool = False

    def __post_init__(self) -> None:
        sizes = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab")
        check_positive(f"model {self.name}", **{size: getattr(self, size) for size in sizes})
        check_positive(f"model {self.name}", dtype_bytes=self.dtype_bytes)
        if self.heads % self.kv_heads:
            raise InvalidArgumentError(
                f"model {self.name}: {self.heads} heads do not share {self.kv_heads} kv_heads "
                "evenly",
                param="kv_heads",
            )

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer, without its norms."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + self.mlp_matrices * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, and as many in an output projection that is not tied."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """Weights of the whole model, without norms and biases (less than 0.1%)."""
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings

    @property
    def weight_bytes(self) -> int:
        """Memory of all weights."""
        return self.parameters * self.dtype_bytes

    @property
    def kv_bytes_per_token_per_layer(self) -> int:
        """Keys and values of one token in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers."""
        return self.layers * self.kv_bytes_per_token_per_layer

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, object]) -> ModelSpec:
        """Read a Hugging Face `config.json`.

        Raises:
            InvalidArgumentError: A size is missing or wrong, or the architecture is one that
                these formulas do not describe.
        """
        for key, what in _UNSUPPORTED.items():
            if config.get(key):
                raise InvalidArgumentError(
                    f"model {name} has {what} ({key}); only dense models are described", param=key
                )
        opt = config.get("model_type") == "opt"
        hidden = _size(name, config, "hidden_size")
        heads = _size(name, config, "num_attention_heads")
        dtype = str(config.get("torch_dtype") or config.get("dtype") or "float16")
        if dtype not in _DTYPE_BYTES:
            raise InvalidArgumentError(f"model {name}: unknown dtype {dtype!r}", param="dtype")
        return cls(
            name=name,
            layers=_size(name, config, "num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=_size(name, config, "num_key_value_heads", default=heads),
            head_dim=_size(name, config, "head_dim", default=hidden // heads),
            intermediate=_size(name, config, "ffn_dim" if opt else "intermediate_size"),
            vocab=_size(name, config, "vocab_size"),
            dtype_bytes=_DTYPE_BYTES[dtype],
            mlp_matrices=2 if opt else 3,
            tied_embeddings=bool(config.get("tie_word_embeddings", opt)),
        )


def _size(name: str, config: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or value <= 0:
        raise InvalidArgumentError(
            f"model {name}: {key} in config.json is {value!r}; it must be a positive integer",
            param=key,
        )
    return value


# The published config.json of each model.
MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            ModelSpec("llama-7b", 32, 4096, 32, 32, 128, 11008, 32000),
            ModelSpec("llama-30b", 60, 6656, 52, 52, 128, 17920, 32000),
            ModelSpec("llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256),
            ModelSpec("llama-3.3-70b", 80, 8192, 64, 8, 128, 28672, 128256),
            ModelSpec("qwen3-32b", 64, 5120, 64, 8, 128, 25600, 151936),
            ModelSpec(
                "opt-13b", 40, 5120, 40, 40, 128, 20480, 50272,
                mlp_matrices=2, tied_embeddings=True,
            ),
        )
    }
)  # fmt: skip
"""Presets by name."""


def model_preset(name: str) -> ModelSpec:
    """The preset of that name.

    Raises:
        InvalidArgumentError: There is none; the message names the nearest.
    """
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name.casefold(), MODELS, n=1, cutoff=0.0)[0]
    raise InvalidArgumentError(
        f"no model preset {name!r}; the nearest is {near!r}. Another model is described by the "
        "config.json in its folder",
        param="model",
    )
