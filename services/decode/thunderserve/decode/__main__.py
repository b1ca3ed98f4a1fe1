"""`python -m thunderserve.decode`: a worker that starts in phase DECODE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.decode.bootstrap import serve
from thunderserve.decode.config import DecodeConfig
from thunderserve.runtime.lifecycle import run_service

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; returns its exit status."""
    return run_service("decode", DecodeConfig, serve, argv)


if __name__ == "__main__":
    raise SystemExit(main())
