"""Users of the SDK install gRPC and protobuf, and nothing of a service."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

# Import names of what `dependencies` installs.
ALLOWED = ("thunderserve", "grpc", "grpc_status", "google", "typing_extensions")

PROBE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {allowed}:
            raise ModuleNotFoundError(f"the SDK must not need {{name}}", name=name)

sys.meta_path.insert(0, Blocker())
import thunderserve.client
for name in thunderserve.client.__all__:
    getattr(thunderserve.client, name)
"""


def test_sdk_imports_when_only_its_dependencies_are_there() -> None:
    """Importing all of it asks for no package of the extras."""
    probe = PROBE.format(allowed=ALLOWED)
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_sdk_probe_fails_when_a_service_s_package_is_imported() -> None:
    """The test above can fail."""
    probe = PROBE.format(allowed=ALLOWED) + "import starlette"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert "must not need starlette" in done.stderr


def test_sdk_dependencies_are_these(project: dict[str, Any]) -> None:
    """A new one is a decision."""
    names = [re.split(r"[<>=\[]", entry)[0] for entry in project["project"]["dependencies"]]
    assert names == ["grpcio", "grpcio-status", "protobuf"]
