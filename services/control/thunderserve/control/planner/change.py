"""What happens to a cluster after it was planned for: nodes are lost, links change."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError, NotFoundError, UnavailableError
from thunderserve.core.hardware import Cluster, Link, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.catalogue import Catalogue
    from thunderserve.core.model import ModelSpec
    from thunderserve.core.plan import Gpu, Group, Plan

__all__ = [
    "as_started",
    "check_made_for",
    "hosts_of",
    "surviving_groups",
    "with_links",
    "without_nodes",
]


def hosts_of(plan: Plan, types: Catalogue, port: Link) -> Cluster:
    """The hosts that a plan names, for want of a description: its GPUs, behind equal ports."""
    held: dict[str, list[Gpu]] = defaultdict(list)
    for gpu in sorted((gpu for group in plan.groups for gpu in group.gpus), key=lambda g: g.id):
        held[gpu.node].append(gpu)
    known = {gpu.type: types.get(gpu.type) for gpus in held.values() for gpu in gpus}
    nodes = tuple(
        Node(node, tuple(gpus), Link(min(known[g.type].local_bytes_per_s for g in gpus)), port)
        for node, gpus in sorted(held.items())
    )
    return Cluster(nodes, tuple(known.values()))


def without_nodes(cluster: Cluster, lost: Sequence[str]) -> Cluster:
    """What is left of a cluster.

    Raises:
        NotFoundError: The cluster has no such node.
        UnavailableError: Nothing is left.
    """
    known = [node.id for node in cluster.nodes]
    if stray := [node for node in lost if node not in known]:
        raise NotFoundError(
            f"lost node {stray[0]!r} is not in the plan's cluster; its nodes are {', '.join(known)}"
        )
    left = tuple(node for node in cluster.nodes if node.id not in lost)
    if not left:
        raise UnavailableError("every node is lost: nothing is left to serve with; rent new ones")
    links = tuple(each for each in cluster.links if not {*each[:2]}.intersection(lost))
    return replace(cluster, nodes=left, links=links)


def with_links(cluster: Cluster, links: Sequence[tuple[str, str, Link]]) -> Cluster:
    """The cluster with these links measured anew; links of other pairs stay."""
    anew = {frozenset(each[:2]) for each in links}
    kept = (each for each in cluster.links if frozenset(each[:2]) not in anew)
    return replace(cluster, links=(*kept, *links))


def as_started(problem: Problem, plan: Plan) -> Problem:
    """The problem for engines that run already: the size of chunks is set when they start."""
    if not plan.chunk_tokens:
        return problem
    return replace(problem, engine=replace(problem.engine, chunk_tokens=(plan.chunk_tokens,)))


def surviving_groups(plan: Plan, lost: Sequence[str]) -> tuple[Group, ...]:
    """The plan's groups none of whose GPUs is lost."""
    return tuple(g for g in plan.groups if not any(gpu.node in lost for gpu in g.gpus))


def check_made_for(plan: Plan, cluster: Cluster, model: ModelSpec) -> None:
    """Refuse a plan for something else.

    Raises:
        InvalidArgumentError: Names what in the plan is not in the cluster, or not of the model.
    """
    if plan.model != model.name:
        raise InvalidArgumentError(
            f"the plan is for {plan.model}, not for {model.name}", param="model"
        )
    types = {gpu.id: gpu.type for gpu in cluster.gpus}
    for group in plan.groups:
        if group.layers != model.layers:
            raise InvalidArgumentError(
                f"group {group.id} of the plan holds {group.layers} layers; {model.name} has "
                f"{model.layers}",
                param="model",
            )
        for gpu in group.gpus:
            if types.get(gpu.id) != gpu.type:
                found = f"is {types[gpu.id]}" if gpu.id in types else "is not there"
                raise InvalidArgumentError(
                    f"the plan is for another cluster: it has {gpu.type} as GPU {gpu.id}, which "
                    f"{found}",
                    param="cluster",
                )
