"""One namespace from many source roots: the settings name each of them, and nothing closes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = ("protos", "models", "services", "clients")


def test_namespace_stays_open(root: Path) -> None:
    """One `thunderserve/__init__.py` would hide every other slice."""
    assert [path for source in SOURCES for path in (root / source).rglob("__init__.py")] != []
    assert [
        path for source in SOURCES for path in (root / source).rglob("thunderserve/__init__.py")
    ] == []


def test_every_source_root_is_packaged(root: Path, project: dict[str, Any]) -> None:
    """Editable installs, wheels and mypy see the same folders, and all of them."""
    roots = {path.parent.relative_to(root).as_posix() for path in _namespaces(root)}
    build = project["tool"]["hatch"]["build"]
    assert set(build["dev-mode-dirs"]) == roots
    assert set(build["targets"]["wheel"]["sources"]) == roots
    packaged = {folder.removesuffix("/thunderserve") for folder in _only_include(project)}
    assert packaged == roots
    assert roots <= set(project["tool"]["mypy"]["mypy_path"].split(":"))


def test_every_slice_is_under_the_import_contracts(root: Path, project: dict[str, Any]) -> None:
    """A slice that import-linter does not know may import what it likes."""
    slices = {
        f"thunderserve.{path.name}"
        for namespace in _namespaces(root)
        for path in namespace.iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert set(project["tool"]["importlinter"]["root_packages"]) == slices


def test_services_open_with_the_same_four_files(root: Path) -> None:
    """Learn one service, know all."""
    for service in ("control", "router", "prefill", "decode", "kvlink"):
        folder = root / "services" / service / "thunderserve" / service
        for name in ("__main__", "config", "bootstrap", "servicer"):
            assert (folder / f"{name}.py").is_file(), f"{service}/{name}.py is missing"


def _namespaces(root: Path) -> list[Path]:
    return [path for source in SOURCES for path in (root / source).rglob("thunderserve")]


def _only_include(project: dict[str, Any]) -> list[str]:
    folders: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    return folders
