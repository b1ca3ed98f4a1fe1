"""Free ports."""

from __future__ import annotations

import socket

import pytest

from thunderserve.cli.ports import FIRST_PORT, FreePorts, _first_ephemeral_port
from thunderserve.core.errors import UnavailableError


def test_ports_are_new_and_below_the_kernels_range() -> None:
    """No outgoing connection can take one before its service listens."""
    ports = FreePorts()

    taken = [ports.take() for _ in range(50)]

    assert len(set(taken)) == 50
    assert all(
        FIRST_PORT <= port < max(_first_ephemeral_port(), FIRST_PORT + 10_000) for port in taken
    )


def test_ports_skip_one_that_is_in_use() -> None:
    """A port on which somebody listens is not handed out."""
    ports = FreePorts()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        ports._candidates = [listener.getsockname()[1]]

        with pytest.raises(UnavailableError):
            ports.take()
