"""Offers of GPUs for rent, as Vast.ai lists them.

What is read of each entry of `vastai search offers --raw`:

=================================  ==========================================================
`id`                               names it
`gpu_name`, `num_gpus`             what it holds; all of one host
`gpu_ram`                          MB of each GPU
`dph_total`                        dollars per hour of all its GPUs
`inet_up`, `inet_down`             Mbit/s
`inet_up_cost`, `inet_down_cost`   dollars per GB, each byte that leaves or comes
`min_gpu`                          fewer GPUs than all may be rented, but so many at least
`pcie_bw`, `bw_nvlink`             GB/s between its GPUs, when it says so
`reliability`, `geolocation`       shown
=================================  ==========================================================

Source: Vast.ai's documentation of `search offers`; prices of bytes are per direction and host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import GpuType, check_positive
from thunderserve.core.mapping import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.core.catalogue import Catalogue

__all__ = ["Offer", "read_offers"]

_BYTES_PER_S_OF_MBIT = 1e6 / 8
_MB = 1024**2
_GB = 1e9
_SAME_MEMORY = 0.15
"""Offers state memory in binary units and after what the driver keeps; data sheets do not."""

# Names that differ by more than "RTX", "Tesla", spaces and case.
_NAMES = MappingProxyType(
    {
        "a100sxm4": "A100",
        "a100sxm": "A100",
        "a100pcie": "A100-PCIe",
        "h100sxm": "H100",
        "h100pcie": "H100-PCIe",
        "pro6000ws": "RTX-PRO-6000",
        "pro6000s": "RTX-PRO-6000",
    }
)


@dataclass(frozen=True, slots=True)
class Offer:
    """GPUs of one host for rent.

    Attributes:
        id: As the market names it.
        gpu: Their type, at the offer's price.
        gpus: How many there are.
        min_gpus: How many must be rented at least; all, unless the offer says otherwise.
        up_bytes_per_s: From the host to the internet.
        up_usd_per_byte: For every byte that leaves the host.
        local_bytes_per_s: Between two of its GPUs.
    """

    id: str
    gpu: GpuType
    gpus: int
    min_gpus: int
    up_bytes_per_s: float
    down_bytes_per_s: float
    up_usd_per_byte: float
    down_usd_per_byte: float
    local_bytes_per_s: float
    reliability_ratio: float = 1.0
    location: str = ""

    def __post_init__(self) -> None:
        check_positive(
            f"offer {self.id}",
            num_gpus=self.gpus,
            min_gpu=self.min_gpus,
            inet_up=self.up_bytes_per_s,
            inet_down=self.down_bytes_per_s,
        )
        for name in ("up_usd_per_byte", "down_usd_per_byte"):
            if not getattr(self, name) >= 0:
                raise InvalidArgumentError(f"offer {self.id}: a negative price of bytes")
        if self.min_gpus > self.gpus:
            raise InvalidArgumentError(
                f"offer {self.id}: min_gpu is {self.min_gpus}, of {self.gpus} GPUs"
            )

    @property
    def usd_per_hour(self) -> float:
        """Rent of all its GPUs."""
        return self.gpus * self.gpu.usd_per_hour


def read_offers(
    listed: Sequence[Mapping[str, Any]], known: Catalogue
) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
    """Offers whose GPUs the catalogue knows, and a line about each of the others.

    Args:
        listed: What `vastai search offers --raw` prints.
        known: The GPUs.

    Raises:
        InvalidArgumentError: Names the place that is wrong; or there is no offer left.
    """
    if isinstance(listed, str | dict) or not hasattr(listed, "__iter__"):
        raise InvalidArgumentError(
            "offers must be a list, as `vastai search offers --raw` prints it", param="offers"
        )
    folded = {_folded(name): name for name in known.names}
    offers: list[Offer] = []
    skipped: list[str] = []
    for index, entry in enumerate(listed):
        reader = Reader(entry, f"[{index}]")
        name = reader.text("gpu_name")
        kind = _NAMES.get(_folded(name), folded.get(_folded(name)))
        if kind in known.names:
            offers.append(_read_offer(reader, known.get(kind)))
        else:
            skipped.append(f"offer {_id(reader)} is left out: no figures of a {name} are known")
    ids = [offer.id for offer in offers]
    if repeated := [name for name in ids if ids.count(name) > 1]:
        raise InvalidArgumentError(f"offer {repeated[0]} is listed twice", param="offers")
    if not offers:
        raise InvalidArgumentError("no offer has GPUs whose figures are known", param="offers")
    return tuple(offers), tuple(skipped)


def _folded(name: str) -> str:
    return re.sub(r"rtx|tesla|nvidia|[^a-z0-9]", "", name.casefold())


def _id(reader: Reader) -> str:
    value = reader.value.get("id")
    if not isinstance(value, int | str) or not str(value):
        raise reader.error(f"expected a number, found {value!r}", "id")
    return str(value)


def _read_offer(reader: Reader, kind: GpuType) -> Offer:
    gpus = reader.integer("num_gpus")
    price = reader.number("dph_total")
    if gpus < 1 or price < 0:
        raise reader.error(f"{gpus} GPUs for {price} $/h", "dph_total")
    memory = reader.number("gpu_ram", kind.memory_bytes / _MB) * _MB
    local = reader.number("bw_nvlink", 0.0) or reader.number("pcie_bw", 0.0)
    return reader.build(
        Offer,
        id=_id(reader),
        gpu=_with_memory(kind, memory, price / gpus),
        gpus=gpus,
        min_gpus=reader.integer("min_gpu", gpus),
        up_bytes_per_s=reader.number("inet_up") * _BYTES_PER_S_OF_MBIT,
        down_bytes_per_s=reader.number("inet_down") * _BYTES_PER_S_OF_MBIT,
        up_usd_per_byte=reader.number("inet_up_cost", 0.0) / _GB,
        down_usd_per_byte=reader.number("inet_down_cost", 0.0) / _GB,
        local_bytes_per_s=local * _GB or kind.local_bytes_per_s,
        reliability_ratio=reader.number("reliability", 1.0),
        location=reader.text("geolocation", ""),
    )


def _with_memory(kind: GpuType, memory_bytes: float, usd_per_hour: float) -> GpuType:
    """The type at the offer's price; of another name, where it has other memory."""
    if abs(memory_bytes - kind.memory_bytes) <= _SAME_MEMORY * kind.memory_bytes:
        return replace(kind, usd_per_hour=usd_per_hour)
    name = f"{kind.name}-{memory_bytes / _GB:.0f}GB"
    return replace(kind, name=name, memory_bytes=memory_bytes, usd_per_hour=usd_per_hour)
