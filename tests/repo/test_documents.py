"""What the documents tell a reader to type or to open is there."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from thunderserve.admin import main as thunderctl
from thunderserve.cli import main as thunderserve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
INLINE_MAKE = re.compile(r"`make ([a-z-]+)`")
APPLICATIONS = {
    "thunderctl": thunderctl._application,
    "thunderserve": thunderserve._application,
}
# These hand their options on to the services.
SERVICES = {"control", "router", "prefill", "decode", "kvlink"}


def test_links_lead_somewhere(root: Path) -> None:
    """Relative links name files of the repository."""
    broken = [
        f"{document.relative_to(root)}: {link}"
        for document in _documents(root)
        for link in LINK.findall(document.read_text())
        if not (document.parent / link).exists()
    ]
    assert broken == []


def test_make_targets_exist(root: Path) -> None:
    """Every `make x` in a document is a target."""
    targets = set(TARGET.findall((root / "Makefile").read_text()))
    named = {
        target
        for document in _documents(root)
        for target in [
            *INLINE_MAKE.findall(document.read_text()),
            *(words[1] for words in _commands(document, "make") if len(words) > 1),
        ]
    }
    assert named
    assert named - targets == set()


@pytest.mark.parametrize("program", sorted(APPLICATIONS))
def test_commands_exist(root: Path, program: str) -> None:
    """Each subcommand and each long option on a command line in a document."""
    lines = [words for document in _documents(root) for words in _commands(document, program)]
    assert lines
    assert [(words, bad) for words in lines if (bad := _unknown(program, words[1:]))] == []


def _documents(root: Path) -> list[Path]:
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md"), *root.glob("models/*.md")])


def _commands(document: Path, program: str) -> Iterator[list[str]]:
    """Command lines of fenced and indented blocks, without comments and redirections."""
    for line in document.read_text().splitlines():
        text = line.strip().removeprefix(".venv/bin/")
        if text.startswith(f"{program} ") and (line[0] == " " or _is_fenced(document, line)):
            yield shlex.split(text.partition(" > ")[0], comments=True)


def _is_fenced(document: Path, line: str) -> bool:
    before = document.read_text().partition(f"\n{line}\n")[0]
    return before.count("\n```") % 2 == 1


def _unknown(program: str, words: list[str]) -> str:
    """The first word that the program would not understand; empty when it knows all."""
    command = typer.main.get_command(APPLICATIONS[program]())
    options = _options(command)
    for word in words:
        children = getattr(command, "commands", None)
        if word.startswith("--"):
            if word.partition("=")[0] not in options:
                return word
        elif children is not None and not word.startswith("-"):
            if word in SERVICES:
                return ""
            if word not in children:
                return word
            command = children[word]
            options |= _options(command)
    return ""


def _options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}
