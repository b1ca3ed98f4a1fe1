"""SGLang behind the engine protocol."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
import warnings
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from thunderserve.core.errors import (
    EngineBusyError,
    EngineFailedError,
    InvalidArgumentError,
    PreconditionError,
)
from thunderserve.core.fleet import Capabilities
from thunderserve.core.plan import Phase
from thunderserve.engine.model import read_model_shape
from thunderserve.engine.sglang.children import ChildWatch, end_processes, own_children
from thunderserve.engine.sglang.cpu import enable_cpu
from thunderserve.engine.sglang.lifeline import Lifeline
from thunderserve.engine.sglang.options import (
    Device,
    SglangOptions,
    disaggregation_mode,
    launch_arguments,
    launch_environment,
)
from thunderserve.engine.sglang.ports import free_ports
from thunderserve.engine.sglang.sampling import abort_error, sglang_sampling, token_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence
    from multiprocessing.process import BaseProcess

    from thunderserve.core.request import DecodeLeg, PrefillLeg, TokenChunk, TransferTicket
    from thunderserve.engine.sglang.embedded import EmbeddedEngine

__all__ = ["SglangEngine"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# Time for the schedulers to free what they hold before they are killed.
SHUTDOWN_GRACE_S = 2.0
_SPLIT = (Phase.PREFILL, Phase.DECODE)


class SglangEngine:
    """SGLang in this process; its schedulers, which hold the weights, are children of it.

    One process runs one SGLang engine at most: SGLang keeps its configuration process-wide.

    Raises:
        ConfigError: The model's folder has no usable `config.json`.
    """

    def __init__(self, options: SglangOptions) -> None:
        self._options = options
        self._model = read_model_shape(options.model_path)
        self._context_tokens = options.usable_context(self._model.context_tokens)
        self._phase = Phase.COLOCATED
        self._phases: tuple[Phase, ...] = tuple(Phase)
        self._weight_loads = 0
        self._runtime: EmbeddedEngine | None = None
        self._others: set[BaseProcess] = set()
        self._processes: set[BaseProcess] = set()
        self._watch: ChildWatch | None = None
        self._failed = asyncio.Event()
        self._failure = ""
        self._lifeline = Lifeline()
        self._directory = tempfile.TemporaryDirectory(prefix="thunderserve-sglang-")

    @property
    def capabilities(self) -> Capabilities:
        """SGLang switches between PREFILL and DECODE; COLOCATED it stays what it is."""
        options = self._options
        return Capabilities(
            phases=self._phases,
            flippable=options.flippable and Phase.PREFILL in self._phases,
            tp=options.tp,
            pp=options.pp,
            kv_dtype=self._model.kv_dtype,
            page_size_tokens=options.page_size_tokens,
            context_tokens=self._context_tokens,
            # kvlink cuts layers and heads anew on the way.
            unequal_tp=True,
            unequal_pp=True,
        )

    @property
    def weight_loads(self) -> int:
        """Starts of the schedulers: nothing else loads weights."""
        return self._weight_loads

    async def start(self, phase: Phase) -> None:
        """Start SGLang's processes; 10 to 40 s on a CPU.

        Raises:
            EngineFailedError: They did not come up, or cannot serve the model in this phase.
        """
        self._others = own_children()
        if phase in _SPLIT and self._model.latent_attention:
            raise EngineFailedError(
                f"{self._options.model_path}: kvlink does not carry the cache of multi-head latent "
                f"attention (MLA), so it cannot serve in phase {phase}; it can be COLOCATED"
            )
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            # A scheduler that meets an exception sends SIGQUIT, whose default is a core dump.
            loop.add_signal_handler(signal.SIGQUIT, self._child_reported)
        bootstrap_port, unique_port = free_ports(2)
        os.environ.update(
            launch_environment(
                self._options,
                rendezvous=Path(self._directory.name) / "rendezvous",
                unique_port=unique_port,
                python_path=os.environ.get("PYTHONPATH", ""),
            )
        )
        arguments = launch_arguments(self._options, phase, bootstrap_port)
        try:
            self._runtime = await self._lifeline.run(lambda: self._launch(arguments))
        except EngineFailedError:
            raise
        except (Exception, SystemExit) as error:
            raise EngineFailedError(f"SGLang did not come up: {error}") from error
        self._phase = phase
        self._phases = (phase,) if phase is Phase.COLOCATED else _SPLIT
        self._weight_loads += 1
        self._runtime.tokenizer_manager.auto_create_handle_loop()
        self._runtime.tokenizer_manager.receiving.add_done_callback(self._receiving_ended)
        self._processes = own_children() - self._others
        # A million objects of torch and SGLang stay for good: no collection need look at them.
        gc.freeze()
        pids = [process.pid for process in self._processes if process.pid is not None]
        self._watch = ChildWatch(pids, self._child_ended)

    def _launch(self, arguments: dict[str, Any]) -> EmbeddedEngine:
        if self._options.device is Device.CPU:
            enable_cpu()
        atexit.register(_silence_stderr)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of accelerators that are not there
            # Imported here: it takes seconds and half a gigabyte, and reads the environment.
            from thunderserve.engine.sglang.embedded import launch  # noqa: PLC0415

            if self._lifeline.is_cut:
                raise EngineFailedError("it was stopped while it started")
            return launch(arguments)

    async def wait_failed(self) -> EngineFailedError:
        """Why the engine was lost; waits for ever while it is well."""
        await self._failed.wait()
        return EngineFailedError(self._failure)

    async def prefill(self, leg: PrefillLeg) -> AsyncGenerator[int, None]:
        """The first token; ends when the sidecar has taken the cache."""
        self._model.check(leg.prompt_token_ids, 1, self._context_tokens)
        sampling = sglang_sampling(leg.sampling, max_tokens=1)
        outputs = self._outputs(leg.prompt_token_ids, sampling, leg.transfer)
        first: int | None = None
        async with aclosing(outputs):
            async for chunk in outputs:
                if first is None and chunk.token_ids:
                    first = chunk.token_ids[0]
                    yield first

    async def decode(self, leg: DecodeLeg) -> AsyncGenerator[TokenChunk, None]:
        """Every token of the answer, the first one included."""
        most = leg.sampling.max_tokens
        self._model.check(leg.prompt_token_ids, most, self._context_tokens)
        sampling = sglang_sampling(leg.sampling, max_tokens=most)
        outputs = self._outputs(leg.prompt_token_ids, sampling, leg.transfer)
        async with aclosing(outputs):
            async for chunk in outputs:
                yield chunk

    async def _outputs(
        self, prompt: Sequence[int], sampling: dict[str, Any], transfer: TransferTicket | None
    ) -> AsyncGenerator[TokenChunk, None]:
        # SGLang aborts by prefix of the id: all ids are of one length.
        request: dict[str, Any] = {"rid": uuid.uuid4().hex, "stream": True}
        if transfer is not None:
            host, _, port = transfer.prefill_kvlink_address.rpartition(":")
            request["bootstrap_host"], request["bootstrap_port"] = host, int(port)
            request["bootstrap_room"] = transfer.room
        try:
            outputs = await self._running().async_generate(
                input_ids=list(prompt), sampling_params=sampling, **request
            )
            # Closing SGLang's generator early makes it abort the request.
            async with aclosing(outputs):
                async for output in outputs:
                    if error := abort_error(output, transferred=transfer is not None):
                        raise error
                    yield token_chunk(output)
        except ValueError as error:
            raise InvalidArgumentError(str(error)) from error

    async def switch(self, phase: Phase) -> None:
        """Change the role; SGLang must be idle."""
        if self._phase not in _SPLIT or phase not in _SPLIT or not self._options.flippable:
            raise PreconditionError(
                f"SGLang cannot change from {self._phase} to {phase} with pp {self._options.pp}"
            )
        from thunderserve.engine.sglang.embedded import role_switch_request  # noqa: PLC0415 - see _launch

        request = role_switch_request(disaggregation_mode(phase))
        manager = self._running().tokenizer_manager
        reply = await self._unless_failed(manager.pd_role_switch(request))
        if reply.success:
            self._phase = phase
        elif "not idle" in reply.message:
            raise EngineBusyError(f"SGLang: {reply.message}")
        elif reply.safe_to_restore:
            raise PreconditionError(f"SGLang: {reply.message}")
        else:
            self._fail(f"SGLang: {reply.message}")
            raise EngineFailedError(self._failure)

    async def stop(self) -> None:
        """Ask the schedulers to end, then end them."""
        self._lifeline.cut()
        if self._watch is not None:
            self._watch.close()
        grace_s = 0.0
        if self._runtime is not None:
            self._close_runtime(self._runtime)
            self._runtime, grace_s = None, SHUTDOWN_GRACE_S
        await asyncio.to_thread(end_processes, own_children() - self._others, grace_s)
        self._directory.cleanup()
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().remove_signal_handler(signal.SIGQUIT)
        # The collection at the interpreter's end would take seconds over what SGLang imported.
        gc.freeze()

    def _close_runtime(self, runtime: EmbeddedEngine) -> None:
        from thunderserve.engine.sglang.embedded import close  # noqa: PLC0415 - see _launch

        runtime.tokenizer_manager.receiving.remove_done_callback(self._receiving_ended)
        close(runtime)

    def _running(self) -> EmbeddedEngine:
        if self._runtime is None or self._failure:
            raise EngineFailedError(self._failure or "the engine is not running")
        return self._runtime

    async def _unless_failed(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        call = asyncio.ensure_future(coroutine)
        failed = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait({call, failed}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise EngineFailedError(self._failure)
            return call.result()
        finally:
            call.cancel()
            failed.cancel()

    def _child_ended(self, pid: int) -> None:
        process = next((p for p in self._processes if p.pid == pid), None)
        if process is not None:
            process.join(0)
        code = None if process is None else process.exitcode
        self._fail(f"SGLang's scheduler (pid {pid}) ended with status {code}")

    def _child_reported(self) -> None:
        if self._runtime is not None:
            self._fail("SGLang's scheduler met an exception; its log is above")

    def _receiving_ended(self, task: asyncio.Task[None]) -> None:
        cause = "cancelled" if task.cancelled() else repr(task.exception())
        self._fail(f"SGLang's tokenizer manager stopped receiving: {cause}")

    def _fail(self, message: str) -> None:
        if not self._failure:
            self._failure = message
            self._failed.set()


def _silence_stderr() -> None:
    """Keep the log's last line ours: at the interpreter's end Triton reports 600 known leaks."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stderr.fileno())
    os.close(null)
