"""Nothing that comes from a socket is ever unpickled: there is nothing in kvlink that could."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import thunderserve.kvlink

PACKAGE = Path(thunderserve.kvlink.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# Of torch, numpy, SGLang's ZMQ sockets and multiprocessing's connections: these unpickle.
CALLS = {"load", "loads", "recv_pyobj", "send_pyobj", "recv_obj", "eval", "exec"}
HARMLESS = {("json", "loads"), ("tl", "load")}  # tl: Triton, from memory


def unpickles(source: str) -> list[str]:
    """What in a module could turn bytes into objects of any kind."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call) and (called := _called(node.func)) is not None:
            found.append(called)
    return found


def _called(function: ast.expr) -> str | None:
    match function:
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if name in CALLS:
            return None if (owner, name) in HARMLESS else f"{owner}.{name}()"
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in CALLS:
            return f"{name}()"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_cannot_unpickle_when_it_reads_a_socket(path: Path) -> None:
    """No pickle, marshal or torch.load, by whatever name they are imported."""
    assert unpickles(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "socket.recv_pyobj()",
        "self.socket.recv_pyobj()",
        "eval(text)",
    ],
)
def test_search_finds_it_when_there_is_one(source: str) -> None:
    """The test above can fail."""
    assert unpickles(source)
