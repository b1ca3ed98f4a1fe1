"""An engine that computes nothing: it takes the time a cost model says, and is checkable."""

from __future__ import annotations

from thunderserve.engine.emulated.engine import EmulatedEngine
from thunderserve.engine.emulated.memory_port import MemoryExchange, MemoryKvPort
from thunderserve.engine.emulated.port import KvPort
from thunderserve.engine.emulated.times import EmulatedTimes

__all__ = ["EmulatedEngine", "EmulatedTimes", "KvPort", "MemoryExchange", "MemoryKvPort"]
