"""Options that several planning commands take.

A command takes a whole class of them as one parameter::

    @with_options
    def command(problem: ProblemOptions, *, seed: Seed = 0, output: Output = TABLE) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from thunderserve.console.output import OutputFormat
from thunderserve.control.planner.problem import Objective
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Output",
    "PlanFile",
    "ProblemOptions",
    "Seed",
    "TimeBudget",
    "TraceOptions",
    "with_options",
]

Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How data is written.")]
PlanFile = Annotated[Path, typer.Option("--plan", help="A plan file, as `plan -o json` writes.")]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
TimeBudget = Annotated[float, typer.Option(min=0.01, help="Seconds to search at most.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemOptions:
    """What a plan is for."""

    cluster: Annotated[str, typer.Option(help="A preset's name, or a YAML file.")]
    model: Annotated[str, typer.Option(help="A preset's name, or a folder with config.json.")]
    workload: Annotated[str, typer.Option(help="A preset's name; mean lengths when left out.")] = ""
    rate: Annotated[
        float | None, typer.Option(help="Requests per second; the workload's own when left out.")
    ] = None
    prompt_tokens: Annotated[float, typer.Option(help="Mean prompt without --workload.")] = 512
    output_tokens: Annotated[float, typer.Option(help="Mean answer without --workload.")] = 128
    slo_ttft: Annotated[float, typer.Option(help="Bound on the first token, seconds.")] = 3.0
    slo_tpot: Annotated[float, typer.Option(help="Bound on each later token, seconds.")] = 0.15
    slo_e2e: Annotated[
        float | None, typer.Option(help="Bound on the whole answer, seconds; none by default.")
    ] = None
    objective: Annotated[
        Objective,
        typer.Option(
            help="goodput at the rate, or the highest rate of which --target are in time."
        ),
    ] = Objective.GOODPUT
    target: Annotated[float, typer.Option(help="Share in time, for --objective capacity.")] = 0.9
    profile: Annotated[str, typer.Option(help="GPU figures of a preset cluster.")] = "paper_table1"
    max_nodes: Annotated[int, typer.Option(help="Nodes that one group may span.")] = 1
    wire: Annotated[WireMode, typer.Option(help="How KV travels.")] = WireMode.INT4
    flippable: Annotated[
        float, typer.Option(help="Share of GPUs in groups whose phase can change.")
    ] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """What arrives in a simulation."""

    requests: Annotated[int, typer.Option(help="How many to draw.")] = 10_000


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
