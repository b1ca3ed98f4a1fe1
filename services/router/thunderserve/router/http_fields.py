"""Typed access to the fields of a JSON body; whatever is wrong is named."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Fields", "parse_json", "well_formed"]

MOST_SHOWN_CHARACTERS = 60


def parse_json(body: bytes) -> Fields:
    """The fields of a body that holds one JSON object.

    Raises:
        InvalidArgumentError: It does not; the message says where it goes wrong.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8: {error.reason} at byte {error.start}"
        raise InvalidArgumentError(message) from None
    except RecursionError:
        raise InvalidArgumentError("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidArgumentError(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"the body is {shown(value)}; it must be a JSON object")
    return Fields(value)


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object; a missing field and null are the same."""

    values: Mapping[str, Any]

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Refuse what would silently have no effect."""
        for name in self.values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InvalidArgumentError(f"unknown parameter {name!r}{hint}", param=name)

    def refuse_unsupported(self, neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse a parameter unless it has a value that changes nothing."""
        for name, values in neutral.items():
            value = self.values.get(name)
            if value is not None and not any(_same(value, v) for v in values):
                raise InvalidArgumentError(
                    f"{name} is {shown(value)}; this server does not support it, leave it out",
                    param=name,
                )

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            wrong(name, value, "a string")
        return well_formed(value, name)

    def flag(self, name: str) -> bool:
        """True or false; false when missing."""
        value = self.values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            wrong(name, value, "true or false")
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number in `[least, most]`."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            wrong(name, value, "a whole number")
        if not least <= value <= most:
            wrong(name, value, f"in [{least}, {most}]")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number."""
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            wrong(name, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            wrong(name, value, "finite")
        return number

    def fields(self, name: str) -> Fields:
        """An object; empty when missing."""
        value = self.values.get(name)
        if value is None:
            return Fields({})
        if not isinstance(value, dict):
            wrong(name, value, "an object")
        return Fields(value)


def well_formed(text: str, name: str) -> str:
    """JSON can spell half a surrogate pair; no tokenizer can encode it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        message = f"{name} holds half a surrogate pair, which is no character"
        raise InvalidArgumentError(message, param=name) from None
    return text


def wrong(name: str, value: Any, needed: str) -> NoReturn:
    """The error for a value of the wrong kind."""
    raise InvalidArgumentError(f"{name} is {shown(value)}; it must be {needed}", param=name)


def shown(value: Any) -> str:
    """The value as the client wrote it, cut short."""
    text = json.dumps(value)
    return text if len(text) <= MOST_SHOWN_CHARACTERS else text[:MOST_SHOWN_CHARACTERS] + "..."


def _same(value: Any, other: Any) -> bool:
    """Equal, and a number is not a truth value: to Python, True is 1."""
    return isinstance(value, bool) is isinstance(other, bool) and bool(value == other)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
