"""Do two samples of lengths come from one distribution?"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["differ", "distance"]


def distance(sample: Sequence[float], reference: Sequence[float]) -> float:
    """The greatest difference of their distribution functions, in [0, 1].

    Source: Kolmogorov and Smirnov's two-sample statistic.
    """
    a, b = sorted(sample), sorted(reference)
    points = {*a, *b}
    return max(abs(bisect_right(a, x) / len(a) - bisect_right(b, x) / len(b)) for x in points)


def differ(sample: Sequence[float], reference: Sequence[float], chance: float) -> bool:
    """True when a distance as great comes about by chance less often than `chance`.

    Args:
        sample: What was observed, at least one value.
        reference: What was planned for, at least one value; a preset's quantiles count as values.
        chance: In (0, 1).
    """
    n, m = len(sample), len(reference)
    critical = math.sqrt(-math.log(chance / 2) / 2 * (n + m) / (n * m))
    return distance(sample, reference) > critical
