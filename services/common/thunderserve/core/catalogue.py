"""The GPU types that ThunderServe knows, in two profiles.

`paper_table1` repeats Table 1 of ThunderServe (MLSys 2025). It mixes bases: the A40 and the A100
have their dense tensor-core peak, the A6000, the A5000 and the 3090Ti their shader peak.
`tensor_dense` gives every GPU its dense 16-bit tensor-core peak, on which an A6000 equals an A40.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import GpuType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PROFILES", "Catalogue", "catalogue"]

_GB = 1e9
_NVLINK3, _NVLINK4, _NVLINK5 = 300 * _GB, 450 * _GB, 900 * _GB  # one direction, nominal
_PCIE4, _PCIE5 = 32 * _GB, 64 * _GB  # x16, one direction, nominal


@dataclass(frozen=True, slots=True)
class Catalogue:
    """GPU types of one profile, found by name.

    Attributes:
        unpriced: Names of types whose price nobody has told; it is 0 in `types`.
    """

    profile: str
    types: tuple[GpuType, ...]
    unpriced: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all types."""
        return tuple(gpu_type.name for gpu_type in self.types)

    def get(self, name: str) -> GpuType:
        """The type of that name.

        Raises:
            InvalidArgumentError: There is none; the message names the nearest.
        """
        for gpu_type in self.types:
            if gpu_type.name == name:
                return gpu_type
        folded = {known.casefold(): known for known in self.names}
        near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.0)
        raise InvalidArgumentError(
            f"no GPU type {name!r} in profile {self.profile}; the nearest is {folded[near[0]]!r}",
            param="type",
        )

    def with_types(self, types: Iterable[GpuType]) -> Catalogue:
        """The same catalogue with these types added; one of a known name replaces it."""
        added = {gpu_type.name: gpu_type for gpu_type in types}
        merged = {gpu_type.name: gpu_type for gpu_type in self.types} | added
        return Catalogue(self.profile, tuple(merged.values()), self.unpriced - added.keys())

    def with_prices(self, usd_per_hour: Mapping[str, float]) -> Catalogue:
        """The same catalogue with other prices.

        Raises:
            InvalidArgumentError: A name is not known, or a price is negative.
        """
        return self.with_types(
            replace(self.get(name), usd_per_hour=usd) for name, usd in usd_per_hour.items()
        )


def _gpu(  # noqa: PLR0917 - a table's columns
    name: str, tflops: float, gb_per_s: float, gb: float, usd: float, local: float = _PCIE4
) -> GpuType:
    return GpuType(name, tflops, gb_per_s * _GB, gb * _GB, usd, local)


# Nominal figures of a small shared host, for demonstrations: they set proportions, not promises.
_CPU = _gpu("CPU", 0.2, 20, 4, 0.0, 10 * _GB)

# ThunderServe (MLSys 2025), Table 1; the A5000's 626.8 GB/s is the paper's (its data sheet: 768).
_PAPER_TABLE1 = (
    _gpu("A100", 312, 2000, 80, 1.753, _NVLINK3),
    _gpu("A6000", 38.7, 768, 48, 0.483),
    _gpu("A5000", 27.8, 626.8, 24, 0.223),
    _gpu("A40", 149.7, 696, 48, 0.403),
    _gpu("3090Ti", 40, 1008, 24, 0.307),
    _CPU,
)

# Peaks: AIConfigurator's system files (A100, H100, H200, B200, L40S, L4, A30, RTX PRO 6000),
# LLM-Viewer's hardware_params.py (A40, A6000, V100), HexGen-3 (3090). Not confirmed by a second
# source: A5000, 3090Ti, 4090, 5090, T4. Prices, to be replaced by one's own: Table 1 of the paper
# where it has one; Vast.ai in November 2025 (3090, L40S, H100) or June 2026 (A100-PCIe, 4090, 5090,
# H200, B200); RunPod in March (L4) or November 2026 (H100-PCIe); Akash in September 2026
# (RTX-PRO-6000, V100, T4).
_TENSOR_DENSE = (
    _gpu("A100", 312, 2039, 80, 1.753, _NVLINK3),
    _gpu("A100-PCIe", 312, 1935, 80, 1.17),
    _gpu("H100", 989, 3350, 80, 1.56, _NVLINK4),
    _gpu("H100-PCIe", 756.5, 2000, 80, 1.99, _PCIE5),
    _gpu("H200", 989, 4800, 141, 3.50, _NVLINK4),
    _gpu("B200", 2250, 7700, 180, 4.49, _NVLINK5),
    _gpu("L40S", 362, 864, 48, 0.44),
    _gpu("L4", 121, 300, 24, 0.44),
    _gpu("A30", 165, 933, 24, 0.0),
    _gpu("RTX-PRO-6000", 467.8, 1792, 96, 1.45, _PCIE5),
    _gpu("A40", 149.7, 696, 48, 0.403),
    _gpu("A6000", 154.8, 768, 48, 0.483),
    _gpu("A5000", 111, 768, 24, 0.223),
    _gpu("V100", 112, 900, 16, 0.36),
    _gpu("3090", 71, 936, 24, 0.13),
    _gpu("3090Ti", 80, 1008, 24, 0.307),
    _gpu("4090", 165, 1010, 24, 0.68),
    _gpu("5090", 210, 1790, 32, 0.87, _PCIE5),
    _gpu("T4", 65, 320, 16, 0.15),
    _CPU,
)

PROFILES = MappingProxyType(
    {
        "paper_table1": Catalogue("paper_table1", _PAPER_TABLE1),
        "tensor_dense": Catalogue("tensor_dense", _TENSOR_DENSE, frozenset({"A30"})),
    }
)
"""Every catalogue by its name."""


def catalogue(profile: str) -> Catalogue:
    """The catalogue of that name.

    Raises:
        InvalidArgumentError: There is no such profile.
    """
    if profile not in PROFILES:
        raise InvalidArgumentError(
            f"no hardware profile {profile!r}; there are {', '.join(PROFILES)}", param="profile"
        )
    return PROFILES[profile]
