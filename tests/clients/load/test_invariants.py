"""Every promise is one that a history can be seen to break."""

from __future__ import annotations

import pytest

from thunderserve.cli.load.expected import expected_tokens
from thunderserve.cli.load.history import Ending, History, RequestRecord
from thunderserve.cli.load.invariants import violations
from thunderserve.core.errors import OverloadedError, UnavailableError

PROMPT = (20, 21, 22)
RIGHT = expected_tokens(PROMPT, 3)


def sound() -> tuple[History, RequestRecord]:
    """A history of one request that was answered as it should be."""
    moments = iter(range(1000))
    history = History(lambda: float(next(moments)))
    record = history.submit(PROMPT, 3)
    history.note_tokens(record, RIGHT)
    history.note_end(record, Ending.FINISHED)
    return history, record


def rules(history: History) -> list[str]:
    return [violation.rule for violation in violations(history, expected_tokens)]


def test_sound_history_breaks_no_promise() -> None:
    history, record = sound()
    for epoch in (1, 1, 2):
        history.note_plan("control", epoch, (0.25, 0.75))
    history.note_plan("router", 1)
    history.note_plan("control", 3, ())
    assert violations(history, expected_tokens) == ()
    assert record.first_token_s < record.ended_s


def test_request_must_end() -> None:
    history, record = sound()
    record.endings.clear()
    assert rules(history) == ["ends-once"]


def test_request_must_not_end_twice() -> None:
    history, record = sound()
    history.note_failure(record, UnavailableError("gone"))
    assert rules(history) == ["ends-once"]


@pytest.mark.parametrize(
    "tokens",
    [[RIGHT[0], *RIGHT[:2]], [RIGHT[0], RIGHT[2], RIGHT[2]], [*RIGHT[:2], 5]],
    ids=["one twice", "one missing", "one wrong"],
)
def test_tokens_must_be_the_engines(tokens: list[int]) -> None:
    history, record = sound()
    record.tokens = tokens
    assert rules(history) == ["token-exact"]


@pytest.mark.parametrize("tokens", [RIGHT[:2], expected_tokens(PROMPT, 4)])
def test_finished_answer_must_be_whole(tokens: list[int]) -> None:
    history, record = sound()
    record.tokens = tokens
    assert rules(history) == ["complete"]


def test_failed_answer_may_be_short() -> None:
    history, record = sound()
    record.tokens, record.endings = RIGHT[:1], []
    history.note_failure(record, UnavailableError("gone"))
    assert rules(history) == []
    assert (record.ending, record.error) == (Ending.FAILED, "UnavailableError: gone")


def test_overload_is_a_refusal_before_the_first_token_alone() -> None:
    history, record = sound()
    record.endings.clear()
    history.note_failure(record, OverloadedError("later"))
    shed = history.submit(PROMPT, 3)
    history.note_failure(shed, OverloadedError("later"))
    assert [record.ending, shed.ending] == [Ending.FAILED, Ending.REFUSED]


def test_epochs_must_not_fall_for_one_observer() -> None:
    history, _ = sound()
    for observer, epoch in (("control", 7), ("router", 6), ("control", 5)):
        history.note_plan(observer, epoch)
    assert rules(history) == ["epochs-rise"]


def test_weights_must_sum_to_one() -> None:
    history, _ = sound()
    history.note_plan("control", 1, (0.5, 0.4))
    assert rules(history) == ["weights-sum"]
