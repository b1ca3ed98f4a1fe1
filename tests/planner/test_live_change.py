"""What could be done about a change is weighed: nothing, routes, flips."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thunderserve.control.planner.live import route_workers
from thunderserve.control.planner.live_change import weigh_workers
from thunderserve.core.fleet import Capabilities, Worker
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Gpu, Phase, Route
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Workload

MODEL = model_preset("llama-30b")
SLO = Slo(ttft_s=3.0, tpot_s=0.15)
PROMPTS = Workload.from_means(rate_rps=6.0, prompt_tokens=2000, output_tokens=15)
ANSWERS = Workload.from_means(rate_rps=6.0, prompt_tokens=400, output_tokens=500)
FLEET = {f"g{i}": phase for i, phase in enumerate([Phase.PREFILL] * 4 + [Phase.DECODE] * 2)}


def worker(name: str, kind: str = "A40") -> Worker:
    gpus = tuple(Gpu(f"n{name}/{i}", kind) for i in range(2))
    able = Capabilities(tuple(Phase), True, 2, 1, "bfloat16", 16, 8192)  # noqa: FBT003 - flippable
    return Worker(name, f"n{name}", gpus, "i", "127.0.0.1:1", "127.0.0.1:2", MODEL.name, able)


WORKERS = [worker(name) for name in FLEET]


def routes_for(workload: Workload) -> tuple[Route, ...]:
    return route_workers(WORKERS, FLEET, model=MODEL, workload=workload, slo=SLO)


def test_weigh_finds_flips_when_answers_grow_long() -> None:
    """Prefill groups turn to decoding; each step serves at least as many as the one before."""
    weighed = weigh_workers(
        WORKERS, FLEET, routes_for(PROMPTS), model=MODEL, workload=ANSWERS, slo=SLO
    )
    assert weighed.kept_rps <= weighed.routed_rps < weighed.flipped_rps
    assert weighed.flips
    assert {phase for _, phase in weighed.flips} == {Phase.DECODE}
    assert weighed.during_rps <= weighed.routed_rps


def test_weigh_orders_flips_by_what_goes_on_serving() -> None:
    """A prefill and a decode group change places; the other way round less is served meanwhile."""
    kinds = ["A40", "3090Ti", "A6000", "A6000", "A40", "3090Ti"]
    workers = [worker(f"g{i}", kind) for i, kind in enumerate(kinds)]
    start = {f"g{i}": Phase.DECODE if i in {2, 3, 5} else Phase.PREFILL for i in range(6)}
    work = Workload.from_means(rate_rps=30, prompt_tokens=1000, output_tokens=200)

    def least_rps(order: tuple[tuple[str, Phase], ...]) -> float:
        phases, least = dict(start), float("inf")
        for group, phase in order:
            others = [each for each in workers if each.group_id != group]
            weighed = weigh_workers(others, phases, (), model=MODEL, workload=work, slo=SLO)
            least, phases[group] = min(least, weighed.routed_rps), phase
        return least

    weighed = weigh_workers(workers, start, (), model=MODEL, workload=work, slo=SLO)

    assert [group for group, _ in weighed.flips] == ["g1", "g2"]
    assert weighed.during_rps == pytest.approx(least_rps(weighed.flips))
    assert weighed.during_rps > 1.01 * least_rps(weighed.flips[::-1])


def test_weigh_finds_nothing_to_do_when_nothing_changed() -> None:
    """The routes that are there are the best between the phases that are there."""
    flipped = dict(FLEET) | {"g0": Phase.PREFILL}
    routes = routes_for(PROMPTS)
    weighed = weigh_workers(WORKERS, flipped, routes, model=MODEL, workload=PROMPTS, slo=SLO)
    assert weighed.kept_rps == pytest.approx(weighed.routed_rps)


def test_weigh_sees_what_skewed_routes_lose() -> None:
    """All requests to one pair of six groups: new routes alone win."""
    skewed = (Route("g0", "g4", 1.0),)
    weighed = weigh_workers(WORKERS, FLEET, skewed, model=MODEL, workload=PROMPTS, slo=SLO)
    assert weighed.kept_rps < 0.6 * weighed.routed_rps


def test_weigh_proposes_no_flip_that_the_engines_cannot_make() -> None:
    """Groups that cannot flip keep their phase."""
    fixed = [
        replace(each, capabilities=replace(each.capabilities, flippable=False)) for each in WORKERS
    ]
    weighed = weigh_workers(
        fixed, FLEET, routes_for(PROMPTS), model=MODEL, workload=ANSWERS, slo=SLO
    )
    assert weighed.flips == ()
    assert weighed.flipped_rps == pytest.approx(weighed.routed_rps)


def test_weigh_answers_for_a_fleet_without_workers() -> None:
    """Nobody serves, whatever is done."""
    weighed = weigh_workers([], {}, (), model=MODEL, workload=ANSWERS)
    assert (weighed.kept_rps, weighed.flipped_rps) == (0.0, 0.0)
