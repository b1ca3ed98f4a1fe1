"""Offers are read as the market writes them."""

from __future__ import annotations

from typing import Any

import pytest

from thunderserve.control.planner.rent import read_offers
from thunderserve.core.catalogue import catalogue
from thunderserve.core.errors import InvalidArgumentError

KNOWN = catalogue("tensor_dense")
A40 = {
    "id": 17, "gpu_name": "A40", "num_gpus": 4, "gpu_ram": 46068, "dph_total": 1.6,
    "inet_up": 800, "inet_down": 1600, "inet_up_cost": 0.005, "inet_down_cost": 0.004,
    "pcie_bw": 24.0, "bw_nvlink": 0, "reliability": 0.99, "geolocation": "Utah, US",
    "min_gpu": 2, "dlperf": 31.4,
}  # fmt: skip


def test_offer_is_in_units_of_ours() -> None:
    (offer,), skipped = read_offers([A40], KNOWN)
    assert skipped == ()
    assert (offer.id, offer.gpus, offer.min_gpus) == ("17", 4, 2)
    assert offer.gpu.name == "A40"
    assert offer.gpu.usd_per_hour == pytest.approx(0.4)
    assert offer.usd_per_hour == pytest.approx(1.6)
    assert (offer.up_bytes_per_s, offer.down_bytes_per_s) == (1e8, 2e8)
    assert (offer.up_usd_per_byte, offer.down_usd_per_byte) == pytest.approx((5e-12, 4e-12))
    assert offer.local_bytes_per_s == 24e9


@pytest.mark.parametrize(
    ("listed", "ours"),
    [
        ("RTX A6000", "A6000"),
        ("RTX 3090 Ti", "3090Ti"),
        ("A100 SXM4", "A100"),
        ("A100 PCIE", "A100-PCIe"),
        ("Tesla V100", "V100"),
        ("H100 SXM", "H100"),
        ("RTX PRO 6000 WS", "RTX-PRO-6000"),
        ("L40S", "L40S"),
    ],
)
def test_offer_s_gpu_is_the_catalogue_s(listed: str, ours: str) -> None:
    (offer,), _ = read_offers([{**A40, "gpu_name": listed, "gpu_ram": None}], KNOWN)
    assert offer.gpu.name == ours
    assert offer.gpu.memory_bytes == KNOWN.get(ours).memory_bytes


def test_offer_of_other_memory_is_a_type_of_its_own() -> None:
    """An A100 of 40 GB is no A100 of 80 GB."""
    (offer,), _ = read_offers([{**A40, "gpu_name": "A100 SXM4", "gpu_ram": 40960}], KNOWN)
    assert offer.gpu.name == "A100-43GB"
    assert offer.gpu.memory_bytes == 40960 * 1024**2


def test_unknown_gpu_is_left_out_with_a_line_that_names_it() -> None:
    offers, skipped = read_offers([A40, {**A40, "id": 18, "gpu_name": "Radeon VII"}], KNOWN)
    assert len(offers) == 1
    assert len(skipped) == 1
    assert "18" in skipped[0]
    assert "Radeon VII" in skipped[0]


@pytest.mark.parametrize(
    ("listed", "named"),
    [
        ([], "no offer"),
        ({"offers": []}, "list"),
        ("text", "list"),
        ([17], r"\[0\]"),
        ([{**A40, "gpu_name": None}], "gpu_name"),
        ([{**A40, "id": None}], "id"),
        ([{**A40, "dph_total": -1}], "dph_total"),
        ([{**A40, "num_gpus": 0}], "0 GPUs"),
        ([{**A40, "min_gpu": 5}], "min_gpu is 5"),
        ([{**A40, "inet_up": 0}], "inet_up"),
        ([{**A40, "inet_up_cost": -0.1}], "negative"),
        ([{**A40, "gpu_name": "Radeon VII"}], "no offer"),
        ([A40, A40], "17"),
    ],
)
def test_bad_offers_are_refused_by_name(listed: Any, named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=named):
        read_offers(listed, KNOWN)
