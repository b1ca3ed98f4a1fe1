"""How finished requests lie in Redis: routers write them, the monitor reads them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.finished import FinishedRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.typing import EncodableT, FieldT

__all__ = ["finished_from_fields", "finished_to_fields", "stream_key"]


def stream_key(fleet: str) -> str:
    """The Redis stream of a fleet's finished requests."""
    return f"thunderserve:{fleet}:requests"


def finished_to_fields(request: FinishedRequest) -> dict[FieldT, EncodableT]:
    """The fields of one entry."""
    return dict(asdict(request).items())


def finished_from_fields(fields: Mapping[bytes, bytes]) -> FinishedRequest:
    """Read one entry; fields that a later release adds are skipped.

    Raises:
        InvalidArgumentError: A field is missing or is no number.
    """
    try:
        return FinishedRequest(
            arrived_unix_s=float(fields[b"arrived_unix_s"]),
            prompt_tokens=int(fields[b"prompt_tokens"]),
            output_tokens=int(fields[b"output_tokens"]),
            ttft_s=float(fields[b"ttft_s"]),
            tpot_s=float(fields[b"tpot_s"]),
            outcome=fields[b"outcome"].decode(),
        )
    except (KeyError, ValueError) as error:
        raise InvalidArgumentError(f"not a finished request: {dict(fields)}: {error}") from error
