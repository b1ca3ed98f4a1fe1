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


def test_ports_give_the_preferred_one_when_it_is_free_and_once_alone() -> None:
    """A second fleet, or a second entrance, gets another port instead of a failure."""
    ports = FreePorts()
    preferred = FreePorts().take()

    assert ports.take(preferred) == preferred
    assert ports.take(preferred) != preferred
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert ports.take(listener.getsockname()[1]) != listener.getsockname()[1]
