"""`python -m thunderserve.prefill`: a worker that starts in phase PREFILL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.prefill.bootstrap import serve
from thunderserve.prefill.config import PrefillConfig
from thunderserve.runtime.lifecycle import run_service

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; returns its exit status."""
    return run_service("prefill", PrefillConfig, serve, argv)


if __name__ == "__main__":
    raise SystemExit(main())
