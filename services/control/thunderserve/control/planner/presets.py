"""Clusters of ThunderServe's evaluation (MLSys 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.catalogue import Catalogue, catalogue
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link, Node
from thunderserve.core.plan import Gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CLUSTERS", "PRESET_PROFILE", "cluster_preset"]

# 40 Gbit/s is what the paper's network experiment has; latencies are nominal.
_BETWEEN_HOSTS = Link(40 * GIGABIT_PER_S, 1e-4)
_LOCAL_LATENCY_S = 1e-5

CLUSTERS = ("paper-cloud-32", "paper-inhouse-8xa100")
"""Names of the presets."""

PRESET_PROFILE = "paper_table1"
"""What their GPUs are by default."""


def cluster_preset(name: str, *, profile: str = PRESET_PROFILE) -> Cluster:
    """A cluster by name, its GPUs as the profile describes them.

    `paper-cloud-32` is 32 rented GPUs of four types, here in hosts of four equal ones;
    `paper-inhouse-8xa100` is the same budget's one host.

    Raises:
        InvalidArgumentError: There is no such preset or profile.
    """
    types = catalogue(profile)
    if name == "paper-cloud-32":
        return _hosts(types, ["A40", "A40", "A6000", "A6000", "A5000", "A5000", "3090Ti", "3090Ti"])
    if name == "paper-inhouse-8xa100":
        return _hosts(types, ["A100"], size=8)
    raise InvalidArgumentError(
        f"no cluster preset {name!r}; there are {', '.join(CLUSTERS)}", param="cluster"
    )


def _hosts(types: Catalogue, kinds: Sequence[str], size: int = 4) -> Cluster:
    nodes = tuple(
        Node(
            id=f"n{i}",
            gpus=tuple(Gpu(f"n{i}/{index}", kind) for index in range(size)),
            local=Link(types.get(kind).local_bytes_per_s, _LOCAL_LATENCY_S),
            network=_BETWEEN_HOSTS,
        )
        for i, kind in enumerate(kinds)
    )
    return Cluster(nodes, tuple(types.get(kind) for kind in dict.fromkeys(kinds)))
