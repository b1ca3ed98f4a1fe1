"""Compiles the int4 codec with the system's C++ compiler, where there is one.

The build of the package calls this; after an edit of the sources, `python
services/kvlink/build_native.py` compiles again. The library chooses among AVX-512, AVX2 and plain
code at run time, so that one build serves every x86-64 machine; other machines get plain code.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "thunderserve" / "kvlink" / "codec" / "native"
LIBRARY = SOURCES / "libkvlink_int4.so"
FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",  # whether operations fuse is written in the sources
    "-fno-exceptions",
    "-fno-rtti",
    "-fPIC",
    "-fvisibility=hidden",
    "-shared",
    "-Wl,--as-needed",
)
_HINT = "int4 will run in numpy; Debian: apt-get install g++, then install again"


def compiler() -> list[str] | None:
    """`$CXX` when set, else the first of the usual names."""
    if "CXX" in os.environ:
        return shlex.split(os.environ["CXX"])
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return None if found is None else [found]


def build(library: Path = LIBRARY, flags: tuple[str, ...] = FLAGS) -> Path | None:
    """Compile, or say in one line why not; the old library goes either way."""
    library.unlink(missing_ok=True)
    command = compiler()
    if command is None:
        sys.stderr.write(f"kvlink: no C++ compiler found; {_HINT}\n")
        return None
    fresh = library.with_suffix(f".{os.getpid()}.tmp")
    sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
    try:
        subprocess.run([*command, *flags, "-o", str(fresh), *sources], check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        fresh.unlink(missing_ok=True)
        sys.stderr.write(f"kvlink: {error}; {_HINT}\n")
        return None
    fresh.replace(library)
    return library


if __name__ == "__main__":
    sys.exit(build() is None)
