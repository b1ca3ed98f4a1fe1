"""The version stands in pyproject.toml, and everything else follows it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def test_installed_version_is_the_project_file_s(project: dict[str, Any]) -> None:
    """What runs is what the file says."""
    assert version("thunderserve") == project["project"]["version"]


def test_changelog_opens_with_this_version(root: Path, project: dict[str, Any]) -> None:
    """Nobody ships a version that the changelog does not know."""
    lines = (root / "CHANGELOG.md").read_text().splitlines()
    versions = [line for line in lines if line.startswith("## [")]
    assert versions[0].startswith(f"## [{project['project']['version']}]")


def test_no_source_repeats_the_version(root: Path, project: dict[str, Any]) -> None:
    """A second copy is a copy that goes stale."""
    number = project["project"]["version"]
    sources = [root / name for name in ("protos", "services", "clients", "models", "deploy")]
    repeats = [
        path.relative_to(root).as_posix()
        for source in sources
        for path in source.rglob("*")
        if path.suffix in {".py", ".proto", ".toml", ".yaml", ".sh"}
        if f'"{number}"' in path.read_text() or f"=={number}\n" in path.read_text()
    ]
    assert repeats == []
