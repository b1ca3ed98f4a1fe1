"""Random small plans, policies and traces for the simulator's property tests."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from thunderserve.control.planner.simulator import (
    ColocatedBatching,
    Dispatch,
    Reservation,
    ServingPolicy,
)
from thunderserve.core.plan import Phase

Stages = tuple[tuple[str, ...], ...]

NODES = (("A5000", "A5000"), ("3090Ti", "3090Ti"), ("A6000", "3090Ti"), ("A40", "A40"))
"""No two nodes are equally fast, so that nothing happens at the same moment by itself."""
_SHAPES: tuple[Stages, ...] = ((("/0", "/1"),), (("/0",), ("/1",)), (("/0",),))
_P, _D, _C = Phase.PREFILL, Phase.DECODE, Phase.COLOCATED


@dataclass(frozen=True)
class Case:
    """What a property test simulates; groups are a phase and the GPUs of each stage."""

    groups: tuple[tuple[Phase, Stages], ...]
    policy: ServingPolicy
    rate_rps: float
    gbit_per_s: float
    chunk_tokens: int
    max_running: int
    seed: int


def _on_node(node: int, phase: Phase, shape: Stages) -> tuple[Phase, Stages]:
    return phase, tuple(tuple(f"n{node}{gpu}" for gpu in stage) for stage in shape)


def _one_per_node() -> st.SearchStrategy[tuple[tuple[Phase, Stages], ...]]:
    """A prefill group, a decode group and two of any phase, in one or two stages."""
    any_phase = (_P, _D, _C)
    return st.tuples(
        *(
            st.builds(_on_node, st.just(node), st.sampled_from(phases), st.sampled_from(_SHAPES))
            for node, phases in enumerate(((_P,), (_D,), any_phase, any_phase))
        )
    )


_ACROSS_NODES = (
    ((_P, (("n0/0",), ("n1/0",))), (_D, (("n2/0",), ("n3/0",))), (_D, (("n0/1",),))),
    ((_P, (("n0/0",), ("n1/0",))), (_D, (("n1/1",), ("n0/1",))), (_C, (("n2/0", "n2/1"),))),
)
"""Pipelines over two nodes: parts of a cache take different ways."""


def cases(*dispatches: Dispatch) -> st.SearchStrategy[Case]:
    """Cases under one of these ways to dispatch."""
    return st.builds(
        Case,
        groups=st.one_of(_one_per_node(), st.sampled_from(_ACROSS_NODES)),
        policy=st.builds(
            ServingPolicy,
            dispatch=st.sampled_from(dispatches),
            colocated=st.sampled_from(ColocatedBatching),
            reservation=st.sampled_from(Reservation),
        ),
        rate_rps=st.sampled_from([0.5, 5.0, 50.0]),
        gbit_per_s=st.sampled_from([1.0, 40.0]),
        chunk_tokens=st.sampled_from([256, 1000, 8192]),
        max_running=st.sampled_from([2, 256]),
        seed=st.integers(0, 1000),
    )
