"""The program `thunderserve`. Each command imports what it needs when it runs."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.console.ending import run_app
from thunderserve.console.output import OutputFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thunderserve.cli.options import FleetOptions

__all__ = ["main"]

_HELP = """Serve a large language model on whatever GPUs one can rent.

Data goes to stdout, messages to stderr. Exit status: 0 ok, 1 error, 2 usage, 3 not found,
4 conflict, 5 denied, 6 unavailable, 124 timeout.
"""

# Modules of `planning`; each has a `command`.
_PLANNING = ("plan", "simulate", "compare", "rent", "reschedule")

_SERVICES = {
    "control": "Run a control-plane replica.",
    "router": "Run a router: the OpenAI API and the SDK's gRPC service.",
    "prefill": "Run a worker that begins in the prefill phase.",
    "decode": "Run a worker that begins in the decode phase.",
    "kvlink": "Run a worker's KV sidecar.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_app(_application(), "thunderserve", argv)


def _application() -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        help=_HELP,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("up")(_up)
    app.command("demo")(_demo)
    for name in _PLANNING:
        app.command(name)(importlib.import_module(f"thunderserve.cli.planning.{name}").command)
    app.command("load")(importlib.import_module("thunderserve.cli.load.command").command)
    bench = typer.Typer(no_args_is_help=True, help="Measure a part of the system.")
    bench.command("kvlink")(importlib.import_module("thunderserve.cli.bench.kvlink").command)
    bench.command("failover")(
        importlib.import_module("thunderserve.cli.bench.failover.command").command
    )
    app.add_typer(bench, name="bench")
    for name, summary in _SERVICES.items():
        # `--help` too is the service's own.
        app.command(
            name,
            help=summary,
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_service(name))
    return app


def _service(name: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        service = importlib.import_module(f"thunderserve.{name}.__main__")
        raise typer.Exit(service.main(context.args))

    return run


_Model = Annotated[
    Path | None, typer.Option(help="A model's folder; the demo's own model when left out.")
]
_ModelName = Annotated[str, typer.Option(help="What clients call the model.")]
_RunDir = Annotated[
    Path | None, typer.Option(help="Where logs and sockets go; a temporary folder when left out.")
]


def _up(
    *,
    prefill: Annotated[int, typer.Option(min=1, help="Groups that begin in prefill.")] = 1,
    decode: Annotated[int, typer.Option(min=1, help="Groups that begin in decode.")] = 2,
    engine: Annotated[str, typer.Option(help="sglang or emulated.")] = "sglang",
    wire: Annotated[str, typer.Option(help="How KV travels: auto, int4 or raw16.")] = "auto",
    store: Annotated[str, typer.Option(help="Control's store: etcd or memory.")] = "etcd",
    model: _Model = None,
    model_name: _ModelName = "",
    colocated: Annotated[
        bool, typer.Option("--colocated", help="Also run a colocated engine, outside the plan.")
    ] = False,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the OpenAI API; 0: 8000 if it is free.")
    ] = 0,
    run_dir: _RunDir = None,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="json writes the endpoints as one line.")
    ] = OutputFormat.TABLE,
    emulated: Annotated[
        str,
        typer.Option(
            help="Emulate a cluster in one process instead: a preset's name, or a YAML file. "
            "The options below are for it.",
        ),
    ] = "",
    workload: Annotated[str, typer.Option(help="What to plan for.")] = "azure-conv",
    rate: Annotated[float | None, typer.Option(help="Requests per second to plan for.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan file; planned for the workload when left out.")
    ] = None,
    speed: Annotated[float, typer.Option(help="Emulated seconds per real second.")] = 1.0,
    kvlink: Annotated[
        str, typer.Option(help="real sidecars and sockets, or modelled: in memory.")
    ] = "real",
) -> None:
    """Run a whole fleet on this machine until Ctrl-C."""
    if emulated:
        settings = {"cluster": emulated, "workload": workload, "rate_rps": rate, "plan": plan}
        settings |= {"speed": speed, "kvlink": kvlink, "http_port": http_port}
        _up_emulated(settings | ({"model": model_name} if model_name else {}), run_dir, output)
        return
    from thunderserve.cli.up import up  # noqa: PLC0415 - `--help` must not wait for gRPC

    options = _options(
        model,
        model_name,
        prefill=prefill,
        decode=decode,
        engine=engine,
        wire=wire,
        store=store,
        reference=colocated,
        http_port=http_port,
    )
    asyncio.run(up(options, run_dir, output))


def _up_emulated(
    settings: Mapping[str, object], run_dir: Path | None, output: OutputFormat
) -> None:
    import uvloop  # noqa: PLC0415 - as above

    from thunderserve.cli.emulated.options import EmulatedOptions  # noqa: PLC0415 - as above
    from thunderserve.cli.emulated.up import up_emulated  # noqa: PLC0415 - as above
    from thunderserve.runtime.config import build_config  # noqa: PLC0415 - as above

    uvloop.run(up_emulated(build_config(EmulatedOptions, settings), run_dir, output))


def _demo(
    *,
    model: _Model = None,
    model_name: _ModelName = "",
    store: Annotated[str, typer.Option(help="Control's store: etcd or memory.")] = "etcd",
    run_dir: _RunDir = None,
) -> None:
    """Start a fleet of real engines, show what it does, check it, stop it."""
    from thunderserve.cli.demo import demo  # noqa: PLC0415 - `--help` must not wait for gRPC

    options = _options(model, model_name, store=store, reference=True)
    raise typer.Exit(asyncio.run(demo(options, run_dir)))


def _options(model: Path | None, model_name: str, **settings: object) -> FleetOptions:
    """Raises ConfigError for a value that is not allowed."""
    import shutil  # noqa: PLC0415 - as above

    from thunderserve import demo_model  # noqa: PLC0415 - as above
    from thunderserve.cli.options import FleetOptions  # noqa: PLC0415 - as above
    from thunderserve.runtime.config import build_config  # noqa: PLC0415 - as above

    folder = demo_model.model_path() if model is None else model.absolute()
    name = model_name or (demo_model.MODEL_NAME if model is None else folder.name)
    redis = shutil.which("redis-server") is not None
    return build_config(
        FleetOptions, {"model": folder, "model_name": name, "redis": redis, **settings}
    )
