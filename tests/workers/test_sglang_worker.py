"""The real SGLang in a worker process, colocated: answers, refusals, aborts, ends."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tokenizers import Tokenizer

from thunderserve import demo_model
from thunderserve.core.errors import InvalidArgumentError, ThunderServeError
from thunderserve.core.request import FinishReason

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.sglang

START_TIMEOUT_S = 100
_TOKENIZER = Tokenizer.from_file(str(demo_model.model_path() / "tokenizer.json"))
PROMPT = tuple(_TOKENIZER.encode("import os\nimport sys\n\ndef main(argv):\n    ").ids)
OTHER = tuple(_TOKENIZER.encode("class Point:\n    def __init__(self, x, y):\n        self.").ids)


@pytest.mark.timeout(240)
async def test_worker_serves_and_ends_with_its_scheduler(
    launch: Any, connect: Any, requests: Any
) -> None:
    """One start, the slow part, and then all that a colocated worker must do."""
    worker = launch.worker(phase="COLOCATED")
    await worker.wait_serving(START_TIMEOUT_S)
    client = connect(worker)
    await _answers_are_greedy_and_streamed(client, requests)
    await _bad_prompts_are_refused(client, requests)
    await _abort_frees_the_request(client, requests)
    await _loopback_alone_is_bound(worker)
    await _scheduler_death_ends_the_worker(worker, client, requests)


async def _answers_are_greedy_and_streamed(client: Any, requests: Any) -> None:
    """The same tokens alone and again, one message each; whole answers in a batch.

    A batch of another size may round otherwise, so its tokens are not compared.
    """
    chunks = [chunk async for chunk in client.chunks(requests.decode(PROMPT, max_tokens=12))]
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    assert len(tokens) == 12
    assert len(chunks) >= 11
    assert chunks[-1].finish_reason is FinishReason.LENGTH
    assert await client.tokens(requests.decode(PROMPT, 12)) == tokens
    many = await asyncio.gather(*(client.tokens(requests.decode(PROMPT, 12)) for _ in range(4)))
    assert [len(answer) for answer in many] == [12] * 4
    other = await client.tokens(requests.decode(OTHER, max_tokens=12))
    assert other != tokens


async def _bad_prompts_are_refused(client: Any, requests: Any) -> None:
    """By us, with both numbers: SGLang's scheduler would die of a stray token id."""
    with pytest.raises(InvalidArgumentError, match="2100 tokens; it and its answer may have 2046"):
        await client.tokens(requests.decode((5,) * 2100))
    with pytest.raises(InvalidArgumentError, match=r"token id 5000 is not in \[0, 4096\)"):
        await client.tokens(requests.decode((5, 5000)))
    with pytest.raises(InvalidArgumentError, match="are 2047 together; the context holds 2046"):
        await client.tokens(requests.decode((5,) * 2039, max_tokens=8))
    assert len(await client.tokens(requests.decode((5,) * 2038, max_tokens=8))) == 8


async def _abort_frees_the_request(client: Any, requests: Any) -> None:
    """Twice the running requests that fit are left early; the next one finds room at once."""
    long = requests.decode(PROMPT, max_tokens=1900)
    await asyncio.gather(*(client.cancel_after_first(long) for _ in range(16)))
    assert await client.until(lambda status: status.in_flight_count == 0) < 1
    started = time.monotonic()
    assert len(await client.tokens(requests.decode(PROMPT, max_tokens=2))) == 2
    assert time.monotonic() - started < 2


async def _loopback_alone_is_bound(worker: Any) -> None:
    sockets = [
        socket
        for process in (psutil.Process(worker.process.pid), *worker.children())
        for socket in process.net_connections("tcp")
        if socket.status == psutil.CONN_LISTEN
    ]
    assert sockets
    assert {socket.laddr.ip.removeprefix("::ffff:") for socket in sockets} == {"127.0.0.1"}


async def _scheduler_death_ends_the_worker(worker: Any, client: Any, requests: Any) -> None:
    """Whoever waits is told at once, and the last line of the log says why."""
    (scheduler,) = [child for child in worker.children() if _is_scheduler(child)]
    chunks = client.chunks(requests.decode(PROMPT, max_tokens=1900))
    await anext(chunks)
    scheduler.kill()
    with pytest.raises(ThunderServeError):
        async for _ in chunks:
            pass
    assert await asyncio.to_thread(worker.wait, 5) == 1
    lines = worker.log.read_text().splitlines()
    assert f"SGLang's scheduler (pid {scheduler.pid}) ended with status -9" in lines[-1]


@pytest.mark.timeout(120)
async def test_children_end_with_worker_when_it_is_stopped_while_loading(launch: Any) -> None:
    """The worst time: Engine() has started its processes and not returned."""
    worker = launch.worker(phase="COLOCATED")
    await _until(lambda: any(_is_scheduler(child) for child in worker.children()), 90)
    children = worker.children()
    assert worker.stop(signal.SIGTERM, timeout_s=8) == 0
    _, alive = psutil.wait_procs(children, timeout=2)
    assert alive == []


def _is_scheduler(process: psutil.Process) -> bool:
    try:
        return "scheduler" in " ".join(process.cmdline())
    except psutil.Error:
        return False


async def _until(condition: Callable[[], bool], timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - another process has no event to await
            await asyncio.sleep(0.05)
