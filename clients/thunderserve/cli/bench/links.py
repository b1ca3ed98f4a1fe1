"""The links that are built to measure on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LINKS", "BenchLink", "link_named"]


@dataclass(frozen=True, slots=True)
class BenchLink:
    """A link between two hosts.

    Attributes:
        name: As the figures' names end.
        bits_per_s: In either direction.
        round_trip_s: Delay that is added to the machine's own.
        room_tokens: Of a prompt whose cache is sent: small enough that several pass in the time.
    """

    name: str
    bits_per_s: float
    round_trip_s: float
    room_tokens: int


LINKS = (
    BenchLink("100mbit", 0.1e9, 0.0, 128),
    BenchLink("1gbit", 1e9, 0.0, 512),
    BenchLink("5gbit", 5e9, 0.0, 1024),
    BenchLink("1gbit_10ms", 1e9, 0.010, 512),
)


def link_named(name: str) -> BenchLink:
    """One of `LINKS`; KeyError for another name."""
    return {link.name: link for link in LINKS}[name]
