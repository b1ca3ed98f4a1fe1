"""What TLS between two sidecars costs: frames through it beside plain TCP and iperf3.

    .venv/bin/python benchmarks/transport.py [--gbit 0 1 5] [--seconds 5]

Two processes in two network namespaces (root), joined by a veth pair that `tc tbf` holds to each
rate; 0 is the pair as it is. Frames have the size of int4's for 4 MiB of values. Payload MB/s, the
ratio to iperf3 in the same run, processor seconds for a GB at each end; what a handshake takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from thunderserve.core.identity import Role
from thunderserve.kvlink.links import BULK_PROTOCOL
from thunderserve.kvlink.transport import (
    ByteStream,
    Stream,
    StreamClosedError,
    TlsPort,
    add_frames_to_server,
    dial,
    dial_rpc,
    splice,
)
from thunderserve.runtime.identity import Credentials
from thunderserve.runtime.identity.pki import issue_local
from thunderserve.runtime.rpc import serve_rpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FRAME_BYTES = 4 * 1024 * 1024 * 9 // 32  # 4.5 bits for each value of 16
HEADER_BYTES = 60
HOST, PORT = "10.213.8.1", 7450
MODES = ("tcp", "tls", "grpc")
HANDSHAKES = 200
NAMESPACES = ("ts-transport-a", "ts-transport-b")


class Meter:
    """Bytes, time and this process's processor time since it was made."""

    def __init__(self) -> None:
        self._start_s, self._cpu_s = time.monotonic(), _cpu_s()

    def read(self, byte_count: int) -> dict[str, float]:
        """What passed since."""
        seconds, cpu_s = time.monotonic() - self._start_s, _cpu_s() - self._cpu_s
        return {"bytes": byte_count, "seconds": seconds, "cpu_s": cpu_s}


async def serve(mode: str, folder: Path, _: float) -> dict[str, float]:
    """Take one connection's frames, then handshakes until the client is done."""
    done: asyncio.Future[dict[str, float]] = asyncio.get_running_loop().create_future()

    async def take(stream: Stream) -> None:
        header, payload = memoryview(bytearray(HEADER_BYTES)), memoryview(bytearray(FRAME_BYTES))
        meter, received = None, {"bytes": 0.0}
        try:
            while True:
                await stream.read_into(header)
                meter = meter or Meter()
                await stream.read_into(payload)
                received = meter.read(round(received["bytes"]) + FRAME_BYTES)  # to its last byte
        except StreamClosedError:
            if meter and not done.done():
                done.set_result(received)

    served: list[Any] = []
    if mode != "tcp":
        grpc_socket = folder / "grpc"
        # Kept: a gRPC server that nobody holds stops.
        served.append(
            await serve_rpc(
                f"unix:{grpc_socket}", lambda server: add_frames_to_server(server, take)
            )
        )
        handlers = {BULK_PROTOCOL: take, "h2": lambda stream: splice(stream, grpc_socket)}
        port = TlsPort(Credentials(folder / "server"), (Role.KVLINK,), handlers)
        await port.listen(f"{HOST}:{PORT}")
    else:
        await asyncio.get_running_loop().create_server(
            lambda: ByteStream(lambda stream: _spawn(take(stream))), HOST, PORT
        )
    print("ready", flush=True)
    return await done


async def push(mode: str, folder: Path, seconds: float) -> dict[str, float]:
    """Send frames for some time."""
    credentials = Credentials(folder / "client")
    extra = await _shake_hands(credentials) if mode == "tls" else {}
    stream = await _open(mode, credentials)
    header, payload = bytes(HEADER_BYTES), os.urandom(FRAME_BYTES)
    meter, count = Meter(), 0
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        await stream.write(header, payload)
        count += FRAME_BYTES
    measured = meter.read(count)
    await asyncio.sleep(0.5)  # closing throws away what has not been sent
    stream.close()
    return measured | extra


async def _open(mode: str, credentials: Credentials) -> Stream:
    if mode == "grpc":
        return await dial_rpc(f"{HOST}:{PORT}", credentials, Role.KVLINK, 5.0)
    if mode == "tls":
        return await dial(f"{HOST}:{PORT}", credentials, Role.KVLINK, BULK_PROTOCOL, 5.0)
    _, stream = await asyncio.get_running_loop().create_connection(ByteStream, HOST, PORT)
    return stream


async def _shake_hands(credentials: Credentials) -> dict[str, float]:
    meter = Meter()
    for _ in range(HANDSHAKES):
        (await _open("tls", credentials)).close()
    spent = meter.read(0)
    return {
        "handshake_s": spent["seconds"] / HANDSHAKES,
        "handshake_cpu_s": spent["cpu_s"] / HANDSHAKES,
    }


def measure(mode: str, folder: Path, seconds: float) -> dict[str, Any]:
    """One mode over the link as it is now."""
    sides = [("serve", NAMESPACES[0]), ("push", NAMESPACES[1])]
    commands = [
        _within(name, sys.executable, __file__, "--side", side, mode, str(folder), str(seconds))
        for side, name in sides
    ]
    with subprocess.Popen(commands[0], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # noqa: S101 - it was asked for
            server.stdout.readline()
            client = subprocess.run(commands[1], check=True, stdout=subprocess.PIPE, text=True)
            received = json.loads(server.stdout.readline())
        finally:
            server.terminate()
    return {"received": received, "sent": json.loads(client.stdout)}


def iperf3_bytes_per_s(seconds: float) -> float:
    """What iperf3 receives over the link as it is now."""
    server = _within(NAMESPACES[0], "iperf3", "-s", "-1", "-B", HOST)
    client = _within(NAMESPACES[1], "iperf3", "-c", HOST, "-t", f"{seconds:.0f}", "-J")
    with subprocess.Popen(server, stdout=subprocess.DEVNULL):
        time.sleep(0.5)
        done = subprocess.run(client, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 8


def link(gbit: float) -> Iterator[None]:
    """Two namespaces and a cable of that rate, until the generator is closed."""
    try:
        for name in NAMESPACES:
            _ip("netns", "add", name)
        ends = ("netns", NAMESPACES[0], "type", "veth", "peer", "eth0", "netns", NAMESPACES[1])
        _ip("link", "add", "eth0", *ends)
        for name, address in zip(NAMESPACES, (HOST, "10.213.8.2"), strict=True):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            if gbit:
                rate = ("rate", f"{gbit}gbit", "burst", "512kb", "latency", "20ms")
                shape = ("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", "tbf", *rate)
                subprocess.run(shape, check=True)
        yield
    finally:
        for name in NAMESPACES:
            subprocess.run(("ip", "netns", "delete", name), check=False)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gbit", type=float, nargs="+", default=[0.0, 1.0, 5.0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    arguments = parser.parse_args()
    print("link        wire       MB/s  x iperf3   CPU-s/GB sending, receiving")
    with tempfile.TemporaryDirectory() as name:
        issue_local(Path(name), Role.KVLINK, ("server", "client"), datetime.now(UTC))
        for gbit in arguments.gbit:
            for _ in link(gbit):
                _print_link(gbit, arguments.modes, Path(name), arguments.seconds)


def _print_link(gbit: float, modes: Sequence[str], folder: Path, seconds: float) -> None:
    label = f"{gbit:g} Gbit/s" if gbit else "unshaped"
    iperf3 = iperf3_bytes_per_s(seconds)
    print(f"{label:<11} {'iperf3':<7} {iperf3 / 1e6:7.0f}  {1:8.2f}", flush=True)
    for mode in modes:
        found = measure(mode, folder, seconds)
        sent, received = found["sent"], found["received"]
        rate = received["bytes"] / received["seconds"]
        spent = [1e9 * end["cpu_s"] / end["bytes"] for end in (sent, received)]
        costs = f"{spent[0]:.2f}, {spent[1]:.2f}"
        print(
            f"{label:<11} {mode:<7} {rate / 1e6:7.0f}  {rate / iperf3:8.2f}   {costs}", flush=True
        )
        if "handshake_s" in sent:
            wall_ms, cpu_ms = 1e3 * sent["handshake_s"], 1e3 * sent["handshake_cpu_s"]
            print(
                f"{label:<11} handshake {wall_ms:.1f} ms, {cpu_ms:.1f} ms of the dialer's processor"
            )


def _spawn(work: Any) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Task[None]] = set()


def _within(name: str, *command: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", name, *command)


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side, mode, folder, seconds = sys.argv[2:]
        run = {"serve": serve, "push": push}[side]
        print(json.dumps(uvloop.run(run(mode, Path(folder), float(seconds)))))
    else:
        main()
