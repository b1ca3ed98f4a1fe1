"""From what SGLang tells a transfer backend to a layout and memory; refuses what it cannot do."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from thunderserve.core.errors import PreconditionError
from thunderserve.core.kv import VALUE_BYTES, KvLayout
from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory, tensor_at

__all__ = ["aux_of", "check_supported", "layout_of", "pages_of"]

# Fields of a model's configuration that differ between two copies of the same model.
_PRIVATE_FIELDS = ("_name_or_path", "transformers_version")


def check_supported(
    kv_args: Any, *, is_mla: bool, tp: int, pp: int, decode_allocation_policy: str
) -> None:
    """Raises PreconditionError for what kvlink cannot carry; the message names it."""
    reasons = {
        "multi-head latent attention (MLA)": is_mla,
        f"tensor parallelism {tp}": tp != 1,
        f"pipeline parallelism {pp}": pp != 1,
        f"state beside the KV cache ({kv_args.state_types})": bool(kv_args.state_types),
        "speculative decoding": bool(kv_args.num_draft_entries),
        "layers of unequal KV size": len(set(kv_args.kv_item_lens)) != 1,
        "the decode allocation policy prefill_complete": decode_allocation_policy != "early",
    }
    refused = [what for what, holds in reasons.items() if holds]
    if refused:
        raise PreconditionError(
            f"kvlink cannot serve this engine: {', '.join(refused)}; it carries full-attention "
            "caches at tp=1 and pp=1"
        )


def layout_of(kv_args: Any, model_config: Any) -> KvLayout:
    """The layout of an engine that `check_supported` let pass."""
    dtype = str(model_config.dtype).removeprefix("torch.")
    # SGLang fills the head counts of `kv_args` on the prefill side alone.
    kv_heads = model_config.get_total_num_kv_heads()
    head_bytes = kv_args.page_size * kv_heads * VALUE_BYTES
    head_dim, rest = divmod(kv_args.kv_item_lens[0], head_bytes)
    if rest or kv_args.kv_cache_dtype_str not in {dtype, f"torch.{dtype}", "auto"}:
        raise PreconditionError(
            f"the KV cache is stored as {kv_args.kv_cache_dtype_str}; kvlink carries 16-bit caches"
        )
    return KvLayout(
        model_fingerprint=_fingerprint(model_config.hf_config),
        layer_count=len(kv_args.kv_data_ptrs) // 2,
        kv_head_count=kv_heads,
        head_dim=head_dim,
        page_size_tokens=kv_args.page_size,
        dtype=dtype,
    )


def pages_of(kv_args: Any, layout: KvLayout, device_type: str) -> PageMemory:
    """The pool that the pointers name."""
    device = torch.device("cpu" if device_type == "cpu" else f"{device_type}:{kv_args.gpu_id}")
    page = layout.block_shape(1, 1)[3:]
    sizes = zip(kv_args.kv_data_ptrs, kv_args.kv_data_lens, strict=True)
    buffers = [
        tensor_at(pointer, (length // kv_args.kv_item_lens[0], *page), device)
        for pointer, length in sizes
    ]
    return PageMemory(layout, buffers)


def aux_of(kv_args: Any) -> AuxMemory:
    """The metadata buffers that the pointers name."""
    return AuxMemory(tuple(kv_args.aux_data_ptrs), tuple(kv_args.aux_item_lens))


def _fingerprint(hf_config: Any) -> str:
    fields = {k: v for k, v in hf_config.to_dict().items() if k not in _PRIVATE_FIELDS}
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
