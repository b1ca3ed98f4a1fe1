"""Model shapes give the known parameter counts and KV sizes."""

import json
from pathlib import Path
from typing import Any

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.model import MODELS, ModelSpec, model_preset
from thunderserve.demo_model import model_path

LLAMA_8B = {
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-7b", 6.74),
        ("llama-30b", 32.5),
        ("llama-3.1-8b", 8.03),
        ("llama-3.3-70b", 70.6),
        ("qwen3-32b", 32.8),
        ("opt-13b", 12.85),
    ],
)
def test_preset_has_the_published_number_of_parameters(name: str, billions: float) -> None:
    assert model_preset(name).parameters / 1e9 == pytest.approx(billions, rel=0.003)


def test_kv_bytes_follow_kv_heads_not_heads() -> None:
    """LLaMA-30B, multi-head: 1.597 MB a token; Llama-3.1-8B, grouped: 131 kB."""
    assert model_preset("llama-30b").kv_bytes_per_token == 2 * 60 * 6656 * 2
    assert model_preset("llama-3.1-8b").kv_bytes_per_token == 2 * 32 * 8 * 128 * 2


def test_from_config_reads_what_the_preset_says() -> None:
    read = ModelSpec.from_config("llama-3.1-8b", LLAMA_8B)
    assert read == MODELS["llama-3.1-8b"]


def test_from_config_reads_opt() -> None:
    config: dict[str, Any] = {
        "model_type": "opt",
        "torch_dtype": "float16",
        "vocab_size": 50272,
        "hidden_size": 5120,
        "ffn_dim": 20480,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    }
    assert ModelSpec.from_config("opt-13b", config) == MODELS["opt-13b"]


def test_from_config_reads_the_demo_model() -> None:
    config = json.loads((Path(model_path()) / "config.json").read_text())
    demo = ModelSpec.from_config("demo", config)
    assert (demo.layers, demo.hidden, demo.kv_heads, demo.tied_embeddings) == (8, 256, 2, True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_key_value_heads": 5}, "kv_heads"),
        ({"torch_dtype": "int3"}, "dtype"),
        ({"kv_lora_rank": 512}, "kv_lora_rank"),
        ({"num_local_experts": 8}, "num_local_experts"),
    ],
)
def test_from_config_names_the_key_when_it_cannot_be_read(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        ModelSpec.from_config("broken", LLAMA_8B | change)
    assert refused.value.param == named


def test_model_preset_names_the_nearest_when_unknown() -> None:
    with pytest.raises(InvalidArgumentError, match="nearest is 'llama-30b'"):
        model_preset("Llama-33B")
