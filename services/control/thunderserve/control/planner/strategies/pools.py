"""GPUs by type, for strategies that know only groups of equal GPUs on one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import plan_of
from thunderserve.control.planner.flow import Evaluator, Seat
from thunderserve.control.planner.search import Bins, Parallelism
from thunderserve.control.planner.strategies.judge import best_simulated
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.flow import Assessment
    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import ServingPolicy
    from thunderserve.core.plan import Plan

__all__ = ["Configuration", "Placed", "Pools"]

Placed = tuple[tuple[Phase, "Design"], ...]
"""Groups: the phase of each, and how it holds the model."""

_ORDER = (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED)


@dataclass(frozen=True, slots=True, order=True)
class Configuration:
    """Tensor-parallel degree and pipeline stages."""

    tp: int
    pp: int

    @property
    def size(self) -> int:
        """GPUs of one group."""
        return self.tp * self.pp


class Pools:
    """One problem's GPUs by type, and the groups that can be made of them."""

    def __init__(self, problem: Problem) -> None:
        self.evaluator = Evaluator(problem)
        self._bins = Bins(problem.cluster)
        self._parallelism = Parallelism(problem, self.evaluator.shapes, self._bins)
        self._sizes: dict[str, dict[str, int]] = {}
        for each in self._bins.all:
            self._sizes.setdefault(each.type, {})[each.node] = each.size
        self._designs: dict[tuple[str, str, Configuration], Design | None] = {}

    @property
    def types(self) -> tuple[str, ...]:
        """GPU types."""
        return tuple(self._sizes)

    def nodes(self, kind: str) -> dict[str, int]:
        """GPUs of that type on every node that has some."""
        return self._sizes[kind]

    def configurations(self, kind: str) -> list[Configuration]:
        """Of groups of that type that hold the model."""
        widest = max(self._sizes[kind].values())
        node = max(self._sizes[kind], key=lambda name: self._sizes[kind][name])
        return [
            configuration
            for tp in range(1, widest + 1)
            for pp in range(1, widest // tp + 1)
            if self.design(kind, node, configuration := Configuration(tp, pp)) is not None
        ]

    def design(self, kind: str, node: str, configuration: Configuration) -> Design | None:
        """One group on that node; None when it does not hold the model."""
        key = (kind, node, configuration)
        if key not in self._designs:
            self._designs[key] = self._find(*key)
        return self._designs[key]

    def _find(self, kind: str, node: str, configuration: Configuration) -> Design | None:
        counts = tuple(
            configuration.size if (each.type, each.node) == (kind, node) else 0
            for each in self._bins.all
        )
        made = self._parallelism.designs(counts)
        fitting = (design for design in made if design.tp == configuration.tp)
        return next((design for design in fitting if self._serves(design)), None)

    def mixed(self, taken: Mapping[tuple[str, str], int], tp: int) -> list[Design]:
        """Groups of that degree on so many GPUs of each (type, node)."""
        counts = tuple(taken.get((each.type, each.node), 0) for each in self._bins.all)
        return [design for design in self._parallelism.designs(counts) if design.tp == tp]

    def _serves(self, design: Design) -> bool:
        return self.evaluator.shapes.figures(design, Phase.DECODE).capacity_rps > 0

    def filled(self, kind: str, node: str, configuration: Configuration) -> list[Design]:
        """As many groups as the node's GPUs of that type make."""
        design = self.design(kind, node, configuration)
        return [design] * (self._sizes[kind][node] // configuration.size) if design else []

    def groups(self, kind: str, configuration: Configuration) -> list[Design]:
        """As many groups as all GPUs of that type make, node by node."""
        return [
            design for node in self.nodes(kind) for design in self.filled(kind, node, configuration)
        ]

    def best(self, kind: str, phase: Phase) -> list[Design]:
        """Groups of the configuration with which the type serves most in that phase."""
        made = [self.groups(kind, configuration) for configuration in self.configurations(kind)]
        return max(made, key=lambda designs: self.alone_rps(designs, phase), default=[])

    def best_together(self, kind: str, policies: Sequence[ServingPolicy]) -> list[Design]:
        """Colocated groups of the configuration with which the type serves most when simulated."""
        made = [self.groups(kind, each) for each in self.configurations(kind)]
        # Where none meets the target by itself, that which serves most in time comes first.
        made.sort(key=lambda groups: self.alone_rps(groups, Phase.COLOCATED), reverse=True)
        placed = self.best_placed([_together(groups) for groups in made], policies)
        return [design for _, design in placed]

    def alone_rps(self, designs: Iterable[Design], phase: Phase) -> float:
        """What groups serve in time in that phase, if nothing else holds them up."""
        return sum(self.evaluator.shapes.alone_rps(design, phase) for design in designs)

    def assess(self, placed: Iterable[tuple[Phase, Design]]) -> Assessment:
        """The best flow between those groups."""
        ordered = sorted(placed, key=lambda each: _ORDER.index(each[0]))
        return self.evaluator.assess([Seat(f"g{i}", *each) for i, each in enumerate(ordered)])

    def best_placed(
        self, candidates: Sequence[Placed], policies: Sequence[ServingPolicy]
    ) -> Placed:
        """The candidate that serves most when simulated; of equal ones, the first."""
        made = {self.plan(each, strategy="", seed=0): each for each in candidates if each}
        best = best_simulated(made, self.evaluator.problem, policies)
        return made[best] if best else ()

    def promising(self, candidates: Iterable[Placed], number: int) -> list[Placed]:
        """So many of the candidates, those that the linear program ranks best."""
        kept = (each for each in dict.fromkeys(candidates) if each)
        return sorted(kept, key=lambda each: self.assess(each).score, reverse=True)[:number]

    def plan(self, placed: Placed, *, strategy: str, seed: int, keep_idle: bool = False) -> Plan:
        """The plan of those groups.

        Raises:
            InvalidArgumentError: There are none, as the model fits nowhere.
        """
        if not placed:
            model = self.evaluator.problem.model
            raise InvalidArgumentError(
                f"{strategy} finds no place for {model.name}, whose weights take "
                f"{model.weight_bytes / 1e9:.1f} GB: its groups are of equal GPUs on one node",
                param="cluster",
            )
        best = self.assess(placed)
        return plan_of(self.evaluator, best, strategy=strategy, seed=seed, keep_idle=keep_idle)


def _together(designs: Iterable[Design]) -> Placed:
    return tuple((Phase.COLOCATED, design) for design in designs)
