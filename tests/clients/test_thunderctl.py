"""thunderctl's commands against a fake control plane."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from thunderserve.core.fleet import FlipStep

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Program, Thunderctl  # type: ignore[import-not-found]  # pytest's own path
    from operated_control import FakeControl


async def test_get_groups_shows_a_table_when_nothing_else_is_asked(
    thunderctl: Thunderctl, control_address: str
) -> None:
    """A table on stdout, nothing on stderr; a lost group has no heartbeat to show."""
    ended = await thunderctl("--control", control_address, "get", "groups")

    assert (ended.status, ended.err) == (0, "")
    header, serving, lost = ended.out.splitlines()
    assert header.split()[:3] == ["GROUP", "PHASE", "STATE"]
    assert serving.split() == ["g0", "PREFILL", "SERVING", "1x1", "n0/0:CPU", "7", "2", "1", "99"]
    assert lost.split() == ["g1", "DECODE", "LOST", "1x1", "n0/1:CPU", "-", "-", "-", "-"]


async def test_get_takes_control_from_the_environment_and_options_anywhere(
    thunderctl_program: Program,
    control_address: str,
) -> None:
    """THUNDERSERVE_CONTROL names the control plane, and `-o` may stand last."""
    ended = await thunderctl_program(
        "get", "groups", "-o", "json", THUNDERSERVE_CONTROL=control_address
    )

    assert ended.status == 0
    groups = json.loads(ended.out)
    assert [(g["group"]["id"], g["state"]) for g in groups] == [("g0", "SERVING"), ("g1", "LOST")]
    assert groups[0]["heartbeat"]["weight_loads"] == 1


async def test_get_nodes_reads_every_page(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """The fake serves one node to a page."""
    ended = await thunderctl("--control", control_address, "-o", "yaml", "get", "nodes")

    assert [node["id"] for node in yaml.safe_load(ended.out)] == ["n0", "n1", "n2"]
    assert [request.page_token for request in control.requests] == ["", "1", "2"]


async def test_plan_file_goes_round_when_got_and_applied(
    thunderctl: Thunderctl, control: FakeControl, control_address: str, tmp_path: Path
) -> None:
    """What `get plan -o json` writes, `plan apply` reads, from a file and from stdin."""
    got = await thunderctl("--control", control_address, "get", "plan", "-o", "json")
    file = tmp_path / "plan.json"
    file.write_text(got.out, encoding="utf-8")

    applied = await thunderctl(
        "--control", control_address, "plan", "apply", str(file), "--expected-epoch", "7"
    )
    dry = await thunderctl(
        "--control", control_address, "plan", "apply", "-", "--dry-run", stdin=got.out
    )

    assert (applied.status, applied.err) == (0, "published as epoch 8\n")
    assert "plan 8" in applied.out
    assert dry.status == 0
    real, rehearsal = control.requests[1:]
    assert [route.weight for route in real.plan.routes] == [0.3, 0.7]
    assert (real.expected_epoch, real.validate_only) == (7, False)
    assert real.request_id
    assert (rehearsal.expected_epoch, rehearsal.validate_only) == (0, True)


async def test_plan_compute_passes_the_workload_on(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """Rate, lengths and seed are the search's input."""
    load = ("--rate", "2.5", "--prompt-tokens", "100", "--output-tokens", "50", "--seed", "3")
    ended = await thunderctl("--control", control_address, "plan", "compute", *load)

    assert ended.status == 0
    request = control.requests[0]
    assert (request.request_rate_rps, request.prompt_token_count) == (2.5, 100)
    assert (request.output_token_count, request.seed, request.keep_phases) == (50, 3, False)


async def test_plan_history_and_routes_are_tables(
    thunderctl: Thunderctl, control_address: str
) -> None:
    """The heaviest route comes first."""
    history = await thunderctl("--control", control_address, "plan", "history")
    routes = await thunderctl("--control", control_address, "get", "routes")

    assert history.out.splitlines()[1].split()[-2:] == ["first", "plan"]
    assert [line.split() for line in routes.out.splitlines()[1:]] == [
        ["g0", "g2", "0.7000"],
        ["g0", "g1", "0.3000"],
    ]


async def test_flip_sends_what_is_asked_and_shows_what_it_took(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """The phase is typed in lower case; the drain's limit travels with it."""
    arguments = ("flip", "g2", "--phase", "prefill", "--drain-timeout", "1.5")
    ended = await thunderctl("--control", control_address, *arguments)

    assert ended.status == 0
    assert "DECODE → PREFILL" in ended.out
    assert "DONE" in ended.out
    request = control.requests[0]
    assert (request.group_id, request.phase) == ("g2", 1)
    assert request.drain_timeout.ToTimedelta().total_seconds() == 1.5


async def test_flip_dry_run_changes_nothing_and_says_so(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """No flip has happened, so none is shown."""
    arguments = ("flip", "g2", "--phase", "prefill", "--dry-run")
    ended = await thunderctl("--control", control_address, *arguments)

    assert ended == (0, "", "g2 can be flipped to prefill\n")
    assert control.requests[0].validate_only


async def test_flip_fails_and_says_why_when_rolled_back(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """A flip that was undone is not a success."""
    control.flip = replace(control.flip, step=FlipStep.ROLLED_BACK, failure="engine busy")
    ended = await thunderctl("--control", control_address, "flip", "g2", "--phase", "prefill")

    assert ended.status == 1
    assert "the flip of g2 was rolled back: engine busy" in ended.err


async def test_drain_and_undrain_name_the_group(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """Each answers with the group's state."""
    drained = await thunderctl("--control", control_address, "drain", "g1")
    back = await thunderctl("--control", control_address, "undrain", "g1")

    assert "DRAINED" in drained.out
    assert "SERVING" in back.out
    assert [request.group_id for request in control.requests] == ["g1", "g1"]


async def test_get_links_shows_rates_as_networks_are_sold(
    thunderctl: Thunderctl, control_address: str
) -> None:
    """Gbit/s for people, bytes for programs; no wire mode where none was chosen yet."""
    table = await thunderctl("--control", control_address, "get", "links")
    data = await thunderctl("--control", control_address, "get", "links", "-o", "json")

    _, busy, idle = table.out.splitlines()
    assert busy.split() == [
        *("g0", "g1", "n0", "→", "n1", "1", "10.20", "0.100%", "3", "traffic", "int4"),
        *("3.4x", "raw16"),
    ]
    assert idle.split() == [
        *("g0", "g2", "n0", "→", "n2", "8", "-", "0.000%", "90", "probe", "-", "-"),
    ]
    assert json.loads(data.out)[0]["measurement"]["bytes_per_s"] == 1.25e8


async def test_audit_shows_what_somebody_asked_for_and_events_all(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """What control did by itself is an event, and nobody's deed; `--as` names the caller."""
    every = await thunderctl("--control", control_address, "get", "events", "--as", "bob")
    asked = await thunderctl("--control", control_address, "audit", "-o", "json")

    assert [line.split()[0] for line in every.out.splitlines()] == ["EVENT", "8", "7"]
    assert [event["actor"] for event in json.loads(asked.out)] == ['"ann@lab"']
    assert control.callers[0] == "bob"
    assert "@" in control.callers[1]
