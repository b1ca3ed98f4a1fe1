"""Every noun comes back from protobuf as it went in, with every field set to something."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.core import events, fleet, kv, links, plan, request
from thunderserve.core.plan import Phase
from thunderserve.wire import enums, records
from thunderserve.wire import events as events_wire
from thunderserve.wire import fleet as fleet_wire
from thunderserve.wire import kvlink as kvlink_wire
from thunderserve.wire import links as links_wire
from thunderserve.wire import plans as plans_wire
from thunderserve.wire import requests as requests_wire

if TYPE_CHECKING:
    from collections.abc import Callable

CAPABILITIES = fleet.Capabilities(
    phases=(Phase.PREFILL, Phase.COLOCATED),
    flippable=True,
    tp=1,
    pp=2,
    kv_dtype="bfloat16",
    page_size_tokens=16,
    context_tokens=2048,
    unequal_tp=True,
    unequal_pp=False,
)
GPUS = (plan.Gpu("n0/0", "A40"), plan.Gpu("n0/1", "A100"))
WORKER = fleet.Worker("g0", "n0", GPUS, "i0", "h:1", "h:2", "m", CAPABILITIES)
ROUTER = fleet.Router("r0", "i1", "h:3")
LINK = links.LinkMeasurement(
    peer_address="h:4",
    bytes_per_s=1.25e8,
    rtt_s=0.01,
    retransmit_ratio=0.001,
    age_s=1.5,
    method=links.LinkMethod.PROBE,
    wire_mode=request.WireMode.INT4,
    wire_reason="faster",
)
HEARTBEAT = fleet.Heartbeat(7, 3, Phase.DECODE, 1, 4242, (LINK,))
GROUP = plan.Group("g0", Phase.PREFILL, 1, 2, (plan.Stage(3, GPUS[:1]), plan.Stage(5, GPUS[1:])))
DECODE_GROUP = plan.Group("g1", Phase.DECODE, 1, 1, (plan.Stage(8, (plan.Gpu("n1/0", "A40"),)),))
PLAN = plan.Plan(
    epoch=9,
    strategy="thunderserve",
    seed=4,
    model="m",
    groups=(GROUP, DECODE_GROUP),
    routes=(plan.Route("g0", "g1", 1.0),),
    predicted=plan.Prediction(0.9, 8.5, 3210.0, 1.5, 0.25, 11.5),
    search_seconds=1.5,
    search_evaluations=5100,
    created_unix_s=1_700_000_000.25,
    reason="because",
    chunk_tokens=1024,
    certificate=plan.Certificate("bound", 9.0, 10.0),
)
UNPRICED = replace(PLAN, predicted=plan.Prediction(0.9, 8.5, 3210.0, 1.5, 0.25, None))
FLIP = fleet.Flip(
    id="f0",
    group_id="g0",
    from_phase=Phase.PREFILL,
    to_phase=Phase.DECODE,
    step=fleet.FlipStep.ROLLED_BACK,
    failure="busy",
    drain_s=0.5,
    switch_s=0.25,
    total_s=1.5,
    plan_epoch=10,
    created_unix_s=1_700_000_000.5,
    verify_s=0.125,
)
EVENT = events.Event(events.EventKind.FLIP, "g0", "why", '"me@here"', 7, 1_700_000_000.25)
SAMPLING = request.SamplingParams(
    max_tokens=5,
    temperature=0.5,
    top_p=0.75,
    top_k=3,
    stop_token_ids=(1, 2),
    ignore_eos=True,
    seed=11,
)
TICKET = request.TransferTicket(2**62, "h:2", request.WireMode.INT4)
TRANSFER = request.TransferReport(
    1000, 300, 0.125, request.WireMode.RAW16, "asked for", exposed_s=0.1, exposed_bytes=200
)
REPORT = request.GenerationReport(
    usage=request.Usage(10, 5),
    ttft_s=0.5,
    tpot_s=0.25,
    total_s=1.5,
    prefill_group="g0",
    decode_group="g1",
    plan_epoch=9,
    transfer=TRANSFER,
    retries=2,
)
STATUS = fleet.WorkerStatus("g0", "i0", Phase.DECODE, 2, 1, 4242, switching=True)

ROUND_TRIPS: list[tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = [
    (PLAN, plans_wire.plan_to_proto, plans_wire.plan_from_proto),
    (UNPRICED, plans_wire.plan_to_proto, plans_wire.plan_from_proto),
    (GROUP, plans_wire.group_to_proto, plans_wire.group_from_proto),
    (GPUS[0], plans_wire.gpu_to_proto, plans_wire.gpu_from_proto),
    (WORKER, fleet_wire.worker_to_proto, fleet_wire.worker_from_proto),
    (WORKER, fleet_wire.hello_to_proto, fleet_wire.hello_from_proto),
    (ROUTER, fleet_wire.hello_to_proto, fleet_wire.hello_from_proto),
    (HEARTBEAT, fleet_wire.heartbeat_to_proto, fleet_wire.heartbeat_from_proto),
    (LINK, links_wire.measurement_to_proto, links_wire.measurement_from_proto),
    (
        links.MeasuredLink("g0", "g1", "n0", "n1", LINK),
        links_wire.link_to_proto,
        links_wire.link_from_proto,
    ),
    (STATUS, fleet_wire.worker_status_to_proto, fleet_wire.worker_status_from_proto),
    (
        fleet.Node("n0", GPUS, ("g0", "g1")),
        fleet_wire.node_to_proto,
        fleet_wire.node_from_proto,
    ),
    (
        fleet.GroupStatus(GROUP, fleet.GroupState.FLIPPING, WORKER, HEARTBEAT),
        fleet_wire.group_status_to_proto,
        fleet_wire.group_status_from_proto,
    ),
    (EVENT, events_wire.event_to_proto, events_wire.event_from_proto),
    (FLIP, fleet_wire.flip_to_proto, fleet_wire.flip_from_proto),
    (SAMPLING, requests_wire.sampling_to_proto, requests_wire.sampling_from_proto),
    (
        request.PrefillLeg("q", (1, 2, 3), SAMPLING, TICKET, 9),
        requests_wire.prefill_leg_to_proto,
        requests_wire.prefill_leg_from_proto,
    ),
    (
        request.DecodeLeg("q", (1, 2, 3), SAMPLING, TICKET, 9),
        requests_wire.decode_leg_to_proto,
        requests_wire.decode_leg_from_proto,
    ),
    (
        request.TokenChunk((4, 5), request.FinishReason.LENGTH),
        requests_wire.chunk_to_proto,
        requests_wire.chunk_from_proto,
    ),
    (
        TRANSFER,
        requests_wire.transfer_report_to_proto,
        requests_wire.transfer_report_from_proto,
    ),
    (
        REPORT,
        requests_wire.generation_report_to_proto,
        requests_wire.generation_report_from_proto,
    ),
    (
        kv.KvLayout("f", 8, 2, 64, 16, "bfloat16", 1, 1),
        kvlink_wire.layout_to_proto,
        kvlink_wire.layout_from_proto,
    ),
    (PLAN, records.plan_to_record, records.plan_from_record),
    (WORKER, records.worker_to_record, records.worker_from_record),
    (ROUTER, records.member_to_record, records.member_from_record),
    (HEARTBEAT, records.heartbeat_to_record, records.heartbeat_from_record),
    (EVENT, records.event_to_record, records.event_from_record),
    (FLIP, records.flip_to_record, records.flip_from_record),
]
SPARSE: list[tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = [
    (
        plan.Plan(0, "", 0, "m", (), ()),
        plans_wire.plan_to_proto,
        plans_wire.plan_from_proto,
    ),
    (fleet.Heartbeat(), fleet_wire.heartbeat_to_proto, fleet_wire.heartbeat_from_proto),
    (
        fleet.GroupStatus(GROUP, fleet.GroupState.LOST),
        fleet_wire.group_status_to_proto,
        fleet_wire.group_status_from_proto,
    ),
    (
        request.DecodeLeg("q", (1,), request.SamplingParams(), None),
        requests_wire.decode_leg_to_proto,
        requests_wire.decode_leg_from_proto,
    ),
    (
        request.TokenChunk((4,)),
        requests_wire.chunk_to_proto,
        requests_wire.chunk_from_proto,
    ),
    (
        request.SamplingParams(seed=0),
        requests_wire.sampling_to_proto,
        requests_wire.sampling_from_proto,
    ),
]


@pytest.mark.parametrize(("noun", "to", "back"), [*ROUND_TRIPS, *SPARSE])
def test_noun_is_the_same_when_it_went_over_the_wire(
    noun: object, to: Callable[[Any], Any], back: Callable[[Any], Any]
) -> None:
    """Nothing is lost and nothing is made up, absent parts included."""
    assert back(to(noun)) == noun


@pytest.mark.parametrize("noun", [noun for noun, _, _ in ROUND_TRIPS])
def test_examples_set_every_field_to_something(noun: Any) -> None:
    """A field that is forgotten in a translator would hide behind its default."""
    assert is_dataclass(noun)
    unset = [f.name for f in fields(noun) if not getattr(noun, f.name)]
    assert unset == []


def test_heartbeat_keeps_the_lease_when_a_link_makes_no_sense() -> None:
    """A rate of nothing, or a method that a later release adds, costs that figure alone."""
    message = fleet_wire.heartbeat_to_proto(HEARTBEAT)
    message.links.add(peer_address="h:5", method=1)
    message.links.add(peer_address="h:6", bytes_per_s=1.0, method=99)
    assert fleet_wire.heartbeat_from_proto(message) == HEARTBEAT


@pytest.mark.parametrize("noun", [PLAN, WORKER, FLIP, EVENT])
def test_record_is_json_when_it_is_stored(noun: Any) -> None:
    """Someone who looks into the store can read it, and later fields do not break it."""
    to, back = next((to, back) for n, to, back in reversed(ROUND_TRIPS) if n is noun)
    stored = json.loads(json.dumps(to(noun)))
    assert back({**stored, "added_later": 1}) == noun


@pytest.mark.parametrize(
    ("kind", "to", "back"),
    [
        (Phase, enums.phase_to_proto, enums.phase_from_proto),
        (request.WireMode, enums.wire_mode_to_proto, enums.wire_mode_from_proto),
        (links.LinkMethod, enums.link_method_to_proto, enums.link_method_from_proto),
        (request.FinishReason, enums.finish_reason_to_proto, enums.finish_reason_from_proto),
        (fleet.GroupState, enums.group_state_to_proto, enums.group_state_from_proto),
        (events.EventKind, enums.event_kind_to_proto, enums.event_kind_from_proto),
        (fleet.FlipStep, enums.flip_step_to_proto, enums.flip_step_from_proto),
    ],
)
def test_enumeration_is_whole_when_translated(
    kind: Any, to: Callable[[Any], Any], back: Callable[[Any], Any]
) -> None:
    """Every value has a number of its own."""
    assert [back(to(value)) for value in kind] == list(kind)
    assert len({to(value) for value in kind}) == len(list(kind))
