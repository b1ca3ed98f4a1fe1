"""The demo model and prompts for engines whose sums are rounded in different orders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["float16_and_untied", "sure_prompt_of"]

# Prompts by length, as numbers that `sure_prompt_of` makes noise of. With unequal tensor degrees
# sums are rounded in another order, which turns an answer where two tokens are nearly as good.
# Among the first noise tried, for each length that whose 16 greedy tokens are ahead of the second
# best by the most: 0.7 to 1.2 in the logits; in float16 rounding moves those by hundredths.
SURE = {5: 449, 64: 35, 65: 84, 200: 324, 333: 193}


def sure_prompt_of(length: int) -> list[int]:
    """Token ids without pattern whose continuation does not hang on rounding."""
    return [3 + (SURE[length] * 7919 + place * place * 31) % 4000 for place in range(length)]


def float16_and_untied(model: Path, folder: Path) -> Path:
    """The same model in float16, with an output matrix of its own.

    SGLang's Llama looks for tied embeddings on the last pipeline stage, where they are not.
    """
    config = json.loads((model / "config.json").read_text())
    config |= {"tie_word_embeddings": False, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
