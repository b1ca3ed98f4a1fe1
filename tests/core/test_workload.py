"""Length distributions keep the figures they are made from."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.workload import WORKLOADS, Lengths, Workload, workload_preset

# Measured on the traces: mean, p50, p90, p99.
LENGTHS = {
    "azure-code": ((2047.8, 1469, 5188, 7436), (27.9, 13, 55, 251)),
    "azure-conv": ((1154.7, 1020, 2734, 4142), (211.1, 129, 424, 601)),
}
# Mean of prompt * answer over the product of the means: 1 if neither knew of the other.
PRODUCTS = {"azure-code": 1.002, "azure-conv": 0.917}


@pytest.mark.parametrize("name", LENGTHS)
def test_preset_has_the_trace_s_lengths(name: str) -> None:
    """Within 3% at every quantile that matters, and the means within 1%."""
    requests = workload_preset(name).requests
    for column, (mean, *quantiles) in zip(zip(*requests, strict=True), LENGTHS[name], strict=True):
        lengths = Lengths(tuple(sorted(column)))
        assert lengths.mean == pytest.approx(mean, rel=0.01)
        found = [lengths.percentile(percent) for percent in (50, 90, 99)]
        assert found == pytest.approx(quantiles, rel=0.03)


@pytest.mark.parametrize("name", PRODUCTS)
def test_preset_s_answers_depend_on_prompts_as_the_trace_s_do(name: str) -> None:
    workload = workload_preset(name)
    product = sum(prompt * output for prompt, output in workload.requests) / len(workload.requests)
    independent = workload.prompt.mean * workload.output.mean
    assert product / independent == pytest.approx(PRODUCTS[name], abs=0.03)


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
