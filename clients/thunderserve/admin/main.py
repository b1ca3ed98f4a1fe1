"""The program `thunderctl`."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.admin import changes, events, get, pki, plans, store
from thunderserve.admin.session import DEFAULT_CONTROL, Session, hoist_globals
from thunderserve.admin.top import top
from thunderserve.console.ending import run_app
from thunderserve.console.output import OutputFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_HELP = """Look at a running fleet and change it.

The options below may stand anywhere. Data goes to stdout, messages to stderr. Exit status: 0 ok,
1 error, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable, 124 timeout.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_app(
        _application(), "thunderctl", hoist_globals(sys.argv[1:] if argv is None else argv)
    )


def _application() -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        help=_HELP,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_begin)
    app.add_typer(get.application(), name="get")
    app.add_typer(plans.application(), name="plan")
    app.add_typer(pki.application(), name="pki")
    app.add_typer(store.application(), name="store")
    app.command("flip")(changes.flip)
    app.command("drain")(changes.drain)
    app.command("undrain")(changes.undrain)
    app.command("audit")(events.audit)
    app.command("top")(top)
    return app


def _begin(
    context: typer.Context,
    control: Annotated[
        str,
        typer.Option(
            envvar="THUNDERSERVE_CONTROL",
            help="host:port of the control plane; several, with commas.",
        ),
    ] = DEFAULT_CONTROL,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How data is written.")
    ] = OutputFormat.TABLE,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, help="Seconds to wait for an answer; 30, longer for changes."),
    ] = None,
    caller: Annotated[
        str,
        typer.Option(
            "--as",
            envvar="THUNDERSERVE_CALLER",
            help="Who makes changes, for `audit`; user@host unless given.",
        ),
    ] = "",
) -> None:
    context.obj = Session(
        control=control, output=output, timeout_s=timeout, caller=caller or _user_at_host()
    )


def _user_at_host() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
