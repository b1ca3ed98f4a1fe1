"""Data goes to stdout as a table, JSON or YAML; everything said to a person goes to stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

__all__ = ["OutputFormat", "make_table", "plain", "say", "stdout_console", "write"]

# Wide enough that no table of ours is cut where nobody can see the terminal's edge.
PIPE_COLUMNS = 200


class OutputFormat(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def write(value: Any, table: RenderableType, form: OutputFormat) -> None:
    """Write `value` to stdout in the wanted form; `table` is how a person sees it."""
    if form is OutputFormat.TABLE:
        stdout_console().print(table)
    elif form is OutputFormat.JSON:
        sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True))


def say(message: str) -> None:
    """One line to stderr."""
    sys.stderr.write(message + "\n")


def plain(value: Any) -> Any:
    """A value as dicts, lists, strings and numbers: what JSON and YAML can hold."""
    if isinstance(value, Enum):
        return plain(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table without frames; a column whose name ends in `>` is aligned right."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        right = column.endswith(">")
        table.add_column(
            column.removesuffix(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
        )
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return table


def stdout_console() -> Console:
    """A console on stdout; rich itself honours NO_COLOR."""
    return Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False
    )
