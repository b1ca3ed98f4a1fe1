"""`thunderctl pki`: the certificates by which a fleet's processes know each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from thunderserve.console.output import make_table
from thunderserve.core.identity import Identity, Role
from thunderserve.runtime.identity.pki import Authority, Validity

__all__ = ["application"]

_AUTHORITY_DAYS, _CERTIFICATE_DAYS = 3650.0, 90.0

_Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="The authority's folder; keep it off serving hosts.")
]


@dataclass(frozen=True, slots=True)
class _Made:
    """What a command made."""

    identity: str
    folder: str
    valid_until: str


def application() -> typer.Typer:
    """The subcommands of `pki`; they need no fleet."""
    app = typer.Typer(no_args_is_help=True, help="Make certificates for the fleet's processes.")
    app.command()(init)
    app.command()(issue)
    return app


def init(
    context: typer.Context,
    folder: _Folder,
    *,
    fleet: Annotated[
        str, typer.Option(help="The fleet's name: lower-case letters, digits, hyphens.")
    ] = "thunderserve",
    days: Annotated[float, typer.Option(help="How long it is valid.")] = _AUTHORITY_DAYS,
) -> None:
    """Make a fleet's certificate authority: DIR/ca.crt and DIR/ca.key."""
    validity = Validity.of_days(days, datetime.now(UTC))
    authority = Authority.create(fleet, validity)
    authority.save(folder)
    _show(context, _Made(authority.uri, str(folder), _date(validity)))


def issue(
    context: typer.Context,
    folder: _Folder,
    *,
    role: Annotated[Role, typer.Option(help="What the process does.")],
    name: Annotated[str, typer.Option(help="Which of those it is, for example its group's id.")],
    days: Annotated[float, typer.Option(help="How long it is valid.")] = _CERTIFICATE_DAYS,
    out: Annotated[Path | None, typer.Option(help="Where to; DIR/ROLE/NAME unless given.")] = None,
) -> None:
    """Issue a certificate: a folder with ca.crt, tls.crt and tls.key for the process's host."""
    authority = Authority.load(folder)
    validity = Validity.of_days(days, datetime.now(UTC))
    identity = Identity(authority.fleet, role, name)
    target = out or folder / role / name
    authority.issue(identity, validity, target)
    _show(context, _Made(identity.uri, str(target), _date(validity)))


def _show(context: typer.Context, made: _Made) -> None:
    row = (made.identity, made.folder, made.valid_until)
    context.obj.show(made, make_table(("IDENTITY", "FOLDER", "VALID UNTIL"), [row]))


def _date(validity: Validity) -> str:
    return f"{validity.end:%Y-%m-%dT%H:%M:%SZ}"
