"""What 4 bits on the wire cost: error, perplexity and greedy tokens of the demo model.

    .venv/bin/python benchmarks/kv_quality.py [-o json]

Held-out text; the KV cache of a prompt goes through the codec once, as a transfer does, and the
model goes on from it. Nothing here depends on time, so the figures are the same on any machine
with this Python.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from thunderserve.core.kv import KvLayout
from thunderserve.demo_model import model_path
from thunderserve.kvlink.codec import Int4Codec, Raw16Codec

sys.path.insert(0, str(Path(__file__).parent.parent / "models" / "training"))

from corpus import load_corpus
from network import Llama, LlamaConfig, rotary_tables, rotate
from train import encode

if TYPE_CHECKING:
    from thunderserve.kvlink.codec import Codec

PAGE_TOKENS = 16
PROMPT_TOKENS = 256
NEXT_TOKENS = 128
GREEDY_TOKENS = 32
SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt's cache (layers, 2, T, heads, d), its last logits, and the text that follows."""

    cache: Tensor
    logits: Tensor
    following: Tensor


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    figures = measure()
    if parser.parse_args().output == "json":
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:9.4f}")


@torch.no_grad()
def measure() -> dict[str, float]:
    """All figures; ratios are int4 against raw16 on the same samples."""
    config = LlamaConfig()
    model = Llama(config).eval()
    model.load_state_dict(load_file(model_path() / "model.safetensors"))
    layout = KvLayout(
        "demo", config.layers, config.kv_heads, config.head_dim, PAGE_TOKENS, "bfloat16"
    )
    samples = [_sample(model, window) for window in _windows()]
    raw, packed = Raw16Codec(layout), Int4Codec(layout)
    exact = [_transfer(s.cache, raw) for s in samples]
    lossy = [_transfer(s.cache, packed) for s in samples]
    answers = [
        (_greedy(model, s, e), _greedy(model, s, c))
        for s, e, c in zip(samples, exact, lossy, strict=True)
    ]
    losses = [
        sum(_loss(model, s, cache) for s, cache in zip(samples, caches, strict=True)) / SAMPLES
        for caches in (exact, lossy)
    ]
    pages = PROMPT_TOKENS // PAGE_TOKENS
    return {
        "bits_per_value": 8 * packed.payload_bytes(config.layers, pages) / exact[0].numel(),
        "key_error_ratio": _error(exact, lossy, 0),
        "value_error_ratio": _error(exact, lossy, 1),
        "perplexity_raw16": float(torch.tensor(losses[0]).exp()),
        "perplexity_x_raw16": float(torch.tensor(losses[1] - losses[0]).exp()),
        "greedy_tokens_before_difference_ratio": _agreement(answers) / SAMPLES / GREEDY_TOKENS,
        "greedy_answers_equal_ratio": sum(a == b for a, b in answers) / SAMPLES,
    }


def _windows() -> Tensor:
    """(samples, prompt + next) token ids, spread evenly over the held-out text."""
    tokenizer = Tokenizer.from_file(str(model_path() / "tokenizer.json"))
    ids = encode(tokenizer, load_corpus().held_out, seed=0)
    length = PROMPT_TOKENS + NEXT_TOKENS
    starts = torch.linspace(0, len(ids) - length, SAMPLES).long().tolist()
    return torch.stack([ids[start : start + length] for start in starts])


def _sample(model: Llama, window: Tensor) -> Sample:
    logits, cache = _forward(model, window[:PROMPT_TOKENS], None)
    return Sample(cache.bfloat16(), logits[-1], window[PROMPT_TOKENS:])


def _transfer(cache: Tensor, codec: Codec) -> Tensor:
    """The cache as it arrives; (layers, 2, T, heads, d) bf16."""
    layers, _, tokens, heads, width = cache.shape
    pages = cache.reshape(layers, 2, tokens // PAGE_TOKENS, PAGE_TOKENS, heads, width)
    sent = codec.encode(pages.contiguous().view(torch.uint16).numpy())
    arrived = codec.decode(memoryview(bytes(sent)), layers, tokens // PAGE_TOKENS)
    return torch.from_numpy(arrived.copy()).view(torch.bfloat16).reshape(cache.shape)


def _forward(model: Llama, ids: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits (T, vocab) of `ids` after a cache, and the longer cache."""
    config = model.config
    past = 0 if cache is None else cache.shape[2]
    cos, sin = (table[past:] for table in rotary_tables(config, past + len(ids)))
    mask = torch.ones(len(ids), past + len(ids), dtype=torch.bool).tril(past)
    hidden, caches = model.model["embed_tokens"](ids), []
    for number, layer in enumerate(model.model["layers"]):
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        query, key, value = (
            project(normed).view(len(ids), -1, config.head_dim).transpose(0, 1)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        fresh = torch.stack((rotate(key, cos, sin), value)).transpose(1, 2)
        both = fresh if cache is None else torch.cat((cache[number].float(), fresh), dim=1)
        caches.append(both)
        keys, values = both.transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            rotate(query, cos, sin), keys, values, attn_mask=mask, enable_gqa=True
        )
        hidden = hidden + attention.o_proj(mixed.transpose(0, 1).reshape(len(ids), -1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    logits = model.model["norm"](hidden) @ model.model["embed_tokens"].weight.T
    return logits, torch.stack(caches)


def _loss(model: Llama, sample: Sample, cache: Tensor) -> float:
    """Nats per token of the text that follows, read after the transferred cache."""
    logits, _ = _forward(model, sample.following[:-1], cache)
    return float(functional.cross_entropy(logits, sample.following[1:]))


def _greedy(model: Llama, sample: Sample, cache: Tensor) -> list[int]:
    """The first token is the prefill side's; the others come from the transferred cache."""
    answer = [int(sample.logits.argmax())]
    while len(answer) < GREEDY_TOKENS:
        logits, cache = _forward(model, torch.tensor(answer[-1:]), cache)
        answer.append(int(logits[-1].argmax()))
    return answer


def _agreement(answers: list[tuple[list[int], list[int]]]) -> int:
    """Tokens before each answer's first difference, added up."""
    return sum(
        next((n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
        for a, b in answers
    )


def _error(exact: list[Tensor], lossy: list[Tensor], which: int) -> float:
    """Root mean square of the difference over that of the values: 0 keys, 1 values."""
    right, wrong = (torch.stack(caches)[:, :, which].float() for caches in (exact, lossy))
    return float((right - wrong).pow(2).mean().sqrt() / right.pow(2).mean().sqrt())


if __name__ == "__main__":
    main()
