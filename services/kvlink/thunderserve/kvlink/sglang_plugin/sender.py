"""Prefill: one request's transfer, as SGLang's scheduler sees it."""

from __future__ import annotations

from typing import Any

from sglang.srt.disaggregation.common.conn import CommonKVSender

__all__ = ["KvlinkSender"]


class KvlinkSender(CommonKVSender):  # type: ignore[misc]  # SGLang ships no types
    """SGLang's own sender over `KvlinkManager`."""

    def __init__(
        self,
        mgr: Any,
        bootstrap_addr: str,
        bootstrap_room: int,
        req_has_disagg_prefill_dp_rank: bool = False,  # noqa: FBT001, FBT002 - SGLang's interface
    ) -> None:
        super().__init__(mgr, bootstrap_addr, bootstrap_room, req_has_disagg_prefill_dp_rank)
        mgr.open_sending(bootstrap_room)

    def init(self, num_kv_indices: int, aux_index: int | None = None) -> None:
        """The scheduler knows how many pages the prompt has."""
        super().init(num_kv_indices, aux_index)
        self.kv_mgr.check_page_count(self.bootstrap_room, num_kv_indices)

    def clear(self) -> None:
        """The request has left the scheduler."""
        super().clear()
        self.kv_mgr.forget_room(self.bootstrap_room)

    def abort(self) -> None:
        """The request was aborted here."""
        super().abort()
        self.kv_mgr.abort_room(self.bootstrap_room)
