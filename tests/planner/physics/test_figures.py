"""What one group and one route can do: transfers that prefill hides, and shares in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.physics.figures import GroupFigures, Transfer
from thunderserve.control.planner.physics.passes import prompt_times
from thunderserve.control.planner.physics.sample import Sample
from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, StageHardware
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.workload import Workload

COST = CostModel(model_preset("llama-30b"))
RATES = (
    COST.stage_rates(StageHardware(60, (catalogue("paper_table1").get("A40"),) * 2, Link(32e9))),
)


def sent_s(times: list[float], tokens: list[float], s_per_token: float) -> float:
    """When the last chunk has arrived, each leaving when it is computed and the link is free."""
    free_s = 0.0
    for at_s, count in zip(times, tokens, strict=True):
        free_s = max(free_s, at_s) + s_per_token * count
    return free_s


@given(st.integers(1, 9000), st.sampled_from([256, 1024, 4096]), st.floats(1e-6, 1e-2))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_exposed_transfer_is_what_chunk_by_chunk_leaves_over(
    prompt: int, chunk: int, s_per_token: float
) -> None:
    prompts = np.array([float(prompt)])
    edges = [*range(chunk, prompt, chunk), prompt]
    ends = [float(prompt_times(RATES, np.array([float(e)]), chunk).latency_s[0]) for e in edges]
    tokens = np.diff([0, *edges]).tolist()
    times = prompt_times(RATES, prompts, chunk)
    expected = sent_s(ends, tokens, s_per_token) - ends[-1]
    exposed = Transfer(s_per_token, 0.001).exposed_s(prompts, times)[0]
    assert exposed == pytest.approx(0.001 + expected, rel=1e-6)


def test_a_whole_prompt_in_one_chunk_hides_nothing() -> None:
    prompts = np.array([500.0])
    transfer = Transfer(1e-3, 1e-4)
    exposed = transfer.exposed_s(prompts, prompt_times(RATES, prompts, 2048))
    assert exposed[0] == pytest.approx(transfer.seconds(500))


def test_finer_chunks_expose_less_when_computing_is_slower_than_sending() -> None:
    prompts, transfer = np.array([6000.0]), Transfer(1e-5)
    exposed = [
        transfer.exposed_s(prompts, prompt_times(RATES, prompts, size))[0]
        for size in (512, 2048, 8192)
    ]
    assert exposed == sorted(exposed)
    assert exposed[0] < 0.1 * exposed[-1]


def test_a_group_that_holds_nothing_can_do_nothing() -> None:
    sample = Sample.of(Workload("w", 1.0, ((10, 10),)))
    for phase in Phase:
        empty = GroupFigures(phase, sample)
        assert empty.capacity_rps == 0.0
        assert empty.idle_s == float("inf")
