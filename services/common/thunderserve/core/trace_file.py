"""Traces from files: Azure's CSV, Mooncake's JSON lines, or a plain CSV.

::

    TIMESTAMP,ContextTokens,GeneratedTokens            # Azure LLM inference traces
    2023-11-16 18:15:46.6805900,374,44

    {"timestamp": 27482, "input_length": 6955, "output_length": 52}     # Mooncake; milliseconds

    arrival_s,prompt_tokens,output_tokens              # plain
    0.0,374,44

Which of them a file is, its first line says. Other columns are ignored. The trace begins at 0 s;
requests need not be in order.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.trace import Trace, TracedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["read_trace_text"]


@dataclass(frozen=True, slots=True)
class _Format:
    """Where a line has what, and how it writes a moment."""

    arrival: str
    prompt: str
    output: str
    seconds: Callable[[Any], float]

    @property
    def columns(self) -> tuple[str, str, str]:
        return (self.arrival, self.prompt, self.output)


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not (math.isfinite(number) and number >= 0):
        raise ValueError(value)
    return number


def _moment(text: str) -> float:
    """Seconds since 1970 of a date and a time, in UTC unless it says otherwise."""
    whole, _, fraction = text.strip().partition(".")
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    moment = datetime.fromisoformat(whole + fraction[len(digits) :])
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.timestamp() + (float(f"0.{digits}") if digits else 0.0)


_AZURE = _Format("TIMESTAMP", "ContextTokens", "GeneratedTokens", _moment)
_PLAIN = _Format("arrival_s", "prompt_tokens", "output_tokens", _number)
_MOONCAKE = _Format("timestamp", "input_length", "output_length", lambda ms: _number(ms) / 1000)


def read_trace_text(name: str, text: str) -> Trace:
    """The trace that a file's text holds.

    Args:
        name: Of the file, for messages.
        text: All of it.

    Raises:
        InvalidArgumentError: Names the file, the line and the value, and what should be there.
    """
    text = text.removeprefix("\ufeff").strip()
    if not text:
        raise InvalidArgumentError(
            f"trace {name} is empty; it needs at least 2 requests", param="workload"
        )
    lines = _json_lines if text.startswith("{") else _csv_lines
    requests = [_request(name, *line) for line in lines(name, text)]
    requests.sort(key=lambda request: request[0])
    first = requests[0][0] if requests else 0.0
    return Trace(
        name,
        tuple(TracedRequest(at_s - first, prompt, output) for at_s, prompt, output in requests),
    )


def _json_lines(name: str, text: str) -> Iterator[tuple[int, _Format, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise _error(name, number, f"not JSON: {error}") from error
        if not isinstance(values, dict):
            raise _error(name, number, f"{line.strip()[:40]!r} is not a JSON object")
        yield number, _MOONCAKE, values


def _csv_lines(name: str, text: str) -> Iterator[tuple[int, _Format, Mapping[str, Any]]]:
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    header = [column.strip() for column in next(reader)]
    known = [form for form in (_AZURE, _PLAIN) if set(form.columns) <= set(header)]
    if not known:
        raise _error(
            name,
            1,
            f"{','.join(header)[:60]!r} does not name the columns "
            f"{','.join(_AZURE.columns)} or {','.join(_PLAIN.columns)}",
        )
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, known[0], dict(zip(header, row, strict=False))


def _request(
    name: str, number: int, form: _Format, values: Mapping[str, Any]
) -> tuple[float, int, int]:
    """Arrival in seconds since whatever the file counts from, prompt and answer tokens."""

    def read(column: str, convert: Callable[[Any], Any], wanted: str) -> Any:
        value = values.get(column)
        try:
            return convert(value)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            shown = "missing" if value is None else repr(value)
            raise _error(name, number, f"{column} is {shown}; it must be {wanted}") from error

    moment = "a date and a time" if form is _AZURE else "a number >= 0"
    at_s = read(form.arrival, form.seconds, moment)
    prompt = read(form.prompt, _tokens, "a whole number >= 1")
    return at_s, prompt, read(form.output, _tokens, "a whole number >= 1")


def _tokens(value: Any) -> int:
    number = _number(value)
    if number < 1 or number != int(number):
        raise ValueError(value)
    return int(number)


def _error(name: str, number: int, problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"trace {name}, line {number}: {problem}", param="workload")
