"""Who may come in."""

from __future__ import annotations

import pytest

from thunderserve.core.errors import InvalidArgumentError, NotFoundError, OverloadedError
from thunderserve.router.admission import (
    Admission,
    ContextLengthError,
    check_model,
    room_for_answer,
)


def test_admission_refuses_when_one_too_many_is_in_flight() -> None:
    """The one too many is told when to come back, and is not counted."""
    admission = Admission(max_in_flight=2)

    with admission, admission:
        with pytest.raises(OverloadedError, match="2 requests are in flight") as caught, admission:
            pass
        assert caught.value.retry_after_s == 1.0
        assert admission.in_flight == 2

    assert admission.in_flight == 0


def test_admission_counts_down_when_a_request_fails() -> None:
    """A failed request frees its place."""
    admission = Admission(max_in_flight=1)

    with pytest.raises(ZeroDivisionError), admission:
        raise ZeroDivisionError

    assert admission.in_flight == 0


def test_check_model_names_both_when_another_is_asked_for() -> None:
    """The asked one, and the way out."""
    with pytest.raises(NotFoundError, match=r"'gpt-9'.*serves 'demo'"):
        check_model("gpt-9", "demo")


@pytest.mark.parametrize("asked", ["", "demo"])
def test_check_model_accepts_when_the_name_is_empty_or_served(asked: str) -> None:
    """An empty name is the served model."""
    check_model(asked, "demo")


def test_room_for_answer_is_the_rest_when_nothing_is_asked() -> None:
    """All that the context has left."""
    assert room_for_answer(100, None, 2048) == 1948


def test_room_for_answer_is_what_is_asked_when_it_fits_exactly() -> None:
    """Prompt and answer may fill the context."""
    assert room_for_answer(2000, 48, 2048) == 48


@pytest.mark.parametrize(
    ("prompt", "asked", "numbers"),
    [
        (2048, None, ("2048 tokens", "2048")),
        (3000, 1, ("3000", "2048")),
        (2000, 49, ("49", "2049", "2048")),
    ],
)
def test_room_for_answer_names_the_numbers_when_it_does_not_fit(
    prompt: int, asked: int | None, numbers: tuple[str, ...]
) -> None:
    """What was asked and what there is."""
    with pytest.raises(ContextLengthError) as caught:
        room_for_answer(prompt, asked, 2048)

    assert all(number in str(caught.value) for number in numbers)


@pytest.mark.parametrize("asked", [0, -5])
def test_room_for_answer_refuses_when_max_tokens_is_not_positive(asked: int) -> None:
    """The value is named."""
    with pytest.raises(InvalidArgumentError, match=f"max_tokens is {asked}"):
        room_for_answer(10, asked, 2048)
