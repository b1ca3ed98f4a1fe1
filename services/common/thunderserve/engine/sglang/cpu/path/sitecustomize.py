"""Runs at the start of every Python process that has this folder on `PYTHONPATH`."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import torchvision_schemas  # type: ignore[import-not-found]  # on the path of this file alone


def _run_shadowed() -> None:
    """Run the `sitecustomize` that this one hides, if there is one."""
    here = Path(__file__).parent
    others = [entry for entry in sys.path if Path(entry) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


torchvision_schemas.install()
_run_shadowed()
