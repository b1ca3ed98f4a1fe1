"""What the engine refuses before SGLang is imported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.errors import EngineFailedError
from thunderserve.core.plan import Phase
from thunderserve.engine.sglang.engine import SglangEngine
from thunderserve.engine.sglang.options import SglangOptions

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "kv_lora_rank": 64,
}


@pytest.mark.parametrize("phase", [Phase.PREFILL, Phase.DECODE])
async def test_engine_is_refused_by_name_when_the_model_has_latent_attention(
    tmp_path: Path, phase: Phase
) -> None:
    """In one line, before SGLang spends half a minute on its start."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    engine = SglangEngine(SglangOptions(tmp_path))
    try:
        with pytest.raises(EngineFailedError, match=r"\(MLA\), so it cannot serve in phase"):
            await engine.start(phase)
    finally:
        await engine.stop()
