"""Arrays of passes take what the cost model says of each."""

from __future__ import annotations

import numpy as np
import pytest

from thunderserve.control.planner.physics.passes import decode_steps_s, prompt_times
from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, StageHardware, StageRates, Work
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset

COST = CostModel(model_preset("llama-30b"))
GPU = catalogue("paper_table1").get("A40")
LONE = (StageHardware(60, (GPU,) * 2, Link(32e9, 1e-5)),)
PIPELINE = (
    StageHardware(30, (GPU,), Link(32e9), Link(5e9, 1e-4)),
    StageHardware(30, (GPU,), Link(32e9)),
)
PROMPTS = np.array([100.0, 1000.0, 2048.0, 5000.0])


def rates(replica: tuple[StageHardware, ...]) -> list[StageRates]:
    return [COST.stage_rates(stage) for stage in replica]


def test_a_prompt_within_a_chunk_takes_one_pass() -> None:
    times = prompt_times(rates(PIPELINE), PROMPTS, 8192)
    for prompt, latency_s, busy_s in zip(PROMPTS, times.latency_s, times.busy_s, strict=True):
        assert latency_s == pytest.approx(COST.prefill_latency_s(PIPELINE, prompt))
        assert busy_s == pytest.approx(COST.prefill_period_s(PIPELINE, prompt))
    assert times.first_chunk_s == pytest.approx(times.latency_s)
    assert times.last_tokens == pytest.approx(PROMPTS)


def test_chunks_follow_each_other_and_read_the_cache_again() -> None:
    times = prompt_times(rates(LONE), PROMPTS, 2048)
    works = [Work.of_prompt(2048), Work.of_prompt(2048, 2048), Work.of_prompt(904, 4096)]
    expected = sum(COST.stage_work_s(LONE[0], work) for work in works)
    assert times.latency_s[-1] == pytest.approx(expected)
    assert times.first_chunk_s[-1] == pytest.approx(COST.stage_work_s(LONE[0], works[0]))
    assert times.last_tokens[-1] == pytest.approx(904)


def test_finer_chunks_cost_more_on_one_stage_and_hide_a_pipeline_s_stages() -> None:
    fine, coarse = (prompt_times(rates(LONE), PROMPTS, size) for size in (256, 8192))
    assert (fine.latency_s[1:] > coarse.latency_s[1:]).all()
    fine, coarse = (prompt_times(rates(PIPELINE), PROMPTS, size) for size in (1024, 8192))
    assert fine.latency_s[-1] < 0.7 * coarse.latency_s[-1]


def test_decode_steps_are_the_cost_model_s() -> None:
    batches = np.array([1.0, 2.0, 7.0, 64.0])
    expected = [COST.decode_step_s(PIPELINE, batch, 900) for batch in batches]
    assert decode_steps_s(rates(PIPELINE), batches, 900) == pytest.approx(expected)
