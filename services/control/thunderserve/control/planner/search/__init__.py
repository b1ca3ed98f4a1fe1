"""Which groups to make of the GPUs, and which phase each takes: tabu search."""

from thunderserve.control.planner.search.blocks import Layout
from thunderserve.control.planner.search.flexibility import can_flip, flippable_ratio
from thunderserve.control.planner.search.parallelism import Parallelism
from thunderserve.control.planner.search.partition import Bins, Counts
from thunderserve.control.planner.search.space import SearchSpace
from thunderserve.control.planner.search.tabu import tabu_search

__all__ = [
    "Bins",
    "Counts",
    "Layout",
    "Parallelism",
    "SearchSpace",
    "can_flip",
    "flippable_ratio",
    "tabu_search",
]
