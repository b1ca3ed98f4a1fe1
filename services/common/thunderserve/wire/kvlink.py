"""KV layouts and codecs' rates."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from thunderserve.api.kvlink.v1 import kvlink_pb2
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.kv import KvLayout
from thunderserve.wire.enums import wire_mode_from_proto, wire_mode_to_proto

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from thunderserve.core.request import WireMode

__all__ = ["layout_from_proto", "layout_to_proto", "rates_from_proto", "rates_to_proto"]


def layout_to_proto(layout: KvLayout) -> kvlink_pb2.KvLayout:
    """A layout."""
    return kvlink_pb2.KvLayout(
        model_fingerprint=layout.model_fingerprint,
        layer_count=layout.layer_count,
        kv_head_count=layout.kv_head_count,
        head_dim=layout.head_dim,
        page_size_tokens=layout.page_size_tokens,
        dtype=layout.dtype,
        tp=layout.tp,
        pp=layout.pp,
    )


def layout_from_proto(message: kvlink_pb2.KvLayout) -> KvLayout:
    """Raises InvalidArgumentError for anything that `KvLayout` refuses."""
    return KvLayout(
        model_fingerprint=message.model_fingerprint,
        layer_count=message.layer_count,
        kv_head_count=message.kv_head_count,
        head_dim=message.head_dim,
        page_size_tokens=message.page_size_tokens,
        dtype=message.dtype,
        tp=message.tp,
        pp=message.pp,
    )


def rates_to_proto(rates: Mapping[WireMode, float]) -> list[kvlink_pb2.CodecRate]:
    """16-bit bytes per second of each wire mode."""
    return [
        kvlink_pb2.CodecRate(wire_mode=wire_mode_to_proto(mode), bytes_per_s=rate)
        for mode, rate in rates.items()
    ]


def rates_from_proto(messages: Iterable[kvlink_pb2.CodecRate]) -> dict[WireMode, float]:
    """Rates that make no sense, or of a later release's modes, are left out: they are a hint."""
    rates = {}
    for message in messages:
        with contextlib.suppress(InvalidArgumentError):
            if message.bytes_per_s > 0:
                rates[wire_mode_from_proto(message.wire_mode)] = message.bytes_per_s
    return rates
