"""A sample keeps what matters of a workload."""

from __future__ import annotations

import numpy as np
import pytest

from thunderserve.control.planner.physics.sample import Sample
from thunderserve.core.draws import Draws
from thunderserve.core.workload import Workload


def workload(count: int) -> Workload:
    """Long prompts have short answers."""
    draws = Draws(5)
    prompts = [1 + draws.below(4000) for _ in range(count)]
    return Workload("w", 1.0, tuple((p, 1 + (4000 - p) // 20) for p in prompts))


def test_few_requests_are_the_sample() -> None:
    sample = Sample.of(Workload("w", 1.0, ((10, 1), (20, 5))))
    assert sample.prompt.tolist() == [10, 20]
    assert sample.steps.tolist() == [0, 4]
    assert sample.share.tolist() == [0.5, 0.5]


def test_many_requests_are_thinned_and_keep_means_and_correlation() -> None:
    many = workload(3000)
    sample = Sample.of(many)
    prompts, outputs = np.array(many.requests).T
    assert len(sample.prompt) <= 256
    assert sample.share.sum() == pytest.approx(1.0)
    assert sample.mean_prompt == pytest.approx(prompts.mean())
    assert sample.mean_output == pytest.approx(outputs.mean())
    product = sample.mean(sample.prompt * sample.output)
    assert product == pytest.approx((prompts * outputs).mean(), rel=0.02)


def test_context_weighs_requests_by_how_long_they_decode() -> None:
    """The request of 100 steps is met a hundred times as often as that of one step."""
    sample = Sample.of(Workload("w", 1.0, ((1000, 2), (10, 101))))
    assert sample.context == pytest.approx((1 * 1001.5 + 100 * 61) / 101)


def test_memory_set_aside_in_order_leaves_some_unused() -> None:
    sample = Sample.of(Workload("w", 1.0, ((90, 10),)))
    assert sample.slots(1000) == pytest.approx(9.5)
    assert sample.slots(100) == 1.0
    assert sample.slots(99) == 0.0
    assert sample.fits(99).tolist() == [0.0]
