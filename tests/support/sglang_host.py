"""Runs one SGLang engine in a process of its own; told what to do by JSON lines on stdin.

A request is `{"id": n, "do": what, ...}`, what being prefill, decode, switch, cancel, usage, stop;
each gets one line back: `{"id": n, "result": ...}` or `{"id": n, "error": "..."}`. A leg says
`{"id": n, "first": token}` before.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

from thunderserve.core.plan import Phase
from thunderserve.core.request import (
    DecodeLeg,
    PrefillLeg,
    SamplingParams,
    TransferTicket,
    WireMode,
)
from thunderserve.engine.sglang.engine import SglangEngine
from thunderserve.engine.sglang.options import SglangOptions


class Host:
    """One engine and the work that runs in it."""

    def __init__(self, engine: SglangEngine) -> None:
        self._engine = engine
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self, phase: Phase) -> None:
        """Start the engine, say so, and do what stdin says until it ends."""
        await self._engine.start(phase)
        _say({"id": 0, "result": "ready"})
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            request = json.loads(line)
            if request["do"] == "stop":
                break
            self._running[request["id"]] = asyncio.create_task(self._answer(request))
        await self._engine.stop()

    async def _answer(self, request: dict[str, Any]) -> None:
        number = request["id"]
        try:
            result = await getattr(self, "_" + request["do"])(request)
        except asyncio.CancelledError:
            _say({"id": number, "error": "cancelled"})
        except Exception as error:  # noqa: BLE001 - the test reads it
            _say({"id": number, "error": f"{type(error).__name__}: {error}"})
        else:
            _say({"id": number, "result": result})

    async def _prefill(self, request: dict[str, Any]) -> dict[str, Any]:
        leg = PrefillLeg("r", tuple(request["prompt"]), SamplingParams(), _ticket(request))
        first: list[int] = []
        async with aclosing(self._engine.prefill(leg)) as tokens:
            async for token in tokens:
                _say({"id": request["id"], "first": token})
                first.append(token)
        return {"token": first[0]}

    async def _decode(self, request: dict[str, Any]) -> list[int]:
        ticket = _ticket(request) if "room" in request else None
        sampling = SamplingParams(max_tokens=request["max_tokens"], ignore_eos=True)
        leg = DecodeLeg("r", tuple(request["prompt"]), sampling, ticket)
        tokens: list[int] = []
        async with aclosing(self._engine.decode(leg)) as chunks:
            async for chunk in chunks:
                if chunk.token_ids and not tokens:
                    _say({"id": request["id"], "first": chunk.token_ids[0]})
                tokens.extend(chunk.token_ids)
        return tokens

    async def _switch(self, request: dict[str, Any]) -> dict[str, Any]:
        start_s = time.monotonic()
        await self._engine.switch(Phase(request["phase"]))
        loads = self._engine.weight_loads
        return {"seconds": time.monotonic() - start_s, "weight_loads": loads}

    async def _cancel(self, request: dict[str, Any]) -> None:
        self._running[request["what"]].cancel()

    async def _usage(self, request: dict[str, Any]) -> dict[str, int]:
        """SGLang's own books: tokens of KV cache in use, requests in any of its queues."""
        del request
        loads = await self._engine._running().tokenizer_manager.get_loads()  # SGLang's, not ours
        return {
            "tokens": sum(load.num_used_tokens for load in loads),
            "requests": sum(load.num_running_reqs + load.num_waiting_reqs for load in loads),
        }


def _ticket(request: dict[str, Any]) -> TransferTicket:
    return TransferTicket(request["room"], request["peer"], WireMode.DEFAULT)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - stdout is the answer


def main() -> None:
    """Arguments: model folder, engine socket, phase, tp, pp, requests in a batch."""
    options = SglangOptions(
        model_path=Path(sys.argv[1]),
        kvlink_engine_socket=sys.argv[2],
        tp=int(sys.argv[4]),
        pp=int(sys.argv[5]),
        max_total_tokens=8192,
        max_running_requests=int(sys.argv[6]),
        chunked_prefill_tokens=64,
    )
    asyncio.run(_run(options, Phase(sys.argv[3])))


async def _run(options: SglangOptions, phase: Phase) -> None:
    await Host(SglangEngine(options)).serve(phase)


if __name__ == "__main__":
    main()
