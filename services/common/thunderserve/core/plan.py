"""Groups, routes and plans: who holds the model, in which phase, and who feeds whom."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from thunderserve.core.errors import InvalidArgumentError

__all__ = [
    "WEIGHT_TOLERANCE",
    "Certificate",
    "Gpu",
    "Group",
    "Phase",
    "Plan",
    "Prediction",
    "Route",
    "Stage",
]

WEIGHT_TOLERANCE = 1e-6


class Phase(StrEnum):
    """What a group does with a request."""

    PREFILL = "PREFILL"
    DECODE = "DECODE"
    COLOCATED = "COLOCATED"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator of a node.

    Attributes:
        id: `node/index`.
        type: Name in the hardware catalogue.
    """

    id: str
    type: str

    def __post_init__(self) -> None:
        node, slash, index = self.id.rpartition("/")
        if not (node and slash and index.isdecimal()):
            raise InvalidArgumentError(
                f"GPU id {self.id!r} is not of the form node/index, for example n0/3", param="id"
            )

    @property
    def node(self) -> str:
        """The node's id."""
        return self.id.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage: `layers` transformer layers on `gpus`, tensor-parallel."""

    layers: int
    gpus: tuple[Gpu, ...]

    def __post_init__(self) -> None:
        if self.layers <= 0:
            raise InvalidArgumentError(f"a stage holds {self.layers} layers; it needs at least one")
        if not self.gpus:
            raise InvalidArgumentError("a stage without GPUs")


@dataclass(frozen=True, slots=True)
class Group:
    """The GPUs that hold one copy of the model."""

    id: str
    phase: Phase
    tp: int
    pp: int
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.id:
            raise InvalidArgumentError("a group without an id", param="id")
        if self.pp != len(self.stages):
            raise InvalidArgumentError(
                f"group {self.id}: pp is {self.pp}, but it has {len(self.stages)} stages"
            )
        for stage in self.stages:
            if len(stage.gpus) != self.tp:
                raise InvalidArgumentError(
                    f"group {self.id}: tp is {self.tp}, but a stage has {len(stage.gpus)} GPUs"
                )

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, stage by stage."""
        return tuple(gpu for stage in self.stages for gpu in stage.gpus)

    @property
    def layers(self) -> int:
        """Layers of all stages together."""
        return sum(stage.layers for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Route:
    """A share `weight` of the requests goes through this pair of groups."""

    prefill: str
    decode: str
    weight: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and 0 <= self.weight <= 1 + WEIGHT_TOLERANCE):
            raise InvalidArgumentError(
                f"route {self.prefill} -> {self.decode}: weight {self.weight} is not in [0, 1]",
                param="weight",
            )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the cost model expects of a plan.

    Attributes:
        usd_per_hour: None where nobody has told the price of one of its GPUs.
    """

    slo_attainment_ratio: float
    goodput_rps: float
    throughput_tokens_per_s: float
    ttft_p99_s: float
    tpot_p99_s: float
    usd_per_hour: float | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """How good a plan is, at least, for the objective it was made for.

    Attributes:
        method: `exact` when the bound is the best plan's objective, else `bound`.
        objective: The plan's, in requests per second.
        upper_bound: No plan has more.
    """

    method: str
    objective: float
    upper_bound: float

    @property
    def gap_ratio(self) -> float:
        """Share of the bound that the plan may miss."""
        if self.upper_bound <= 0:
            return 0.0
        return max(0.0, self.upper_bound - self.objective) / self.upper_bound


@dataclass(frozen=True, slots=True)
class Plan:
    """An immutable assignment of groups, phases and routes; published plans are numbered by epoch.

    A plan with no routes is legal: it serves nobody, and routers answer 503.

    Attributes:
        epoch: 0 before publication; every observer refuses a lower one than it has seen.
        strategy: Which planner made it.
        chunk_tokens: Prompt tokens that prefill computes, and kvlink sends, at a time; 0 leaves
            it to the engine.
        certificate: How good it is, when that was asked.
        created_unix_s: When it was published; 0 before.
        reason: Why it replaced the plan before, for people.
    """

    epoch: int
    strategy: str
    seed: int
    model: str
    groups: tuple[Group, ...]
    routes: tuple[Route, ...]
    predicted: Prediction | None = None
    search_seconds: float = 0.0
    search_evaluations: int = 0
    created_unix_s: float = 0.0
    reason: str = field(default="")
    chunk_tokens: int = 0
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        self._check_groups()
        self._check_routes()

    def _check_groups(self) -> None:
        if self.epoch < 0:
            raise InvalidArgumentError(f"epoch {self.epoch} is negative", param="epoch")
        if self.chunk_tokens < 0:
            raise InvalidArgumentError(
                f"chunk_tokens is {self.chunk_tokens}; it must be >= 0", param="chunk_tokens"
            )
        ids = [group.id for group in self.groups]
        if repeated := {i for i in ids if ids.count(i) > 1}:
            raise InvalidArgumentError(f"group {min(repeated)} appears twice", param="groups")
        gpus = [gpu.id for group in self.groups for gpu in group.gpus]
        if repeated := {g for g in gpus if gpus.count(g) > 1}:
            raise InvalidArgumentError(f"GPU {min(repeated)} is in two places", param="groups")

    def _check_routes(self) -> None:
        phases = {group.id: group.phase for group in self.groups}
        for route in self.routes:
            for end in (route.prefill, route.decode):
                if end not in phases:
                    raise InvalidArgumentError(
                        f"route {route.prefill} -> {route.decode}: no group {end}", param="routes"
                    )
            pair = (phases[route.prefill], phases[route.decode])
            split = pair == (Phase.PREFILL, Phase.DECODE)
            colocated = route.prefill == route.decode and pair[0] is Phase.COLOCATED
            if not (split or colocated):
                raise InvalidArgumentError(
                    f"route {route.prefill} -> {route.decode} joins {pair[0]} to {pair[1]}; "
                    "it needs PREFILL to DECODE, or a COLOCATED group to itself",
                    param="routes",
                )
        total = sum(route.weight for route in self.routes)
        if self.routes and abs(total - 1) > WEIGHT_TOLERANCE:
            raise InvalidArgumentError(f"route weights sum to {total}, not to 1", param="routes")

    def group(self, group_id: str) -> Group | None:
        """The group of that id, if the plan has it."""
        return next((group for group in self.groups if group.id == group_id), None)

    def with_phase(self, group_id: str, phase: Phase) -> Plan:
        """The same plan, that group in another phase, and no routes: they are to be solved anew."""
        groups = tuple(replace(g, phase=phase) if g.id == group_id else g for g in self.groups)
        return replace(self, groups=groups, routes=())
