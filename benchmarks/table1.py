"""What the paper's two clusters of about equal price have together, by its own Table 1.

    .venv/bin/python benchmarks/table1.py [-o json]

Arithmetic, and memory for KV cache beside a copy of LLaMA-30B in each group: eight groups on the 32
rented GPUs, two on eight A100. No planner is asked; `--profile tensor_dense` counts tensor cores.
"""

from __future__ import annotations

import argparse
import json

from thunderserve.control.planner.presets import CLUSTERS, PRESET_PROFILE, cluster_preset
from thunderserve.core.catalogue import PROFILES
from thunderserve.core.cost import Efficiency
from thunderserve.core.model import model_preset

GROUPS = {"paper-cloud-32": 8, "paper-inhouse-8xa100": 2}


def sums(name: str, profile: str) -> dict[str, float]:
    """One cluster's."""
    cluster, model = cluster_preset(name, profile=profile), model_preset("llama-30b")
    types = [cluster.type_of(gpu) for gpu in cluster.gpus]
    usable = Efficiency().memory_use_ratio * sum(kind.memory_bytes for kind in types)
    return {
        f"{name}_tflop_per_s": sum(kind.flops_per_s for kind in types) / 1e12,
        f"{name}_kv_gb": (usable - GROUPS[name] * model.weight_bytes) / 1e9,
        f"{name}_usd_per_hour": cluster.usd_per_hour,
    }


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--profile", choices=sorted(PROFILES), default=PRESET_PROFILE)
    given = parser.parse_args()
    figures = {key: value for name in CLUSTERS for key, value in sums(name, given.profile).items()}
    if given.output == "json":
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:36} {value:10.1f}")


if __name__ == "__main__":
    main()
