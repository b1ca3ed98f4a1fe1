"""A trace's workload has its rate, its lengths and their dependence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.draws import Draws
from thunderserve.core.trace import Trace, TracedRequest, sample_trace
from thunderserve.core.trace_workload import thin_pairs, workload_of
from thunderserve.core.workload import POISSON, Workload, workload_preset

Pairs = list[tuple[float, float]]


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 900)), min_size=20, max_size=300))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_thin_pairs_keeps_the_means(drawn: list[tuple[int, int]]) -> None:
    """Exactly, when the parts are equal."""
    pairs = [(float(p), float(o)) for p, o in drawn[: len(drawn) // 20 * 20]]

    thinned = thin_pairs(pairs, 20)

    assert len(thinned) == 20
    for column in (0, 1):
        mean = sum(pair[column] for pair in pairs) / len(pairs)
        assert abs(sum(pair[column] for pair in thinned) / 20 - mean) < 1e-6 * mean


def test_thin_pairs_keeps_all_when_they_are_few() -> None:
    assert thin_pairs([(3.0, 1.0), (1.0, 2.0)], 10) == ((3.0, 1.0), (1.0, 2.0))


def test_thin_pairs_keeps_what_answers_have_to_do_with_prompts() -> None:
    """The longer the prompt the longer, or the shorter, the answer; or somewhat, or not."""
    draws = Draws(1)
    longer = [(1 + 1000 * x, 1 + 100 * x) for x in (draws.uniform() for _ in range(5000))]
    shorter = [(prompt, 101 - output) for prompt, output in longer]
    neither = [(prompt, 1 + 100 * draws.uniform()) for prompt, _ in longer]
    noisy = [(prompt, output + 100 * draws.uniform()) for prompt, output in longer]

    assert dependence(thin_pairs(noisy, 100)) == pytest.approx(
        dependence(tuple(sorted(noisy))), abs=0.05
    )
    assert dependence(thin_pairs(longer, 100)) > 0.99
    assert dependence(thin_pairs(shorter, 100)) < -0.99
    assert abs(dependence(thin_pairs(neither, 100))) < 0.1


def dependence(pairs: tuple[tuple[float, float], ...]) -> float:
    """Rank correlation of pairs that are sorted by prompt and have no equal answers."""
    ranks = {output: rank for rank, output in enumerate(sorted(o for _, o in pairs))}
    count = len(pairs)
    squares = sum((place - ranks[output]) ** 2 for place, (_, output) in enumerate(pairs))
    return 1 - 6 * squares / (count * (count**2 - 1))


def test_workload_of_a_trace_has_its_name_rate_and_lengths() -> None:
    trace = Trace("mine", (TracedRequest(0.0, 100, 10), TracedRequest(2.0, 300, 30)))

    workload = workload_of(trace)

    assert workload == Workload("mine", 0.5, ((100.0, 10.0), (300.0, 30.0)))


def test_workload_of_a_trace_is_poisson_when_bursts_are_not_wanted() -> None:
    trace = sample_trace(workload_preset("azure-conv"), requests=10_000)

    assert len(workload_of(trace).arrivals.levels) > 1
    assert workload_of(trace, bursts=False).arrivals is POISSON
