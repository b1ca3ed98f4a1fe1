"""Addresses on Unix sockets: no port can be taken."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A short path: a Unix socket's name holds about a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        yield Path(folder)


@pytest.fixture
def unix_address(socket_folder: Path) -> str:
    return f"unix:{socket_folder}/a"


@pytest.fixture
def other_unix_address(socket_folder: Path) -> str:
    return f"unix:{socket_folder}/b"
