"""SGLang's engine, bent where it takes the whole process for its own.

Import this module only after `launch_environment` and, on a CPU, `enable_cpu` took effect: it
imports SGLang. Stock SGLang takes over SIGTERM and SIGQUIT, answers a child's death by killing the
process it runs in, and starts a detokenizer that token ids never pass through.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from sglang.srt.disaggregation import utils as disaggregation_utils
from sglang.srt.entrypoints.engine import Engine, init_tokenizer_manager
from sglang.srt.managers.io_struct import PdRoleSwitchReqInput, ShutdownReq
from sglang.srt.managers.tokenizer_manager import TokenizerManager
from sglang.srt.plugins import load_plugins

from thunderserve.core.errors import EngineFailedError
from thunderserve.engine.sglang.scheduler import run_scheduler

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["EmbeddedEngine", "close", "launch", "role_switch_request"]


class EmbeddedTokenizerManager(TokenizerManager):  # type: ignore[misc]  # SGLang ships no types
    """Runs in the loop of whoever calls it, and leaves the process's signals alone."""

    event_loop: asyncio.AbstractEventLoop | None

    def auto_create_handle_loop(self) -> None:
        """Start receiving from the scheduler; stock SGLang also installs signal handlers here."""
        if self.event_loop is None:
            loop = asyncio.get_running_loop()
            self.event_loop = loop
            self.receiving = loop.create_task(self.handle_loop())


class EmbeddedEngine(Engine):  # type: ignore[misc]  # SGLang ships no types
    """The schedulers are its only child processes, and its owner ends them."""

    run_scheduler_process_func = staticmethod(run_scheduler)

    @staticmethod
    def init_tokenizer_manager_func(server_args: Any, port_args: Any) -> Any:
        """SGLang's own hook for a tokenizer manager of one's own."""
        return init_tokenizer_manager(server_args, port_args, EmbeddedTokenizerManager)

    @classmethod
    def _launch_detokenizer_subprocesses(cls, **_: Any) -> tuple[list[BaseProcess], list[str]]:
        # Without a tokenizer the scheduler sends to the tokenizer manager itself.
        return [], []

    def shutdown(self) -> None:
        """Nothing: stock SGLang kills every child of this process here, ours or not."""


def launch(arguments: dict[str, Any]) -> EmbeddedEngine:
    """Start SGLang's processes and wait until the weights are loaded.

    Call it from a thread that lives as long as the engine: the kernel kills the children when the
    thread that started them ends.

    Raises:
        EngineFailedError: The kvlink plugin did not take.
    """
    with _KeptLogging():
        load_plugins()
        if "disaggregation_mode" in arguments:
            _check_plugin(arguments["disaggregation_transfer_backend"])
        engine = EmbeddedEngine(**arguments)
    # It would send SIGQUIT to this process; ChildWatch is faster and tells its owner instead.
    engine.tokenizer_manager._subprocess_watchdog.stop()  # noqa: SLF001 - has no public name
    return engine


def role_switch_request(role: str) -> Any:
    """Switch to `prefill` or `decode`; CUDA graphs are captured with whatever memory is free."""
    return PdRoleSwitchReqInput(new_role=role, decode_cuda_graph_memory_gb=0.0)


def close(engine: EmbeddedEngine) -> None:
    """Ask the schedulers to free what they hold and to end, and close this side's sockets."""
    manager = engine.tokenizer_manager
    manager.receiving.cancel()
    manager._dispatch_to_scheduler(ShutdownReq())  # noqa: SLF001 - has no public name
    manager.send_to_scheduler.close(linger=100)  # milliseconds: the request must get out
    manager.recv_from_detokenizer.close(linger=0)
    engine.send_to_rpc.close(linger=0)


def _check_plugin(backend: str) -> None:
    known = [member.value for member in disaggregation_utils.TransferBackend]
    if backend not in known:
        raise EngineFailedError(
            f"SGLang knows no transfer backend {backend!r}, only {', '.join(known)}: "
            "its plugin raised at registration, or the package's entry points are stale; "
            "reinstall thunderserve"
        )


class _KeptLogging:
    """SGLang replaces the root logger's handlers and level; this puts them back.

    Of SGLang's own lines only errors are shown: at INFO it prints its 700 settings.
    """

    def __enter__(self) -> None:
        logging.getLogger("sglang").setLevel(logging.ERROR)
        root = logging.getLogger()
        self._kept = (root.level, list(root.handlers))

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        level, root.handlers[:] = self._kept
        root.setLevel(level)
