"""Objectives are positive and scale together."""

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.slo import Slo, default_slo


def test_scaled_multiplies_every_bound() -> None:
    assert Slo(2.0, 0.1, 10.0).scaled(0.5) == Slo(1.0, 0.05, 5.0)
    assert Slo(2.0, 0.1).scaled(2).e2e_s is None


@pytest.mark.parametrize("bounds", [(0.0, 1.0, None), (1.0, -1.0, None), (1.0, 1.0, float("nan"))])
def test_slo_is_refused_when_a_bound_is_not_positive(
    bounds: tuple[float, float, float | None],
) -> None:
    with pytest.raises(InvalidArgumentError, match="must be > 0"):
        Slo(*bounds)


def test_scaled_refuses_zero() -> None:
    with pytest.raises(InvalidArgumentError, match="scale"):
        Slo(1.0, 1.0).scaled(0)


def test_default_slo_is_the_paper_s_for_its_model() -> None:
    assert default_slo("llama-30b") == Slo(3.0, 0.15)
    assert default_slo("opt-13b") == Slo(2.0, 0.15)
