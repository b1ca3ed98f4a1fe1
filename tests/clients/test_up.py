"""`thunderserve up`, the real program, with emulated engines: it serves and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.cli.sessions import session_members
from thunderserve.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(sys.executable).parent / "thunderserve"
SMALL = (PROGRAM, *["up", "--engine", "emulated", "--store", "memory", "--decode", "1"])
DEADLINE_S = 30.0


class Up:
    """A fleet of one prefill and one decode group that is up."""

    def __init__(self, run: Path) -> None:
        self.errors = run / "up.err"
        with self.errors.open("wb") as stderr:
            self.program = subprocess.Popen(
                [*SMALL, "-o", "json", "--run-dir", run], stdout=subprocess.PIPE, stderr=stderr
            )
        assert self.program.stdout is not None
        line = self.program.stdout.readline()
        assert line, self.errors.read_text()
        self.described: dict[str, Any] = json.loads(line)

    def wait_nothing_left(self) -> None:
        """No process of the fleet runs, and nothing listens where it did."""
        pids = self.described["processes"].values()
        _wait_for(lambda: not any(session_members(pid) for pid in pids))
        for address in (self.described["control"], self.described["router"]):
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) != 0

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.program.send_signal(number)
        return self.program.wait(DEADLINE_S)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    fleet = Up(tmp_path)
    try:
        yield fleet
    finally:
        with contextlib.suppress(ProcessLookupError):
            fleet.program.kill()
        fleet.program.wait()
        fleet.program.communicate()


def test_up_goes_on_without_a_worker_and_ends_on_ctrl_c(up: Up) -> None:
    """It says which process died; Ctrl-C is an orderly end that leaves nothing."""
    with Client(up.described["router"]) as client:
        assert len(client.generate("x", max_tokens=4, ignore_eos=True).token_ids) == 4
    os.kill(up.described["processes"]["g1"], signal.SIGKILL)
    _wait_for(lambda: "the fleet goes on without it" in up.errors.read_text())
    assert "g1 was killed by signal 9" in up.errors.read_text()
    assert up.program.poll() is None

    assert up.stop(signal.SIGINT) == 0

    up.wait_nothing_left()


def test_up_leaves_nothing_when_killed(up: Up) -> None:
    """SIGKILL cannot be caught; the watchdog ends what the supervisor could not."""
    assert up.stop(signal.SIGKILL) == -signal.SIGKILL

    up.wait_nothing_left()


def test_up_fails_with_the_log_when_control_dies(up: Up) -> None:
    """The fleet cannot go on without control: exit status 6, its log's end on stderr."""
    os.kill(up.described["processes"]["control"], signal.SIGKILL)

    assert up.program.wait(DEADLINE_S) == 6

    errors = up.errors.read_text()
    assert re.search(r"control was killed by signal 9; the end of \S+control\.log", errors)
    assert "Traceback" not in errors
    up.wait_nothing_left()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_up_prints_commands_that_work(tmp_path: Path) -> None:
    """What it tells a person to paste into a shell does what it says."""
    with subprocess.Popen(
        [*SMALL, "--run-dir", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdout is not None
        welcome = ""
        while "thunderctl flip" not in welcome:
            line = program.stdout.readline()
            assert line, "it ended early"
            welcome += line
        pasted = welcome[welcome.index("curl") : welcome.index("thunderctl flip")]
        shell = subprocess.run(
            ["/bin/sh", "-e", "-c", pasted],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        )
        program.send_signal(signal.SIGINT)

    assert shell.returncode == 0, shell.stderr
    assert "data: [DONE]" in shell.stdout  # curl
    assert "Completion(" in shell.stdout  # the openai client
    assert "SERVING" in shell.stdout  # thunderctl
    assert program.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (("up", "--engine", "vllm"), 2, "engine is 'vllm'; choose one of sglang, emulated"),
        (("up", "--model", "/no/such/model"), 3, "/no/such/model has no config.json"),
        (("up", "--decode", "0"), 2, "--decode"),
        (("router", "--set", "modelname=x"), 2, "did you mean 'model_name'?"),
        (("serve",), 2, "serve"),
    ],
)
def test_program_refuses_bad_arguments_in_one_message(
    arguments: tuple[str, ...], status: int, named: str
) -> None:
    """The value is named; there is no traceback."""
    ended = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (status, ""), ended.stderr
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_comes_without_importing_services() -> None:
    """`--help` answers at once, because each command imports what it needs when it runs."""
    code = """if True:
        import sys
        from thunderserve.cli.main import main
        status = main(["--help"])
        heavy = {"torch", "sglang", "starlette", "tokenizers", "pulp"} & set(sys.modules)
        sys.exit(status or ",".join(heavy) or 0)
    """
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert all(name in ended.stdout for name in ("up", "demo", "router", "kvlink"))


def test_service_help_is_the_services_own() -> None:
    """`thunderserve router --help` lists the router's options."""
    ended = subprocess.run(
        [PROGRAM, "router", "--help"], capture_output=True, text=True, check=True
    )

    assert "thunderserve router" in ended.stdout
    assert "--set KEY=VALUE" in ended.stdout


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
