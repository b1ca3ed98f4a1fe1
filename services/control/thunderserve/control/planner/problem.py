"""What the planner is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from thunderserve.core.cost import CostModel, Efficiency
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import Cluster
from thunderserve.core.model import ModelSpec
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Workload

__all__ = ["EngineLimits", "Problem"]


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
    """

    phases: tuple[Phase, ...] = (Phase.PREFILL, Phase.DECODE)
    max_tp: int = 8
    max_pp: int = 8
    max_nodes: int = 1
    flip_max_pp: int = 1
    unequal_tp: bool = True
    unequal_pp: bool = True
    max_running_requests: int = 256

    def __post_init__(self) -> None:
        if not self.phases:
            raise InvalidArgumentError("an engine without phases", param="phases")
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
    """A cluster, a model, what arrives and what it must meet."""

    cluster: Cluster
    model: ModelSpec
    workload: Workload
    slo: Slo
    engine: EngineLimits = field(default_factory=EngineLimits)
    wire_mode: WireMode = WireMode.INT4
    efficiency: Efficiency = field(default_factory=Efficiency)

    @property
    def cost(self) -> CostModel:
        """The cost model of this problem's model."""
        return CostModel(self.model, self.efficiency)
