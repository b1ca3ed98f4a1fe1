"""`python -m thunderserve.kvlink`: one sidecar beside one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.kvlink.bootstrap import serve
from thunderserve.kvlink.config import KvlinkConfig
from thunderserve.runtime.lifecycle import run_service

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sidecar; see `run_service` for the arguments and the exit status."""
    return run_service("kvlink", KvlinkConfig, serve, argv)


if __name__ == "__main__":
    raise SystemExit(main())
