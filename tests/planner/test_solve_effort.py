"""Large clusters get less of a search, by counts."""

from __future__ import annotations

import pytest

from thunderserve.control.planner.solve import WHOLE_EFFORT_GPUS, SearchSettings


def test_effort_is_whole_up_to_a_size_and_falls_beyond_it() -> None:
    """Starts and flows fall alike; nothing is ever searched not at all."""
    whole = SearchSettings()

    assert whole.for_gpus(8) == whole.for_gpus(WHOLE_EFFORT_GPUS) == whole
    quarter = whole.for_gpus(4 * WHOLE_EFFORT_GPUS)
    assert (quarter.starts, quarter.evaluations) == (whole.starts / 4, whole.evaluations / 4)
    assert whole.for_gpus(10**6).starts == 1


@pytest.mark.parametrize("gpus", [1, 4096])
def test_effort_leaves_what_is_no_count_of_work(gpus: int) -> None:
    """How a step is taken does not change."""
    settings = SearchSettings(patience=7, tenure=3).for_gpus(gpus)

    assert (settings.patience, settings.tenure) == (7, 3)
