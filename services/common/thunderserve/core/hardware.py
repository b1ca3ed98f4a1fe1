"""GPU types, nodes, links and clusters: what there is to serve a model on."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from thunderserve.core.errors import InvalidArgumentError, NotFoundError
from thunderserve.core.plan import Gpu

__all__ = ["GIGABIT_PER_S", "Cluster", "GpuType", "Link", "Node", "check_positive"]

GIGABIT_PER_S = 1e9 / 8
"""Bytes per second of one Gbit/s."""


def check_positive(owner: str, **values: float) -> None:
    """Refuse values that are not finite and positive.

    Raises:
        InvalidArgumentError: Names the owner, the field and the value.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise InvalidArgumentError(f"{owner}: {name} is {value}; it must be > 0", param=name)


@dataclass(frozen=True, slots=True)
class GpuType:
    """A kind of accelerator as its data sheet describes it.

    Attributes:
        tflops: Peak 16-bit TFLOP/s; what it counts depends on the catalogue's profile.
        memory_bytes_per_s: Peak memory bandwidth.
        usd_per_hour: What renting one costs; 0 for one's own.
        local_bytes_per_s: Between two of them in one host, one direction, nominal.
    """

    name: str
    tflops: float
    memory_bytes_per_s: float
    memory_bytes: float
    usd_per_hour: float = 0.0
    local_bytes_per_s: float = 32e9

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidArgumentError("a GPU type without a name", param="name")
        check_positive(
            f"GPU type {self.name}",
            tflops=self.tflops,
            memory_bytes_per_s=self.memory_bytes_per_s,
            memory_bytes=self.memory_bytes,
            local_bytes_per_s=self.local_bytes_per_s,
        )
        if not (math.isfinite(self.usd_per_hour) and self.usd_per_hour >= 0):
            raise InvalidArgumentError(
                f"GPU type {self.name}: usd_per_hour is {self.usd_per_hour}; it must be >= 0",
                param="usd_per_hour",
            )

    @property
    def flops_per_s(self) -> float:
        """Peak 16-bit FLOP/s."""
        return self.tflops * 1e12


@dataclass(frozen=True, slots=True)
class Link:
    """A way for bytes; `bytes_per_s` is nominal and one direction."""

    bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        check_positive("link", bytes_per_s=self.bytes_per_s)
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise InvalidArgumentError(
                f"link: latency_s is {self.latency_s}; it must be >= 0", param="latency_s"
            )


@dataclass(frozen=True, slots=True)
class Node:
    """A host.

    Attributes:
        local: Between any two of its GPUs.
        network: Its port to the other nodes, each direction.
    """

    id: str
    gpus: tuple[Gpu, ...]
    local: Link
    network: Link

    def __post_init__(self) -> None:
        if not self.gpus:
            raise InvalidArgumentError(f"node {self.id} has no GPUs", param="gpus")
        if stray := [gpu.id for gpu in self.gpus if gpu.node != self.id]:
            raise InvalidArgumentError(f"node {self.id} names GPU {stray[0]}", param="gpus")
        if len({gpu.id for gpu in self.gpus}) < len(self.gpus):
            raise InvalidArgumentError(f"node {self.id} names a GPU twice", param="gpus")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes, the GPU types they hold and the links between them.

    Attributes:
        types: Of every GPU in the cluster, at least.
        links: Measured or promised links of pairs of node ids, in either order; any other pair
            gets the slower of its two ports.
    """

    nodes: tuple[Node, ...]
    types: tuple[GpuType, ...]
    links: tuple[tuple[str, str, Link], ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InvalidArgumentError("a cluster without nodes", param="nodes")
        ids = Counter(node.id for node in self.nodes)
        if repeated := [i for i, count in ids.items() if count > 1]:
            raise InvalidArgumentError(f"node {repeated[0]} appears twice", param="nodes")
        known = {gpu_type.name for gpu_type in self.types}
        for gpu in self.gpus:
            if gpu.type not in known:
                raise InvalidArgumentError(
                    f"GPU {gpu.id} is of type {gpu.type!r}, which the cluster does not describe",
                    param="types",
                )
        for first, second, _ in self.links:
            if first == second or first not in ids or second not in ids:
                raise InvalidArgumentError(
                    f"link {first} - {second} does not join two nodes of the cluster",
                    param="links",
                )

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, node by node."""
        return tuple(gpu for node in self.nodes for gpu in node.gpus)

    @property
    def usd_per_hour(self) -> float:
        """Rent of the whole cluster."""
        return sum(self.type_of(gpu).usd_per_hour for gpu in self.gpus)

    def type_of(self, gpu: Gpu) -> GpuType:
        """The GPU's type."""
        return next(t for t in self.types if t.name == gpu.type)

    def node(self, node_id: str) -> Node:
        """The node of that id.

        Raises:
            NotFoundError: There is none.
        """
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise NotFoundError(f"the cluster has no node {node_id!r}")

    def link(self, first: str, second: str) -> Link:
        """The way between two nodes, or between two GPUs of one node.

        Raises:
            NotFoundError: The cluster has no such node.
        """
        one, other = self.node(first), self.node(second)
        if one is other:
            return one.local
        for a, b, link in self.links:
            if {a, b} == {first, second}:
                return link
        return min(one.network, other.network, key=lambda port: port.bytes_per_s)
