"""What `int4` costs on the wire: error, perplexity and greedy tokens of the demo model.

    .venv/bin/python benchmarks/kv_quality.py [-o json]

Held-out text; the KV cache of a prompt goes through the codec once, as a transfer does, and the
model goes on from it. `codec_schemes.py` compares the codec with other ways to do it. Nothing here
depends on time, so the figures are the same on any machine with this Python.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import torch
from codec_schemes import NEXT_TOKENS, PROMPT_TOKENS, SAMPLES, Trial
from schemes import schemes

from thunderserve.demo_model.reading import load, read


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    figures = measure()
    if parser.parse_args().output == "json":
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:32} {value:9.4f}")


@torch.no_grad()
def measure() -> dict[str, float]:
    """All figures of the codec; ratios are against raw16 on the same samples."""
    model = load()
    trial = Trial(model, read(model, PROMPT_TOKENS, NEXT_TOKENS, SAMPLES), None)
    figures = asdict(trial.figures("model's", schemes(model.config, PROMPT_TOKENS)[0]))
    return {name: value for name, value in figures.items() if isinstance(value, float)} | {
        "perplexity_raw16": trial.perplexity_raw16
    }


if __name__ == "__main__":
    main()
