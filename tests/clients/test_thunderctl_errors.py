"""How thunderctl ends when something is wrong: a status by kind, and one line that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from thunderserve.admin.session import hoist_globals
from thunderserve.core.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PreconditionError,
    ThunderServeError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    from conftest import Program, Thunderctl  # type: ignore[import-not-found]  # pytest's own path
    from operated_control import FakeControl


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (ThunderServeError("it broke"), 1),
        (InvalidArgumentError("rate is 0"), 2),
        (NotFoundError("no group g9"), 3),
        (ConflictError("epoch 3 is stale"), 4),
        (PreconditionError("g0 is the last prefill group"), 4),
        (UnauthenticatedError("no certificate"), 5),
        (PermissionDeniedError("not allowed"), 5),
        (OverloadedError("too many calls"), 6),
    ],
)
async def test_exit_status_tells_the_kind_of_error(
    thunderctl: Thunderctl,
    control: FakeControl,
    control_address: str,
    failure: ThunderServeError,
    status: int,
) -> None:
    """One line on stderr with the server's words, nothing on stdout, a status by kind."""
    control.failure = failure
    ended = await thunderctl("--control", control_address, "flip", "g0", "--phase", "decode")

    assert ended == (status, "", f"thunderctl: {failure}\n")


async def test_unreachable_control_is_one_line_that_names_it(
    thunderctl_program: Program, nobody: str
) -> None:
    """Exit status 6 and the address."""
    ended = await thunderctl_program("--control", nobody, "get", "nodes")

    assert ended.status == 6
    assert ended.err == (
        f"thunderctl: cannot reach the control plane at {nobody}: Connection refused\n"
    )


async def test_timeout_is_124(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """`--timeout` bounds the wait."""
    control.delay_s = 30
    ended = await thunderctl("get", "nodes", "--timeout", "0.2", "--control", control_address)

    assert ended.status == 124
    assert "within 0.2 s" in ended.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("get", "gpus"), "gpus"),
        (("flip", "g0", "--phase", "sideways"), "sideways"),
        (("get", "nodes", "-o", "xml"), "xml"),
        (("get", "nodes", "--timeout", "-1"), "timeout"),
    ],
)
async def test_usage_error_is_2_and_names_the_value(
    thunderctl_program: Program, arguments: tuple[str, ...], named: str, nobody: str
) -> None:
    """Nothing is asked of control."""
    ended = await thunderctl_program("--control", nobody, *arguments)

    assert (ended.status, ended.out) == (2, "")
    assert named in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "is not JSON"),
        ("[1]", ""),
        ('{"model": "m", "groups": [], "rutes": []}', "rutes"),
    ],
)
async def test_bad_plan_file_is_2_and_says_what_is_wrong(
    thunderctl: Thunderctl, text: str, named: str, nobody: str
) -> None:
    """It is refused before control is asked."""
    ended = await thunderctl("--control", nobody, "plan", "apply", "-", stdin=text)

    assert ended.status == 2, ended.err
    assert named in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_missing_plan_file_is_named(thunderctl: Thunderctl, nobody: str) -> None:
    """With the system's reason."""
    ended = await thunderctl("--control", nobody, "plan", "apply", "/no/such.json")

    assert ended == (2, "", "thunderctl: cannot read /no/such.json: No such file or directory\n")


def test_hoist_moves_shared_options_first_and_leaves_the_rest() -> None:
    """Nothing after `--` is an option."""
    assert hoist_globals(["get", "-o", "json", "nodes", "--timeout=3", "--", "-o"]) == [
        *("-o", "json", "--timeout=3", "get", "nodes", "--", "-o"),
    ]
    assert hoist_globals(["get", "--control"]) == ["--control", "get"]
