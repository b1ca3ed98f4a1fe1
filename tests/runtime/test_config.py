"""Configurations: a file, then the command line; what is unknown or wrong is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from thunderserve.core.errors import ConfigError
from thunderserve.runtime.config import build_config, load_config, parse_overrides


class Colour(StrEnum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Settings:
    """One field of each kind."""

    port: int
    name: str = "n"
    ratio: float = 0.5
    loud: bool = False
    colour: Colour = Colour.RED
    hosts: tuple[str, ...] = ()
    folder: Path | None = None


def test_load_config_lets_the_command_line_win_when_both_set_a_key(tmp_path: Path) -> None:
    """Defaults, then the file, then overrides."""
    file = tmp_path / "c.toml"
    file.write_text('port = 1\nname = "file"\nhosts = ["a", "b"]\nloud = true\n')
    settings = load_config(Settings, file, ["name=line", "colour=BLUE", "folder=/x"])
    assert settings == Settings(
        port=1, name="line", loud=True, colour=Colour.BLUE, hosts=("a", "b"), folder=Path("/x")
    )


def test_build_config_reads_text_when_values_come_from_the_command_line() -> None:
    """Numbers, booleans and lists are written as text there."""
    values = {"port": "8", "ratio": "0.25", "loud": "true", "hosts": "a,b", "folder": ""}
    assert build_config(Settings, values) == Settings(8, ratio=0.25, loud=True, hosts=("a", "b"))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"prot": 1}, "unknown configuration key 'prot'; did you mean 'port'?"),
        ({"zzz": 1}, "known keys: port, name"),
        ({}, "'port' is missing"),
        ({"port": "x"}, "port is 'x'; it must be of type int"),
        ({"port": True}, "port is True; it must be of type int"),
        ({"port": 1, "name": 3}, "name is 3; it must be of type str"),
        ({"port": 1, "loud": "maybe"}, "loud is 'maybe'; it must be true or false"),
        ({"port": 1, "colour": "green"}, "choose one of red, blue"),
        ({"port": 1, "hosts": 3}, "hosts is 3; it must be a list"),
    ],
)
def test_build_config_names_key_and_value_when_one_is_wrong(
    values: dict[str, object], says: str
) -> None:
    """The message says the way out."""
    with pytest.raises(ConfigError) as caught:
        build_config(Settings, values)
    assert says in str(caught.value)


def test_load_config_is_refused_when_the_file_cannot_be_read(tmp_path: Path) -> None:
    """Missing, not TOML, not text: one line each."""
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(Settings, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("port = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(Settings, tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(Settings, tmp_path / "binary.toml")


def test_parse_overrides_is_refused_when_there_is_no_equals_sign() -> None:
    """A value may hold an equals sign; a key may not be missing one."""
    assert parse_overrides(["a=b=c"]) == {"a": "b=c"}
    with pytest.raises(ConfigError, match="key=value"):
        parse_overrides(["a"])
