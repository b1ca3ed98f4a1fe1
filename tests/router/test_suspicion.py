"""A worker that could not be reached is avoided for a while."""

from __future__ import annotations

from dataclasses import replace

from fake_workers import fake_worker_noun

from thunderserve.core.plan import Phase
from thunderserve.router.suspicion import Suspicion


def test_suspicion_ends_when_its_time_is_over() -> None:
    """It is avoided from the failure on, and no longer than configured."""
    suspicion, worker = Suspicion(period_s=2.0), fake_worker_noun("d0", Phase.DECODE, 1, "a:1")

    suspicion.suspect(worker, now_s=10.0)

    assert suspicion.avoid([worker], now_s=11.9).groups == {"d0"}
    assert suspicion.avoid([worker], now_s=12.0).groups == frozenset()


def test_suspicion_spares_a_worker_when_it_was_restarted() -> None:
    """A new process is not the one that failed."""
    suspicion, worker = Suspicion(period_s=2.0), fake_worker_noun("d0", Phase.DECODE, 1, "a:1")
    suspicion.suspect(worker, now_s=10.0)

    restarted = replace(worker, instance_id="another")

    assert suspicion.avoid([restarted], now_s=10.1).groups == frozenset()
