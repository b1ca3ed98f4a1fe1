"""`python -m thunderserve.router`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.router.bootstrap import serve
from thunderserve.router.config import RouterConfig
from thunderserve.runtime.lifecycle import run_service

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the router; returns the exit status."""
    return run_service("router", RouterConfig, serve, argv)


if __name__ == "__main__":
    raise SystemExit(main())
