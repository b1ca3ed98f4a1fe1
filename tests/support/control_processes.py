"""Control replicas as processes of their own, which a test may kill, freeze and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from etcd_server import EtcdTrio, etcdctl, free_port

if TYPE_CHECKING:
    from pathlib import Path

FLEET = "outages"


class ControlProcesses:
    """Three replicas on one etcd cluster."""

    def __init__(self, folder: Path, etcd: EtcdTrio) -> None:
        self.addresses = tuple(f"127.0.0.1:{free_port()}" for _ in range(3))
        self._etcd = etcd
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start whoever does not run."""
        for address in self.addresses:
            if address not in self._processes:
                self._processes[address] = self._started(address)

    def kill(self, address: str) -> None:
        """End a replica as a crash would."""
        process = self._processes.pop(address)
        process.kill()
        process.wait()

    def freeze(self, address: str) -> None:
        """Stop a replica in its tracks; its connections stay open."""
        os.kill(self._processes[address].pid, signal.SIGSTOP)

    def thaw(self, address: str) -> None:
        """Let it go on."""
        os.kill(self._processes[address].pid, signal.SIGCONT)

    def stop(self) -> None:
        """Kill all."""
        for address in tuple(self._processes):
            self.kill(address)

    def leader(self) -> str:
        """The address in the leader key; empty for none."""
        key = f"/thunderserve/{FLEET}/leader"
        return etcdctl(self._etcd.endpoints, "get", key, "--print-value-only").strip()

    def log(self) -> str:
        """What all replicas have logged."""
        return (self._folder / "control.log").read_text()

    def _started(self, address: str) -> subprocess.Popen[bytes]:
        settings = {
            "address": address,
            "model_name": "thunder-demo-7m",
            "fleet": FLEET,
            "store": "etcd",
            "etcd_endpoints": ",".join(self._etcd.endpoints),
            "expected_workers": "3",
            "heartbeat_interval_s": "0.25",
        }
        sets = [word for pair in settings.items() for word in ("--set", "=".join(pair))]
        with (self._folder / "control.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "thunderserve.control", *sets], stderr=log
            )
