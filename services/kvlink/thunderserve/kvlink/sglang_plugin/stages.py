"""Decode with pipeline stages: all stages end a transfer in the same way.

SGLang's stages agree on which transfers have ended, and then each looks for itself whether they
ended well. Where one stage saw a failure, the first stage tells the next ones nothing of it: they
keep the request, its pages and its slot for ever; and were one to see a success where another saw
a failure, the stages would run different batches. Here they also agree on which have failed, as
SGLang's stages do when they allocate pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang.srt.disaggregation.base.conn import KVPoll
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.srt.runtime_context import get_disagg

from thunderserve.kvlink.sglang_plugin import BACKEND_NAME
from thunderserve.kvlink.sglang_plugin.consensus import RequestIds, agreed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_stage_hooks"]

_MIXIN = "sglang.srt.managers.scheduler_pp_mixin.SchedulerPPMixin"


def add_stage_hooks() -> None:
    """Register the hooks; SGLang applies them when all plugins have registered."""
    hooks = {
        "_pp_pd_get_decode_transferred_ids": _agree_on_ended,
        "process_decode_transfer_queue": _release_ended,
    }
    for method, hook in hooks.items():
        HookRegistry.register(f"{_MIXIN}.{method}", hook, HookType.AROUND)


def _agree_on_ended(original: Callable[..., Any], scheduler: Any) -> Any:
    """What this stage and those before it agree on."""
    if not _is_ours():
        return original(scheduler)
    queue = scheduler.disagg_decode_transfer_queue.queue
    well, badly = scheduler.get_rids(queue, False, [KVPoll.Success], [KVPoll.Failed])  # noqa: FBT003 - positional there
    before: RequestIds | None = None
    if not scheduler.pp_group.is_first_rank:
        before = scheduler._pp_recv_pyobj_from_prev_stage()  # noqa: SLF001 - has no public name
    return agreed(well, badly, before)


def _release_ended(original: Callable[..., Any], scheduler: Any, release_rids: Any) -> Any:
    """Let go of what all stages agreed on, and tell the next stage the same."""
    if release_rids is None or not _is_ours():
        return original(scheduler, release_rids)
    ended, failed = release_rids
    for waiting in scheduler.disagg_decode_transfer_queue.queue:
        if waiting.req.rid in failed:
            waiting.kv_receiver.abort()
    original(scheduler, ended)
    return release_rids


def _is_ours() -> bool:
    return bool(get_disagg().disaggregation_transfer_backend == BACKEND_NAME)
