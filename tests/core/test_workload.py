"""Length distributions keep the figures they are made from."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.workload import WORKLOADS, Lengths, Workload, workload_preset


@pytest.mark.parametrize(
    ("name", "prompt", "output"),
    [
        ("azure-code", (2047.8, 1469, 7436), (27.9, 13, 251)),
        ("azure-conv", (1154.7, 1020, 4142), (211.1, 129, 601)),
    ],
)
def test_preset_has_the_trace_s_figures(
    name: str, prompt: tuple[float, ...], output: tuple[float, ...]
) -> None:
    preset = workload_preset(name)
    for lengths, (mean, p50, p99) in ((preset.prompt, prompt), (preset.output, output)):
        assert lengths.mean == pytest.approx(mean, rel=0.01)
        assert lengths.percentile(50) == pytest.approx(p50, rel=0.04)
        assert lengths.percentile(99) == pytest.approx(p99, rel=0.03)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=300))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_samples_keep_mean_and_range(samples: list[int]) -> None:
    lengths = Lengths.from_samples(samples)
    assert lengths.mean == pytest.approx(sum(samples) / len(samples), rel=0.15)
    assert min(samples) <= lengths.values[0] <= lengths.values[-1] <= max(samples)
    assert len(lengths.values) <= 40


def test_lengths_are_refused_when_empty_unordered_or_below_one_token() -> None:
    with pytest.raises(InvalidArgumentError, match="without values"):
        Lengths(())
    with pytest.raises(InvalidArgumentError, match="ascending"):
        Lengths((2.0, 1.0))
    with pytest.raises(InvalidArgumentError, match=">= 1 token"):
        Lengths.constant(0)


def test_from_points_refuses_a_mean_that_the_percentiles_exclude() -> None:
    with pytest.raises(InvalidArgumentError, match="mean 5000"):
        Lengths.from_points(mean=5000, p50=10, p99=100)


def test_from_means_is_a_constant_workload() -> None:
    means = Workload.from_means(rate_rps=2.0, prompt_tokens=100, output_tokens=0.5)
    assert (means.rate_rps, means.prompt.mean, means.output.mean) == (2.0, 100.0, 1.0)
    with pytest.raises(InvalidArgumentError, match="rate_rps is 0"):
        Workload.from_means(rate_rps=0, prompt_tokens=1, output_tokens=1)


def test_with_rate_changes_the_rate_alone() -> None:
    conv = WORKLOADS["azure-conv"]
    assert conv.with_rate(1.0).rate_rps == 1.0
    assert conv.with_rate(1.0).requests == conv.requests


def test_workload_preset_names_them_when_unknown() -> None:
    with pytest.raises(InvalidArgumentError, match="azure-code, azure-conv"):
        workload_preset("azure")
