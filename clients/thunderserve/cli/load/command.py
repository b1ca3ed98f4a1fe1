"""`thunderserve load`: replay a workload's arrivals against a router."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.cli.planning.options import Output, Seed  # noqa: TC001 - Typer reads them
from thunderserve.console.output import OutputFormat, say, write

if TYPE_CHECKING:
    from thunderserve.cli.load.history import History
    from thunderserve.core.trace import Trace

__all__ = ["command"]

_TIMEOUT_S = 600.0


def command(
    *,
    against: Annotated[
        str, typer.Option(help="A router: host:port for gRPC, or http://host:port.")
    ] = "127.0.0.1:7701",
    workload: Annotated[str, typer.Option(help="A preset's name, or a trace's file.")] = (
        "azure-conv"
    ),
    rate: Annotated[
        float | None, typer.Option(help="Requests per second; the workload's own when left out.")
    ] = None,
    duration: Annotated[float, typer.Option(min=1, help="Seconds of arrivals.")] = 60.0,
    speed: Annotated[
        float, typer.Option(help="Of an emulated fleet: all seconds here are emulated ones.")
    ] = 1.0,
    slo_ttft: Annotated[float | None, typer.Option(help="Bound on the first token.")] = None,
    slo_tpot: Annotated[float | None, typer.Option(help="Bound on each later token.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare every token with what an emulated engine answers."),
    ] = False,
    seed: Seed = 0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Send requests as they arrive in a workload, and say what came of them.

    The exit status is 1 when --check finds a promise broken.
    """
    import uvloop  # noqa: PLC0415 - `--help` is quick

    from thunderserve.cli.load.arrivals import named_arrivals  # noqa: PLC0415 - as above
    from thunderserve.cli.load.expected import expected_tokens  # noqa: PLC0415 - as above
    from thunderserve.cli.load.invariants import violations  # noqa: PLC0415 - as above
    from thunderserve.cli.load.summary import summarise, summary_table  # noqa: PLC0415 - as above
    from thunderserve.core.slo import Slo, default_slo  # noqa: PLC0415 - as above

    trace = named_arrivals(workload, rate, duration, seed)
    say(f"{len(trace.requests)} requests in {trace.duration_s / speed:.0f} s")
    model, history = uvloop.run(_play(trace, against, speed, seed))
    bounds = default_slo(model)
    slo = Slo(slo_ttft or bounds.ttft_s, slo_tpot or bounds.tpot_s)
    broken = violations(history, expected_tokens) if check else None
    for each in broken or ():
        say(f"{each.reason} ({each.rule})")
    summary = summarise(history, slo, broken)
    write(summary, summary_table(summary), output)
    if broken:
        raise typer.Exit(1)


async def _play(trace: Trace, against: str, speed: float, seed: int) -> tuple[str, History]:
    from thunderserve.cli.load.ask import asker_of  # noqa: PLC0415 - as above
    from thunderserve.cli.load.expected import VOCABULARY  # noqa: PLC0415 - as above
    from thunderserve.cli.load.history import History  # noqa: PLC0415 - as above
    from thunderserve.cli.load.player import play  # noqa: PLC0415 - as above

    history = History(lambda: time.monotonic() * speed)
    async with asker_of(against, _TIMEOUT_S) as asker:
        model = await asker.model()
        await play(trace, asker, history, speed=speed, seed=seed, vocabulary=VOCABULARY)
    return model, history
