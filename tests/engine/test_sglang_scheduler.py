"""The hook in SGLang's scheduler, on the real SGLang, without starting an engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from thunderserve.engine.sglang.cpu import cpu_environment

pytestmark = pytest.mark.sglang

# Its own process: SGLang keeps its configuration, and our hook, for the whole process.
PROGRAM = """
from types import SimpleNamespace as Fake
from thunderserve.engine.sglang.cpu import enable_cpu

enable_cpu()
from sglang.srt.managers import scheduler as stock
from thunderserve.engine.sglang import scheduler as ours

calls = []
mixin = stock.SchedulerDisaggregationPrefillMixin
mixin.process_batch_result_disagg_prefill = lambda self, batch, result: calls.append(batch)
ours.run_scheduler_process = lambda *_: ours.HookRegistry.apply_hooks()
ours.run_scheduler()


def request(tokens, *, stream=True, told=0, finished=False):
    return Fake(
        output_ids=tokens, stream=stream, send_token_offset=told, return_logprob=False,
        finished=lambda: finished,
    )


due = request([5])
others = [request([]), request([5], stream=False), request([5], told=1)]
others.append(request([5], finished=True))
elsewhere = request([5])
streamed = []
self = Fake(
    disagg_prefill_inflight_queue=[due, *others],
    output_streamer=Fake(stream_output=lambda requests, logprob: streamed.append(requests)),
)
process = stock.Scheduler.process_batch_result_disagg_prefill
process(self, Fake(reqs=[due, *others, elsewhere]), None)
assert len(calls) == 1, "SGLang's own processing goes first"
assert streamed == [[due]], streamed
due.send_token_offset = 1
process(self, Fake(reqs=[due]), None)
assert streamed == [[due]], "once"
"""


def test_scheduler_tells_first_token_once_while_the_cache_is_on_its_way() -> None:
    """Only what has a token, streams, was not told yet, and waits for its transfer."""
    environment = os.environ | cpu_environment(1) | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
