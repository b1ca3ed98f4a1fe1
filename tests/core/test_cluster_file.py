"""A cluster is read from a mapping; what is wrong is named by its place."""

from typing import Any

import pytest
import yaml

from thunderserve.core import cluster_file
from thunderserve.core.cluster_file import cluster_from_mapping
from thunderserve.core.errors import InvalidArgumentError


def test_the_documented_example_is_read_as_it_says() -> None:
    example = (cluster_file.__doc__ or "").split("::\n")[1].split("`local_gb")[0]
    cluster = cluster_from_mapping(yaml.safe_load(example))

    assert [gpu.id for gpu in cluster.gpus][4:] == ["n1/0", "n1/1", "n1/2", "n1/3"]
    assert [gpu.type for gpu in cluster.gpus][4:] == ["A5000", "A5000", "3090Ti", "3090Ti"]
    assert cluster.node("n0").network.bytes_per_s == pytest.approx(5e9)
    assert cluster.node("n1").network.bytes_per_s == pytest.approx(1.25e9)
    assert cluster.link("n0", "n1").bytes_per_s == pytest.approx(0.625e9)
    assert cluster.link("n0", "n1").latency_s == pytest.approx(2e-3)


def test_own_gpu_types_are_used() -> None:
    mine = {"name": "Mine", "tflops": 1, "memory_gb_per_s": 2, "memory_gb": 3, "usd_per_hour": 4}
    cluster = cluster_from_mapping(
        {"gpu_types": [mine], "nodes": [{"id": "n0", "gpus": [{"type": "Mine"}]}]}
    )
    found = cluster.type_of(cluster.gpus[0])
    assert (found.tflops, found.memory_bytes_per_s, found.memory_bytes) == (1, 2e9, 3e9)
    assert cluster.usd_per_hour == 4


def test_the_profile_chooses_the_figures() -> None:
    nodes = [{"id": "n0", "gpus": [{"type": "A6000"}]}]
    by_profile = {
        profile: cluster_from_mapping({"profile": profile, "nodes": nodes}).types[0].tflops
        for profile in ("paper_table1", "tensor_dense")
    }
    assert by_profile == {"paper_table1": 38.7, "tensor_dense": 154.8}


def test_prices_replace_the_catalogue_s() -> None:
    nodes = [{"id": "n0", "gpus": [{"type": "A40", "count": 2}, {"type": "A30"}]}]
    cluster = cluster_from_mapping({"usd_per_hour": {"A40": 0.3, "A30": 0.2}, "nodes": nodes})
    assert cluster.usd_per_hour == pytest.approx(0.8)


ONE = {"id": "n0", "gpus": [{"type": "A40"}]}
MINE = {"name": "X", "tflops": 1, "memory_gb_per_s": 1, "memory_gb": 1}
COUNTED = {"nodes": [{"id": "n0", "gpus": [{"type": "A40", "count": "2"}]}]}


@pytest.mark.parametrize(
    ("mapping", "place"),
    [
        ({"nodez": []}, "nodez"),
        ({"nodes": [{"id": "n0", "gpus": [{"type": "A4O"}]}]}, "nodes[0].gpus[0]"),
        (COUNTED, "nodes[0].gpus[0].count"),
        ({"nodes": [{"id": "n0", "gpus": []}]}, "nodes[0]"),
        ({"nodes": [ONE | {"gbit_per_s": -1}]}, "nodes[0]"),
        ({"nodes": [ONE | {"gbits": 1}]}, "nodes[0].gbits"),
        ({"nodes": [ONE], "network": {"latency_ms": "1"}}, "network.latency_ms"),
        ({"nodes": [ONE], "links": [{"from": "n0"}]}, "links[0].to"),
        ({"gpu_types": [{"name": "X", "tflops": 1}]}, "gpu_types[0].memory_gb_per_s"),
        ({"gpu_types": [MINE]}, "gpu_types[0].usd_per_hour"),
        ({"gpu_types": [MINE | {"usd_per_hour": -1}]}, "gpu_types[0]"),
        ({"nodes": [ONE], "usd_per_hour": {"A40": -1}}, "usd_per_hour"),
        ({"nodes": [ONE], "usd_per_hour": {"A41": 1}}, "usd_per_hour"),
        ({"nodes": [{"id": "n0", "gpus": [{"type": "A30"}]}]}, "nodes[0].gpus[0]"),
    ],
)
def test_reading_names_the_place_of_what_is_wrong(mapping: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        cluster_from_mapping(mapping)
    assert refused.value.param == place


def test_reading_refuses_a_cluster_without_nodes() -> None:
    with pytest.raises(InvalidArgumentError, match="without nodes"):
        cluster_from_mapping({})
