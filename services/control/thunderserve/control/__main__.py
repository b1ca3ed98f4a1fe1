"""`python -m thunderserve.control`: the control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.bootstrap import serve
from thunderserve.control.config import ControlConfig
from thunderserve.runtime.lifecycle import run_service

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; returns its exit status."""
    return run_service("control", ControlConfig, serve, argv)


if __name__ == "__main__":
    raise SystemExit(main())
