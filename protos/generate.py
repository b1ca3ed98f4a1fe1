"""Build hook: turns the contract into Python stubs beside the `.proto` files, and compiles kvlink.

Neither is kept in git. `pip install -e .` and every wheel build make them; after an edit of a
`.proto`, `python protos/generate.py` makes the stubs again, after one of kvlink's C++,
`python services/kvlink/build_native.py` the library. Without a C++ compiler the wheel is pure.
"""

from __future__ import annotations

import runpy
import shutil
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand, outside a build
    BuildHookInterface = object  # type: ignore[assignment, misc]

ROOT = Path(__file__).parent
KVLINK = ROOT.parent / "services" / "kvlink"


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Generates stubs and compiles before hatchling collects files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and tell hatchling that the git-ignored results belong to the build."""
        generated = generate()
        library: Path | None = runpy.run_path(str(KVLINK / "build_native.py"))["build"]()
        if version == "editable":  # the source roots are on the path already
            return
        build_data["force_include"].update(
            {str(path): path.relative_to(ROOT).as_posix() for path in generated}
        )
        if library is not None:
            build_data["force_include"][str(library)] = library.relative_to(KVLINK).as_posix()
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"py3-none-{platform}")


def generate() -> list[Path]:
    """Run protoc over every `.proto` below this folder and return the files it wrote."""
    from grpc_tools import protoc  # noqa: PLC0415 - a build dependency, absent at run time

    protos = sorted(ROOT.rglob("*.proto"))
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--python_out={ROOT}", f"--grpc_python_out={ROOT}", f"--pyi_out={ROOT}"]
    outputs += [f"--plugin=protoc-gen-mypy_grpc={_plugin()}", f"--mypy_grpc_out=quiet:{ROOT}"]
    status = protoc.main(["protoc", *includes, *outputs, *map(str, protos)])
    if status != 0:
        message = f"protoc failed with status {status}"
        raise RuntimeError(message)
    patterns = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")
    return sorted(path for pattern in patterns for path in ROOT.rglob(pattern))


def _plugin() -> str:
    """The typing plugin: on the path in a build, beside the interpreter when run by hand."""
    beside = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    return str(beside) if beside.exists() else shutil.which(beside.name) or beside.name


if __name__ == "__main__":
    sys.stderr.write(f"{len(generate())} files written below {ROOT}\n")
