"""What the repository's own rules are checked on: its files, its settings, its contract."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    """pyproject.toml, read."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="session")
def protos(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """Every file of the contract as protoc understands it, comments included."""
    source = ROOT / "protos"
    compiled = tmp_path_factory.mktemp("protos") / "all.binpb"
    paths = sorted(str(path) for path in source.rglob("*.proto"))
    includes = [f"-I{source}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = ["--include_source_info", f"--descriptor_set_out={compiled}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *paths]
    subprocess.run(command, check=True)
    return list(FileDescriptorSet.FromString(compiled.read_bytes()).file)
