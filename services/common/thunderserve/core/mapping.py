"""Reading nested mappings (JSON, YAML) with errors that name the place."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from thunderserve.core.errors import InvalidArgumentError

__all__ = ["Reader"]

_Given = ParamSpec("_Given")
_Built = TypeVar("_Built")


@dataclass(frozen=True, slots=True)
class Reader:
    """A mapping and where in the file it is; refuses what is missing, mistyped or unknown.

    Attributes:
        at: Path from the top, for example `groups[2].stages[0]`; empty at the top.
    """

    value: Mapping[str, Any]
    at: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.value, Mapping):
            raise self.error(f"expected a mapping, found {self.value!r}")

    def error(self, message: str, key: str = "") -> InvalidArgumentError:
        """An error about this mapping, or about a key in it."""
        place = ".".join(part for part in (self.at, key) if part)
        return InvalidArgumentError(f"{place}: {message}" if place else message, param=place)

    def only(self, *known: str) -> None:
        """Refuse any other key.

        Raises:
            InvalidArgumentError: Names the key and the nearest known one.
        """
        for key in self.value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
                raise self.error(f"unknown key; did you mean {near[0]!r}?", str(key))

    def build(
        self, make: Callable[_Given, _Built], *args: _Given.args, **kwargs: _Given.kwargs
    ) -> _Built:
        """`make(*args, **kwargs)`; what it refuses is said to be here."""
        try:
            return make(*args, **kwargs)
        except InvalidArgumentError as error:
            raise self.error(str(error)) from error

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(f"expected text, found {value!r}", key)
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"expected a whole number, found {value!r}", key)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Any number."""
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(f"expected a number, found {value!r}", key)
        return float(value)

    def items(self, key: str) -> Iterator[Reader]:
        """The mappings of a list; none when the key is missing."""
        listed = self.value.get(key, ())
        if isinstance(listed, str) or not isinstance(listed, Sequence):
            raise self.error(f"expected a list, found {listed!r}", key)
        place = f"{self.at}.{key}" if self.at else key
        for index, item in enumerate(listed):
            yield Reader(item, f"{place}[{index}]")

    def inner(self, key: str) -> Reader | None:
        """The mapping under a key, if there is one."""
        if self.value.get(key) is None:
            return None
        return Reader(self.value[key], f"{self.at}.{key}" if self.at else key)

    def _get(self, key: str, default: object) -> object:
        value = self.value.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error("is missing", key)
        return value
