"""A service's life: configuration, signals, exit status."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.errors import ConfigError, ThunderServeError, UnavailableError
from thunderserve.runtime.lifecycle import EXIT_ERROR, EXIT_OK, EXIT_USAGE, run_service

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Settings:
    """One key."""

    port: int = 1


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A service owns its process's logging; a test does not."""
    root = logging.getLogger()
    handlers, level, converter = root.handlers[:], root.level, logging.Formatter.converter
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.Formatter.converter = converter


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_ends_orderly_when_it_is_signalled(number: signal.Signals) -> None:
    """`stopping` is set, and the service frees what it has."""
    seen: list[int] = []

    async def serve(config: Settings, stopping: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stopping.wait()
        seen.append(config.port)

    assert run_service("test", Settings, serve, ["--set", "port=7"]) == EXIT_OK
    assert seen == [7]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("bad key"), EXIT_USAGE), (UnavailableError("no store"), EXIT_ERROR)],
)
def test_service_says_one_line_when_it_fails(
    error: ThunderServeError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status tells a wrong configuration from a wrong world."""

    async def serve(config: Settings, stopping: asyncio.Event) -> None:
        del config, stopping
        raise error

    assert run_service("test", Settings, serve, []) == status
    assert capsys.readouterr().err == f"thunderserve test: {error}\n"


def test_service_refuses_its_configuration_when_a_key_is_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is started."""

    async def serve(config: Settings, stopping: asyncio.Event) -> None:
        raise AssertionError((config, stopping))

    assert run_service("test", Settings, serve, ["--set", "prot=7"]) == EXIT_USAGE
    assert "did you mean 'port'?" in capsys.readouterr().err
