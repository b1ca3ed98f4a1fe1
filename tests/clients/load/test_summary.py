"""Figures of a history whose figures can be told by hand."""

from __future__ import annotations

from thunderserve.cli.load.history import Ending, History
from thunderserve.cli.load.summary import summarise
from thunderserve.core.errors import UnavailableError
from thunderserve.core.slo import Slo


class Clock:
    """Tells what it is told."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_summary_counts_what_was_in_time_over_the_time_of_arrivals() -> None:
    """One in time, one late, one failed; three arrivals in two intervals of 10 s."""
    clock = Clock()
    history = History(clock)
    for first_s, ended in ((1.0, True), (5.0, True), (1.0, False)):
        record = history.submit((20,), 3)
        began_s = clock.now_s
        clock.now_s = began_s + first_s
        history.note_tokens(record, (1,))
        clock.now_s += 0.2
        history.note_tokens(record, (1, 1))
        if ended:
            history.note_end(record, Ending.FINISHED)
        else:
            history.note_failure(record, UnavailableError("gone"))
        clock.now_s = began_s + 10.0
    summary = summarise(history, Slo(ttft_s=2.0, tpot_s=0.15))
    assert (summary.requests, summary.finished, summary.failed) == (3, 2, 1)
    assert summary.attainment.slo_ratio == 1 / 3
    assert summary.goodput_rps == 1 / 3 * 2 / 20
    assert summary.ttft.mean == 3.0
    assert abs(summary.tpot.p99 - 0.1) < 1e-9
    assert summary.errors == {"UnavailableError": 1}
