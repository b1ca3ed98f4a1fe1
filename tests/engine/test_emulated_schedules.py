"""When the emulated engine computes what: the moments are exact, for no clock is involved."""

from __future__ import annotations

import math

import pytest

from thunderserve.engine.emulated import PlainTimes
from thunderserve.engine.emulated.job import Job, Progress
from thunderserve.engine.emulated.pipeline import PrefillPipeline
from thunderserve.engine.emulated.rounds import Rounds

TIMES = PlainTimes(prefill_s_per_token=1.0, decode_s_per_step=10.0)


class TwoStages(PlainTimes):
    """Each stage takes half of the time, and handing over takes none."""

    def prefill_s(self, prompts: object) -> tuple[tuple[float, float], ...]:
        ((time_s, _),) = super().prefill_s(prompts)  # type: ignore[arg-type]  # a Work
        return ((time_s / 2, 0.0), (time_s / 2, 0.0))


def seen(progress: list[Progress], job: Job) -> list[tuple[float, int, int]]:
    return [(p.at_s, p.computed_tokens, p.produced_tokens) for p in progress if p.job is job]


def test_pipeline_computes_prompts_one_after_another_in_chunks() -> None:
    """25 and 5 tokens in chunks of 20: the second shares the first's last pass."""
    pipeline = PrefillPipeline(TIMES, chunk_tokens=20)
    first, second = Job(25, 1, ready_s=100.0), Job(5, 1, ready_s=103.0)
    pipeline.enqueue(first)
    pipeline.enqueue(second)
    happened = pipeline.advance(1000.0)
    assert seen(happened, first) == [(120.0, 20, 0), (130.0, 5, 1)]
    assert seen(happened, second) == [(130.0, 5, 1)]
    assert pipeline.next_s == math.inf


def test_pipeline_lets_the_next_pass_in_when_its_first_stage_is_free() -> None:
    two = TwoStages(prefill_s_per_token=1.0, decode_s_per_step=0.0, stages=2)
    pipeline = PrefillPipeline(two, chunk_tokens=20)
    jobs = [Job(20, 1, ready_s=0.0) for _ in range(2)]
    for job in jobs:
        pipeline.enqueue(job)
    happened = pipeline.advance(1000.0)
    assert [p.at_s for p in happened] == [20.0, 30.0]


def test_pipeline_says_the_same_however_often_it_is_asked() -> None:
    often, once = (PrefillPipeline(TIMES, chunk_tokens=8) for _ in range(2))
    for pipeline in (often, once):
        for number in range(5):
            pipeline.enqueue(Job(7 + number, 1, ready_s=float(number)))
    happened = [p.at_s for now_s in range(60) for p in often.advance(float(now_s))]
    assert happened == [p.at_s for p in once.advance(60.0)]


def test_round_gives_every_running_request_a_token() -> None:
    """The second joins after the round that it came in, and they leave when they are done."""
    rounds = Rounds(TIMES, chunk_tokens=20, max_running=8)
    first, second = Job(5, 4, ready_s=0.0, produced_tokens=1), Job(5, 3, produced_tokens=1)
    rounds.join(first)
    happened = rounds.advance(5.0)
    second.ready_s = 5.0
    rounds.join(second)
    happened += rounds.advance(1000.0)
    assert [at_s for at_s, _, _ in seen(happened, first)] == [10.0, 20.0, 30.0]
    assert [at_s for at_s, _, _ in seen(happened, second)] == [20.0, 30.0]
    assert rounds.next_s == math.inf


def test_round_carries_chunks_of_prompts_when_it_is_colocated() -> None:
    """A decoding request takes one token of the chunk's 20; a round takes 10 s more for it."""
    rounds = Rounds(TIMES, chunk_tokens=20, max_running=8)
    running, coming = Job(5, 9, ready_s=0.0, produced_tokens=1), Job(25, 2, ready_s=0.0)
    rounds.join(running)
    rounds.enqueue(coming)
    happened = rounds.advance(60.0)
    assert seen(happened, coming) == [(29.0, 19, 0), (45.0, 6, 1), (55.0, 0, 1)]
    assert [at_s for at_s, _, _ in seen(happened, running)] == [29.0, 45.0, 55.0]


def test_round_lets_no_more_run_than_it_may() -> None:
    rounds = Rounds(TIMES, chunk_tokens=20, max_running=1)
    first, second = (Job(5, 3, ready_s=0.0, produced_tokens=1) for _ in range(2))
    rounds.join(first)
    rounds.join(second)
    happened = rounds.advance(1000.0)
    assert [at_s for at_s, _, _ in seen(happened, second)] == [30.0, 40.0]


@pytest.mark.parametrize("at_s", [0.0, 5.0])
def test_dropped_job_is_told_of_no_more(at_s: float) -> None:
    """Whether it waits or runs; the other goes on alone."""
    rounds = Rounds(TIMES, chunk_tokens=20, max_running=8)
    kept, dropped = (Job(5, 3, ready_s=0.0, produced_tokens=1) for _ in range(2))
    for job in (kept, dropped):
        rounds.join(job)
    rounds.advance(at_s)
    rounds.drop(dropped)
    happened = rounds.advance(1000.0)
    assert {p.job for p in happened} == {kept}
    assert rounds.next_s == math.inf
