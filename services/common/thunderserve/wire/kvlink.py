"""KV layouts."""

from __future__ import annotations

from thunderserve.api.kvlink.v1 import kvlink_pb2
from thunderserve.core.kv import KvLayout

__all__ = ["layout_from_proto", "layout_to_proto"]


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
