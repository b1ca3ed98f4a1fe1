"""Traces in three formats; whatever is wrong is named with its line."""

from __future__ import annotations

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.trace_file import read_trace_text

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "arrival_s,prompt_tokens,output_tokens\n"

ROWS = [(0.0, 374, 44), (4.3145790, 396, 109)]


@pytest.mark.parametrize(
    "text",
    [
        AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
        AZURE + "2023-11-16 18:15:46.68059+00:00,374,44\n2023-11-16T19:15:50.995169+01:00,396,109",
        PLAIN + "10,374,44\n14.314579,396,109\n",
        "\ufeff" + PLAIN.replace("\n", "\r\n") + '"10","374","44"\r\n"14.314579", 396, 109\r\n\r\n',
        "output_tokens,user,prompt_tokens,arrival_s\n44,a,374,10\n109,b,396,14.314579\n",
        PLAIN + "14.314579,396,109\n10,374,44\n",
        """{"timestamp": 10000, "input_length": 374, "output_length": 44, "hash_ids": [1]}

        {"timestamp": 14314.579, "input_length": 396, "output_length": 109}
        """,
    ],
    ids=["azure", "zones", "plain", "bom crlf quotes", "columns", "disorder", "mooncake"],
)
def test_read_trace_text_reads_every_format(text: str) -> None:
    """Each says the same: two requests, the second 4.3 s after the first."""
    trace = read_trace_text("mine.csv", text)

    found = [(r.arrival_s, r.prompt_tokens, r.output_tokens) for r in trace.requests]
    assert [row[1:] for row in found] == [row[1:] for row in ROWS]
    assert [row[0] for row in found] == pytest.approx([row[0] for row in ROWS], abs=1e-6)


def test_read_trace_text_keeps_requests_that_come_at_once_in_order() -> None:
    trace = read_trace_text("mine.csv", PLAIN + "1,30,1\n1,20,2\n1,10,3\n2,5,4\n")

    assert [r.prompt_tokens for r in trace.requests] == [30, 20, 10, 5]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "trace t.csv is empty; it needs at least 2 requests"),
        ("\ufeff\r\n", "trace t.csv is empty"),
        (PLAIN, "has 0 requests; it needs at least 2"),
        (PLAIN + "1,2,3\n", "has 1 requests; it needs at least 2"),
        (PLAIN + "1,2,3\n1,2,3\n", "come at once"),
        ("a,b\n1,2\n", "line 1: 'a,b' does not name the columns TIMESTAMP"),
        (PLAIN + "0,1,1\n-1,2,3\n", "line 3: arrival_s is '-1'; it must be a number >= 0"),
        (PLAIN + "nan,2,3\n", "line 2: arrival_s is 'nan'"),
        (PLAIN + "inf,2,3\n", "line 2: arrival_s is 'inf'"),
        (PLAIN + "1,0,3\n", "line 2: prompt_tokens is '0'; it must be a whole number >= 1"),
        (PLAIN + "1,2,-3\n", "line 2: output_tokens is '-3'"),
        (PLAIN + "1,2.5,3\n", "line 2: prompt_tokens is '2.5'"),
        (PLAIN + "1,2\n", "line 2: output_tokens is missing"),
        (PLAIN + "1,two,3\n", "line 2: prompt_tokens is 'two'"),
        (AZURE + "yesterday,2,3\n", "line 2: TIMESTAMP is 'yesterday'; it must be a date and a"),
        ('{"timestamp": 1}\n', "line 1: input_length is missing"),
        ('{"timestamp": true, "input_length": 1, "output_length": 1}', "line 1: timestamp is True"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1}\n{"x"', "line 2: not JSON"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1}\n[]', "line 2: '[]' is not"),
    ],
)  # fmt: skip
def test_read_trace_text_names_line_and_value(text: str, problem: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_trace_text("t.csv", text)

    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
