"""Wrong configurations are refused in one line that names the value."""

from __future__ import annotations

from typing import Any

import pytest

from thunderserve.core.errors import ConfigError
from thunderserve.core.plan import Gpu, Phase
from thunderserve.decode.config import DecodeConfig
from thunderserve.engine.worker.config import parse_gpus
from thunderserve.prefill.__main__ import main as prefill_main
from thunderserve.prefill.config import PrefillConfig
from thunderserve.runtime.config import build_config

GOOD: dict[str, Any] = {
    "address": "127.0.0.1:7000",
    "group_id": "g0",
    "node_id": "n0",
    "gpus": "n0/0:A40,n0/1:A40",
    "tp": "2",
    "model_name": "m",
    "model_path": "models/m",
    "kvlink_local_address": "unix:/run/k",
    "kvlink_engine_socket": "/run/e",
    "kvlink_advertised_address": "127.0.0.1:7400",
    "control_addresses": "127.0.0.1:7100,127.0.0.1:7101",
}


def test_config_starts_in_its_services_phase() -> None:
    assert build_config(PrefillConfig, GOOD).phase is Phase.PREFILL
    config = build_config(DecodeConfig, GOOD)
    assert config.phase is Phase.DECODE
    assert config.control_addresses == ("127.0.0.1:7100", "127.0.0.1:7101")
    assert parse_gpus(config.gpus) == (Gpu("n0/0", "A40"), Gpu("n0/1", "A40"))


def test_config_needs_no_sidecar_when_colocated() -> None:
    values = {k: v for k, v in GOOD.items() if not k.startswith("kvlink")}
    assert build_config(DecodeConfig, values | {"phase": "COLOCATED"}).phase is Phase.COLOCATED
    with pytest.raises(ConfigError, match="kvlink_local_address is empty; phase DECODE needs"):
        build_config(DecodeConfig, values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpus": "n0/0:A40"}, "gpus names 1; tp 2 times pp 1 needs 2"),
        ({"gpus": "n0/0:A40,n1/1:A40"}, "gpus names n1/1, which is not on node n0"),
        ({"gpus": "n0/0,n0/1:A40"}, "'n0/0'; it must be node/index:type"),
        ({"gpus": "A40,n0/1:A40"}, "gpus has 'A40': GPU id 'A40' is not of the form"),
        ({"tp": "0"}, "tp is 0; it must be >= 1"),
        ({"max_total_tokens": "-1"}, "max_total_tokens is -1; it must be >= 0"),
        ({"drain_timeout_s": "nan"}, "drain_timeout_s is nan"),
        ({"emulated_kv_ratio": "0"}, r"emulated_kv_ratio is 0.0; it must be in \(0, 1\]"),
        ({"engine": "vllm"}, "engine is 'vllm'; choose one of sglang, emulated"),
        ({"device": "tpu"}, "device is 'tpu'; choose one of cpu, cuda"),
        ({"phase": "BOTH"}, "phase is 'BOTH'; choose one of PREFILL, DECODE, COLOCATED"),
        ({"group_id": ""}, "group_id is empty"),
        ({"grup_id": "g1"}, "unknown configuration key 'grup_id'; did you mean 'group_id'"),
    ],
)
def test_config_refuses_wrong_value(change: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config(PrefillConfig, GOOD | change)


def test_worker_exits_2_with_one_line_when_model_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = GOOD | {"engine": "emulated", "model_path": "/nowhere"}
    arguments = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    assert prefill_main([*arguments, "--log-level", "warning"]) == 2
    assert capsys.readouterr().err == (
        "thunderserve prefill: model_path is /nowhere; cannot read its config.json: "
        "No such file or directory\n"
    )
