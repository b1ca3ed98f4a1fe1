"""Files and functions stay short enough to read at once."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_LINES = 300
FUNCTION_LINES = 60
SOURCES = ("protos", "models", "services", "clients", "tests", "benchmarks")


def test_files_are_short(root: Path) -> None:
    """A file that needs scrolling through is two."""
    long = {
        path.relative_to(root).as_posix(): lines
        for path in _python_files(root)
        if (lines := path.read_text().count("\n")) > FILE_LINES
    }
    assert long == {}, f"over {FILE_LINES} lines"


def test_functions_are_short(root: Path) -> None:
    """A function that does not fit a screen hides a step that wants a name."""
    long = {
        f"{path.relative_to(root)}:{node.lineno} {node.name}": lines
        for path in _python_files(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}, f"over {FUNCTION_LINES} lines"


def _python_files(root: Path) -> Iterator[Path]:
    for source in SOURCES:
        for path in (root / source).rglob("*.py"):
            if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                yield path
