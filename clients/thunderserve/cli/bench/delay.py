"""A link that takes its time: packets of two TUN devices, each given to the other a while later.

    python -m thunderserve.cli.bench.delay PID DEVICE SECONDS

One device is in this process's network namespace, the other in that of the process PID. (The
kernel's own way, netem, is a module that many kernels lack.)
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Lane", "main"]

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_MOST_PACKET_BYTES = 65_536
_MOST_PACKETS_AT_ONCE = 64


class Lane:
    """One direction: what was read waits until it is due.

    Args:
        delay_s: Between a packet's coming and its going.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._waiting: deque[tuple[float, bytes]] = deque()

    def put(self, packet: bytes, now_s: float) -> None:
        """A packet has come."""
        self._waiting.append((now_s + self._delay_s, packet))

    def due(self, now_s: float) -> list[bytes]:
        """Those whose time it is, in order."""
        packets = []
        while self._waiting and self._waiting[0][0] <= now_s:
            packets.append(self._waiting.popleft()[1])
        return packets

    @property
    def next_due_s(self) -> float | None:
        """None when nothing waits."""
        return self._waiting[0][0] if self._waiting else None


def main(argv: Sequence[str]) -> int:
    """Relay until it is killed."""
    other, device, delay_s = int(argv[0]), argv[1], float(argv[2])
    ends = [_open(device)]
    _enter(other)
    ends.append(_open(device))
    print("ready", flush=True)  # noqa: T201 - its parent waits for it
    lanes = {ends[0]: Lane(delay_s), ends[1]: Lane(delay_s)}
    while True:
        _step(lanes, dict(zip(ends, reversed(ends), strict=True)))


def _step(lanes: dict[int, Lane], opposite: dict[int, int]) -> None:
    """Wait for a packet to come or to be due; move what there is."""
    dues = [due_s for lane in lanes.values() if (due_s := lane.next_due_s) is not None]
    wait_s = max(0.0, min(dues) - time.monotonic()) if dues else None
    readable, _, _ = select.select(list(lanes), [], [], wait_s)
    for end in readable:
        for _ in range(_MOST_PACKETS_AT_ONCE):
            try:
                packet = os.read(end, _MOST_PACKET_BYTES)
            except BlockingIOError:
                break
            lanes[end].put(packet, time.monotonic())
    for end, lane in lanes.items():
        for packet in lane.due(time.monotonic()):
            # A device that is not up yet, or has no room, loses packets as any link does.
            with contextlib.suppress(OSError):
                os.write(opposite[end], packet)


def _open(device: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
    return end


def _enter(pid: int) -> None:
    """The network namespace of another process; `os.setns` came with Python 3.12."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
