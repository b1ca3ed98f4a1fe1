"""GPU types are found by name, in two profiles."""

import pytest

from thunderserve.core.catalogue import PROFILES, catalogue
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import GpuType


def test_paper_profile_repeats_table_1() -> None:
    """(bandwidth GB/s, TFLOPS, GB, USD/h) of ThunderServe's Table 1."""
    table = {
        "A100": (2000, 312, 80, 1.753),
        "A6000": (768, 38.7, 48, 0.483),
        "A5000": (626.8, 27.8, 24, 0.223),
        "A40": (696, 149.7, 48, 0.403),
        "3090Ti": (1008, 40, 24, 0.307),
    }
    for name, (gb_per_s, tflops, gb, usd) in table.items():
        found = catalogue("paper_table1").get(name)
        assert found.memory_bytes_per_s == pytest.approx(gb_per_s * 1e9)
        assert found.tflops == tflops
        assert found.memory_bytes == gb * 1e9
        assert found.usd_per_hour == usd


def test_tensor_profile_puts_a6000_level_with_a40() -> None:
    dense = catalogue("tensor_dense")
    assert dense.get("A6000").tflops == pytest.approx(dense.get("A40").tflops, rel=0.05)
    assert dense.get("A40").tflops == catalogue("paper_table1").get("A40").tflops


def test_names_are_unique_in_every_profile() -> None:
    for profile in PROFILES.values():
        assert len(set(profile.names)) == len(profile.names)
        assert "CPU" in profile.names


@pytest.mark.parametrize(
    ("asked", "near"), [("a40", "A40"), ("RTX 3090", "3090"), ("H-100", "H100")]
)
def test_get_names_the_nearest_when_a_type_is_unknown(asked: str, near: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"nearest is '{near}'"):
        catalogue("tensor_dense").get(asked)


def test_catalogue_names_the_profiles_when_one_is_unknown() -> None:
    with pytest.raises(InvalidArgumentError, match="paper_table1, tensor_dense"):
        catalogue("dense")


def test_with_types_adds_and_replaces() -> None:
    mine = GpuType("A40", 1.0, 1.0, 1.0)
    changed = catalogue("tensor_dense").with_types([mine, GpuType("New", 1.0, 1.0, 1.0)])
    assert changed.get("A40") is mine
    assert changed.get("New").name == "New"
    assert catalogue("tensor_dense").get("A40") is not mine
