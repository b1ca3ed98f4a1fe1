"""Two network namespaces and a link of known speed between them.

A namespace lives as long as a process in it, so nothing is left when the processes have ended. As
root they are plain network namespaces; another user needs user namespaces, in which it is root.

::

    prefill namespace                                        decode namespace
    10.77.0.1 [kvlink0: tbf] <--- veth, or a TUN pair  ---> [kvlink0: tbf] 10.77.0.2
                                  that delays packets
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.cli.supervisor import Command, Supervisor, last_lines
from thunderserve.core.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.cli.bench.links import BenchLink

__all__ = [
    "DECODE_HOST",
    "PREFILL_HOST",
    "Namespace",
    "Workshop",
    "build_link",
    "wait_until",
]

PREFILL_HOST, DECODE_HOST = "10.77.0.1", "10.77.0.2"
DEVICE = "kvlink0"
_TUN_MTU_BYTES = 32_000  # a userspace link spends its time per packet
_WAIT_S, _POLL_S = 60.0, 0.02
_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "tc": "iproute2"}


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network of its own, held by a process."""

    pid: int

    def command(self, *argv: str) -> tuple[str, ...]:
        """What runs `argv` in it."""
        return ("nsenter", "--target", str(self.pid), *_user("--user"), "--net", "--", *argv)


class Workshop:
    """Runs programs to their end, and holds namespaces; its supervisor ends all of them."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._count = 0

    async def start(self, what: str, *argv: str) -> Path:
        """Start a program that runs on; its log."""
        self._count += 1
        return (await self.supervisor.start(Command(f"{what}-{self._count}", argv))).log

    async def run(self, what: str, *argv: str, ok: tuple[int, ...] = (0,)) -> str:
        """Run a program and return what it wrote; `ok` are the statuses of those that succeeded.

        Raises:
            UnavailableError: It failed; the message has its last words.
        """
        self._count += 1
        child = await self.supervisor.start(Command(f"{what}-{self._count}", argv))
        if await child.process.wait() not in ok:
            words = " ".join(last_lines(child.log, 3)) or child.ending
            raise UnavailableError(f"{what}: {words}")
        return child.log.read_text(encoding="utf-8")

    async def hold(self, *, within: Namespace | None = None) -> Namespace:
        """A new namespace; `within` is one whose user is root in it too."""
        self._count += 1
        argv = ("unshare", *(_user("--user", "--map-root-user") if within is None else ()), "--net")
        argv = (*argv, "sleep", "infinity")
        command = argv if within is None else within.command(*argv)
        child = await self.supervisor.start(Command(f"namespace-{self._count}", command))
        made = lambda: not child.running or _program_of(child.pid) == "sleep"  # noqa: E731
        await wait_until(made, "a network namespace", child.log)
        if not child.running:
            words = " ".join(last_lines(child.log, 1))
            raise UnavailableError(f"no network namespace ({words}); run it as root")
        return Namespace(child.pid)


async def build_link(workshop: Workshop, link: BenchLink) -> tuple[Namespace, Namespace]:
    """The prefill and the decode side's namespace, with the link between them.

    Raises:
        UnavailableError: They cannot be had here; says which command would change that.
    """
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not installed: apt-get install {package}")
    prefill = await workshop.hold()
    decode = await workshop.hold(within=prefill)
    if link.round_trip_s:
        await _join_by_tun(workshop, prefill, decode, link.round_trip_s / 2)
    else:
        peer = ("peer", "name", DEVICE, "netns", str(decode.pid))
        await _in(workshop, prefill, "ip", "link", "add", DEVICE, "type", "veth", *peer)
    for namespace, host in ((prefill, PREFILL_HOST), (decode, DECODE_HOST)):
        await _in(workshop, namespace, "ip", "address", "add", f"{host}/30", "dev", DEVICE)
        for device in ("lo", DEVICE):
            await _in(workshop, namespace, "ip", "link", "set", device, "up")
        limit = ("rate", f"{link.bits_per_s:.0f}bit", "burst", "512kb", "latency", "20ms")
        await _in(workshop, namespace, "tc", "qdisc", "add", "dev", DEVICE, "root", "tbf", *limit)
    return prefill, decode


async def _join_by_tun(
    workshop: Workshop, prefill: Namespace, decode: Namespace, delay_s: float
) -> None:
    for namespace in (prefill, decode):
        await _in(workshop, namespace, "ip", "tuntap", "add", "dev", DEVICE, "mode", "tun")
        mtu = ("mtu", str(_TUN_MTU_BYTES))
        await _in(workshop, namespace, "ip", "link", "set", DEVICE, *mtu)
    module = ("-m", "thunderserve.cli.bench.delay")
    argv = prefill.command(sys.executable, *module, str(decode.pid), DEVICE, str(delay_s))
    log = await workshop.start("delay", *argv)
    await wait_until(lambda: "ready" in last_lines(log), "the delayed link", log)


async def wait_until(holds: Callable[[], bool], what: str, log: Path | None = None) -> None:
    """Until `holds` does, which nothing but asking tells.

    Raises:
        UnavailableError: Not in time; the message has the log's last words.
    """
    waited_s = 0.0
    while not holds():
        if waited_s > _WAIT_S:
            words = " ".join(last_lines(log, 2)) if log else "no answer"
            raise UnavailableError(f"{what} is not ready: {words}")
        await asyncio.sleep(_POLL_S)
        waited_s += _POLL_S


async def _in(workshop: Workshop, namespace: Namespace, *argv: str) -> None:
    await workshop.run(argv[0], *namespace.command(*argv))


def _user(*options: str) -> tuple[str, ...]:
    """Options that only a user who is not root needs."""
    return () if os.geteuid() == 0 else options


def _program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
