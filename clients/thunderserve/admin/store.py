"""`thunderctl store`: take what the store holds of a fleet, and put it back."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - typer reads the signature at run time
from typing import Annotated

import typer

from thunderserve.client.control import StoreDump
from thunderserve.console.output import say
from thunderserve.core.errors import InvalidArgumentError

__all__ = ["application", "read_dump"]

RESTORE_TIMEOUT_S = 120.0
_KIND = "thunderserve-store"


def application() -> typer.Typer:
    """The subcommands of `store`."""
    app = typer.Typer(no_args_is_help=True, help="Dump a fleet's store, and restore it.")
    app.command()(dump)
    app.command()(restore)
    return app


def dump(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to write; - is stdout.", allow_dash=True)],
) -> None:
    """Write plans, what is wanted and flips to a file; members are not in it."""
    found: StoreDump = context.obj.ask(lambda control: control.dump_store())
    text = json.dumps(
        {
            "kind": _KIND,
            "fleet": found.fleet,
            "epoch": found.epoch,
            "records": {key: json.loads(value) for key, value in sorted(found.records.items())},
        },
        indent=1,
    )
    if str(file) == "-":
        sys.stdout.write(text + "\n")
        return
    try:
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {file}: {error.strerror}") from error
    say(f"{len(found.records)} records of fleet {found.fleet} at epoch {found.epoch} in {file}")


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A dump; - reads stdin.", allow_dash=True)],
    *,
    allow_older: Annotated[
        bool,
        typer.Option("--allow-older", help="Restore also where the current plan is newer."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and write nothing.")
    ] = False,
) -> None:
    """Go on from a dump's plan, under an epoch above every one that anybody has seen."""
    read = read_dump(file)
    epoch, count = context.obj.ask(
        lambda control: control.restore_store(read, allow_older=allow_older, validate_only=dry_run),
        usual_timeout_s=RESTORE_TIMEOUT_S,
    )
    if dry_run:
        say(f"{file} can be restored: {count} records")
    else:
        say(f"restored {count} records of {file}; its plan is epoch {epoch} now")


def read_dump(file: Path) -> StoreDump:
    """The dump in a file; `-` is stdin.

    Raises:
        InvalidArgumentError: It cannot be read, or is no dump.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        values = json.loads(text)
        if values["kind"] != _KIND:
            raise ValueError(f"its kind is {values['kind']!r}, not {_KIND!r}")  # noqa: TRY301 - one message for all
        records = {str(k): json.dumps(v).encode() for k, v in values["records"].items()}
        return StoreDump(str(values["fleet"]), int(values["epoch"]), records)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgumentError(f"{file} is no dump of a store: {error}") from error
