"""Plans that cannot be served cannot be built."""

from dataclasses import replace

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Route, Stage


def group(group_id: str, phase: Phase, *gpus: str) -> Group:
    stage = Stage(8, tuple(Gpu(gpu, "A40") for gpu in gpus))
    return Group(group_id, phase, len(gpus), 1, (stage,))


PREFILL = group("p", Phase.PREFILL, "n0/0", "n0/1")
DECODE = group("d", Phase.DECODE, "n1/0")
BOTH = group("c", Phase.COLOCATED, "n2/0")
PLAN = Plan(
    3,
    "thunderserve",
    0,
    "demo",
    (PREFILL, DECODE, BOTH),
    (Route("p", "d", 0.75), Route("c", "c", 0.25)),
)


@pytest.mark.parametrize("gpu_id", ["", "n0", "/0", "n0/", "n0/x", "n0/-1"])
def test_gpu_is_refused_when_its_id_is_not_node_and_index(gpu_id: str) -> None:
    with pytest.raises(InvalidArgumentError, match="node/index"):
        Gpu(gpu_id, "A40")


def test_gpu_knows_its_node_when_the_node_s_name_has_slashes() -> None:
    assert Gpu("rack/3/7", "A40").node == "rack/3"


def test_stage_is_refused_without_layers_or_gpus() -> None:
    with pytest.raises(InvalidArgumentError, match="holds 0 layers"):
        Stage(0, (Gpu("n0/0", "A40"),))
    with pytest.raises(InvalidArgumentError, match="without GPUs"):
        Stage(1, ())


def test_group_is_refused_when_its_degrees_and_stages_disagree() -> None:
    with pytest.raises(InvalidArgumentError, match="pp is 2, but it has 1"):
        replace(PREFILL, pp=2)
    with pytest.raises(InvalidArgumentError, match="tp is 1, but a stage has 2"):
        replace(PREFILL, tp=1)
    with pytest.raises(InvalidArgumentError, match="without an id"):
        replace(PREFILL, id="")


def test_group_lists_gpus_and_layers_over_its_stages() -> None:
    stages = (Stage(5, (Gpu("n0/0", "A40"),)), Stage(3, (Gpu("n0/1", "A40"),)))
    both = Group("g", Phase.DECODE, 1, 2, stages)
    assert [gpu.id for gpu in both.gpus] == ["n0/0", "n0/1"]
    assert both.layers == 8


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_route_is_refused_when_its_weight_is_no_share(weight: float) -> None:
    with pytest.raises(InvalidArgumentError, match="not in"):
        Route("p", "d", weight)


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ((Route("p", "x", 1.0),), "no group x"),
        ((Route("d", "p", 1.0),), "joins DECODE to PREFILL"),
        ((Route("p", "p", 1.0),), "joins PREFILL to PREFILL"),
        ((Route("c", "d", 1.0),), "joins COLOCATED to DECODE"),
        ((Route("p", "d", 0.5),), "sum to 0.5"),
    ],
)
def test_plan_is_refused_when_its_routes_cannot_be_followed(
    routes: tuple[Route, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        replace(PLAN, routes=routes)


def test_plan_is_refused_when_a_group_or_gpu_is_there_twice_or_its_epoch_is_negative() -> None:
    with pytest.raises(InvalidArgumentError, match="group p appears twice"):
        replace(PLAN, groups=(PREFILL, PREFILL))
    with pytest.raises(InvalidArgumentError, match="n0/1 is in two places"):
        replace(PLAN, groups=(PREFILL, group("q", Phase.DECODE, "n0/1")))
    with pytest.raises(InvalidArgumentError, match="epoch -1"):
        replace(PLAN, epoch=-1)


def test_plan_without_routes_is_legal() -> None:
    assert replace(PLAN, routes=()).routes == ()


def test_with_phase_changes_one_group_and_drops_the_routes() -> None:
    flipped = PLAN.with_phase("d", Phase.PREFILL)
    assert [each.phase for each in flipped.groups] == [
        Phase.PREFILL,
        Phase.PREFILL,
        Phase.COLOCATED,
    ]
    assert flipped.routes == ()
    assert PLAN.group("d") == DECODE
    assert PLAN.group("nobody") is None
