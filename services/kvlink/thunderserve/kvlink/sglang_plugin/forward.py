"""Hooks that tell a `LayerStream` of SGLang's forward passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.disaggregation.utils import DisaggregationMode
from sglang.srt.mem_cache.common import kv_to_page_indices
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.srt.runtime_context import get_disagg

from thunderserve.kvlink.sglang_plugin import BACKEND_NAME
from thunderserve.kvlink.sglang_plugin.layers import LayerStream, Written

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_forward_hooks"]

_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
_BEFORE_FORWARD = (
    "sglang.srt.disaggregation.prefill.SchedulerDisaggregationPrefillMixin"
    ".maybe_send_cached_prefix_chunk"
)
_POOL = "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool"


class _Forward:
    """The pass that runs in this process, if it is one of ours."""

    def __init__(self) -> None:
        self._stream: LayerStream | None = None

    def run(
        self, original: Callable[..., Any], scheduler: Any, batch: Any, *rest: Any, **options: Any
    ) -> Any:
        """Around `Scheduler.run_batch`."""
        self._stream = _stream_of(scheduler, batch)
        if self._stream is None:
            return original(scheduler, batch, *rest, **options)
        self._stream.begin(batch.extend_num_tokens)
        try:
            return original(scheduler, batch, *rest, **options)
        finally:
            self._stream.end()
            self._stream = None

    def add(self, _result: None, scheduler: Any, req: Any, allow_send: bool = True) -> None:  # noqa: FBT001, FBT002 - SGLang's interface
        """After `maybe_send_cached_prefix_chunk`: SGLang's last word on a request before a pass."""
        if self._stream is None or req.pending_bootstrap or not allow_send:
            return
        page_size = scheduler.token_to_kv_pool_allocator.page_size
        end = min(req.extend_end, len(req.origin_input_ids))
        if end < len(req.origin_input_ids):
            end -= end % page_size  # the next chunk completes this page
        if req.start_send_idx >= end or req.start_send_idx % page_size:
            return
        tokens = scheduler.req_to_token_pool.req_to_token[
            req.kv.req_pool_idx, req.start_send_idx : end
        ]
        pages = kv_to_page_indices(tokens, page_size)
        first_page = req.start_send_idx // page_size
        self._stream.add(Written(req.bootstrap_room, first_page, pages))

    def note(
        self, _result: None, pool: Any, layer: Any, loc: Any, *rest: Any, **options: Any
    ) -> None:
        """After `MHATokenToKVPool.set_kv_buffer`."""
        if self._stream is None:
            return
        if layer is None or options.get("layer_id_override") is not None or len(rest) > 4:  # noqa: PLR2004 - keys, values, two scales
            self._stream.end()
            return
        slots = getattr(loc, "loc", loc)  # SGLang's KVWriteLoc, or the slots themselves
        self._stream.note(layer.layer_id, slots.numel(), lambda: _event(pool))


def add_forward_hooks() -> None:
    """Register the hooks; SGLang applies them when all plugins have registered."""
    forward = _Forward()
    HookRegistry.register(f"{_SCHEDULER}.run_batch", forward.run, HookType.AROUND)
    HookRegistry.register(_BEFORE_FORWARD, forward.add, HookType.AFTER)
    HookRegistry.register(f"{_POOL}.set_kv_buffer", forward.note, HookType.AFTER)


def _stream_of(scheduler: Any, batch: Any) -> LayerStream | None:
    """Of this rank's manager, when the pass is a prefill that goes to other groups."""
    if get_disagg().disaggregation_transfer_backend != BACKEND_NAME:
        return None
    if scheduler.disaggregation_mode != DisaggregationMode.PREFILL:
        return None
    if not batch.forward_mode.is_extend() or batch.forward_mode.is_split_prefill():
        return None
    stream: LayerStream = scheduler.disagg_prefill_bootstrap_queue.kv_manager.layer_stream
    return stream


def _event(pool: Any) -> Any:
    """What a sender waits for before it reads: nothing on a CPU, which writes at once."""
    if torch.device(pool.device).type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # untyped in torch
    event.record()
    return event
