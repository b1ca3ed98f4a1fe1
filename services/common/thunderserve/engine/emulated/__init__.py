"""An engine that computes nothing: it takes the time a cost model says, and is checkable."""

from __future__ import annotations

from thunderserve.engine.emulated.clock import EmulatedClock
from thunderserve.engine.emulated.engine import Batching, EmulatedEngine
from thunderserve.engine.emulated.memory_port import MemoryExchange, MemoryKvPort
from thunderserve.engine.emulated.network import EmulatedNetwork
from thunderserve.engine.emulated.port import KvPort
from thunderserve.engine.emulated.times import CostTimes, EmulatedTimes, PlainTimes

__all__ = [
    "Batching",
    "CostTimes",
    "EmulatedClock",
    "EmulatedEngine",
    "EmulatedNetwork",
    "EmulatedTimes",
    "KvPort",
    "MemoryExchange",
    "MemoryKvPort",
    "PlainTimes",
]
