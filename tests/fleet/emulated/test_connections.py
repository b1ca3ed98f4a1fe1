"""Connections that are dropped from below."""

from __future__ import annotations

import socket
from pathlib import Path

from thunderserve.cli.emulated.connections import drop_connections


def test_dropping_connections_keeps_no_descriptor_of_its_own(tmp_path: Path) -> None:
    """A fleet that is broken a hundred times has as many open as before."""
    with (
        (tmp_path / "file").open("w"),
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
    ):
        host, port = server.getsockname()
        far, _ = server.accept()
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert drop_connections([f"{host}:{port}"]) >= 1
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert near.recv(1) == b""
        far.close()
