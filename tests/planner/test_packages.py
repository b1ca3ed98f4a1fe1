"""The planner's folders are used by the names that they offer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANNER = ROOT / "services/control/thunderserve/control/planner"
NAME = "thunderserve.control.planner"
FOLDERS = sorted(path.parent.name for path in PLANNER.glob("*/__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_used_by_the_names_it_offers(folder: str) -> None:
    inside = [
        f"{path.relative_to(ROOT)}: {module}"
        for top in ("services", "clients", "benchmarks")
        for path in (ROOT / top).rglob("*.py")
        if not path.is_relative_to(PLANNER / folder)
        for module in _imported(path)
        if module.startswith(f"{NAME}.{folder}.")
    ]
    assert not inside, f"import these from {NAME}.{folder}; add the name to its __all__"


def _imported(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
