"""How one group holds the model: its stages, the layers of each, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from thunderserve.core.cost import Replica, StageHardware

if TYPE_CHECKING:
    from thunderserve.core.hardware import Cluster, Link
    from thunderserve.core.plan import Group

__all__ = ["Design", "DesignStage", "design_of", "replica_of", "transfer_shares"]


@dataclass(frozen=True, slots=True)
class DesignStage:
    """So many layers on GPUs of these types, all on one node."""

    layers: int
    node: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Design:
    """A parallel configuration on kinds of GPUs; GPUs of one node and type are interchangeable."""

    stages: tuple[DesignStage, ...]

    @property
    def tp(self) -> int:
        """GPUs of each stage."""
        return len(self.stages[0].types)

    @property
    def pp(self) -> int:
        """Stages."""
        return len(self.stages)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node of every layer."""
        return tuple(stage.node for stage in self.stages for _ in range(stage.layers))


def design_of(group: Group) -> Design:
    """The design that a group of a plan has."""
    return Design(
        tuple(
            DesignStage(stage.layers, stage.gpus[0].node, tuple(g.type for g in stage.gpus))
            for stage in group.stages
        )
    )


def replica_of(design: Design, cluster: Cluster) -> Replica:
    """The design as the cost model sees it: without names."""
    types = {gpu_type.name: gpu_type for gpu_type in cluster.types}
    links: list[Link | None] = [
        cluster.link(here.node, there.node) for here, there in pairwise(design.stages)
    ]
    return tuple(
        StageHardware(
            layers=stage.layers,
            gpus=tuple(types[name] for name in stage.types),
            link=cluster.node(stage.node).local,
            next_link=next_link,
        )
        for stage, next_link in zip(design.stages, [*links, None], strict=True)
    )


def transfer_shares(prefill: Design, decode: Design) -> dict[tuple[str, str], float]:
    """What share of a KV cache goes from which node to which, layer by layer."""
    ends = list(zip(prefill.nodes, decode.nodes, strict=True))
    return {end: ends.count(end) / len(ends) for end in dict.fromkeys(ends)}
