"""Ways to put a KV cache into 4 bits, on the demo model's cache and on one with outlier channels.

    .venv/bin/python benchmarks/codec_schemes.py [-o json] [--figure docs/codec_schemes.svg]

Each scheme is tried as one transfer of a prompt's cache: the error of keys, of values and of what
the last token's attention gives; then, on the text that follows, perplexity, divergence of the next
token's distribution, positions whose likeliest token stays; and free-running greedy tokens up to
the first that differs. Nothing depends on time.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from schemes import Scheme, schemes
from torch import Tensor

from thunderserve.cli.bench.quality import NEXT_TOKENS, PROMPT_TOKENS, Answers, Quality
from thunderserve.demo_model.reading import Samples, load, outlier_shift, read

if TYPE_CHECKING:
    from thunderserve.demo_model.network import Llama
    from thunderserve.demo_model.reading import Shift

SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Figures:
    """One scheme on one cache; errors are rms over the rms of what varies."""

    cache: str
    scheme: str
    bits_per_value: float
    key_error_ratio: float
    value_error_ratio: float
    attention_error_ratio: float
    quality: Quality


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--captured", type=Path, help="what sglang_kv.py wrote")
    arguments = parser.parse_args()
    captured = None
    if arguments.captured is not None:
        captured = load_file(arguments.captured)["cache"]
        arguments.samples = len(captured)
    figures = measure(arguments.samples, captured)
    if arguments.figure is not None:
        draw(figures, arguments.figure)
    if arguments.output == "json":
        print(json.dumps([asdict(one) for one in figures], indent=1))
        return
    print(f"{'cache':9} {'scheme':34} bits   keys values   attn   ppl x     KL   top1 greedy")
    for f in figures:
        print(
            f"{f.cache:9} {f.scheme:34} {f.bits_per_value:4.2f} {f.key_error_ratio:6.4f} "
            f"{f.value_error_ratio:6.4f} {f.attention_error_ratio:6.4f} "
            f"{f.quality.perplexity_x_raw16:7.4f} {f.quality.divergence_nats:6.4f} "
            f"{f.quality.top_token_agreement_ratio:6.4f} {f.quality.greedy_agreement_ratio:6.3f}"
        )


@torch.no_grad()
def measure(samples: int, captured: Tensor | None = None) -> list[Figures]:
    """Every scheme on every cache: the model's own, or SGLang's, and one with outliers."""
    model, figures = load(), []
    shift = outlier_shift(model.config)
    own = "SGLang's" if captured is not None else "model's"
    for cache, shifted, given in ((own, None, captured), ("outliers", shift, None)):
        count = PROMPT_TOKENS, NEXT_TOKENS, samples
        trial = Trial(model, read(model, *count, shift=shifted, captured=given), shifted)
        tried = schemes(model.config, PROMPT_TOKENS)
        figures += [trial.figures(cache, scheme) for scheme in tried]
    return figures


class Trial:
    """The samples of one cache and what raw16 gives on them."""

    def __init__(self, model: Llama, samples: Samples, shift: Shift | None) -> None:
        self._samples = samples
        self._answers = Answers(model, samples, shift)
        self._attention = _attention(samples, samples.cache)

    def figures(self, cache: str, scheme: Scheme) -> Figures:
        """One scheme."""
        keys, values = self._samples.cache.float().unbind(2)
        arrived = torch.stack((scheme.keys(keys), scheme.values(values)), dim=2).bfloat16()
        lossy_keys, lossy_values = arrived.float().unbind(2)
        return Figures(
            cache,
            scheme.name,
            scheme.bits_per_value,
            _error(lossy_keys, keys, 2),
            _error(lossy_values, values, 2),
            _error(_attention(self._samples, arrived), self._attention, 0),
            self._answers.quality(arrived),
        )


def _error(lossy: Tensor, exact: Tensor, over: int) -> float:
    """Rms of the difference over the rms deviation along dimension `over`."""
    varies = exact - exact.mean(dim=over, keepdim=True)
    return float((lossy - exact).pow(2).mean().sqrt() / varies.pow(2).mean().sqrt())


def _attention(samples: Samples, cache: Tensor) -> Tensor:
    """(B, layers, heads, d): what the last token's queries read from a cache."""
    keys, values = cache.float().transpose(3, 4).unbind(2)
    per_head = samples.last_queries.shape[2] // keys.shape[2]
    keys, values = (x.repeat_interleave(per_head, dim=2) for x in (keys, values))
    scores = (keys @ samples.last_queries[..., None]).squeeze(-1) / math.sqrt(keys.shape[-1])
    return (scores.softmax(-1)[..., None, :] @ values).squeeze(-2)


def draw(figures: list[Figures], path: Path) -> None:
    """Attention error and divergence of each scheme, both caches."""
    # Only for the figure.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    caches = list(dict.fromkeys(f.cache for f in figures))
    own = [f for f in figures if f.cache == caches[0]]
    figure = Figure(figsize=(10, 0.32 * len(own) + 1.4), layout="constrained")
    columns = (
        (lambda f: f.attention_error_ratio, "error of the attention's output"),
        (lambda f: f.quality.divergence_nats, "divergence of the next token, nats"),
    )
    for axes, (value_of, label) in zip(figure.subplots(1, 2, sharey=True), columns, strict=True):
        for cache, marker in zip(caches, "ox", strict=True):
            values = [value_of(f) for f in figures if f.cache == cache]
            axes.plot(values, range(len(own)), marker, label=cache)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.grid(visible=True, alpha=0.3)
    first = figure.axes[0]
    first.set_yticks(range(len(own)), [f"{f.scheme} ({f.bits_per_value:.2f})" for f in own])
    first.invert_yaxis()
    first.legend()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "codec"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
