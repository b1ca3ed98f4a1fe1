"""A folder that says of a model what serving needs: its shape, and a tokenizer."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from thunderserve.demo_model import model_path

if TYPE_CHECKING:
    from pathlib import Path

    from thunderserve.core.model import ModelSpec

__all__ = ["write_model_folder"]

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def write_model_folder(folder: Path, spec: ModelSpec, context_tokens: int) -> Path:
    """Write a model's shape with the demo model's tokenizer and vocabulary; no weights.

    Emulated engines draw their tokens from that vocabulary, so that answers can be read as text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    demo = json.loads((model_path() / "config.json").read_text(encoding="utf-8"))
    config = {
        "model_type": "llama",
        "num_hidden_layers": spec.layers,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": context_tokens,
        "torch_dtype": "float16",
        "vocab_size": demo["vocab_size"],
        "eos_token_id": demo["eos_token_id"],
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in _TOKENIZER:
        shutil.copy(model_path() / name, folder / name)
    return folder
