"""The transfer manager of one SGLang scheduler, in one phase.

Three kinds of threads meet here: the scheduler's, which starts, polls and ends rooms; the engine
client's reader, which hears from the sidecar; and the senders'. One lock guards the rooms.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.disaggregation.base.conn import KVPoll
from sglang.srt.disaggregation.common.conn import CommonKVManager, PrefillServerInfo
from sglang.srt.disaggregation.utils import DisaggregationMode
from sglang.srt.distributed.utils import get_pp_indices
from sglang.srt.runtime_context import get_device, get_disagg, get_parallel

from thunderserve.core.errors import ConfigError, ThunderServeError
from thunderserve.core.plan import Phase
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.kvlink.sglang_plugin import SOCKET_VARIABLE
from thunderserve.kvlink.sglang_plugin.layers import LayerStream, Written
from thunderserve.kvlink.sglang_plugin.pool import (
    Degrees,
    aux_of,
    check_supported,
    layout_of,
    pages_of,
    part_of,
)
from thunderserve.kvlink.sglang_plugin.rooms import Arrivals, Destination, Reservations
from thunderserve.kvlink.sglang_plugin.senders import Chunk, Senders

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from thunderserve.kvlink.protocol import Block

__all__ = ["KvlinkManager"]

_log = logging.getLogger(__name__)
_PHASES = {DisaggregationMode.PREFILL: Phase.PREFILL, DisaggregationMode.DECODE: Phase.DECODE}


class KvlinkManager(CommonKVManager):  # type: ignore[misc]  # SGLang ships no types
    """Rooms of this rank, told of by the sidecar; implements `EngineEvents`.

    Every rank of the engine has a manager and its own connections to the sidecar. SGLang asks all
    ranks before it goes on with a room, and ends it on all.
    """

    supports_role_switch = True

    def __init__(
        self,
        args: Any,
        disaggregation_mode: Any,
        server_args: Any,
        is_mla_backend: bool = False,  # noqa: FBT001, FBT002 - SGLang's interface
    ) -> None:
        self._lock = threading.RLock()
        super().__init__(args, disaggregation_mode, server_args, is_mla_backend)
        self._close_zmq()
        model = ModelConfig.from_server_args(server_args)
        device, kv_heads = get_device().device, model.get_total_num_kv_heads()
        check_supported(
            args,
            is_mla=is_mla_backend,
            other_degrees=self.attn_dp_size * self.attn_cp_size * self.dcp_size,
            padded_heads=device == "cpu" and kv_heads % self.attn_tp_size > 0,
            decode_allocation_policy=get_disagg().disaggregation_decode_allocation_policy,
        )
        degrees = Degrees(self.attn_tp_size, self.attn_tp_rank, self.pp_size, self.pp_rank)
        layout = layout_of(args, model, degrees)
        stage = get_pp_indices(layout.layer_count, self.pp_rank, self.pp_size)
        part = part_of(args, layout, degrees, stage)
        self._pages = pages_of(args, layout, part, device)
        self._aux = aux_of(args)
        self._reservations, self._arrivals = Reservations(), Arrivals()
        phase, engine = _PHASES[disaggregation_mode], _engine_name()
        client = EngineClient(_socket_path(), layout, phase, self, part=part, engine=engine)
        self._client = client
        self._senders = Senders(client, self._pages, self._aux, self.lose)
        self.layer_stream = LayerStream(layout, part, self._put_layers)
        client.start()

    def register_to_bootstrap(self) -> None:
        """Nothing: the sidecar is where peers find this engine."""

    def update_status(self, bootstrap_room: int, status: int) -> None:
        """SGLang's own reads, then writes; two threads can undo each other between the two."""
        with self._lock:
            super().update_status(bootstrap_room, status)

    def teardown(self) -> None:
        """Leave the sidecar and end all threads, for a switch of the phase."""
        self._client.close()  # first: it wakes whoever blocks in a socket
        self._senders.close()

    def lose(self, room: int, reason: str, peer_address: str = "") -> None:
        """This side cannot go on with a room."""
        self.on_failed(room, reason)
        self._client.abort(room, reason, peer_address)

    # Prefill: called by the scheduler.

    def open_sending(self, room: int) -> None:
        """The request of a room has come; its reservation may have been faster."""
        with self._lock:
            if (failure := self._reservations.failure(room)) is not None:
                self.on_failed(room, failure)
            elif self._reservations.page_count(room) is not None:
                self.update_status(room, KVPoll.WaitingForInput)

    def check_page_count(self, room: int, page_count: int) -> None:
        """Both sides must mean the same prompt."""
        reserved = self._reservations.page_count(room)
        if reserved != page_count:
            self.lose(room, f"prefill has {page_count} pages of room {room}, decode {reserved}")

    def add_transfer_request(  # noqa: D102, PLR0917 - SGLang's interface
        self,
        bootstrap_room: int,
        kv_indices: npt.NDArray[np.int32],
        index_slice: slice,
        is_last_chunk: bool,  # noqa: FBT001 - SGLang's interface
        aux_index: int | None = None,
        state_indices: list[Any] | None = None,
        num_kv_tokens: int | None = None,
        *,
        wait_event: Any = None,
        indices_event: Any = None,
        trace_ctx: Any = None,
    ) -> None:
        del state_indices, num_kv_tokens, indices_event, trace_ctx
        if self.request_status.get(bootstrap_room) in {None, KVPoll.Failed}:
            return
        aux_row = aux_index if is_last_chunk else None
        chunk = Chunk(bootstrap_room, index_slice.start, kv_indices, aux_row, wait_event)
        self._senders.put(chunk)

    def _put_layers(self, written: Written, layer_count: int, computed: Any) -> None:
        """The first layers of a chunk that is still being computed."""
        if self.request_status.get(written.room) not in {None, KVPoll.Failed}:
            self._senders.put_layers(written, layer_count, computed)

    # Decode: called by the scheduler.

    def try_ensure_parallel_info(self, bootstrap_addr: str) -> bool:
        """Nothing to fetch: the sidecars compare the two engines when a room is reserved.

        SGLang would ask here which of the prefill engine's ranks this one must speak to, and refuse
        what it cannot match ("Decode pp size should be equal to prefill pp size or 1").
        """
        self.prefill_info_table[bootstrap_addr] = PrefillServerInfo(
            attn_tp_size=1,
            attn_cp_size=1,
            dp_size=1,
            pp_size=1,
            page_size=self.kv_args.page_size,
            kv_cache_dtype=self.kv_cache_dtype_str,
            follow_bootstrap_room=True,
        )
        return True

    def receive(
        self, room: int, peer_address: str, pages: npt.NDArray[np.int32], aux_row: int
    ) -> None:
        """Fetch a room into `pages` of the pool."""
        with self._lock:
            self._arrivals.expect(room, Destination(pages, aux_row))
        try:
            self._client.reserve(room, peer_address, len(pages))
        except ThunderServeError as error:
            self.on_failed(room, str(error))

    def submit_prefill_recompute(self, kv_receiver: Any, payload: Any) -> None:
        """SGLang would call the prefill engine's HTTP server; engines cannot reach each other."""
        del payload
        self._fail_prefill_recompute(kv_receiver, "kvlink does not recompute retracted requests")

    # Either phase: called by the scheduler.

    def abort_room(self, room: int, peer_address: str = "") -> None:
        """The request was aborted here; on return its pages are not written any more."""
        self.forget_room(room)
        self._client.abort(room, "the engine aborted the request", peer_address)

    def forget_room(self, room: int) -> None:
        """The scheduler has let a room go."""
        with self._lock:
            self._reservations.forget(room)
            self._arrivals.forget(room)
        self._senders.drop(room)

    # Called by the engine client's reader thread.

    def on_reserved(self, room: int, page_count: int) -> None:
        """Prefill: a decode side waits."""
        with self._lock:
            self._reservations.add(room, page_count)
            if room in self.request_status:
                self.update_status(room, KVPoll.WaitingForInput)

    def on_pages(self, room: int, block: Block, values: npt.NDArray[np.uint16]) -> None:
        """Decode: write a block, unless the request was aborted and its pages are another's."""
        with self._lock:
            if (destination := self._arrivals.get(room)) is not None:
                last_page = block.first_page + block.page_count
                pages = destination.pages[block.first_page : last_page]
                self._pages.write(block, pages, values)

    def on_aux(self, room: int, aux: bytes) -> None:
        """Decode: the first token and what belongs to it."""
        with self._lock:
            if (destination := self._arrivals.get(room)) is not None:
                self._aux.write(destination.aux_row, aux)

    def on_committed(self, room: int) -> None:
        """Everything has arrived."""
        with self._lock:
            self._arrivals.forget(room)
            self.update_status(room, KVPoll.Success)

    def on_failed(self, room: int, reason: str) -> None:
        """The room is lost."""
        with self._lock:
            self._arrivals.forget(room)
            self._senders.drop(room)
            if room in self.request_status:
                self.failure_records.setdefault(room, reason)
                self.update_status(room, KVPoll.Failed)
            else:
                self._reservations.fail(room, reason)

    def _close_zmq(self) -> None:
        self.server_socket.close(linger=0)
        self._zmq_ctx.destroy(linger=0)


def _engine_name() -> str:
    """New for each phase of each engine, and the same on all of its ranks: rank 0 chooses."""
    name = uuid.uuid4().hex
    for group in (get_parallel().tp_group, get_parallel().pp_group):
        name = group.broadcast_object(name, src=0)
    return name


def _socket_path() -> Path:
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        raise ConfigError(f"{SOCKET_VARIABLE} is not set; it names the sidecar's engine_socket")
    return Path(path)
