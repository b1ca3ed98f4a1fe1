"""Hardware that makes no sense cannot be built."""

import pytest

from thunderserve.core.errors import InvalidArgumentError, NotFoundError
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, GpuType, Link, Node
from thunderserve.core.plan import Gpu

LOCAL = Link(32e9)
PORT = Link(40 * GIGABIT_PER_S, 1e-4)
SLOW_PORT = Link(10 * GIGABIT_PER_S, 1e-4)
A40 = GpuType("A40", 149.7, 696e9, 48e9, 0.403)


def node(node_id: str, port: Link = PORT, kind: str = "A40") -> Node:
    return Node(node_id, (Gpu(f"{node_id}/0", kind), Gpu(f"{node_id}/1", kind)), LOCAL, port)


@pytest.mark.parametrize(
    "field", ["tflops", "memory_bytes_per_s", "memory_bytes", "local_bytes_per_s"]
)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_gpu_type_is_refused_when_a_figure_is_not_positive(field: str, value: float) -> None:
    figures = {"tflops": 1.0, "memory_bytes_per_s": 1.0, "memory_bytes": 1.0, field: value}
    with pytest.raises(InvalidArgumentError, match=field) as refused:
        GpuType("X", **figures)
    assert refused.value.param == field


def test_gpu_type_is_refused_when_its_price_is_negative() -> None:
    with pytest.raises(InvalidArgumentError, match="usd_per_hour is -1"):
        GpuType("X", 1.0, 1.0, 1.0, usd_per_hour=-1.0)


def test_gpu_type_is_refused_when_it_has_no_name() -> None:
    with pytest.raises(InvalidArgumentError, match="without a name"):
        GpuType("", 1.0, 1.0, 1.0)


def test_link_is_refused_when_it_carries_nothing_or_answers_before_it_is_asked() -> None:
    with pytest.raises(InvalidArgumentError, match="bytes_per_s is 0"):
        Link(0.0)
    with pytest.raises(InvalidArgumentError, match="latency_s is -1"):
        Link(1.0, -1.0)


def test_node_is_refused_when_its_gpus_are_missing_foreign_or_repeated() -> None:
    with pytest.raises(InvalidArgumentError, match="node n0 has no GPUs"):
        Node("n0", (), LOCAL, PORT)
    with pytest.raises(InvalidArgumentError, match="node n0 names GPU n1/0"):
        Node("n0", (Gpu("n1/0", "A40"),), LOCAL, PORT)
    with pytest.raises(InvalidArgumentError, match="twice"):
        Node("n0", (Gpu("n0/0", "A40"), Gpu("n0/0", "A40")), LOCAL, PORT)


def test_cluster_is_refused_when_it_is_empty_or_names_something_twice_or_unknown() -> None:
    with pytest.raises(InvalidArgumentError, match="without nodes"):
        Cluster((), (A40,))
    with pytest.raises(InvalidArgumentError, match="node n0 appears twice"):
        Cluster((node("n0"), node("n0")), (A40,))
    with pytest.raises(InvalidArgumentError, match="n0/0 is of type 'H100'"):
        Cluster((node("n0", kind="H100"),), (A40,))
    with pytest.raises(InvalidArgumentError, match="link n0 - n9"):
        Cluster((node("n0"),), (A40,), (("n0", "n9", PORT),))


def test_cluster_link_is_the_slower_port_when_nothing_was_measured() -> None:
    """Links are symmetric, local within a node, measured where a measurement exists."""
    measured = Link(1e9)
    nodes = (node("n0"), node("n1", SLOW_PORT), node("n2"))
    cluster = Cluster(nodes, (A40,), (("n2", "n0", measured),))

    assert cluster.link("n0", "n1") == cluster.link("n1", "n0") == SLOW_PORT
    assert cluster.link("n0", "n0") == LOCAL
    assert cluster.link("n0", "n2") == measured
    with pytest.raises(NotFoundError, match="'n7'"):
        cluster.link("n0", "n7")


def test_cluster_costs_the_sum_of_its_gpus() -> None:
    cluster = Cluster((node("n0"), node("n1")), (A40,))
    assert cluster.usd_per_hour == pytest.approx(4 * 0.403)
    assert len(cluster.gpus) == 4
