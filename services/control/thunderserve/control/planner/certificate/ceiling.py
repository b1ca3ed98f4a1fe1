"""A bound that needs no columns, for problems that have too many."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from thunderserve.control.planner.problem import Objective
from thunderserve.control.planner.search import Bins

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem

__all__ = ["ceiling_rps", "takings"]


def ceiling_rps(problem: Problem) -> float:
    """What all GPUs at their usable peak could serve, were there nothing but their arithmetic.

    Every token of a request passes every weight of the layers once, in either phase, at 2 FLOP for
    each; attention, memory, links and bounds are left out. No more is served than arrives, unless
    the objective asks for capacity.
    """
    workload, cluster = problem.workload, problem.cluster
    tokens = sum(prompt + max(0.0, answer - 1) for prompt, answer in workload.requests)
    weights = problem.model.layers * problem.model.layer_parameters
    flop = 2 * weights * tokens / len(workload.requests)
    usable = sum(cluster.type_of(gpu).flops_per_s for gpu in cluster.gpus)
    most = usable * problem.efficiency.flops_ratio / flop
    return most if problem.objective is Objective.CAPACITY else min(most, workload.rate_rps)


def takings(problem: Problem) -> int:
    """In how many ways a group can take GPUs of the nodes that it may span, node by node."""
    bins = Bins(problem.cluster)
    by_nodes = [1, *[0] * problem.engine.max_nodes]
    for node in problem.cluster.nodes:
        own = prod(bins.all[index].size + 1 for index in bins.on_node(node.id)) - 1
        for spanned in range(problem.engine.max_nodes, 0, -1):
            by_nodes[spanned] += by_nodes[spanned - 1] * own
    return sum(by_nodes[1:])
