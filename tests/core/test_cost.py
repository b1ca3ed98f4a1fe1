"""The roofline: what binds, what grows, what fits."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, Efficiency, Replica, StageHardware
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset

PCIE = Link(32e9, 1e-5)
NET = Link(5e9, 1e-4)
LLAMA = CostModel(model_preset("llama-30b"))
PERFECT = Efficiency(1.0, 1.0, 1.0, 1.0)


def stage(kind: str, tp: int, layers: int = 60, next_link: Link | None = None) -> StageHardware:
    gpu = catalogue("paper_table1").get(kind)
    return StageHardware(layers, (gpu,) * tp, PCIE, next_link)


def two_stages(kind: str) -> Replica:
    return (stage(kind, 1, 30, NET), stage(kind, 1, 30))


def test_prefill_is_bound_by_arithmetic_when_the_prompt_is_long() -> None:
    """Two FLOP per weight and token, and the attention's quadratic part, at the stated rate."""
    cost = CostModel(model_preset("llama-30b"), PERFECT)
    lone = stage("A100", 1)
    model = cost.model
    flops = 60 * (2 * model.layer_parameters * 2000 + 2 * 6656 * 2000**2)
    assert cost.stage_prefill_s(lone, 2000) == pytest.approx(flops / 312e12)


def test_prefill_is_bound_by_the_weights_when_the_prompt_is_short() -> None:
    cost = CostModel(model_preset("llama-30b"), PERFECT)
    weights = 60 * cost.model.layer_parameters * 2
    assert cost.stage_prefill_s(stage("A100", 1), 1) == pytest.approx(weights / 2e12)


def test_decode_reads_the_weights_once_and_every_cache() -> None:
    cost = CostModel(model_preset("llama-30b"), PERFECT)
    weights = 60 * cost.model.layer_parameters * 2
    caches = 8 * 1000 * cost.model.kv_bytes_per_token
    expected = (weights + caches) / 1008e9
    assert cost.stage_decode_s(stage("3090Ti", 1), 8, 1000) == pytest.approx(expected)


def test_tensor_parallelism_pays_two_all_reduces_per_layer() -> None:
    """A ring of two moves each payload once; each costs two hops of latency."""
    cost = CostModel(model_preset("llama-30b"), PERFECT)
    alone = cost.stage_prefill_s(stage("A40", 1), 1000)
    payload = 1000 * 6656 * 2
    all_reduces = 2 * 60 * (payload / 32e9 + 2 * 1e-5)
    assert cost.stage_prefill_s(stage("A40", 2), 1000) == pytest.approx(alone / 2 + all_reduces)


def test_the_slowest_gpu_sets_the_pace_of_a_stage() -> None:
    types = catalogue("paper_table1")
    mixed = StageHardware(60, (types.get("A40"), types.get("3090Ti")), PCIE)
    assert mixed.flops_per_s == 2 * 40e12
    assert mixed.memory_bytes_per_s == 2 * 696e9
    assert mixed.memory_bytes == 48e9


def test_pipeline_adds_latency_but_shortens_the_period() -> None:
    pipeline, lone = two_stages("A6000"), (stage("A6000", 1),)
    assert LLAMA.prefill_latency_s(pipeline, 1000) > LLAMA.prefill_latency_s(lone, 1000)
    assert LLAMA.prefill_period_s(pipeline, 1000) == pytest.approx(
        LLAMA.prefill_period_s(lone, 1000) / 2
    )


def test_decode_step_is_set_by_the_slowest_stage_when_every_stage_is_busy() -> None:
    uneven: Replica = (stage("A6000", 1, 50, NET), stage("A6000", 1, 10))
    slow = LLAMA.stage_decode_s(uneven[0], 4, 1000)
    assert LLAMA.decode_step_s(uneven, 8, 1000) == pytest.approx(2 * slow)


def test_weights_count_the_embedding_at_the_first_stage_and_the_head_at_the_last() -> None:
    model = LLAMA.model
    pipeline = two_stages("A6000")
    each = (30 * model.layer_parameters + model.embedding_parameters) * 2
    assert [LLAMA.stage_weight_bytes(pipeline, i) for i in (0, 1)] == [each, each]
    lone = LLAMA.stage_weight_bytes((stage("A100", 1),), 0)
    assert lone == model.weight_bytes
    tied = CostModel(replace(model, tied_embeddings=True))
    assert tied.stage_weight_bytes((stage("A100", 1),), 0) == tied.model.weight_bytes


def test_max_batch_is_zero_when_the_weights_do_not_fit() -> None:
    assert LLAMA.max_batch((stage("A40", 1),), 1000) == 0
    assert LLAMA.max_batch((stage("A40", 2),), 1330) == 10


def test_caches_are_copied_when_there_are_more_gpus_than_kv_heads() -> None:
    grouped = CostModel(replace(model_preset("llama-3.1-8b"), kv_heads=2))
    narrow = (replace(stage("A40", 2), layers=32),)
    wide = (replace(stage("A40", 4), layers=32),)
    room = [4 * 48e9 * 0.9 - grouped.model.weight_bytes, 2 * grouped.model.kv_bytes_per_token]
    assert grouped.kv_capacity_tokens(wide) == pytest.approx(room[0] / room[1])
    assert grouped.kv_capacity_tokens(narrow) > 0


def test_one_request_takes_0_37_s_over_40_gbit_when_nothing_is_compressed() -> None:
    cost = CostModel(model_preset("llama-30b"), PERFECT)
    raw = 1155 * cost.model.kv_bytes_per_token
    assert cost.transfer_s(raw, Link(5e9)) == pytest.approx(0.37, abs=0.005)


@given(tokens=st.integers(1, 8000), batch=st.integers(1, 64), tp=st.sampled_from([1, 2, 4]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_more_work_never_takes_less_time(tokens: int, batch: int, tp: int) -> None:
    replica = (stage("A40", tp, 30, NET), stage("A40", tp, 30))
    assert LLAMA.prefill_latency_s(replica, tokens + 1) >= LLAMA.prefill_latency_s(replica, tokens)
    step_s = LLAMA.decode_step_s(replica, batch, tokens)
    assert LLAMA.decode_step_s(replica, batch + 1, tokens) >= step_s
    assert LLAMA.decode_step_s(replica, batch, tokens + 1) >= step_s


@pytest.mark.parametrize("name", ["flops_ratio", "memory_ratio", "link_ratio", "memory_use_ratio"])
def test_efficiency_is_refused_when_outside_zero_to_one(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name} is 1.1"):
        Efficiency(**{name: 1.1})


def test_stage_is_refused_without_gpus_or_layers() -> None:
    with pytest.raises(InvalidArgumentError, match="gpus is 0"):
        StageHardware(1, (), PCIE)
    with pytest.raises(InvalidArgumentError, match="layers is 0"):
        stage("A40", 1, 0)
