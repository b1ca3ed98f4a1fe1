"""One frozen dataclass and one TOML file per service; unknown keys are refused."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from dataclasses import MISSING, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from thunderserve.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["build_config", "load_config", "parse_overrides"]

_Config = TypeVar("_Config")


def load_config(kind: type[_Config], path: Path | None, overrides: Sequence[str] = ()) -> _Config:
    """Read a configuration: defaults, then the file, then `key=value` overrides.

    Args:
        kind: A frozen dataclass with fields of str, int, float, bool, Path, an enum, a tuple of
            these, or one of these or None.
        path: A TOML file, or None.
        overrides: `key=value` as on the command line; tuples are comma-separated.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value is of the wrong type;
            the message names the key, the value and the way out.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values.update(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    values.update(parse_overrides(overrides))
    return build_config(kind, values)


def parse_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """`["port=1"]` to `{"port": "1"}`; raises ConfigError for anything without `=`."""
    pairs: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override!r} is not of the form key=value")
        pairs[key.strip()] = value
    return pairs


def build_config(kind: type[_Config], values: Mapping[str, Any]) -> _Config:
    """The dataclass `kind` from plain values; see `load_config`."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"unknown configuration key {key!r}; {hint}", param=key)
    required = [
        name
        for name, f in known.items()
        if f.default is MISSING and f.default_factory is MISSING and name not in values
    ]
    if required:
        raise ConfigError(f"configuration key {required[0]!r} is missing", param=required[0])
    return kind(**{key: _converted(key, hints[key], value) for key, value in values.items()})


def _converted(key: str, hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        inner = next(arg for arg in args if arg is not type(None))
        return None if value in {None, ""} else _converted(key, inner, value)
    if origin is tuple:
        items = [v for v in value.split(",") if v] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ConfigError(f"{key} is {value!r}; it must be a list", param=key)
        return tuple(_converted(key, args[0], item) for item in items)
    return _scalar(key, hint, value)


def _scalar(key: str, hint: Any, value: Any) -> Any:
    if hint is bool:
        words = {"true": True, "false": False, "1": True, "0": False}
        converted = value if isinstance(value, bool) else words.get(str(value).lower())
        if converted is None:
            raise ConfigError(f"{key} is {value!r}; it must be true or false", param=key)
        return converted
    if isinstance(hint, type) and issubclass(hint, Enum):
        choices = [str(choice.value) for choice in hint]
        for choice in hint:
            if str(choice.value).lower() == str(value).lower():
                return choice
        raise ConfigError(f"{key} is {value!r}; choose one of {', '.join(choices)}", param=key)
    try:
        if isinstance(value, bool) or (hint is str and not isinstance(value, str)):
            raise ValueError  # noqa: TRY301 - one message for every wrong type
        return hint(value)
    except (TypeError, ValueError) as error:
        message = f"{key} is {value!r}; it must be of type {getattr(hint, '__name__', hint)}"
        raise ConfigError(message, param=key) from error
