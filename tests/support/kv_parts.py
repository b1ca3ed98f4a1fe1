"""How an engine spreads a KV cache over its ranks, as SGLang does it."""

from __future__ import annotations

from thunderserve.core.kv import KvLayout, KvPart, heads_of_rank

__all__ = ["parts_of"]


def parts_of(layout: KvLayout, tp: int, pp: int) -> list[KvPart]:
    """The parts of all ranks; stages hold as equal numbers of layers as they can."""
    parts = []
    for pp_rank in range(pp):
        start, end = (layout.layer_count * stage // pp for stage in (pp_rank, pp_rank + 1))
        for tp_rank in range(tp):
            first_head, heads, copy = heads_of_rank(layout.kv_head_count, tp, tp_rank)
            rank = pp_rank * tp + tp_rank
            part = KvPart(start, end - start, first_head, heads, rank, tp * pp, copy)
            parts.append(part)
    return parts
