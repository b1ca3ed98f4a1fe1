"""What the next plan is. No effects: values in, a value out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_fakes import MODEL, EqualWeightsPlanner, make_worker, weights

from thunderserve.control.inventory import Inventory, inventory_of
from thunderserve.control.reconciler import Rules, can_serve, reconcile, restricted
from thunderserve.control.standing import Intent, Standing
from thunderserve.core.fleet import Heartbeat, Router
from thunderserve.core.plan import Gpu, Phase, Route

PREFILL, DECODE, COLOCATED = Phase.PREFILL, Phase.DECODE, Phase.COLOCATED


def live(**phases: Phase) -> Inventory:
    return inventory_of((make_worker(i), Heartbeat(phase=phase)) for i, phase in phases.items())


def rules(expected_workers: int = 1, planner: EqualWeightsPlanner | None = None) -> Rules:
    planner = planner or EqualWeightsPlanner()
    return Rules(MODEL, expected_workers, planner.group_of, planner.routes)


def standing_for(inventory: Inventory, intent: Intent | None = None) -> Standing:
    standing = reconcile(inventory, None, intent or Intent(), rules())
    assert standing is not None
    return standing


def test_reconcile_waits_when_fewer_workers_than_expected_attached() -> None:
    """The first plan is of the whole fleet, not of whoever came first."""
    two = live(g0=PREFILL, g1=DECODE)
    assert reconcile(two, None, Intent(), rules(expected_workers=3)) is None


def test_reconcile_does_not_count_workers_when_they_say_no_phase() -> None:
    """An engine that is still starting cannot be routed to."""
    starting = inventory_of([(make_worker("g0"), Heartbeat(phase=None))])
    assert reconcile(starting, None, Intent(), rules()) is None


def test_reconcile_keeps_declared_phases_when_it_makes_the_first_plan() -> None:
    """Groups are the workers; routes are the solver's; the epoch is the first."""
    standing = standing_for(live(g0=PREFILL, g1=DECODE, g2=DECODE))
    assert standing.plan.epoch == 1
    assert [(g.id, g.phase) for g in standing.plan.groups] == [
        ("g0", PREFILL),
        ("g1", DECODE),
        ("g2", DECODE),
    ]
    assert weights(standing.plan) == {("g0", "g1"): 0.5, ("g0", "g2"): 0.5}
    assert "first plan" in standing.plan.reason


def test_reconcile_is_none_and_solves_nothing_when_nothing_changed() -> None:
    """A tick costs no linear program."""
    planner = EqualWeightsPlanner()
    inventory = live(g0=PREFILL, g1=DECODE)
    standing = reconcile(inventory, None, Intent(), rules(planner=planner))
    assert reconcile(inventory, standing, Intent(), rules(planner=planner)) is None
    assert planner.solved == 1


def test_reconcile_routes_around_a_worker_when_it_is_lost() -> None:
    """The group stays in the plan, so that its return is a return."""
    before = standing_for(live(g0=PREFILL, g1=DECODE, g2=DECODE))
    after = reconcile(live(g0=PREFILL, g1=DECODE), before, Intent(), rules())
    assert after is not None
    assert after.plan.epoch == before.plan.epoch + 1
    assert after.plan.group("g2") is not None
    assert weights(after.plan) == {("g0", "g1"): 1.0}
    assert after.plan.reason == "g2 is lost"


def test_reconcile_restores_routes_when_a_lost_worker_returns() -> None:
    """The same fleet has the same routes."""
    whole = live(g0=PREFILL, g1=DECODE, g2=DECODE)
    before = standing_for(whole)
    cut = reconcile(live(g0=PREFILL, g1=DECODE), before, Intent(), rules())
    again = reconcile(whole, cut, Intent(), rules())
    assert again is not None
    assert again.plan.routes == before.plan.routes


def test_reconcile_publishes_no_routes_when_nobody_can_serve() -> None:
    """A plan without routes is the truth: routers answer 503."""
    before = standing_for(live(g0=PREFILL, g1=DECODE))
    after = reconcile(live(g0=PREFILL), before, Intent(), rules())
    assert after is not None
    assert after.plan.routes == ()


def test_reconcile_adds_a_group_when_a_new_worker_attaches() -> None:
    """It joins in the phase that it declares."""
    before = standing_for(live(g0=PREFILL, g1=DECODE))
    after = reconcile(live(g0=PREFILL, g1=DECODE, g2=PREFILL), before, Intent(), rules())
    assert after is not None
    assert set(weights(after.plan)) == {("g0", "g1"), ("g2", "g1")}


def test_reconcile_follows_the_worker_when_it_is_in_another_phase() -> None:
    """What the engine does is the truth, whatever the plan said."""
    before = standing_for(live(g0=PREFILL, g1=DECODE, g2=DECODE))
    after = reconcile(live(g0=PREFILL, g1=DECODE, g2=PREFILL), before, Intent(), rules())
    assert after is not None
    assert set(weights(after.plan)) == {("g0", "g1"), ("g2", "g1")}


def test_reconcile_raises_the_epoch_when_a_worker_restarted_in_between() -> None:
    """Nobody was missed, but the address may be another."""
    before = standing_for(live(g0=PREFILL, g1=DECODE))
    beats = [Heartbeat(phase=PREFILL), Heartbeat(phase=DECODE)]
    workers = [make_worker("g0"), make_worker("g1", instance_id="i1")]
    after = reconcile(inventory_of(zip(workers, beats, strict=True)), before, Intent(), rules())
    assert after is not None
    assert after.view.workers == tuple(workers)
    assert after.plan.reason == "g1 has restarted"


def test_reconcile_leaves_groups_out_of_routes_when_drained_or_flipping() -> None:
    """They keep their place and, while flipping, the phase that they leave."""
    inventory = live(g0=PREFILL, g1=DECODE, g2=DECODE, g3=DECODE)
    before = standing_for(inventory)
    intent = Intent(drained=frozenset({"g1"}), flipping="g2")
    halfway = live(g0=PREFILL, g1=DECODE, g2=PREFILL, g3=DECODE)
    after = reconcile(halfway, before, intent, rules())
    assert after is not None
    assert weights(after.plan) == {("g0", "g3"): 1.0}
    assert [group.phase for group in after.plan.groups] == [PREFILL, DECODE, DECODE, DECODE]
    ended = reconcile(halfway, after, replace(intent, flipping=""), rules())
    assert ended is not None
    assert set(weights(ended.plan)) == {("g0", "g3"), ("g2", "g3")}


def test_reconcile_counts_awaited_workers_as_alive_when_not_attached_yet() -> None:
    """A control plane that has just started takes nobody for lost."""
    before = standing_for(live(g0=PREFILL, g1=DECODE))
    assert reconcile(Inventory(), before, Intent(), rules(), awaited={"g0", "g1"}) is None
    after = reconcile(Inventory(), before, Intent(), rules(), awaited={"g0"})
    assert after is not None
    assert [worker.group_id for worker in after.view.workers] == ["g0"]


def test_reconcile_goes_above_the_members_epoch_when_the_store_was_emptied() -> None:
    """Members refuse what is lower than they have seen."""
    router = (Router("r0", "i", "a"), Heartbeat(plan_epoch=41))
    workers = [(make_worker("g0"), Heartbeat(phase=COLOCATED))]
    first = reconcile(inventory_of([*workers, router]), None, Intent(), rules())
    assert first is not None
    assert first.plan.epoch == 42
    late = reconcile(
        inventory_of([*workers, router]), standing_for(inventory_of(workers)), Intent(), rules()
    )
    assert late is not None
    assert late.plan.epoch == 42


def test_reconcile_drops_a_lost_group_when_its_gpu_has_a_new_owner() -> None:
    """A GPU is in one place."""
    before = standing_for(live(g0=PREFILL, g1=DECODE))
    heir = replace(make_worker("heir"), node_id="n-g1", gpus=(Gpu("n-g1/0", "CPU"),))
    members = [(make_worker("g0"), Heartbeat(phase=PREFILL)), (heir, Heartbeat(phase=DECODE))]
    after = reconcile(inventory_of(members), before, Intent(), rules())
    assert after is not None
    assert [group.id for group in after.plan.groups] == ["g0", "heir"]


def applied_to(standing: Standing, *routes: Route) -> Intent:
    return Intent(applied=replace(standing.plan, epoch=0, routes=routes, strategy="mine"))


def test_reconcile_takes_routes_as_given_when_an_operator_applied_them() -> None:
    """No solver is asked."""
    inventory, planner = live(g0=PREFILL, g1=DECODE, g2=DECODE), EqualWeightsPlanner()
    before = standing_for(inventory)
    intent = applied_to(before, Route("g0", "g1", 0.3), Route("g0", "g2", 0.7))
    after = reconcile(inventory, before, intent, rules(planner=planner))
    assert after is not None
    assert weights(after.plan) == {("g0", "g1"): 0.3, ("g0", "g2"): 0.7}
    assert (after.plan.strategy, planner.solved) == ("mine", 0)


def test_reconcile_only_cuts_an_operators_plan_when_the_fleet_changes() -> None:
    """Lost groups lose their routes, new groups get none, and a return restores the weights."""
    whole = live(g0=PREFILL, g1=DECODE, g2=DECODE)
    before = standing_for(whole)
    intent = applied_to(before, Route("g0", "g1", 0.3), Route("g0", "g2", 0.7))
    applied = reconcile(whole, before, intent, rules())
    cut = reconcile(live(g0=PREFILL, g2=DECODE, g9=DECODE), applied, intent, rules())
    assert cut is not None
    assert weights(cut.plan) == {("g0", "g2"): 1.0}
    assert cut.plan.group("g9") is None
    again = reconcile(whole, cut, intent, rules())
    assert again is not None
    assert weights(again.plan) == {("g0", "g1"): 0.3, ("g0", "g2"): 0.7}


def test_restricted_has_no_routes_when_no_weight_is_left() -> None:
    """Weights of zero cannot be raised to one."""
    assert restricted([Route("a", "b", 0.0), Route("a", "c", 1.0)], {("a", "b")}) == ()


@pytest.mark.parametrize(
    ("phases", "serves"),
    [
        ([PREFILL, DECODE], True),
        ([COLOCATED], True),
        ([PREFILL, PREFILL], False),
        ([DECODE], False),
        ([], False),
    ],
)
def test_can_serve_needs_both_halves_or_a_whole(phases: list[Phase], *, serves: bool) -> None:
    """A request needs a prompt computed and tokens decoded."""
    assert can_serve(phases) is serves
