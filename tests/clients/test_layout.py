"""The layout of a local fleet: what runs, where, with which configuration."""

from __future__ import annotations

import importlib
import itertools
import tomllib
from pathlib import Path

import pytest

from thunderserve.cli.layout import Layout, lay_out, to_toml
from thunderserve.cli.options import EngineName, FleetOptions, StoreName
from thunderserve.core.errors import ConfigError
from thunderserve.core.request import WireMode
from thunderserve.runtime.config import build_config, load_config

RUN = Path("/run/fleet")


def _options(**settings: object) -> FleetOptions:
    return build_config(FleetOptions, {"model": "/models/m", "model_name": "m", **settings})


def _layout(options: FleetOptions, run: Path = RUN) -> Layout:
    numbers = itertools.count(20_000)
    return lay_out(options, run, lambda preferred: preferred or next(numbers))


def test_layout_has_one_sidecar_for_each_worker() -> None:
    """One prefill and two decodes by default, stores first."""
    names = [member.name for member in _layout(_options()).members]

    assert names == [
        *("etcd", "redis", "control", "router"),
        *("g0-kvlink", "g0", "g1-kvlink", "g1", "g2-kvlink", "g2"),
    ]


def test_layout_leaves_stores_out_when_they_are_not_wanted() -> None:
    """A memory store needs no etcd, and Redis is optional."""
    layout = _layout(_options(store="memory", redis=False, decode=1))

    assert [m.name for m in layout.members][:2] == ["control", "router"]
    assert tomllib.loads(layout.files[RUN / "control.toml"])["store"] == "memory"
    assert "redis_url" not in tomllib.loads(layout.files[RUN / "router.toml"])


def test_layout_uses_each_address_once() -> None:
    """No two listeners share a port or a socket."""
    layout = _layout(_options(reference=True))
    listened = [
        value
        for text in layout.files.values()
        for key, value in tomllib.loads(text).items()
        if key in {"address", "http_address"}
    ]

    assert len(listened) == len(set(listened)) == 1 + 2 + 3 * 2 + 1


def test_layout_joins_worker_and_its_own_sidecar() -> None:
    """A worker's kvlink keys are its sidecar's addresses."""
    layout = _layout(_options(wire="raw16"))
    worker = tomllib.loads(layout.files[RUN / "g1.toml"])
    sidecar = tomllib.loads(layout.files[RUN / "g1-kvlink.toml"])

    assert worker["kvlink_advertised_address"] == sidecar["address"]
    assert worker["kvlink_local_address"] == sidecar["local_address"]
    assert worker["kvlink_engine_socket"] == sidecar["engine_socket"]
    assert (worker["phase"], sidecar["wire_mode"]) == ("DECODE", "raw16")


def test_layout_keeps_reference_engine_out_of_the_fleet() -> None:
    """It knows no control plane, so no plan can hold it."""
    layout = _layout(_options(reference=True))
    reference = tomllib.loads(layout.files[RUN / "reference.toml"])

    assert "control_addresses" not in reference
    assert reference["phase"] == "COLOCATED"
    assert layout.reference == reference["address"]
    assert set(layout.workers) == {"g0", "g1", "g2"}


@pytest.mark.parametrize("store", list(StoreName))
@pytest.mark.parametrize("engine", list(EngineName))
def test_layout_writes_what_every_service_accepts(
    tmp_path: Path, store: StoreName, engine: EngineName
) -> None:
    """Each service's own configuration class reads its file: no key is unknown or missing."""
    layout = _layout(_options(store=store, engine=engine, reference=True, redis=True), tmp_path)
    kinds = {"control": "Control", "router": "Router", "prefill": "Prefill", "decode": "Decode"}
    kinds["kvlink"] = "Kvlink"

    for member in layout.members:
        if member.name in {"etcd", "redis"}:
            continue
        service = member.command.argv[2].removeprefix("thunderserve.")
        module = importlib.import_module(f"thunderserve.{service}.config")
        path = Path(member.command.argv[-1])
        path.write_text(layout.files[path], encoding="utf-8")
        load_config(getattr(module, f"{kinds[service]}Config"), path)


def test_layout_refuses_when_socket_path_is_too_long() -> None:
    """Linux would say `AF_UNIX path too long` from deep inside a service."""
    with pytest.raises(ConfigError, match="is too long"):
        _layout(_options(), Path("/" + "x" * 100))


def test_options_refuse_unknown_engine_and_name_the_choices() -> None:
    """The error names the value and what there is."""
    with pytest.raises(ConfigError, match="engine is 'vllm'; choose one of sglang, emulated"):
        _options(engine="vllm")


def test_options_refuse_fleet_without_decode() -> None:
    """A plan needs both phases."""
    with pytest.raises(ConfigError, match="--decode is 0"):
        _options(decode=0)


def test_toml_reads_back_as_it_was_written() -> None:
    """Quotes, backslashes and lists survive."""
    settings = {"path": 'a "b" \\ c', "list": ("x", "y"), "n": 3, "f": 0.5, "on": True}

    assert tomllib.loads(to_toml(settings)) == settings | {"list": ["x", "y"]}


def test_options_take_wire_mode_by_its_name() -> None:
    """`--wire raw16`."""
    assert _options(wire="raw16").wire is WireMode.RAW16


def test_lay_out_offers_the_known_entrances_first(tmp_path: Path) -> None:
    """What `thunderctl` and the documents take for granted."""
    layout = _layout(FleetOptions(model=Path("/models/m"), model_name="m"), tmp_path)

    assert layout.control == "127.0.0.1:7700"
    assert layout.router == "127.0.0.1:7701"
    assert layout.http == "127.0.0.1:8000"
