"""Three control replicas on three members of etcd, each a process that can be killed and frozen."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Self

from thunderserve.cli.bench.failover.setting import until
from thunderserve.cli.layout import to_toml
from thunderserve.cli.ports import FreePorts
from thunderserve.cli.probes import HealthProbe, HttpProbe
from thunderserve.cli.supervisor import Command, Supervisor
from thunderserve.control.config import ControlConfig, StoreKind
from thunderserve.core.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Replicas"]

_MEMBERS = 3
_PUBLISHED = re.compile(r"published plan (\d+)")
_LEADS = re.compile(r" leads( no more)?$", re.MULTILINE)


class Replicas:
    """Use it as an asynchronous context: leaving the block ends all of them.

    Args:
        folder: Existing; data and logs go there.

    Raises:
        UnavailableError: There is no etcd.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("etcd") is None:
            raise UnavailableError("there is no etcd: apt-get install etcd-server")
        ports = FreePorts()
        self._folder = folder
        self._supervisor = Supervisor(folder)
        self._peers = [f"127.0.0.1:{ports.take()}" for _ in range(_MEMBERS)]
        self._clients = [f"127.0.0.1:{ports.take()}" for _ in range(_MEMBERS)]
        self.addresses = tuple(f"127.0.0.1:{ports.take()}" for _ in range(_MEMBERS))

    async def start_etcd(self) -> None:
        """Start all members, and wait until they have elected."""
        for number in range(_MEMBERS):
            await self._supervisor.start(self._etcd(number))
        for client in self._clients:
            await until(HttpProbe(client, "/health").ready, "etcd")

    async def start_control(self, config: ControlConfig) -> None:
        """Start the replicas of a configuration, each at its own address."""
        for name, address in self._named():
            own = replace(
                config,
                address=address,
                store=StoreKind.ETCD,
                etcd_endpoints=tuple(self._clients),
            )
            path = self._folder / f"{name}.toml"
            path.write_text(to_toml(_changed_settings(own)), encoding="utf-8")
            argv = (sys.executable, "-m", "thunderserve.control", "--config", str(path))
            await self._supervisor.start(Command(name, argv))
        for address in self.addresses:
            await until(HealthProbe(address).ready, "control")

    async def kill_etcd(self) -> None:
        """End all members as a crash would; what they have on disk stays."""
        for number in range(_MEMBERS):
            process = self._supervisor.child(f"etcd{number}").process
            process.kill()
            await process.wait()

    def leader(self) -> str:
        """Address of the replica that said last that it leads."""
        leading = [address for name, address in self._named() if self._leads(name)]
        if len(leading) != 1:
            raise UnavailableError(f"{len(leading)} replicas say that they lead")
        return leading[0]

    def freeze(self, address: str) -> None:
        """Stop a replica in its tracks; its connections stay open."""
        os.kill(self._pid(address), signal.SIGSTOP)

    def thaw(self, address: str) -> None:
        """Let it go on."""
        os.kill(self._pid(address), signal.SIGCONT)

    def publishers(self) -> dict[int, int]:
        """By epoch, how many replicas say that they published a plan under it."""
        counts: dict[int, int] = {}
        for name, _ in self._named():
            for epoch in set(map(int, _PUBLISHED.findall(self._log(name)))):
                counts[epoch] = counts.get(epoch, 0) + 1
        return counts

    async def __aenter__(self) -> Self:
        await self._supervisor.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, _ in self._named():  # one that is frozen does not end
            if name in {child.name for child in self._supervisor.children}:
                self._signal_if_running(name, signal.SIGCONT)
        await self._supervisor.__aexit__(kind, error, traceback)

    def _named(self) -> list[tuple[str, str]]:
        return [(f"control{number}", address) for number, address in enumerate(self.addresses)]

    def _signal_if_running(self, name: str, number: signal.Signals) -> None:
        child = self._supervisor.child(name)
        if child.running:
            os.kill(child.pid, number)

    def _pid(self, address: str) -> int:
        return self._supervisor.child(f"control{self.addresses.index(address)}").pid

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(encoding="utf-8")

    def _leads(self, name: str) -> bool:
        said = _LEADS.findall(self._log(name))
        return bool(said) and not said[-1]

    def _etcd(self, number: int) -> Command:
        client, peer = self._clients[number], self._peers[number]
        cluster = ",".join(f"etcd{i}=http://{each}" for i, each in enumerate(self._peers))
        argv = (
            "etcd",
            *("--name", f"etcd{number}", "--data-dir", str(self._folder / f"data{number}")),
            *("--listen-client-urls", f"http://{client}"),
            *("--advertise-client-urls", f"http://{client}"),
            *("--listen-peer-urls", f"http://{peer}"),
            *("--initial-advertise-peer-urls", f"http://{peer}"),
            *("--initial-cluster", cluster),
        )
        return Command(f"etcd{number}", argv)


def _changed_settings(config: ControlConfig) -> dict[str, str | float | bool | tuple[str, ...]]:
    """Those that differ from the defaults, as a configuration file has them."""
    usual = asdict(ControlConfig(address=config.address, model_name=""))
    return {
        name: value
        for name, value in asdict(config).items()
        if value != usual[name] or name == "address"
    }
