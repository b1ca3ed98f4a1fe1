"""The wheel holds every slice, the stubs that the build makes, and the demo model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

SOURCES = ("protos", "models", "services", "clients")
MADE = ("*_pb2*", "__pycache__")


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built offline from a copy of the sources without anything that a build makes."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns(*MADE))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (built,) = (copy / "out").glob("*.whl")
    return zipfile.ZipFile(built)


def test_wheel_holds_every_source_file(wheel: zipfile.ZipFile, root: Path) -> None:
    """Each module of each slice, at its place in the namespace."""
    sources = {
        path.relative_to(namespace.parent).as_posix()
        for source in SOURCES
        for namespace in (root / source).rglob("thunderserve")
        for path in namespace.rglob("*.py")
    }
    assert sources - set(wheel.namelist()) == set()


def test_wheel_holds_stubs_for_every_proto(wheel: zipfile.ZipFile, root: Path) -> None:
    """The build hook ran: four files for each `.proto`, and the `.proto` itself."""
    for proto in (root / "protos").rglob("*.proto"):
        stem = proto.relative_to(root / "protos").with_suffix("").as_posix()
        endings = (".proto", "_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
        assert {stem + ending for ending in endings} <= set(wheel.namelist())


def test_wheel_holds_the_demo_model_and_type_markers(wheel: zipfile.ZipFile) -> None:
    """What is not Python travels too."""
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    wanted = {f"thunderserve/demo_model/{name}" for name in model}
    wanted |= {f"thunderserve/{name}/py.typed" for name in ("api", "client", "core")}
    assert wanted - set(wheel.namelist()) == set()


def test_wheel_declares_every_entry_point(wheel: zipfile.ZipFile, project: dict[str, Any]) -> None:
    """The commands, the phases that the engine finds, and SGLang's plugin."""
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    declared = ConfigParser()
    declared.read_string(wheel.read(name).decode())
    assert dict(declared["console_scripts"]) == project["project"]["scripts"]
    for group, entries in project["project"]["entry-points"].items():
        assert dict(declared[group]) == entries


def test_wheel_leaves_tests_and_tools_out(wheel: zipfile.ZipFile) -> None:
    """Users get the product alone."""
    tops = {Path(name).parts[0] for name in wheel.namelist()}
    assert {
        top for top in tops if top != "thunderserve" and not top.endswith(".dist-info")
    } == set()
