"""Which groups can change their phase without loading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.problem import EngineLimits

__all__ = ["can_flip", "flippable_share"]


def can_flip(phase: Phase, pp: int, engine: EngineLimits) -> bool:
    """A group that does one half of the work, in few enough stages, can do the other half."""
    return phase is not Phase.COLOCATED and pp <= engine.flip_max_pp


def flippable_share(groups: Iterable[tuple[Phase, Design, int]], engine: EngineLimits) -> float:
    """The share of GPUs in groups that can flip; each counts as often as it says."""
    able = total = 0
    for phase, design, count in groups:
        gpus = count * sum(len(stage.types) for stage in design.stages)
        total += gpus
        able += gpus * can_flip(phase, design.pp, engine)
    return able / total if total else 1.0
