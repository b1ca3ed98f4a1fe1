"""The life of a service process: arguments, configuration, logs, signals, exit status."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import uvloop

from thunderserve.core.errors import ConfigError, ThunderServeError
from thunderserve.runtime.config import load_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["EXIT_ERROR", "EXIT_OK", "EXIT_USAGE", "configure_logging", "run_service"]

EXIT_OK, EXIT_ERROR, EXIT_USAGE = 0, 1, 2

_Config = TypeVar("_Config")


def run_service(
    name: str,
    kind: type[_Config],
    serve: Callable[[_Config, asyncio.Event], Awaitable[None]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run `serve(config, stopping)` until it returns or SIGTERM or SIGINT sets `stopping`.

    Returns:
        0 after an orderly end, 1 after an error, 2 for a wrong configuration; errors are one
        line on stderr.
    """
    parser = argparse.ArgumentParser(prog=f"thunderserve {name}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key"
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])
    args = parser.parse_args(argv)
    configure_logging(name, args.log_level)
    try:
        config = load_config(kind, args.config, args.set)
        uvloop.run(_until_stopped(config, serve))
    except ConfigError as error:
        sys.stderr.write(f"thunderserve {name}: {error}\n")
        return EXIT_USAGE
    except ThunderServeError as error:
        sys.stderr.write(f"thunderserve {name}: {error}\n")
        return EXIT_ERROR
    return EXIT_OK


def configure_logging(name: str, level: str) -> None:
    """Logs go to stderr, one line each, with time in UTC and the service's name."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format=f"%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )


async def _until_stopped(
    config: _Config, serve: Callable[[_Config, asyncio.Event], Awaitable[None]]
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await serve(config, stopping)
