"""The model of the demo: a 7-million-parameter Llama trained on the Python standard library.

`models/training/train.py` makes it; `training.json` beside the weights records how.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL_NAME", "model_path"]

MODEL_NAME = "thunder-demo-7m"


def model_path() -> Path:
    """The folder with `config.json`, `model.safetensors` and the tokenizer."""
    return Path(__file__).parent
