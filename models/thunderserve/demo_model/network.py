"""A Llama in plain PyTorch, for training and measuring; its names are Hugging Face's.

Shapes below: B sequences, T tokens, D hidden size, H query heads, K key-value heads, d head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Llama", "LlamaConfig", "rotary_tables", "rotate"]


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The sizes of the model; the defaults are the demo model's (7.0 million parameters).

    Eight layers, so that a transfer can be hidden behind prefill layer by layer, and two
    key-value heads, so that it splits over two tensor-parallel ranks.
    """

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 704
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    context_tokens: int = 2048
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    def to_hugging_face(self, end_token_id: int) -> dict[str, object]:
        """The `config.json` that any Llama implementation reads."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context_tokens,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_eps,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": end_token_id,
            "eos_token_id": end_token_id,
            "pad_token_id": end_token_id,
        }


class Attention(nn.Module):
    """Grouped-query attention with rotary positions in the half-split layout of the Llama files."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D); `cos`, `sin`: (T, d)."""
        batch, tokens, _ = hidden.shape

        def heads(projected: Tensor) -> Tensor:
            return projected.view(batch, tokens, -1, self.config.head_dim).transpose(1, 2)

        query = rotate(heads(self.q_proj(hidden)), cos, sin)
        key = rotate(heads(self.k_proj(hidden)), cos, sin)
        mixed = functional.scaled_dot_product_attention(
            query, key, heads(self.v_proj(hidden)), is_causal=True, enable_gqa=True
        )
        result: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return result


class Mlp(nn.Module):
    """Gated feed-forward."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        gate: Tensor = functional.silu(self.gate_proj(hidden))
        result: Tensor = self.down_proj(gate * self.up_proj(hidden))
        return result


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and a residual."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin)
        result: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return result


class Body(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.norm_eps)


class Llama(nn.Module):
    """The model; its parameter names are those of Hugging Face's `LlamaForCausalLM`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.apply(self._initialise)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, vocab)."""
        cos, sin = rotary_tables(self.config, tokens.shape[1])
        hidden = self.model.embed_tokens(tokens)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin)
        return self.logits(hidden)

    @property
    def layers(self) -> list[Layer]:
        """In order."""
        return [cast("Layer", layer) for layer in self.model.layers]

    def logits(self, hidden: Tensor) -> Tensor:
        """What the last layer gives (B, T, D) to logits (B, T, vocab)."""
        logits: Tensor = self.model.norm(hidden) @ self.model.embed_tokens.weight.T
        return logits

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


def rotary_tables(config: LlamaConfig, tokens: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions 0 to `tokens`, each (T, d)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(tokens, dtype=torch.float32), config.rope_theta**-exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (B, H, T, d)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin
