"""The configuration of a decode worker."""

from __future__ import annotations

from dataclasses import dataclass

from thunderserve.core.plan import Phase
from thunderserve.engine.worker.config import WorkerConfig

__all__ = ["DecodeConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConfig(WorkerConfig):
    """A worker's keys; it starts in phase DECODE unless `phase` says otherwise."""

    phase: Phase = Phase.DECODE
