"""Which processes a local fleet has and how each is configured; no input or output."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.cli.options import FleetOptions, StoreName
from thunderserve.cli.ports import CONTROL_PORT, HTTP_PORT, ROUTER_PORT
from thunderserve.cli.probes import HealthProbe, HttpProbe, PortProbe, Probe
from thunderserve.cli.supervisor import Command
from thunderserve.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PKI_FOLDER", "REFERENCE", "Layout", "Member", "lay_out", "to_toml"]

# The colocated engine that belongs to no plan; others' answers are compared with its.
REFERENCE = "reference"
# The fleet's own certificates, in the run directory.
PKI_FOLDER = "pki"
# Linux keeps a Unix socket's path in 108 bytes, the end's zero included.
LONGEST_SOCKET_PATH = 107

# The fleet cannot go on without them; it survives the loss of any other process.
_ESSENTIAL = {"etcd", "control", "router"}

Setting = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the fleet.

    Attributes:
        essential: The fleet cannot go on without it.
    """

    command: Command
    probe: Probe
    essential: bool

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name


@dataclass(frozen=True, slots=True)
class Layout:
    """Every process, in the order of starting; files are written before any starts.

    Attributes:
        reference: Address of the colocated engine; empty without one.
    """

    members: tuple[Member, ...]
    files: Mapping[Path, str]
    http: str
    router: str
    control: str
    workers: Mapping[str, str]
    reference: str = ""


def lay_out(options: FleetOptions, run: Path, free_port: Callable[[int], int]) -> Layout:
    """Give every process its ports, sockets and configuration.

    Args:
        options: What is wanted.
        run: The run directory.
        free_port: A port of this machine that nobody has, new at every call; the argument's if
            that one is free, and 0 asks for any.

    Raises:
        ConfigError: The run directory's path is too long for Unix sockets.
    """
    return _Drawing(options, run, free_port).layout()


def to_toml(settings: Mapping[str, Setting]) -> str:
    """A flat TOML file; JSON writes strings, numbers, booleans and lists as TOML reads them."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


class _Drawing:
    """The pen of `lay_out`: it hands out addresses and collects members and files."""

    def __init__(self, options: FleetOptions, run: Path, free_port: Callable[[int], int]) -> None:
        self._options, self._run, self._free_port = options, run, free_port
        self._members: list[Member] = []
        self._files: dict[Path, str] = {}

    def layout(self) -> Layout:
        options = self._options
        control, router = self._address(CONTROL_PORT), self._address(ROUTER_PORT)
        chosen = options.http_port
        http = f"127.0.0.1:{chosen}" if chosen else self._address(HTTP_PORT)
        store = self._store()
        redis = self._redis() if options.redis else ""
        self._service("control", control, self._control(control, store))
        self._service("router", router, self._router(router, http, control, redis))
        phases = ["PREFILL"] * options.prefill + ["DECODE"] * options.decode
        workers = {
            group: self._group(number, group, phase, control)
            for number, (group, phase) in enumerate(zip(options.groups, phases, strict=True))
        }
        reference = self._reference() if options.reference else ""
        return Layout(tuple(self._members), self._files, http, router, control, workers, reference)

    def _store(self) -> str:
        """The endpoint of etcd; empty for a store in memory."""
        if self._options.store is StoreName.MEMORY:
            return ""
        client, peer = self._address(), self._address()
        argv = (
            "etcd",
            *("--name", "local", "--data-dir", str(self._run / "etcd")),
            *("--listen-client-urls", f"http://{client}"),
            *("--advertise-client-urls", f"http://{client}"),
            *("--listen-peer-urls", f"http://{peer}"),
            *("--initial-advertise-peer-urls", f"http://{peer}"),
            *("--initial-cluster", f"local=http://{peer}"),
            # A fleet that is thrown away at its end need not survive a power cut.
            "--unsafe-no-fsync",
        )
        self._add("etcd", argv, HttpProbe(client, "/health"))
        return client

    def _redis(self) -> str:
        address = self._address()
        port = address.rpartition(":")[2]
        argv = ("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "")
        self._add("redis", argv, PortProbe(address, b"PING\r\n", b"+PONG"))
        return f"redis://{address}/0"

    def _control(self, address: str, store: str) -> dict[str, Setting]:
        settings: dict[str, Setting] = {
            "address": address,
            "model_name": self._options.model_name,
            "model_path": str(self._options.model),
            "store": str(self._options.store),
            "lease_ttl_s": self._options.lease_ttl_s,
            "expected_workers": len(self._options.groups),
            # A CPU's speed is not known well enough to move phases by it.
            "rescheduling": "off",
        }
        return settings | ({"etcd_endpoints": (store,)} if store else {})

    def _router(self, address: str, http: str, control: str, redis: str) -> dict[str, Setting]:
        settings: dict[str, Setting] = {
            "address": address,
            "http_address": http,
            "router_id": "router",
            "control_addresses": (control,),
            "model_name": self._options.model_name,
            "model_path": str(self._options.model),
        }
        return settings | ({"redis_url": redis} if redis else {})

    def _group(self, number: int, group: str, phase: str, control: str) -> str:
        """A worker and its sidecar; returns the worker's address."""
        local, engine_socket = self._socket(f"{group}-local"), self._socket(f"{group}-engine")
        sidecar, worker = self._address(), self._address()
        sidecar_settings: dict[str, Setting] = {
            "address": sidecar,
            "local_address": f"unix:{local}",
            "engine_socket": engine_socket,
            "identity": str(self._run / PKI_FOLDER / group),
            "wire_mode": str(self._options.wire),
        }
        # Others than its peers reach a sidecar by its local socket alone.
        self._service(f"{group}-kvlink", f"unix:{local}", sidecar_settings, module="kvlink")
        settings = self._worker(worker, group, f"n0/{number}", phase) | {
            "control_addresses": (control,),
            "kvlink_local_address": f"unix:{local}",
            "kvlink_engine_socket": engine_socket,
            "kvlink_advertised_address": sidecar,
        }
        self._service(group, worker, settings, module=phase.lower())
        return worker

    def _reference(self) -> str:
        address = self._address()
        # It names no control plane, so it belongs to no fleet and appears in no plan.
        settings = self._worker(address, REFERENCE, "reference/0", "COLOCATED")
        self._service(REFERENCE, address, settings, module="decode")
        return address

    def _worker(self, address: str, group: str, gpu: str, phase: str) -> dict[str, Setting]:
        options = self._options
        return {
            "address": address,
            "group_id": group,
            "node_id": gpu.rpartition("/")[0],
            "gpus": (f"{gpu}:{options.gpu_type}",),
            "phase": phase,
            "model_name": options.model_name,
            "model_path": str(options.model),
            "engine": str(options.engine),
            "device": options.device,
            "max_total_tokens": options.kv_tokens,
            "chunked_prefill_tokens": options.chunked_prefill_tokens,
            # A local fleet stops because a person wants it to; long answers are given up.
            "drain_timeout_s": 3.0,
        }

    def _service(
        self,
        name: str,
        address: str,
        settings: Mapping[str, Setting],
        *,
        module: str = "",
    ) -> None:
        path = self._run / f"{name}.toml"
        self._files[path] = to_toml(settings)
        argv = (sys.executable, "-m", f"thunderserve.{module or name}", "--config", str(path))
        self._add(name, argv, HealthProbe(address))

    def _add(self, name: str, argv: tuple[str, ...], probe: Probe) -> None:
        threads = str(self._options.threads)
        # What a process leaves in its temporary folder when it is killed goes with the run.
        environment = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TMPDIR": str(self._run),
        }
        self._members.append(Member(Command(name, argv, environment), probe, name in _ESSENTIAL))

    def _address(self, preferred: int = 0) -> str:
        return f"127.0.0.1:{self._free_port(preferred)}"

    def _socket(self, name: str) -> str:
        path = str(self._run / f"{name}.sock")
        if len(path.encode()) > LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"--run-dir {self._run} is too long: {path} has more than {LONGEST_SOCKET_PATH} "
                "bytes, the most that a Unix socket's path may have; choose a shorter one"
            )
        return path
