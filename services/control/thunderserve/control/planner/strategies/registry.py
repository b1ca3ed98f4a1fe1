"""Every strategy by its name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from thunderserve.control.planner.strategies import (
    distserve,
    helix,
    hexgen,
    melange,
    published,
    splitwise,
    thunderserve,
    vllm,
)
from thunderserve.control.planner.strategies.strategy import Strategy
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thunderserve.control.planner.problem import Problem

__all__ = ["STRATEGIES", "strategies_for", "strategy_named"]

_SPLIT = (Phase.PREFILL, Phase.DECODE)
_TOGETHER = (Phase.COLOCATED,)

_ALL = (
    Strategy(
        name="thunderserve",
        source="ThunderServe (MLSys 2025), and what this repository adds",
        departures=(),
        phases=(*_SPLIT, *_TOGETHER),
        search=thunderserve.plan_thunderserve,
    ),
    Strategy(
        name="hexgen",
        source="HexGen (ICML 2024); its public code has no scheduler",
        departures=hexgen.DEPARTURES,
        phases=_TOGETHER,
        search=hexgen.plan_hexgen,
        most_nodes=None,
    ),
    Strategy(
        name="distserve",
        source="DistServe (OSDI 2024); LLMServe/DistServe, simdistserve",
        departures=distserve.DEPARTURES,
        phases=_SPLIT,
        search=distserve.plan_distserve,
        policies=distserve.POLICIES,
        sends_raw=True,
    ),
    Strategy(
        name="vllm",
        source="vLLM (SOSP 2023); vllm-project/vllm",
        departures=vllm.DEPARTURES,
        phases=_TOGETHER,
        search=vllm.plan_vllm,
    ),
    Strategy(
        name="splitwise",
        source="Splitwise (ISCA 2024); Mutinifni/splitwise-sim",
        departures=splitwise.DEPARTURES,
        phases=(*_SPLIT, *_TOGETHER),
        search=splitwise.plan_splitwise,
        policies=splitwise.POLICIES,
        sends_raw=True,
    ),
    Strategy(
        name="helix",
        source="Helix (ASPLOS 2025); Thesys-lab/Helix-ASPLOS25",
        departures=helix.DEPARTURES,
        phases=_TOGETHER,
        search=helix.plan_helix,
        most_nodes=None,
    ),
    Strategy(
        name="melange",
        source="Mélange (2024, arXiv 2404.14527); tyler-griggs/melange-release",
        departures=melange.DEPARTURES,
        phases=_TOGETHER,
        search=melange.plan_melange,
    ),
    Strategy(
        name="published",
        source="ThunderServe (MLSys 2025), its published plans for LLaMA-30B on 32 GPUs",
        departures=published.DEPARTURES,
        phases=_SPLIT,
        search=published.plan_published,
        most_nodes=published.NODES,
    ),
)

STRATEGIES: Mapping[str, Strategy] = MappingProxyType({each.name: each for each in _ALL})
"""By name, this planner's own first."""


def strategies_for(problem: Problem) -> tuple[str, ...]:
    """Names of all that have a plan for the problem's cluster and workload."""
    return tuple(name for name in STRATEGIES if name != "published" or published.applies(problem))


def strategy_named(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        InvalidArgumentError: There is none.
    """
    if name not in STRATEGIES:
        raise InvalidArgumentError(
            f"no strategy {name!r}; there are {', '.join(STRATEGIES)}", param="strategies"
        )
    return STRATEGIES[name]
