"""Parts of a benchmark that can be asked for alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from enum import StrEnum

__all__ = ["parts_named"]

PartT = TypeVar("PartT", bound="StrEnum")


def parts_named(kind: type[PartT], only: str) -> tuple[PartT, ...]:
    """All parts, or those of a list; InvalidArgumentError for a name that is none."""
    if not only:
        return tuple(kind)
    try:
        return tuple(kind(name.strip()) for name in only.split(","))
    except ValueError as error:
        known = ", ".join(kind)
        raise InvalidArgumentError(f"--only {only}: the parts are {known}", param="only") from error
