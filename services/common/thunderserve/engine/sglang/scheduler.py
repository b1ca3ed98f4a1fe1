"""SGLang's scheduler process, which tells a prompt's first token at once.

Stock SGLang holds a prefill's first token back until the decode side has the whole cache, so that
time to first token would hold the transfer's time.
"""

from __future__ import annotations

from typing import Any

from sglang.srt.managers.scheduler import run_scheduler_process
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

__all__ = ["run_scheduler"]

_AFTER_A_PREFILL_BATCH = (
    "sglang.srt.disaggregation.prefill."
    "SchedulerDisaggregationPrefillMixin.process_batch_result_disagg_prefill"
)


def run_scheduler(*arguments: Any, **keywords: Any) -> None:
    """The whole life of a scheduler process; its hooks are applied with the plugins'."""
    HookRegistry.register(_AFTER_A_PREFILL_BATCH, _tell_first_tokens, HookType.AFTER)
    run_scheduler_process(*arguments, **keywords)


def _tell_first_tokens(_result: None, scheduler: Any, batch: Any, *_: Any) -> None:
    """Stream the requests of a batch whose token is known and whose cache is on its way."""
    told = [
        request
        for request in batch.reqs
        if request.stream
        and request.output_ids
        and request.send_token_offset == 0
        and not request.finished()
        and request in scheduler.disagg_prefill_inflight_queue
    ]
    if told:
        scheduler.output_streamer.stream_output(told, any(r.return_logprob for r in told))
