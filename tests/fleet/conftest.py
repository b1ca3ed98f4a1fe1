"""One fleet of real engines for all tests here: it takes a while to start."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve import demo_model
from thunderserve.cli.demo_prompts import exactness_prompts, tokenizer_of
from thunderserve.cli.sessions import session_members

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(sys.executable).parent
START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 40


@dataclass(frozen=True)
class Fleet:
    """Where the fleet of the session is."""

    http: str
    router: str
    control: str
    reference: str
    processes: dict[str, int]
    errors: Path

    def thunderctl(self, *arguments: str, stdin: str = "") -> Any:
        """Run a command and return its data."""
        command = [PROGRAMS / "thunderctl", "--control", self.control, "-o", "json", *arguments]
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """1 prefill, 2 decodes and a colocated engine outside the plan.

    At the end `thunderserve up` must have stopped everything.
    """
    run = tmp_path_factory.mktemp("fleet")
    errors = run / "up.err"
    with errors.open("wb") as stderr:
        up = subprocess.Popen(
            [PROGRAMS / "thunderserve", "up", "--colocated", "-o", "json", "--run-dir", run],
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert up.stdout is not None
    try:
        line = up.stdout.readline()
        assert line, errors.read_text()
        described = json.loads(line)
        yield Fleet(
            http=described["http"],
            router=described["router"],
            control=described["control"],
            reference=described["reference"],
            processes=described["processes"],
            errors=errors,
        )
        up.send_signal(signal.SIGINT)
        assert up.wait(STOP_TIMEOUT_S) == 0, errors.read_text()
        left = [name for name, pid in described["processes"].items() if session_members(pid)]
        assert not left
    finally:
        with contextlib.suppress(ProcessLookupError):
            up.kill()  # its watchdog ends the rest
        up.stdout.close()
        up.wait()


@pytest.fixture(scope="session")
def prompts() -> tuple[tuple[int, ...], ...]:
    """20 prompts: within a page, several pages, and more than one chunk of 256 tokens."""
    lengths = (3, 5, 9, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 100, 128, 160, 255, 257, 400, 700)
    return exactness_prompts(tokenizer_of(demo_model.model_path()), lengths)
