"""Which flips are allowed, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_fakes import MODEL, EqualWeightsPlanner, make_worker

from thunderserve.control.changes import FlipRules, allowed_flip, check_floor, flips_between
from thunderserve.control.inventory import Inventory, inventory_of
from thunderserve.control.standing import Intent, Standing
from thunderserve.core.errors import NotFoundError, PreconditionError
from thunderserve.core.fleet import Heartbeat, PlanView
from thunderserve.core.plan import Phase, Plan

PREFILL, DECODE, COLOCATED = Phase.PREFILL, Phase.DECODE, Phase.COLOCATED
PAIR = {"a": PREFILL, "b": DECODE}
THREE = {**PAIR, "c": DECODE}


def fleet(
    phases: dict[str, Phase], drained: frozenset[str] = frozenset()
) -> tuple[Inventory, Standing]:
    workers = [make_worker(group_id) for group_id in phases]
    inventory = inventory_of((w, Heartbeat(phase=phases[w.group_id])) for w in workers)
    groups = tuple(EqualWeightsPlanner().group_of(w, phases[w.group_id]) for w in workers)
    view = PlanView(Plan(1, "s", 0, MODEL, groups, ()), tuple(workers))
    return inventory, Standing(view, Intent(drained=drained))


def rules(floor_ratio: float, **worth: float) -> FlipRules:
    """Groups are worth what is said, 1 where nothing is."""
    return FlipRules(
        floor_ratio,
        lambda workers, *_: sum(worth.get(worker.group_id, 1.0) for worker in workers),
        lambda _: 32.0,
    )


@pytest.mark.parametrize(
    ("phases", "group_id", "to_phase"),
    [
        ({"a": PREFILL, "b": DECODE, "c": DECODE}, "c", PREFILL),
        ({"a": PREFILL, "b": PREFILL}, "b", DECODE),
        ({"a": PREFILL, "b": DECODE, "c": COLOCATED}, "a", DECODE),
    ],
)
def test_flip_is_allowed_when_somebody_can_serve_after_it(
    phases: dict[str, Phase], group_id: str, to_phase: Phase
) -> None:
    """A pair or a colocated group remains, or comes about."""
    assert allowed_flip(*fleet(phases), group_id, to_phase).to_phase is to_phase


@pytest.mark.parametrize(
    ("phases", "group_id", "to_phase"),
    [
        ({"a": PREFILL, "b": DECODE}, "a", DECODE),
        ({"a": PREFILL, "b": DECODE}, "b", PREFILL),
        ({"a": PREFILL}, "a", DECODE),
    ],
)
def test_flip_is_refused_when_it_takes_the_last_of_its_phase(
    phases: dict[str, Phase], group_id: str, to_phase: Phase
) -> None:
    """The message names group and phase."""
    with pytest.raises(PreconditionError, match=f"{group_id} is the last {phases[group_id]}"):
        allowed_flip(*fleet(phases), group_id, to_phase)


def test_flip_is_refused_when_the_others_are_drained_or_lost() -> None:
    """A group that serves nobody cannot stand in."""
    inventory, standing = fleet(THREE, frozenset("c"))
    with pytest.raises(PreconditionError, match="last"):
        allowed_flip(inventory, standing, "b", PREFILL)
    inventory, standing = fleet(THREE)
    without = replace(inventory, workers=inventory.workers[:2])
    with pytest.raises(PreconditionError, match="last"):
        allowed_flip(without, standing, "b", PREFILL)
    with pytest.raises(PreconditionError, match="lost"):
        allowed_flip(without, standing, "c", PREFILL)


def test_flip_is_allowed_when_the_group_is_drained() -> None:
    """Nobody misses it."""
    allowed_flip(*fleet(PAIR, frozenset("b")), "b", PREFILL)


def test_flip_is_refused_when_it_makes_no_sense() -> None:
    """Unknown group, same phase, or an engine that cannot."""
    inventory, standing = fleet(THREE)
    with pytest.raises(NotFoundError):
        allowed_flip(inventory, standing, "x", DECODE)
    with pytest.raises(NotFoundError):
        allowed_flip(inventory, None, "a", DECODE)
    with pytest.raises(PreconditionError, match="already"):
        allowed_flip(inventory, standing, "a", PREFILL)
    with pytest.raises(PreconditionError, match="cannot switch"):
        allowed_flip(inventory, standing, "c", COLOCATED)


def test_flips_come_in_an_order_in_which_each_is_allowed() -> None:
    """A role swap must not leave the fleet without a prefill group on the way."""
    inventory, standing = fleet(THREE)
    wanted = standing.plan.with_phase("a", DECODE).with_phase("b", PREFILL)
    assert flips_between(inventory, standing, wanted) == (("b", PREFILL), ("a", DECODE))


def test_flips_are_refused_when_no_order_is_allowed() -> None:
    """Two groups cannot swap without a moment in which nobody serves."""
    inventory, standing = fleet(PAIR)
    wanted = standing.plan.with_phase("a", DECODE).with_phase("b", PREFILL)
    with pytest.raises(PreconditionError, match="a is the last PREFILL"):
        flips_between(inventory, standing, wanted)


def test_flips_go_first_by_those_without_which_most_is_served() -> None:
    """The order of the plan does not matter: the least of the three goes first."""
    four = {"a": PREFILL, "b": PREFILL, "c": DECODE, "d": DECODE}
    inventory, standing = fleet(four)
    plan = standing.plan.with_phase("b", DECODE).with_phase("d", PREFILL)
    ordered = flips_between(inventory, standing, plan, rules(0.5, b=2.0, d=0.5))
    assert ordered == (("d", PREFILL), ("b", DECODE))


def test_flips_are_refused_when_one_of_them_would_break_the_floor() -> None:
    """The reason says who, how much would be left, and the floor; it is known before the first."""
    four = {"a": PREFILL, "b": PREFILL, "c": DECODE, "d": DECODE}
    inventory, standing = fleet(four)
    plan = standing.plan.with_phase("b", DECODE).with_phase("d", PREFILL)
    with pytest.raises(
        PreconditionError, match=r"without group b .* 2.5 of 4.5 .* capacity_floor_ratio is 75%"
    ):
        flips_between(inventory, standing, plan, rules(0.75, b=2.0, d=0.5))
    assert check_floor(inventory, standing, "d", rules(0.75, b=2.0, d=0.5)) == 4.0


def test_flip_is_refused_with_the_seconds_of_a_restart_when_the_engine_cannot() -> None:
    """Pipeline stages are named: stock SGLang refuses to switch them."""
    inventory, standing = fleet(THREE)
    stuck = inventory.worker("c")
    assert stuck is not None
    can = replace(stuck.worker.capabilities, flippable=False, pp=2)
    worker = replace(stuck.worker, capabilities=can)
    others = tuple(each for each in inventory.workers if each != stuck)
    inventory = replace(inventory, workers=(*others, replace(stuck, worker=worker)))
    with pytest.raises(PreconditionError, match=r"with 2 pipeline stages .* about 32 s to load"):
        allowed_flip(inventory, standing, "c", PREFILL, rules(0.0))
