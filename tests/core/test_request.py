"""Requests that make no sense cannot be built."""

from typing import Any

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.request import SamplingParams, TransferTicket, Usage


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
    ],
)
def test_sampling_is_refused_when_a_value_is_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{field} is {value}") as refused:
        SamplingParams(**{field: value})
    assert refused.value.param == field


def test_sampling_accepts_its_limits() -> None:
    assert SamplingParams(max_tokens=1, temperature=2.0, top_p=1.0, top_k=0).top_k == 0


@pytest.mark.parametrize("room", [0, -1, 2**63])
def test_ticket_is_refused_when_its_room_is_no_positive_int64(room: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"room {room}"):
        TransferTicket(room, "a:1")
    assert TransferTicket(2**63 - 1, "a:1").room == 2**63 - 1


def test_usage_adds_prompt_and_answer() -> None:
    assert Usage(3, 4).total_tokens == 7
