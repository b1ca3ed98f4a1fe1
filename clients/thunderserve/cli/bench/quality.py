"""What one transfer at 4 bits changes in the answers of the demo model, on held-out text.

A prompt's cache goes through the codec once, and the model goes on from it: it reads the text that
follows, which gives perplexity and the next token's distribution, and it writes greedily.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from thunderserve.cli.bench.machine import one_thread
from thunderserve.core.kv import KvLayout
from thunderserve.demo_model import MODEL_NAME
from thunderserve.demo_model.reading import following_logits, greedy, load, read
from thunderserve.kvlink.codec import Int4Codec

if TYPE_CHECKING:
    from torch import Tensor

    from thunderserve.demo_model.network import Llama, LlamaConfig
    from thunderserve.demo_model.reading import Samples, Shift

__all__ = [
    "NEXT_TOKENS",
    "PAGE_TOKENS",
    "PROMPT_TOKENS",
    "Answers",
    "Quality",
    "demo_layout",
    "quality_figures",
    "through_int4",
]

PROMPT_TOKENS, NEXT_TOKENS = 512, 128
PAGE_TOKENS = 16
_GREEDY_TOKENS = 32
_GREEDY_SAMPLES = 32  # a step copies their whole cache


@dataclass(frozen=True, slots=True)
class Quality:
    """What a lossy cache does to the answers; ratios are against the exact one.

    Attributes:
        divergence_nats: Of the next token's distribution (Kullback-Leibler), mean over positions.
        top_token_agreement_ratio: Positions whose likeliest next token stays.
        greedy_agreement_ratio: Tokens written before the first that differs.
    """

    perplexity_x_raw16: float
    divergence_nats: float
    top_token_agreement_ratio: float
    greedy_agreement_ratio: float


class Answers:
    """What the model says after exact caches, and how far it departs from that after others."""

    def __init__(self, model: Llama, samples: Samples, shift: Shift | None = None) -> None:
        self._model, self._samples, self._shift = model, samples, shift
        self._logits = following_logits(model, samples, samples.cache, shift)
        self._greedy = self._write(samples.cache)

    def quality(self, arrived: Tensor) -> Quality:
        """Of caches in the place of the samples', of their shape and dtype."""
        logits = following_logits(self._model, self._samples, arrived, self._shift)
        same = (self._write(arrived) == self._greedy).int().cumprod(dim=1)
        return Quality(
            math.exp(self._loss(logits) - self._loss(self._logits)),
            _divergence(self._logits, logits),
            float((logits.argmax(-1) == self._logits.argmax(-1)).float().mean()),
            float(same.sum()) / same.numel(),
        )

    @property
    def perplexity(self) -> float:
        """Of the text that follows, when nothing is lost."""
        return math.exp(self._loss(self._logits))

    def _write(self, cache: Tensor) -> Tensor:
        few = cache[:_GREEDY_SAMPLES]
        return greedy(self._model, self._samples, few, _GREEDY_TOKENS, self._shift)

    def _loss(self, logits: Tensor) -> float:
        """Nats per token of the text that follows."""
        wanted = self._samples.following[:, 1:]
        return float(functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()))


@torch.no_grad()
def quality_figures(sample_count: int) -> dict[str, float]:
    """Of the demo model's own caches; nothing in it depends on time."""
    model = load()
    with one_thread():
        samples = read(model, PROMPT_TOKENS, NEXT_TOKENS, sample_count)
        answers = Answers(model, samples)
        quality = answers.quality(through_int4(model.config, samples.cache))
    return {
        "perplexity_x_raw16": quality.perplexity_x_raw16,
        "perplexity_raw16": answers.perplexity,
        "greedy_agreement_ratio": quality.greedy_agreement_ratio,
        "top_token_agreement_ratio": quality.top_token_agreement_ratio,
        "divergence_nats": quality.divergence_nats,
    }


def demo_layout(config: LlamaConfig) -> KvLayout:
    """Of the demo model's cache."""
    heads, dim = config.kv_heads, config.head_dim
    return KvLayout(MODEL_NAME, config.layers, heads, dim, PAGE_TOKENS, "bfloat16")


def through_int4(config: LlamaConfig, cache: Tensor) -> Tensor:
    """Each of (B, layers, 2, T, kv heads, d) bfloat16, encoded and decoded; T is 16 n."""
    layout = demo_layout(config)
    codec, pages = Int4Codec(layout), cache.shape[3] // PAGE_TOKENS
    shape = layout.block_shape(config.layers, pages)
    arrived = [
        codec.decode(codec.encode(bits.reshape(shape).numpy()), config.layers, pages)
        for bits in cache.contiguous().view(torch.uint16)
    ]
    stacked = torch.stack([torch.from_numpy(values) for values in arrived])
    return stacked.view(torch.bfloat16).reshape(cache.shape)


def _divergence(exact: Tensor, lossy: Tensor) -> float:
    exact, lossy = (x.flatten(0, 1).log_softmax(-1) for x in (exact, lossy))
    return float(functional.kl_div(lossy, exact, reduction="batchmean", log_target=True))
