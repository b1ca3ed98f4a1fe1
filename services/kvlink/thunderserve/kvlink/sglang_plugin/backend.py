"""Makes `kvlink` one of SGLang's transfer backends, and lets the first token out early.

SGLang's list of backends is a closed enumeration and a chain of ifs, so both are hooked, as other
third-party backends do it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from sglang.srt.arg_groups.choices import add_disagg_transfer_backend_choices
from sglang.srt.disaggregation import utils
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from thunderserve.kvlink.sglang_plugin import BACKEND_NAME
from thunderserve.kvlink.sglang_plugin.forward import add_forward_hooks
from thunderserve.kvlink.sglang_plugin.stages import add_stage_hooks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_backend"]

_UTILS = "sglang.srt.disaggregation.utils"
_SEND_CHUNK = "sglang.srt.disaggregation.prefill.SchedulerDisaggregationPrefillMixin.send_kv_chunk"


def add_backend() -> None:
    """Register the hooks; SGLang applies them when all plugins have registered."""
    members = {member.name: member.value for member in utils.TransferBackend}
    backends = Enum("TransferBackend", {**members, "KVLINK": BACKEND_NAME})  # type: ignore[misc]  # made at run time
    add_disagg_transfer_backend_choices([BACKEND_NAME])
    HookRegistry.register(f"{_UTILS}.TransferBackend", backends, HookType.REPLACE)
    HookRegistry.register(f"{_UTILS}.get_kv_class", _get_kv_class, HookType.AROUND)
    HookRegistry.register(_SEND_CHUNK, _stream_first_token, HookType.AFTER)
    add_forward_hooks()
    add_stage_hooks()


def _get_kv_class(original: Callable[..., Any], transfer_backend: Any, class_type: Any) -> Any:
    kinds = utils.KVClassType
    if transfer_backend.value != BACKEND_NAME or class_type == kinds.KVARGS:
        return original(transfer_backend, class_type)
    # Not above: these subclass SGLang's classes, which import the module that is hooked here.
    from thunderserve.kvlink.sglang_plugin import manager, receiver, sender  # noqa: PLC0415

    return {
        kinds.MANAGER: manager.KvlinkManager,
        kinds.SENDER: sender.KvlinkSender,
        kinds.RECEIVER: receiver.KvlinkReceiver,
        kinds.BOOTSTRAP_SERVER: _NoBootstrapServer,
    }[class_type]


class _NoBootstrapServer:
    """Listens nowhere: engines find each other through their sidecars."""

    def __init__(self, host: str, port: int) -> None:
        del host, port


def _stream_first_token(
    _result: None,
    scheduler: Any,
    req: Any,
    last_chunk: bool = False,  # noqa: FBT001, FBT002 - SGLang's interface
    *_: Any,
    **__: Any,
) -> None:
    """Answer with the first token once its cache is on the way.

    SGLang answers when the transfer has ended, which is later by the whole transfer. A request
    whose last chunk is sent is never computed again, so the token is final.
    """
    if last_chunk and req.stream and req.output_ids and not req.finished():
        scheduler.output_streamer.stream_output([req], req.return_logprob)
