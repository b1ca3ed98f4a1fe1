"""The configuration of a prefill worker."""

from __future__ import annotations

from dataclasses import dataclass

from thunderserve.core.plan import Phase
from thunderserve.engine.worker.config import WorkerConfig

__all__ = ["PrefillConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillConfig(WorkerConfig):
    """A worker's keys; it starts in phase PREFILL unless `phase` says otherwise."""

    phase: Phase = Phase.PREFILL
