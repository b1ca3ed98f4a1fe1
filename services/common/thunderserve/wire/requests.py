"""Requests, their legs and reports."""

from __future__ import annotations

from thunderserve.api.router.v1 import router_pb2
from thunderserve.api.types.v1 import types_pb2
from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.core.request import (
    DecodeLeg,
    GenerationReport,
    PrefillLeg,
    SamplingParams,
    TokenChunk,
    TransferReport,
    TransferTicket,
    Usage,
)
from thunderserve.wire.enums import (
    finish_reason_from_proto,
    finish_reason_to_proto,
    wire_mode_from_proto,
    wire_mode_to_proto,
)

__all__ = [
    "chunk_from_proto",
    "chunk_to_proto",
    "decode_leg_from_proto",
    "decode_leg_to_proto",
    "generation_report_from_proto",
    "generation_report_to_proto",
    "prefill_leg_from_proto",
    "prefill_leg_to_proto",
    "sampling_from_proto",
    "sampling_to_proto",
    "transfer_report_from_proto",
    "transfer_report_to_proto",
]


def sampling_to_proto(sampling: SamplingParams) -> types_pb2.SamplingParams:
    """How tokens are chosen."""
    return types_pb2.SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=sampling.ignore_eos,
        seed=sampling.seed,
    )


def sampling_from_proto(message: types_pb2.SamplingParams) -> SamplingParams:
    """Raises InvalidArgumentError for anything that `SamplingParams` refuses.

    An unset `top_p` (0 on the wire) is 1: no caller can mean 0.
    """
    return SamplingParams(
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_p=message.top_p or 1.0,
        top_k=message.top_k,
        stop_token_ids=tuple(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
        seed=message.seed if message.HasField("seed") else None,
    )


def prefill_leg_to_proto(leg: PrefillLeg) -> worker_pb2.PrefillRequest:
    """The prefill leg."""
    return worker_pb2.PrefillRequest(
        request_id=leg.request_id,
        prompt_token_ids=leg.prompt_token_ids,
        sampling=sampling_to_proto(leg.sampling),
        transfer=_ticket_to_proto(leg.transfer),
        plan_epoch=leg.plan_epoch,
    )


def prefill_leg_from_proto(message: worker_pb2.PrefillRequest) -> PrefillLeg:
    """Raises InvalidArgumentError for bad sampling parameters or a bad room."""
    return PrefillLeg(
        request_id=message.request_id,
        prompt_token_ids=tuple(message.prompt_token_ids),
        sampling=sampling_from_proto(message.sampling),
        transfer=_ticket_from_proto(message.transfer),
        plan_epoch=message.plan_epoch,
    )


def decode_leg_to_proto(leg: DecodeLeg) -> worker_pb2.DecodeRequest:
    """The decode leg."""
    return worker_pb2.DecodeRequest(
        request_id=leg.request_id,
        prompt_token_ids=leg.prompt_token_ids,
        sampling=sampling_to_proto(leg.sampling),
        transfer=None if leg.transfer is None else _ticket_to_proto(leg.transfer),
        plan_epoch=leg.plan_epoch,
    )


def decode_leg_from_proto(message: worker_pb2.DecodeRequest) -> DecodeLeg:
    """Raises InvalidArgumentError for bad sampling parameters or a bad room."""
    has_transfer = message.HasField("transfer")
    return DecodeLeg(
        request_id=message.request_id,
        prompt_token_ids=tuple(message.prompt_token_ids),
        sampling=sampling_from_proto(message.sampling),
        transfer=_ticket_from_proto(message.transfer) if has_transfer else None,
        plan_epoch=message.plan_epoch,
    )


def chunk_to_proto(chunk: TokenChunk) -> worker_pb2.DecodeResponse:
    """Tokens of the decode leg."""
    return worker_pb2.DecodeResponse(
        token_ids=chunk.token_ids, finish_reason=finish_reason_to_proto(chunk.finish_reason)
    )


def chunk_from_proto(message: worker_pb2.DecodeResponse) -> TokenChunk:
    """Tokens of the decode leg."""
    return TokenChunk(tuple(message.token_ids), finish_reason_from_proto(message.finish_reason))


def transfer_report_to_proto(report: TransferReport) -> types_pb2.TransferReport:
    """What a transfer took."""
    return types_pb2.TransferReport(
        raw_bytes=report.raw_bytes,
        wire_bytes=report.wire_bytes,
        seconds=report.seconds,
        wire_mode=wire_mode_to_proto(report.wire_mode),
        wire_reason=report.wire_reason,
        exposed_s=report.exposed_s,
        exposed_bytes=report.exposed_bytes,
    )


def transfer_report_from_proto(message: types_pb2.TransferReport) -> TransferReport:
    """What a transfer took."""
    return TransferReport(
        raw_bytes=message.raw_bytes,
        wire_bytes=message.wire_bytes,
        seconds=message.seconds,
        wire_mode=wire_mode_from_proto(message.wire_mode),
        wire_reason=message.wire_reason,
        exposed_s=message.exposed_s,
        exposed_bytes=message.exposed_bytes,
    )


def generation_report_to_proto(report: GenerationReport) -> router_pb2.GenerationReport:
    """What a request took."""
    transfer = report.transfer
    return router_pb2.GenerationReport(
        usage=types_pb2.Usage(
            prompt_token_count=report.usage.prompt_tokens,
            completion_token_count=report.usage.completion_tokens,
        ),
        ttft_s=report.ttft_s,
        tpot_s=report.tpot_s,
        total_s=report.total_s,
        prefill_group=report.prefill_group,
        decode_group=report.decode_group,
        plan_epoch=report.plan_epoch,
        transfer=None if transfer is None else transfer_report_to_proto(transfer),
        retry_count=report.retries,
    )


def generation_report_from_proto(message: router_pb2.GenerationReport) -> GenerationReport:
    """What a request took."""
    has_transfer = message.HasField("transfer")
    return GenerationReport(
        usage=Usage(message.usage.prompt_token_count, message.usage.completion_token_count),
        ttft_s=message.ttft_s,
        tpot_s=message.tpot_s,
        total_s=message.total_s,
        prefill_group=message.prefill_group,
        decode_group=message.decode_group,
        plan_epoch=message.plan_epoch,
        transfer=transfer_report_from_proto(message.transfer) if has_transfer else None,
        retries=message.retry_count,
    )


def _ticket_to_proto(ticket: TransferTicket) -> worker_pb2.TransferTicket:
    return worker_pb2.TransferTicket(
        room=ticket.room,
        prefill_kvlink_address=ticket.prefill_kvlink_address,
        wire_mode=wire_mode_to_proto(ticket.wire_mode),
    )


def _ticket_from_proto(message: worker_pb2.TransferTicket) -> TransferTicket:
    return TransferTicket(
        room=message.room,
        prefill_kvlink_address=message.prefill_kvlink_address,
        wire_mode=wire_mode_from_proto(message.wire_mode),
    )
