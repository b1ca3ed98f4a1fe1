"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

torchvision registers fake implementations for operators that its own library defines. Where that
library cannot load, their schemas must exist before torchvision is imported.
"""

from __future__ import annotations

import importlib.abc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["install"]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _DeclareBeforeImport(importlib.abc.MetaPathFinder):
    """Finds no module; it is asked for every import, and acts on torchvision's alone.

    Declaring lazily keeps torch out of child processes that never need it.
    """

    def __init__(self) -> None:
        self._library: object = None

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision" and self._library is None:
            self._library = _declare()
        return None


def _declare() -> object:
    import torch  # noqa: PLC0415 - only a process that imports torchvision pays for torch

    # torch.library has no types.
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def install() -> None:
    """Declare the schemas before torchvision is imported; safe to call twice."""
    if not any(isinstance(finder, _DeclareBeforeImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeclareBeforeImport())
