"""What SGLang needs to run without a GPU: `path/` goes on the path of every process of it.

- `sitecustomize.py` runs in every child and installs `torchvision_schemas`.
- `torchvision_schemas.py` declares two operators that a CUDA build of torchvision expects of its
  own library, which cannot load beside a CPU build of torch.
- `sgl_kernel/` stands for SGLang's kernels, which have no CPU wheel: a few of its modules import
  eight names at import time. Each raises when called; no run on a CPU calls one, since SGLang takes
  the kernels of torch where the processor lacks AMX.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

__all__ = ["CPU_PATH", "cpu_environment", "enable_cpu"]

CPU_PATH = Path(__file__).parent / "path"


def cpu_environment(ranks: int, python_path: str = "") -> dict[str, str]:
    """The variables that make SGLang's processes run on a CPU.

    Args:
        ranks: Processes that hold a part of the model, tp * pp.
        python_path: `PYTHONPATH` as it is.
    """
    others = [part for part in python_path.split(os.pathsep) if part and part != str(CPU_PATH)]
    variables = {
        "SGLANG_USE_CPU_ENGINE": "1",
        "PYTHONPATH": os.pathsep.join([str(CPU_PATH), *others]),
    }
    if ranks > 1:
        cores = sorted(os.sched_getaffinity(0))
        binding = "|".join(str(cores[rank % len(cores)]) for rank in range(ranks))
        variables["SGLANG_CPU_OMP_THREADS_BIND"] = binding
    return variables


def enable_cpu() -> None:
    """Do for this process what `sitecustomize.py` does for its children; safe to call twice."""
    if str(CPU_PATH) not in sys.path:
        sys.path.insert(0, str(CPU_PATH))
    importlib.import_module("torchvision_schemas").install()
