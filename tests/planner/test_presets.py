"""The paper's clusters have the paper's GPUs and prices."""

from __future__ import annotations

from collections import Counter

import pytest

from thunderserve.control.planner.presets import cluster_preset
from thunderserve.core.errors import InvalidArgumentError


def test_cloud_cluster_has_eight_of_each_type() -> None:
    """8 * (0.403 + 0.483 + 0.223 + 0.307) = 11.33 USD/h at the prices of Table 1."""
    cloud = cluster_preset("paper-cloud-32")
    assert Counter(gpu.type for gpu in cloud.gpus) == dict.fromkeys(
        ("A40", "A6000", "A5000", "3090Ti"), 8
    )
    assert cloud.usd_per_hour == pytest.approx(11.33, abs=0.005)
    assert cloud.link("n0", "n7").bytes_per_s == 5e9
    assert all(len(node.gpus) == 4 for node in cloud.nodes)


def test_inhouse_cluster_costs_14_usd() -> None:
    inhouse = cluster_preset("paper-inhouse-8xa100")
    assert len(inhouse.nodes) == 1
    assert inhouse.usd_per_hour == pytest.approx(14.02, abs=0.005)


def test_profile_is_chosen_by_name() -> None:
    dense = cluster_preset("paper-cloud-32", profile="tensor_dense")
    tflops = {kind.name: kind.tflops for kind in dense.types}
    assert tflops["A6000"] == pytest.approx(154.8)


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(InvalidArgumentError, match="paper-cloud-32, paper-inhouse-8xa100"):
        cluster_preset("cloud")
