"""`thunderctl plan`: search for a plan, compare, apply one, look back, go back."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - typer reads the signature at run time
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.console.change_views import Comparison, comparison_view
from thunderserve.console.output import say
from thunderserve.console.views import plan_table, plans_table
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan_file import plan_from_mapping, plan_to_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thunderserve.client.control import ControlClient
    from thunderserve.core.fleet import Flip
    from thunderserve.core.plan import Plan

__all__ = ["application", "read_plan"]

# A plan with other phases is applied flip by flip.
APPLY_TIMEOUT_S = 300.0
COMPUTE_TIMEOUT_S = 120.0


def application() -> typer.Typer:
    """The subcommands of `plan`."""
    app = typer.Typer(no_args_is_help=True, help="Search for a plan, compare, apply, go back.")
    for command in (compute, diff, apply, rollback, history):
        app.command()(command)
    return app


def compute(
    context: typer.Context,
    *,
    rate: Annotated[float, typer.Option(min=1e-6, help="Requests per second to plan for.")] = 1.0,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Mean prompt length.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=1, help="Mean answer length.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    keep_phases: Annotated[bool, typer.Option("--keep-phases", help="Plan routes alone.")] = False,
) -> None:
    """Search for a plan over the live groups; publishes nothing.

    `-o json` writes the file that `plan apply` reads.
    """
    found = context.obj.ask(
        lambda control: control.compute_plan(
            rate_rps=rate,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            seed=seed,
            keep_phases=keep_phases,
        ),
        usual_timeout_s=COMPUTE_TIMEOUT_S,
    )
    context.obj.show(plan_to_mapping(found), plan_table(found))


def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A plan file; - reads stdin.", allow_dash=True)],
    *,
    expected_epoch: Annotated[
        int, typer.Option(min=0, help="Apply only over this epoch; 0 applies over any.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and publish nothing.")
    ] = False,
) -> None:
    """Publish a plan file's routes and phases; phase changes are executed as flips."""
    plan = read_plan(file)
    applied = context.obj.ask(
        lambda control: control.apply_plan(
            plan,
            expected_epoch=expected_epoch,
            validate_only=dry_run,
            request_id=str(uuid.uuid4()),
        ),
        usual_timeout_s=APPLY_TIMEOUT_S,
    )
    say(f"{file} can be applied" if dry_run else f"published as epoch {applied.epoch}")
    context.obj.show(plan_to_mapping(applied), plan_table(applied))


def diff(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="A plan file; - reads stdin.", allow_dash=True)
    ] = None,
    *,
    epoch: Annotated[int, typer.Option(min=0, help="A published plan instead of a file.")] = 0,
    rate: Annotated[
        float, typer.Option(min=0, help="Requests per second; 0: the workload planned for.")
    ] = 0.0,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Mean prompt length.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=1, help="Mean answer length.")] = 128,
) -> None:
    """Show what another plan would change, and what the cost model expects of both."""
    if (file is None) == (epoch == 0):
        raise InvalidArgumentError("compare with a plan file or with --epoch, one of both")
    other = None if file is None else read_plan(file)

    async def compared(control: ControlClient) -> Comparison:
        async def predicted(plan: Plan) -> Plan:
            return await control.predict_plan(
                plan, rate_rps=rate, prompt_tokens=prompt_tokens, output_tokens=output_tokens
            )

        now = await predicted(await control.plan())
        then = await predicted(other or await control.plan(epoch))
        return Comparison.of(now, then, mean_flip_s(await control.flips()))

    context.obj.report(compared, comparison_view)


def mean_flip_s(flips: Iterable[Flip]) -> float | None:
    """Seconds that finished flips took on average; None when there was none."""
    took = [flip.total_s for flip in flips if flip.step is FlipStep.DONE]
    return fmean(took) if took else None


def rollback(
    context: typer.Context,
    epoch: Annotated[int, typer.Argument(min=1, help="A published plan; see `plan history`.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and publish nothing.")
    ] = False,
) -> None:
    """Publish a former plan again, under a new epoch; its phases are restored by flips."""

    async def rolled_back(control: ControlClient) -> Plan:
        former = replace(await control.plan(epoch), reason=f"rolled back to plan {epoch}")
        return await control.apply_plan(former, validate_only=dry_run, request_id=str(uuid.uuid4()))

    applied = context.obj.ask(rolled_back, usual_timeout_s=APPLY_TIMEOUT_S)
    can, done = f"plan {epoch} can be rolled back to", f"published as epoch {applied.epoch}"
    say(can if dry_run else done)
    context.obj.show(plan_to_mapping(applied), plan_table(applied))


def history(context: typer.Context) -> None:
    """Show published plans, newest first."""
    found = context.obj.ask(lambda control: control.plans())
    context.obj.show([plan_to_mapping(plan) for plan in found], plans_table(found))


def read_plan(file: Path) -> Plan:
    """The plan in a file; `-` is stdin.

    Raises:
        InvalidArgumentError: It cannot be read, is not JSON or not a plan.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        values = json.loads(text)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgumentError(f"{file} is not JSON: {error}") from error
    return plan_from_mapping(values)
