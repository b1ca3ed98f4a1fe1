"""A whole fleet on this machine: start it, wait until it serves, stop it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from thunderserve.cli.layout import PKI_FOLDER, Layout, Member, lay_out
from thunderserve.cli.options import FleetOptions, StoreName
from thunderserve.cli.ports import FreePorts
from thunderserve.cli.probes import HttpProbe
from thunderserve.cli.supervisor import GRACE_S, Child, Supervisor, last_lines
from thunderserve.core.errors import DeadlineError, NotFoundError, UnavailableError
from thunderserve.core.identity import Role
from thunderserve.runtime.identity.pki import issue_local

if TYPE_CHECKING:
    from types import TracebackType

    from thunderserve.cli.probes import Probe

__all__ = ["LocalFleet", "Progress"]

_POLL_S = 0.2
# Stopping in this order, no process misses one that it still talks to.
_STOP_ORDER = ("router", "workers", "sidecars", "control", "stores")


class Progress(Protocol):
    """Who is told how the start goes."""

    def waiting(self, names: tuple[str, ...]) -> None:
        """These are not ready yet."""

    def ready(self, name: str, seconds: float) -> None:
        """This one is, so many seconds after the start."""


class LocalFleet:
    """Every process of a fleet, on loopback; use it as an asynchronous context.

    Leaving the block stops every process, and removes the run directory if it was made here and
    nothing went wrong.

    Args:
        options: What the fleet is made of.
        run: Where logs, sockets and configurations go; None makes a temporary folder.
    """

    def __init__(self, options: FleetOptions, run: Path | None = None) -> None:
        _require_programs(options)
        self._temporary = run is None
        self.run = Path(tempfile.mkdtemp(prefix="thunderserve-")) if run is None else run.absolute()
        self.run.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.layout: Layout = lay_out(options, self.run, FreePorts().take)
        self._supervisor = Supervisor(self.run)
        self._serving = False

    def keep_run(self) -> None:
        """Leave the run directory where it is: something in its logs is worth reading."""
        self._temporary = False

    def children(self) -> tuple[Child, ...]:
        """Every process that was started."""
        return self._supervisor.children

    async def start(self, progress: Progress, timeout_s: float = 240.0) -> None:
        """Start every process and wait until requests can be served.

        Raises:
            UnavailableError: A process ended; the message holds the end of its log.
            DeadlineError: They were not ready in time.
        """
        started = time.monotonic()
        for path, text in self.layout.files.items():
            path.write_text(text, encoding="utf-8")
        issue_local(self.run / PKI_FOLDER, Role.KVLINK, self.layout.workers, datetime.now(UTC))
        stores = [member for member in self.layout.members if member.name in {"etcd", "redis"}]
        others = [member for member in self.layout.members if member not in stores]
        try:
            async with asyncio.timeout(timeout_s):
                for wave in (stores, others):
                    for member in wave:
                        await self._supervisor.start(member.command)
                    await self._until_ready(wave, progress, started)
                await self._until(HttpProbe(self.layout.http, "/ready"))
                self._serving = True
        except TimeoutError:
            raise DeadlineError(
                f"the fleet was not ready within {timeout_s:g} s; its logs are in {self.run}"
            ) from None

    async def wait_lost(self, known: set[str]) -> Member:
        """Wait until a process ends whose name is not in `known`, and return the member."""
        child = await self._supervisor.wait_any_ended(known)
        return next(m for m in self.layout.members if m.name == child.name)

    def obituary(self, name: str) -> str:
        """How a process ended and the end of its log."""
        child = self._supervisor.child(name)
        lines = "\n".join(f"  | {line}" for line in last_lines(child.log))
        return f"{name} {child.ending}; the end of {child.log}:\n{lines}"

    async def __aenter__(self) -> Self:
        await self._supervisor.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An engine that is still loading hears no signal, and has nothing to finish either.
        grace_s = GRACE_S if self._serving else 1.0
        for names in self._stop_waves():
            await self._supervisor.stop(names, grace_s)
        await self._supervisor.__aexit__(kind, error, traceback)
        orderly = kind is None or issubclass(kind, asyncio.CancelledError | KeyboardInterrupt)
        if self._temporary and orderly:
            shutil.rmtree(self.run, ignore_errors=True)

    async def _until_ready(self, wave: list[Member], progress: Progress, started: float) -> None:
        waiting = {member.name: member.probe for member in wave}
        while waiting:
            progress.waiting(tuple(waiting))
            self._check_running()
            answers = await asyncio.gather(*(probe.ready() for probe in waiting.values()))
            for name, ready in zip(tuple(waiting), answers, strict=True):
                if ready:
                    del waiting[name]
                    progress.ready(name, time.monotonic() - started)
            await asyncio.sleep(_POLL_S)

    async def _until(self, probe: Probe) -> None:
        while not await probe.ready():
            self._check_running()
            await asyncio.sleep(_POLL_S)

    def _check_running(self) -> None:
        for child in self._supervisor.children:
            if not child.running:
                raise UnavailableError(self.obituary(child.name))

    def _stop_waves(self) -> list[list[str]]:
        waves: dict[str, list[str]] = {kind: [] for kind in _STOP_ORDER}
        for child in self._supervisor.children:
            waves[_kind(child.name)].append(child.name)
        return list(waves.values())


def _kind(name: str) -> str:
    if name in {"router", "control"}:
        return name
    if name in {"etcd", "redis"}:
        return "stores"
    return "sidecars" if name.endswith("-kvlink") else "workers"


def _require_programs(options: FleetOptions) -> None:
    if options.store is StoreName.ETCD and shutil.which("etcd") is None:
        raise NotFoundError(
            "etcd is not on the PATH; install it (Debian: apt-get install etcd-server) or run "
            "with --store memory"
        )
    if not (options.model / "config.json").is_file():
        raise NotFoundError(f"--model {options.model} has no config.json; give a model's folder")
