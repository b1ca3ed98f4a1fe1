"""The chairman assignment: draws whose counts match their weights from the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Claimant", "choose"]


@dataclass(slots=True)
class Claimant:
    """A route that a share of the draws belongs to.

    Attributes:
        ends: Its two groups; breaks ties.
        deficit: What it is owed: weight x draws - times chosen.
    """

    ends: tuple[str, str]
    weight: float
    deficit: float = 0.0


def choose(eligible: Sequence[Claimant]) -> Claimant:
    """The one to use now; counts stay within 1 of weight x draws for a fixed set.

    Every one earns its share; among those owed enough, the one whose deadline is nearest wins:
    the moment at which it would be owed too much.

    Source: R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980); plain
    largest-deficit draws drift further than 1 with many routes.
    """
    total = sum(claimant.weight for claimant in eligible)
    for claimant in eligible:
        claimant.deficit += claimant.weight / total
    threshold = 1 / (2 * len(eligible) - 2) if len(eligible) > 1 else 0.0
    owed_enough = [claimant for claimant in eligible if claimant.deficit >= threshold]
    chosen = min(
        owed_enough or eligible,
        key=lambda claimant: (
            (1 - threshold - claimant.deficit) / claimant.weight,
            claimant.ends,
        ),
    )
    chosen.deficit -= 1
    return chosen
