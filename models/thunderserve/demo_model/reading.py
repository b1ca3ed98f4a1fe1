"""The demo model reading held-out text, its KV cache in the open: what a codec is judged by.

`Shift` gives the same model keys with outlier channels, as large models have them. It changes no
answer: softmax does not see what is added to every key alike, a channel's factor is taken out of
the queries again, and what is added to every value is taken out behind the attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from thunderserve.demo_model import model_path
from thunderserve.demo_model.corpus import encode, load_held_out
from thunderserve.demo_model.network import Llama, LlamaConfig, rotary_tables, rotate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Samples",
    "Shift",
    "following_logits",
    "greedy",
    "load",
    "outlier_shift",
    "prefill",
    "read",
    "windows",
]


@dataclass(frozen=True, slots=True)
class Shift:
    """What is added to keys and values and multiplied into keys, each (layers, kv heads, d)."""

    key_offset: Tensor
    key_factor: Tensor
    value_offset: Tensor


@dataclass(frozen=True, slots=True)
class Samples:
    """Prompts' caches, what the model says next, and the text that follows.

    Attributes:
        cache: (B, layers, 2, T, kv heads, d) bfloat16.
        last_queries: (B, layers, heads, d) float32: the last prompt token's.
        next_token: (B,) the prefill side's first token.
        following: (B, T') token ids.
    """

    cache: Tensor
    last_queries: Tensor
    next_token: Tensor
    following: Tensor


@dataclass(slots=True)
class _Read:
    logits: Tensor
    cache: Tensor
    last_queries: Tensor


def load() -> Llama:
    """The demo model in float32."""
    model = Llama(LlamaConfig()).eval()
    model.load_state_dict(load_file(model_path() / "model.safetensors"))
    return model


def outlier_shift(config: LlamaConfig, seed: int = 0) -> Shift:
    """Channel factors, and offsets of constant sign in one key channel of twenty.

    Offsets are 10 to 25 times the usual key, the range reported for large models (KIVI, KVQuant).
    """
    random = torch.Generator().manual_seed(seed)
    shape = (config.layers, config.kv_heads, config.head_dim)
    half = torch.randn((*shape[:2], shape[2] // 2), generator=random).mul(0.5).exp()
    chosen = torch.rand(shape, generator=random) < 1 / 20
    size = 10 + 15 * torch.rand(shape, generator=random)
    sign = torch.randint(0, 2, shape, generator=random) * 2 - 1
    offset = torch.where(chosen, size * sign, torch.zeros(()))
    values = torch.randn(shape, generator=random).mul(0.5)
    return Shift(offset, torch.cat((half, half), dim=-1), values)


def windows(tokens: int, count: int) -> Tensor:
    """(count, tokens) token ids, spread evenly over the held-out text."""
    tokenizer = Tokenizer.from_file(str(model_path() / "tokenizer.json"))
    ids = encode(tokenizer, load_held_out(), seed=0)
    starts = torch.linspace(0, len(ids) - tokens, count).long().tolist()
    return torch.stack([ids[start : start + tokens] for start in starts])


@torch.no_grad()
def read(
    model: Llama,
    prompt_tokens: int,
    next_tokens: int,
    count: int,
    *,
    shift: Shift | None = None,
    captured: Tensor | None = None,
) -> Samples:
    """Prompts read by the model; `captured` caches of the same prompts replace the model's own."""
    text = windows(prompt_tokens + next_tokens, count)
    result = _forward(model, text[:, :prompt_tokens], None, shift)
    cache = result.cache.bfloat16() if captured is None else captured
    next_token = result.logits[:, -1].argmax(-1)
    return Samples(cache, result.last_queries, next_token, text[:, prompt_tokens:])


@torch.no_grad()
def following_logits(
    model: Llama, samples: Samples, cache: Tensor, shift: Shift | None = None
) -> Tensor:
    """(B, T' - 1, vocab): predictions of the following text, read after the transferred cache."""
    return _forward(model, samples.following[:, :-1], cache.float(), shift).logits


@torch.no_grad()
def greedy(
    model: Llama, samples: Samples, cache: Tensor, tokens: int, shift: Shift | None = None
) -> Tensor:
    """(B, tokens) ids: the first is the prefill side's, the others come from the cache.

    `cache` may be of the first B samples alone.
    """
    answer, cache = [samples.next_token[: len(cache)]], cache.float()
    while len(answer) < tokens:
        result = _forward(model, answer[-1][:, None], cache, shift)
        cache = result.cache
        answer.append(result.logits[:, -1].argmax(-1))
    return torch.stack(answer, dim=1)


@torch.no_grad()
def prefill(model: Llama, ids: Tensor, take: Callable[[int, Tensor], None]) -> None:
    """Read one prompt, `ids` (1, T); `take` gets each layer's number and cache as it is computed.

    A cache is (2, T, kv heads, d) float32.
    """
    _forward(model, ids, None, None, lambda layer, cache: take(layer, cache[0]))


def _forward(
    model: Llama,
    ids: Tensor,
    cache: Tensor | None,
    shift: Shift | None,
    take: Callable[[int, Tensor], None] | None = None,
) -> _Read:
    """`ids` (B, T) after a cache; the longer cache is (B, layers, 2, T, kv heads, d) float32."""
    config = model.config
    batch, tokens = ids.shape
    past = 0 if cache is None else cache.shape[3]
    cos, sin = (table[past:] for table in rotary_tables(config, past + tokens))
    mask = torch.ones(tokens, past + tokens, dtype=torch.bool).tril(past)
    hidden, caches, queries = model.model.embed_tokens(ids), [], []
    for number, layer in enumerate(model.layers):
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        query, key, value = (
            project(normed).view(batch, tokens, -1, config.head_dim).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if shift is not None:
            query, key, value = _shifted(shift, number, query, key, value)
        fresh = torch.stack((key, value), dim=1).transpose(2, 3)
        if take is not None:
            take(number, fresh)
        both = fresh if cache is None else torch.cat((cache[:, number], fresh), dim=2)
        caches.append(both)
        queries.append(query[:, :, -1])
        keys, values = both.transpose(2, 3).unbind(1)
        mixed = functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, enable_gqa=True
        )
        if shift is not None:
            mixed = mixed - _per_query(shift.value_offset[number], mixed)
        hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return _Read(model.logits(hidden), torch.stack(caches, dim=1), torch.stack(queries, dim=1))


def _shifted(
    shift: Shift, layer: int, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    factor = shift.key_factor[layer][:, None]
    key = (key + shift.key_offset[layer][:, None]) * factor
    value = value + shift.value_offset[layer][:, None]
    return query / _per_query(shift.key_factor[layer], query), key, value


def _per_query(per_kv_head: Tensor, like: Tensor) -> Tensor:
    """(kv heads, d) to (heads, 1, d): every query head of a group reads the same KV head."""
    return per_kv_head.repeat_interleave(like.shape[1] // per_kv_head.shape[0], dim=0)[:, None]
