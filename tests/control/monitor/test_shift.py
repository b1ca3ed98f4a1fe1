"""A workload that has changed for good is seen soon; bursts, outages and cold starts are not it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.monitor.shift import Sensitivity, detect_shift
from thunderserve.control.monitor.window import Window
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.finished import FinishedRequest, Outcome
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import POISSON, Workload, workload_preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.monitor.shift import Shift

CODE = workload_preset("azure-code")
CONV = workload_preset("azure-conv")
SPAN_S = 60.0
EVERY_S = 5.0

Heard = list[tuple[float, FinishedRequest]]


def arriving(
    workload: Workload, duration_s: float, *, start_s: float = 0.0, seed: int = 0
) -> Heard:
    """Requests of a workload, each heard of when it has ended."""
    trace = sample_trace(workload, requests=round(workload.rate_rps * duration_s * 2), seed=seed)
    arrived = (
        (start_s + r.arrival_s, request(r.prompt_tokens, r.output_tokens))
        for r in trace.requests
        if r.arrival_s < duration_s
    )
    return sorted(((at_s + each.e2e_s, each) for at_s, each in arrived), key=lambda pair: pair[0])


def request(prompt: int, output: int, outcome: Outcome = Outcome.FINISHED) -> FinishedRequest:
    return FinishedRequest(0.0, prompt, output, ttft_s=0.5, tpot_s=0.05, outcome=outcome)


def shifts(planned: Workload, heard: Heard, until_s: float) -> list[tuple[float, Shift]]:
    """What is detected every few seconds, and when."""
    window, found, begin = Window(SPAN_S), [], 0
    window.add([], 0.0)
    for tick in range(1, int(until_s / EVERY_S) + 1):
        now_s = tick * EVERY_S
        end = begin + sum(at_s <= now_s for at_s, _ in heard[begin:])
        for at_s, each in heard[begin:end]:
            window.add([each], at_s)
        begin = end
        if shift := detect_shift(planned, window.view(now_s), Sensitivity()):
            found.append((now_s, shift))
    return found


@pytest.mark.parametrize(("before", "after"), [(CODE, CONV), (CONV, CODE)], ids=["conv", "code"])
def test_a_change_of_workload_is_seen_within_one_window(before: Workload, after: Workload) -> None:
    """The code trace's requests come in bursts and the conversation's do not: both ways."""
    calm_s = 120.0
    heard = arriving(replace(before, arrivals=POISSON), calm_s)
    heard += arriving(after, 90.0, start_s=calm_s, seed=3)

    found = shifts(before, heard, calm_s + 90.0)

    when_s, shift = next((at_s, s) for at_s, s in found if at_s > calm_s)
    assert when_s <= calm_s + SPAN_S
    assert "answers" in shift.reason


@pytest.mark.parametrize("planned", [CODE, CONV], ids=["code", "conv"])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_seen_in_half_an_hour_of_what_was_planned(planned: Workload, seed: int) -> None:
    """Bursts as the workload has them included."""
    assert shifts(planned, arriving(planned, 1800.0, seed=seed), 1800.0) == []


@pytest.mark.parametrize("size", [100, 300])
def test_one_burst_of_other_requests_is_no_shift(size: int) -> None:
    """Hundreds of long prompts within a few seconds, amid conversations."""
    calm = arriving(replace(CONV, arrivals=POISSON), 240.0)
    burst = [(120.0 + i / 50, request(6000, 20)) for i in range(size)]
    heard = sorted(calm + burst, key=lambda each: each[0])

    lengths = [s for _, s in shifts(CONV, heard, 240.0) if "tokens" in s.reason]

    assert lengths == []


def test_a_rate_that_doubled_is_a_shift_and_keeps_the_bursts() -> None:
    """The requests are the planned ones, so their burstiness is still what is known of it."""
    heard = arriving(CONV.with_rate(2 * CONV.rate_rps), 60.0)

    _, shift = shifts(CONV, heard, 60.0)[-1]

    assert "requests/s" in shift.reason
    assert shift.workload.rate_rps == pytest.approx(2 * CONV.rate_rps, rel=0.25)
    assert shift.workload.arrivals == CONV.arrivals


def test_the_observed_workload_has_the_means_of_what_arrives() -> None:
    """The planner is given what is there, thinned to equally likely pairs."""
    heard = arriving(CONV, 60.0)

    _, shift = shifts(CODE, heard, 60.0)[-1]

    # Not that of the requests that have ended: the short ones end first.
    assert shift.workload.output.mean == pytest.approx(CONV.output.mean, rel=0.1)
    assert len(shift.workload.requests) <= 64


def test_the_first_requests_are_no_shift() -> None:
    """A cold start: 49 requests, whatever they are."""
    assert _of([request(5, 5)] * 49) is None
    assert _of([request(5, 5)] * 52) is not None


def test_an_outage_is_no_shift() -> None:
    """What is answered while others fail says little of what arrives."""
    answered = [request(5, 5)] * 90
    assert _of([*answered, *[request(0, 0, Outcome.FAILED)] * 11]) is None
    assert _of([*answered, *[request(0, 0, Outcome.CANCELLED)] * 11]) is not None


def test_means_that_alone_are_known_are_compared_as_means() -> None:
    """A fleet that was configured by means has no distribution to compare with."""
    planned = Workload.from_means(rate_rps=1, prompt_tokens=100, output_tokens=10)
    lengths = [request(60 + 80 * (i % 2), 10) for i in range(60)]

    assert _of(lengths, planned) is None
    assert _of([request(200, 10)] * 60, planned) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("least_requests", 1), ("length_ratio", 1.0), ("rate_ratio", 0.5), ("chance", 0.0)],
)
def test_sensitivity_refuses_nonsense(name: str, value: float) -> None:
    """The error names the setting."""
    with pytest.raises(InvalidArgumentError, match=name):
        Sensitivity(**{name: value})  # type: ignore[arg-type]


def _of(requests: Sequence[FinishedRequest], planned: Workload | None = None) -> Shift | None:
    """The shift in requests that came evenly within 60 s, at the planned rate."""
    rate_rps = len(requests) / SPAN_S
    window = Window(SPAN_S)
    window.add([], 0.0)
    for index, each in enumerate(requests):
        window.add([each], (index + 0.5) / rate_rps)
    return detect_shift((planned or CONV).with_rate(rate_rps), window.view(SPAN_S), Sensitivity())
