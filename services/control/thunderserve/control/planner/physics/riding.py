"""How much prompt work rides along while a request decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from thunderserve.control.planner.physics.sample import FloatArray

__all__ = ["busy_beyond"]

_GRID = 96
_CELLS = 32
_GROUPS = 12
_DAMPING = 1e-4 ** (1 / _GRID)
_FADING = _DAMPING ** np.arange(_GRID)
_FULL = 1 - 1e-3
_MANY = 1e4


def busy_beyond(
    rate_rps: FloatArray,
    work_s: FloatArray,
    share: FloatArray,
    *,
    within_s: FloatArray,
    beyond_s: FloatArray,
    left_ratio: float = 1.0,
) -> FloatArray:
    """Probability that, within a time, a server is busy for longer than a bound.

    The time begins when a request's own work is done. It leaves behind what a customer of an M/G/1
    queue leaves (Pollaczek and Khinchine's transform, for service that is gamma). All that comes
    while the server may idle counts; what comes while it is busy counts only when it is still busy
    then, which a share x / (x + E[S^2] / E[S]) of a bound x stands for (fitted to simulated queues:
    short bounds are over before more comes). What comes is compound Poisson; the product of both
    transforms is inverted on a grid, damped against aliasing. Requests of alike bounds are looked
    at together.

    Args:
        rate_rps: Arrivals: (loads, levels).
        work_s: Of each request of the sample.
        share: Of the requests.
        within_s: The time: (loads, levels, requests).
        beyond_s: The bound: (loads, levels, requests); below 0 it is always exceeded.
        left_ratio: What of the work that is left behind is not done by then.

    Returns:
        (loads, levels, requests).

    Source: Abate, Whitt, "Numerical inversion of probability generating functions" (1992).
    """
    order = np.argsort(beyond_s[0, 0])
    groups = np.array_split(order, min(_GROUPS, len(order)))
    result = np.empty_like(beyond_s)
    mean_s = float(work_s @ share)
    grain_s = float(work_s**2 @ share) / mean_s
    busy = rate_rps * mean_s
    for group in groups:
        bound = beyond_s[..., group].mean(axis=-1)
        within = within_s[..., group].mean(axis=-1)
        within -= bound * (1 - bound / (np.maximum(bound, 0.0) + grain_s))
        looked_at = np.clip(bound, 1e-3 * mean_s, _MANY * mean_s)
        exceeded = _exceeded(
            rate_rps, work_s, share, (np.maximum(within, 0.0), looked_at), left_ratio
        )
        exceeded = np.where(bound <= 0, 1.0, np.where(busy < _FULL, exceeded, 1.0))
        # Of very many requests the mean alone tells.
        many = bound > _MANY * mean_s
        exceeded = np.where(many, busy * within > bound, exceeded)
        result[..., group] = exceeded[..., None]
    return result


def _exceeded(
    rate_rps: FloatArray,
    work_s: FloatArray,
    share: FloatArray,
    bounds_s: tuple[FloatArray, FloatArray],
    left_ratio: float,
) -> FloatArray:
    """The same for one time and bound at each load and level: (loads, levels)."""
    within_s, beyond_s = bounds_s
    cell_s = beyond_s / _CELLS
    sizes = work_s / cell_s[..., None]
    works = _transform(sizes, share)
    mean_s = float(work_s @ share)
    rate = np.minimum(rate_rps, _FULL / mean_s)[..., None]
    spread = max(float(work_s**2 @ share) / mean_s**2 - 1, 1e-3)
    served = (1 + rate * (1 - works) * mean_s * spread) ** (-1 / spread)
    left = (1 - rate * mean_s) * (1 - works) * served / (served - works)
    left **= left_ratio
    come = np.exp(rate * within_s[..., None] * (works - 1))
    masses = np.fft.irfft(left * come, n=_GRID, axis=-1) / _FADING
    exceeded: FloatArray = np.clip(1 - masses[..., : _CELLS + 1].sum(axis=-1), 0.0, 1.0)
    return exceeded


def _transform(sizes: FloatArray, share: FloatArray) -> NDArray[np.complex128]:
    """Mean of z ** size on the damped circle, sizes split between the whole numbers around them."""
    whole = np.minimum(np.floor(sizes), _GRID - 2).astype(int)
    part = np.clip(sizes - whole, 0.0, 1.0)
    rows = sizes.size // sizes.shape[-1]
    cells = (whole.reshape(rows, -1) + _GRID * np.arange(rows)[:, None]).ravel()
    weights = np.broadcast_to(share, sizes.shape)
    masses = np.bincount(cells, (weights * (1 - part)).ravel(), rows * _GRID)
    masses += np.bincount(cells + 1, (weights * part).ravel(), rows * _GRID)
    return np.fft.rfft(masses.reshape(*sizes.shape[:-1], _GRID) * _FADING)
