"""From what SGLang tells a transfer backend to a layout and memory; refuses what it cannot do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from thunderserve.core.errors import PreconditionError
from thunderserve.core.kv import VALUE_BYTES, KvLayout, KvPart, heads_of_rank
from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory, tensor_at

__all__ = ["Degrees", "aux_of", "check_supported", "layout_of", "pages_of", "part_of"]

# Fields of a model's configuration that differ between two copies of the same model.
_PRIVATE_FIELDS = ("_name_or_path", "transformers_version")


@dataclass(frozen=True, slots=True)
class Degrees:
    """How an engine is spread over ranks, and which of them this one is."""

    tp: int = 1
    tp_rank: int = 0
    pp: int = 1
    pp_rank: int = 0


def check_supported(
    kv_args: Any,
    *,
    is_mla: bool,
    other_degrees: int,
    padded_heads: bool,
    decode_allocation_policy: str,
) -> None:
    """Raises PreconditionError for what kvlink cannot carry; the message names it.

    Args:
        kv_args: What SGLang tells a transfer backend.
        is_mla: The model's attention is latent.
        other_degrees: Ranks by parallelism that is neither tensor nor pipeline.
        padded_heads: The KV heads do not divide by tp, and SGLang adds empty ones, as on a CPU;
            on CUDA it copies heads, which `heads_of_rank` follows.
        decode_allocation_policy: SGLang's option.
    """
    reasons = {
        "multi-head latent attention (MLA)": is_mla,
        "data- or context-parallel attention": other_degrees != 1,
        "KV heads that tp does not divide, on a CPU": padded_heads,
        f"state beside the KV cache ({kv_args.state_types})": bool(kv_args.state_types),
        "speculative decoding": bool(kv_args.num_draft_entries),
        "layers of unequal KV size": len(set(kv_args.kv_item_lens)) != 1,
        "the decode allocation policy prefill_complete": decode_allocation_policy != "early",
    }
    refused = [what for what, holds in reasons.items() if holds]
    if refused:
        raise PreconditionError(
            f"kvlink cannot serve this engine: {', '.join(refused)}; it carries full-attention "
            "caches, split by tensor and pipeline parallelism"
        )


def layout_of(kv_args: Any, model_config: Any, degrees: Degrees) -> KvLayout:
    """The layout of the whole cache of an engine that `check_supported` let pass.

    Raises:
        PreconditionError: The KV cache is not stored in the model's 16-bit type.
        InvalidArgumentError: The KV heads cannot be dealt out to the ranks.
    """
    dtype = str(model_config.dtype).removeprefix("torch.")
    # SGLang fills the head counts of `kv_args` on the prefill side alone.
    kv_heads = model_config.get_total_num_kv_heads()
    _, held, _ = heads_of_rank(kv_heads, degrees.tp, degrees.tp_rank)
    head_dim, rest = divmod(kv_args.kv_item_lens[0], kv_args.page_size * held * VALUE_BYTES)
    if rest or kv_args.kv_cache_dtype_str not in {dtype, f"torch.{dtype}", "auto"}:
        raise PreconditionError(
            f"the KV cache is stored as {kv_args.kv_cache_dtype_str}; kvlink carries 16-bit caches"
        )
    held_layers = len(kv_args.kv_data_ptrs) // 2
    return KvLayout(
        model_fingerprint=_fingerprint(model_config.hf_config),
        layer_count=held_layers if degrees.pp == 1 else model_config.num_hidden_layers,
        kv_head_count=kv_heads,
        head_dim=head_dim,
        page_size_tokens=kv_args.page_size,
        dtype=dtype,
        tp=degrees.tp,
        pp=degrees.pp,
    )


def part_of(kv_args: Any, layout: KvLayout, degrees: Degrees, stage: tuple[int, int]) -> KvPart:
    """What this rank holds of the cache.

    Args:
        kv_args: What SGLang tells a transfer backend.
        layout: Of the whole cache.
        degrees: Which rank this is.
        stage: The first layer of its stage, and the one after the last.

    Raises:
        PreconditionError: Its stage has layers without a KV cache.
    """
    start, end = stage
    held = len(kv_args.kv_data_ptrs) // 2
    if held != end - start:
        raise PreconditionError(
            f"stage {degrees.pp_rank} has layers {start} to {end}, but the KV cache of {held}"
        )
    first_head, heads, copy = heads_of_rank(layout.kv_head_count, degrees.tp, degrees.tp_rank)
    return KvPart(
        first_layer=start,
        layer_count=held,
        first_head=first_head,
        head_count=heads,
        rank=degrees.pp_rank * degrees.tp + degrees.tp_rank,
        rank_count=degrees.pp * degrees.tp,
        copy=copy,
    )


def pages_of(kv_args: Any, layout: KvLayout, part: KvPart, device_type: str) -> PageMemory:
    """The pool that the pointers name."""
    device = torch.device("cpu" if device_type == "cpu" else f"{device_type}:{kv_args.gpu_id}")
    page = layout.block_shape(1, 1, part.head_count)[3:]
    sizes = zip(kv_args.kv_data_ptrs, kv_args.kv_data_lens, strict=True)
    buffers = [
        tensor_at(pointer, (length // kv_args.kv_item_lens[0], *page), device)
        for pointer, length in sizes
    ]
    return PageMemory(layout, part, buffers)


def aux_of(kv_args: Any) -> AuxMemory:
    """The metadata buffers that the pointers name."""
    return AuxMemory(tuple(kv_args.aux_data_ptrs), tuple(kv_args.aux_item_lens))


def _fingerprint(hf_config: Any) -> str:
    fields = {k: v for k, v in hf_config.to_dict().items() if k not in _PRIVATE_FIELDS}
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
