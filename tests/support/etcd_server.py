"""A real etcd of the tests' own, on free loopback ports and in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from made_certificates import Certificates

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EtcdServer:
    """One member; `start` returns when it accepts connections, and may follow a `stop`.

    Args:
        folder: For its data and log.
        options: Further ones of etcd.
        certificates: Serves TLS with them, and asks clients for one of the same authority.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        name: str = "t",
        certificates: Certificates | None = None,
    ) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.name = name
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.peer = f"{name}=http://127.0.0.1:{free_port()}"
        self.cluster = self.peer
        self._options = options
        self._certificates = certificates
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """What it has on disk."""
        return self.folder / "data"

    @property
    def runs(self) -> bool:
        """True between `start` and `stop`."""
        return self._process is not None

    def start(self, *, wait: bool = True) -> None:
        """Start, with what is in the folder."""
        binary = shutil.which("etcd")
        assert binary is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([binary, *self._arguments()], stdout=log, stderr=log)
        if wait:
            self.wait_listening()

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it; its connections stay open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def wait_listening(self) -> None:
        """Wait until it accepts connections."""
        host, _, port = self.endpoint.rpartition(":")
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError((self.folder / "log").read_text()[-2000:])

    def ctl(self, *words: str) -> str:
        """What `etcdctl` says, asked of this member alone."""
        return etcdctl([self.endpoint], *words)

    def _arguments(self) -> list[str]:
        client = f"{'https' if self._certificates else 'http'}://{self.endpoint}"
        peer = self.peer.partition("=")[2]
        arguments = ["--name", self.name, "--data-dir", str(self.data)]
        arguments += ["--listen-client-urls", client, "--advertise-client-urls", client]
        arguments += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        arguments += ["--initial-cluster", self.cluster]
        arguments += ["--heartbeat-interval", "10", "--election-timeout", "100"]
        if made := self._certificates:
            arguments += ["--cert-file", str(made.server_cert), "--key-file", str(made.server_key)]
            arguments += ["--trusted-ca-file", str(made.authority), "--client-cert-auth"]
        return [*arguments, *self._options]


class EtcdTrio:
    """A cluster of three members on this machine."""

    def __init__(self, folder: Path) -> None:
        timing = ("--heartbeat-interval", "50", "--election-timeout", "500")
        self.members = [
            EtcdServer(folder / name, *timing, name=name) for name in ("e0", "e1", "e2")
        ]
        for member in self.members:
            member.cluster = ",".join(each.peer for each in self.members)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Of all members, running or not."""
        return tuple(member.endpoint for member in self.members)

    def start(self) -> None:
        """Start whoever does not run, and wait for a majority's word."""
        stopped = [member for member in self.members if not member.runs]
        for member in stopped:
            member.start(wait=False)
        for member in stopped:
            member.wait_listening()
        self.leader()

    def stop(self) -> None:
        """Kill all."""
        for member in self.members:
            member.stop()

    def leader(self) -> EtcdServer:
        """The member that leads, as soon as one does."""
        deadline = time.monotonic() + START_TIMEOUT_S
        running = [member for member in self.members if member.runs]
        while time.monotonic() < deadline:
            for member in running:
                if _leads(member):
                    return member
            time.sleep(0.02)
        raise TimeoutError("no member leads")


def etcdctl(endpoints: Sequence[str], *words: str) -> str:
    """What `etcdctl` says."""
    binary = shutil.which("etcdctl")
    assert binary is not None
    command = [binary, "--endpoints", ",".join(endpoints), *words]
    environment = {**os.environ, "ETCDCTL_API": "3"}
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=20, env=environment
    ).stdout


def _leads(member: EtcdServer) -> bool:
    try:
        (found,) = json.loads(member.ctl("endpoint", "status", "-w", "json"))
    except (subprocess.CalledProcessError, ValueError):
        return False
    status = found["Status"]
    return bool(status["leader"] == status["header"]["member_id"])
