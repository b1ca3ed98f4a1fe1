"""The wire carries 4.5 bits for each value at int4, 16 at raw16."""

import pytest

from thunderserve.core.kv_volume import kv_bytes, kv_wire_bytes, wire_ratio
from thunderserve.core.model import model_preset
from thunderserve.core.request import WireMode


def test_one_azure_conversation_is_1_84_gb_of_llama_30b() -> None:
    model = model_preset("llama-30b")
    assert kv_bytes(model, 1155) == pytest.approx(1.845e9, rel=0.001)
    assert kv_wire_bytes(model, 1155, WireMode.RAW16) == kv_bytes(model, 1155)
    assert kv_wire_bytes(model, 1155, WireMode.INT4) == pytest.approx(0.519e9, rel=0.001)


def test_the_default_mode_is_int4() -> None:
    assert wire_ratio(WireMode.DEFAULT) == wire_ratio(WireMode.INT4) == 4.5 / 16


def test_the_wire_is_never_wider_than_the_cache() -> None:
    assert wire_ratio(WireMode.RAW16, dtype_bytes=1) == 1.0
