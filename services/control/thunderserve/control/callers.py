"""Who asked: the caller of the call that is being answered, and of what it starts."""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.events import CONTROL_ACTOR
from thunderserve.core.identity import CALLER_KEY, Identity, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["acting_for", "caller_of", "current_actor"]

UNNAMED = "unnamed"
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_LONGEST = 128

# Follows a call into the tasks that it starts, as a flip that outlives its caller, so that no
# signature between the servicer and the store has to carry it.
_actor: ContextVar[str] = ContextVar("actor", default=CONTROL_ACTOR)


def current_actor() -> str:
    """Who asked for what is being done; `CONTROL_ACTOR` when nobody did."""
    return _actor.get()


@contextmanager
def acting_for(actor: str) -> Iterator[None]:
    """What is done inside is done for this caller."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def caller_of(
    metadata: Mapping[str, str | bytes], certified: Iterable[bytes], *, forwarded: bool
) -> str:
    """The caller's identity.

    A certificate outweighs a given name, but for a control replica's that passes a call on: it says
    who asked it. A name without a certificate is shown in quotes: nobody vouches for it.

    Args:
        metadata: The call's.
        certified: The names in the caller's certificate, as gRPC gives them; none without TLS.
        forwarded: True when a follower passes the call on.
    """
    given = metadata.get(CALLER_KEY, "")
    name = _UNPRINTABLE.sub("?", given if isinstance(given, str) else "")[:_LONGEST] or UNNAMED
    identity = _identity(certified)
    if forwarded and (identity is None or identity.role is Role.CONTROL):
        return name
    return identity.uri if identity else f'"{name}"'


def _identity(certified: Iterable[bytes]) -> Identity | None:
    for name in certified:
        try:
            return Identity.from_uri(name.decode())
        except (InvalidArgumentError, UnicodeDecodeError):
            continue
    return None
