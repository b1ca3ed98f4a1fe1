"""What the planner is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from thunderserve.core.cost import CostModel, Efficiency
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import Cluster
from thunderserve.core.model import ModelSpec
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Workload

__all__ = ["EngineLimits", "Objective", "Problem"]


class Objective(StrEnum):
    """What the best plan has most of.

    GOODPUT: requests per second that meet their bounds, of those that arrive.
    CAPACITY: requests per second, however many arrive, of which a share of `target_ratio` meet
        their bounds.
    """

    GOODPUT = "goodput"
    CAPACITY = "capacity"


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine can do; nothing else is proposed.

    Attributes:
        phases: That a group may be given.
        max_tp: GPUs of one stage.
        max_pp: Stages of one group.
        max_nodes: Nodes that one group spans; a worker, which serves one group, is on one.
        flip_max_pp: Stages of a group whose phase can change without loading weights.
        unequal_tp: KV cache can move between groups of different tp.
        unequal_pp: KV cache can move between groups of different pp.
        max_running_requests: Requests that one group decodes at once.
        chunk_tokens: Sizes of chunks in which a prompt can be computed and its KV cache sent, while
            the next chunk is computed; the plan chooses one.
    """

    phases: tuple[Phase, ...] = (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED)
    max_tp: int = 8
    max_pp: int = 8
    max_nodes: int = 1
    flip_max_pp: int = 1
    unequal_tp: bool = True
    unequal_pp: bool = True
    max_running_requests: int = 256
    chunk_tokens: tuple[int, ...] = (2048,)

    def __post_init__(self) -> None:
        if not self.phases:
            raise InvalidArgumentError("an engine without phases", param="phases")
        if not self.chunk_tokens or min(self.chunk_tokens) < 1:
            raise InvalidArgumentError(
                f"engine: chunk_tokens are {self.chunk_tokens}; they must be at least 1",
                param="chunk_tokens",
            )
        for name in ("max_tp", "max_pp", "max_nodes", "flip_max_pp", "max_running_requests"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(
                    f"engine: {name} is {getattr(self, name)}; it must be at least 1", param=name
                )

    def can_transfer(self, *, tp: tuple[int, int], pp: tuple[int, int]) -> bool:
        """True when KV cache can move between groups of these (prefill, decode) degrees."""
        return (self.unequal_tp or tp[0] == tp[1]) and (self.unequal_pp or pp[0] == pp[1])


@dataclass(frozen=True, slots=True)
class Problem:
    """A cluster, a model, what arrives and what it must meet.

    Attributes:
        target_ratio: Share of requests that meet their bounds; for `Objective.CAPACITY`.
        flippable_ratio: Share of the plan's GPUs, at least, in groups that can flip.
    """

    cluster: Cluster
    model: ModelSpec
    workload: Workload
    slo: Slo
    engine: EngineLimits = field(default_factory=EngineLimits)
    wire_mode: WireMode = WireMode.INT4
    efficiency: Efficiency = field(default_factory=Efficiency)
    objective: Objective = Objective.GOODPUT
    target_ratio: float = 0.9
    flippable_ratio: float = 0.0

    def __post_init__(self) -> None:
        for name in ("target_ratio", "flippable_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgumentError(
                    f"{name} is {getattr(self, name)}; it must be in [0, 1]", param=name
                )

    @property
    def cost(self) -> CostModel:
        """The cost model of this problem's model."""
        return CostModel(self.model, self.efficiency)
