"""A real SGLang engine in a process of its own, from the test's side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["EngineProcess"]

# Three engines start at once: a quarter of a minute on two idle cores, far more on busy ones.
START_TIMEOUT_S = 300
HOST = Path(__file__).with_name("sglang_host.py")


class EngineProcess:
    """An engine in a process of its own; see `sglang_host.py`."""

    def __init__(
        self,
        model: Path,
        socket_path: str,
        phase: str,
        degrees: tuple[int, int] = (1, 1),
        batch: int = 1,
        *,
        log: Path,
    ) -> None:
        tp, pp = degrees
        self.log = log
        # A batch of one: in larger ones rounding alone makes other tokens.
        self._arguments = (str(model), socket_path, phase, str(tp), str(pp), str(batch))
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._first: dict[int, asyncio.Future[int]] = {}
        self._count = 0

    async def start(self) -> None:
        """Wait until it serves."""
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(HOST),
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        ready = self._answers[0] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())
        answer = await asyncio.wait_for(ready, START_TIMEOUT_S)
        assert answer.get("result") == "ready", answer

    def ask(self, do: str, **fields: Any) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Its number, and its answer to come."""
        self._count += 1
        self._first[self._count] = asyncio.get_running_loop().create_future()
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        assert self.process.stdin is not None
        line = json.dumps({"id": self._count, "do": do, **fields})
        self.process.stdin.write(line.encode() + b"\n")
        return self._count, answer

    async def do(self, do: str, **fields: Any) -> Any:
        """The result; fails the test on an error."""
        answer = await self.ask(do, **fields)[1]
        assert "result" in answer, answer
        return answer["result"]

    async def switch(self, phase: str) -> Any:
        """Change the phase; SGLang may call itself busy for a moment after its last answer."""
        async with asyncio.timeout(30):
            while True:
                answer = await self.ask("switch", phase=phase)[1]
                if "EngineBusyError" not in answer.get("error", ""):
                    assert "result" in answer, answer
                    return answer["result"]

    async def first_token(self, number: int) -> int:
        """Of a leg, as soon as it is known."""
        return await asyncio.wait_for(self._first[number], 60)

    async def stop(self) -> None:
        """End it; kill it when it does not."""
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            self.ask("stop")
            await asyncio.wait_for(self.process.wait(), 30)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if not line.startswith(b"{"):
                continue  # SGLang prints as well
            answer = json.loads(line)
            if "first" in answer:
                self._first[answer["id"]].set_result(answer["first"])
            else:
                waiting = self._answers.pop(answer["id"])
                if not waiting.done():
                    waiting.set_result(answer)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_result({"error": "the engine's process ended"})
