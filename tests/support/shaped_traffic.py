"""Sends over a loopback that is shaped to one rate, then to another, and prints what is measured.

Run as root in a network namespace of its own: `ip netns exec NAME python shaped_traffic.py`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time

from thunderserve.kvlink.measuring import LinkMeter

MOST_S = 8.0


def shape(rate: str) -> None:
    """Let so much through from now on."""
    argv = ["tc", "qdisc", "replace", "dev", "lo", "root", "tbf", "rate", rate]
    subprocess.run([*argv, "burst", "512kb", "latency", "50ms"], check=True)


async def main() -> None:
    """One connection, gaps in its traffic, two rates."""
    meter, done = LinkMeter(time.monotonic), threading.Event()
    near, far = connected()
    threads = [threading.Thread(target=read, args=(far,))]
    threads.append(threading.Thread(target=write, args=(near, done)))
    for thread in threads:
        thread.start()
    meter.watch("peer", near)
    found = []
    for rate, expected in (("1gbit", 1.25e8), ("100mbit", 1.25e7)):
        shape(rate)
        start_s = time.monotonic()
        while time.monotonic() < start_s + MOST_S:
            await asyncio.sleep(0.05)
            measured = meter.estimate("peer").bytes_per_s
            if abs(measured / expected - 1) < 0.1:
                break
        found.append({"bytes_per_s": measured, "took_s": time.monotonic() - start_s})
    done.set()
    near.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    meter.close()
    near.close()
    far.close()
    sys.stdout.write(json.dumps(found))


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


def read(far: socket.socket) -> None:
    """Take what comes."""
    buffer = bytearray(1 << 20)
    while far.recv_into(buffer):
        pass


def write(near: socket.socket, done: threading.Event) -> None:
    """Pieces of 4 MB with gaps of a fifth of a second."""
    piece = bytes(1 << 22)
    try:
        while not done.wait(0.2):
            near.sendall(piece)
    except OSError:
        return  # it was shut down amid a piece


asyncio.run(main())
