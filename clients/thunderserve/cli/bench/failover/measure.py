"""All parts of `bench failover`, one after the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import uvloop

from thunderserve.cli.bench.failover.flips import FLIP_KEYS, flip_figures
from thunderserve.cli.bench.failover.node_loss import NODE_LOST_KEYS, node_lost_figures
from thunderserve.cli.bench.failover.outage import (
    ETCD_KEYS,
    SPLIT_BRAIN_KEYS,
    etcd_figures,
    split_brain_figures,
)
from thunderserve.cli.bench.failover.setting import Setting
from thunderserve.cli.bench.failover.shift import SHIFT_KEYS, shift_figures
from thunderserve.cli.bench.failover.steady import STEADY_KEYS, steady_figures
from thunderserve.cli.bench.machine import describe_machine
from thunderserve.cli.bench.measure import Step, ended_by_sigterm, run_steps
from thunderserve.cli.emulated.planned import problem_and_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.cli.bench.failover.command import Part
    from thunderserve.cli.bench.figures import Figures
    from thunderserve.cli.emulated.options import EmulatedOptions

__all__ = ["measure"]


def measure(parts: Sequence[Part], options: EmulatedOptions, seed: int) -> Figures:
    """Measure `parts` on fleets of one plan; nothing is left, whether it ends well or not."""
    logging.getLogger("thunderserve").setLevel(logging.ERROR)  # what breaks is broken on purpose
    setting = Setting(options, *problem_and_plan(options), seed=seed)
    steps = _steps(setting)
    with ended_by_sigterm():
        figures = run_steps([steps[part] for part in parts])
    figures.add(describe_machine())
    return figures


def _steps(setting: Setting) -> dict[str, Step]:
    """By part."""
    return {
        "node-loss": Step(
            "a host is lost", NODE_LOST_KEYS, lambda: uvloop.run(node_lost_figures(setting))
        ),
        "flip": Step("a group flips", FLIP_KEYS, lambda: uvloop.run(flip_figures(setting))),
        "etcd": Step("etcd is away", ETCD_KEYS, lambda: uvloop.run(etcd_figures(setting))),
        "split-brain": Step(
            "a leader sleeps", SPLIT_BRAIN_KEYS, lambda: uvloop.run(split_brain_figures(setting))
        ),
        "shift": Step(
            "the workload shifts", SHIFT_KEYS, lambda: uvloop.run(shift_figures(setting))
        ),
        "steady": Step("an hour of constant load", STEADY_KEYS, lambda: steady_figures(setting)),
    }
