"""Options that several planning commands take.

A command takes a whole class of them as one parameter::

    @with_options
    def command(problem: ProblemOptions, *, seed: Seed = 0, output: Output = TABLE) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from thunderserve.console.output import OutputFormat
from thunderserve.control.planner.problem import Objective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ArrivalKind",
    "Output",
    "PlanFile",
    "PlannedOptions",
    "ProblemOptions",
    "Seed",
    "TimeBudget",
    "TraceOptions",
    "Wire",
    "with_options",
]

Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How data is written.")]
PlanFile = Annotated[Path, typer.Option("--plan", help="A plan file, as `plan -o json` writes.")]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
TimeBudget = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Seconds to search at most: a plan cut short depends on the machine; none by default.",
    ),
]


class ArrivalKind(StrEnum):
    """When requests come."""

    POISSON = "poisson"
    FITTED = "fitted"
    RECORDED = "recorded"


class Wire(StrEnum):
    """How KV travels."""

    RAW16 = "raw16"
    INT4 = "int4"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemOptions:
    """What a plan is for."""

    cluster: Annotated[str, typer.Option(help="A preset's name, or a YAML file.")]
    model: Annotated[str, typer.Option(help="A preset's name, or a folder with config.json.")]
    workload: Annotated[
        str, typer.Option(help="A preset's name, or a trace's file; mean lengths when left out.")
    ] = ""
    rate: Annotated[
        float | None, typer.Option(help="Requests per second; the workload's own when left out.")
    ] = None
    arrivals: Annotated[
        ArrivalKind | None,
        typer.Option(help="By default fitted bursts; a trace's file is simulated as recorded."),
    ] = None
    prompt_tokens: Annotated[float, typer.Option(help="Mean prompt without --workload.")] = 512
    output_tokens: Annotated[float, typer.Option(help="Mean answer without --workload.")] = 128
    slo_ttft: Annotated[
        float | None,
        typer.Option(help="Bound on the first token, seconds; 2 by default, 3 for llama-30b."),
    ] = None
    slo_tpot: Annotated[
        float | None, typer.Option(help="Bound on each later token, seconds; 0.15 by default.")
    ] = None
    slo_e2e: Annotated[
        float | None, typer.Option(help="Bound on the whole answer, seconds; none by default.")
    ] = None
    slo_scale: Annotated[
        float | None,
        typer.Option(help="Bounds as so many times what a mean request takes alone."),
    ] = None
    slo_reference: Annotated[
        str, typer.Option(help="GPU type on which it is alone, for --slo-scale.")
    ] = "A100"
    objective: Annotated[
        Objective,
        typer.Option(
            help="goodput at the rate, or the highest rate of which --target are in time."
        ),
    ] = Objective.GOODPUT
    target: Annotated[float, typer.Option(help="Share in time, for --objective capacity.")] = 0.9
    profile: Annotated[
        str, typer.Option(help="GPU figures: paper_table1 (of presets) or tensor_dense (of files).")
    ] = ""
    link: Annotated[
        float | None, typer.Option(help="Gbit/s of every host's port, instead of the cluster's.")
    ] = None
    links: Annotated[
        Path | None, typer.Option(help="A YAML file of links between hosts, as measured.")
    ] = None
    max_nodes: Annotated[int, typer.Option(help="Nodes that one group may span.")] = 1
    phases: Annotated[str, typer.Option(help="What groups may do, by commas.")] = (
        "prefill,decode,colocated"
    )
    wire: Annotated[Wire, typer.Option(help="How KV travels.")] = Wire.INT4
    chunks: Annotated[
        str, typer.Option(help="Prompt tokens computed and sent at a time, to choose from.")
    ] = "2048"
    flippable: Annotated[
        float, typer.Option(help="Share of GPUs in groups whose phase can change.")
    ] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOptions(ProblemOptions):
    """What a plan is for; what the plan says itself need not be said again."""

    cluster: Annotated[
        str,
        typer.Option(help="A preset's name, or a YAML file; the plan's hosts when left out."),
    ] = ""
    model: Annotated[
        str, typer.Option(help="A preset's name, or a folder; the plan's when left out.")
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """What arrives in a simulation."""

    requests: Annotated[
        int | None,
        typer.Option(help="How many; 10,000 by default, or all of a trace that was recorded."),
    ] = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Make every field of a command's dataclass parameters an option of its own."""
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        command(
            **{
                each.name: hints[each.name](
                    **{field.name: values[field.name] for field in fields(hints[each.name])}
                )
                if is_dataclass(hints[each.name])
                else values[each.name]
                for each in given
            }
        )

    options = [option for each in given for option in _options(each, hints[each.name])]
    expanded.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined] # what typer reads
    expanded.__annotations__ = {option.name: option.annotation for option in options}
    return expanded


def _options(parameter: inspect.Parameter, hint: Any) -> Iterator[inspect.Parameter]:
    if not is_dataclass(hint):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint)
        return
    types = get_type_hints(hint, include_extras=True)
    for field in fields(hint):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=types[field.name],
        )
