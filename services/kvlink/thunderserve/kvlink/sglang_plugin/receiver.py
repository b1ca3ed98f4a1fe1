"""Decode: one request's transfer, as SGLang's scheduler sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sglang.srt.disaggregation.base.conn import KVPoll
from sglang.srt.disaggregation.common.conn import CommonKVReceiver

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["KvlinkReceiver"]


class KvlinkReceiver(CommonKVReceiver):  # type: ignore[misc]  # SGLang ships no types
    """SGLang's own receiver; `bootstrap_addr` is the prefill group's sidecar."""

    def init(self, prefill_dp_rank: int) -> None:
        """Nothing to look up: the sidecar finds the peer."""
        del prefill_dp_rank
        if self.conclude_state == KVPoll.Failed:
            return
        self.bootstrap_infos: list[Any] = []  # SGLang asks for it; there is no rank to notify
        self.kv_mgr.update_status(self.bootstrap_room, KVPoll.WaitingForInput)

    def send_metadata(  # noqa: D102, PLR0917 - SGLang's interface
        self,
        kv_indices: npt.NDArray[np.int32],
        aux_index: int | None = None,
        state_indices: list[Any] | None = None,
        decode_prefix_len: int | None = None,
        destination: Any = None,
        device_kv_indices: Any = None,
    ) -> None:
        del state_indices, destination, device_kv_indices
        if decode_prefix_len:
            reason = f"decode holds {decode_prefix_len} tokens already; kvlink moves whole prompts"
            self.kv_mgr.lose(self.bootstrap_room, reason, self.bootstrap_addr)
            return
        self.kv_mgr.receive(self.bootstrap_room, self.bootstrap_addr, kv_indices, aux_index)
        self.init_time = time.time()

    def _send_abort_notification(self, *, force_arm: bool = False) -> None:
        del force_arm
        self.kv_mgr.abort_room(self.bootstrap_room, self.bootstrap_addr)

    def _clear(self) -> None:
        super()._clear()
        self.kv_mgr.forget_room(self.bootstrap_room)
