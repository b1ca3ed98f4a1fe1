"""Plans and their parts."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from thunderserve.api.types.v1 import types_pb2
from thunderserve.core.plan import Certificate, Gpu, Group, Plan, Prediction, Route, Stage
from thunderserve.wire.enums import phase_from_proto, phase_to_proto

__all__ = [
    "gpu_from_proto",
    "gpu_to_proto",
    "group_from_proto",
    "group_to_proto",
    "plan_from_proto",
    "plan_to_proto",
    "timestamp_from_unix_s",
    "unix_s_from_timestamp",
]


def gpu_to_proto(gpu: Gpu) -> types_pb2.Gpu:
    """One accelerator."""
    return types_pb2.Gpu(id=gpu.id, type=gpu.type)


def gpu_from_proto(message: types_pb2.Gpu) -> Gpu:
    """Raises InvalidArgumentError for a malformed id."""
    return Gpu(id=message.id, type=message.type)


def group_to_proto(group: Group) -> types_pb2.Group:
    """One copy of the model."""
    stages = [
        types_pb2.Stage(layer_count=s.layers, gpus=[gpu_to_proto(g) for g in s.gpus])
        for s in group.stages
    ]
    return types_pb2.Group(
        id=group.id, phase=phase_to_proto(group.phase), tp=group.tp, pp=group.pp, stages=stages
    )


def group_from_proto(message: types_pb2.Group) -> Group:
    """Raises InvalidArgumentError for anything that `Group` refuses."""
    return Group(
        id=message.id,
        phase=phase_from_proto(message.phase),
        tp=message.tp,
        pp=message.pp,
        stages=tuple(
            Stage(layers=s.layer_count, gpus=tuple(gpu_from_proto(g) for g in s.gpus))
            for s in message.stages
        ),
    )


def plan_to_proto(plan: Plan) -> types_pb2.Plan:
    """A plan, whole."""
    return types_pb2.Plan(
        epoch=plan.epoch,
        strategy=plan.strategy,
        seed=plan.seed,
        model=plan.model,
        groups=[group_to_proto(group) for group in plan.groups],
        routes=[
            types_pb2.Route(prefill=r.prefill, decode=r.decode, weight=r.weight)
            for r in plan.routes
        ],
        predicted=_prediction_to_proto(plan.predicted),
        search=types_pb2.SearchReport(
            seconds=plan.search_seconds, evaluation_count=plan.search_evaluations
        ),
        create_time=timestamp_from_unix_s(plan.created_unix_s),
        reason=plan.reason,
        chunk_token_count=plan.chunk_tokens,
        certificate=_certificate_to_proto(plan.certificate),
    )


def plan_from_proto(message: types_pb2.Plan) -> Plan:
    """Raises InvalidArgumentError for anything that `Plan` refuses."""
    return Plan(
        epoch=message.epoch,
        strategy=message.strategy,
        seed=message.seed,
        model=message.model,
        groups=tuple(group_from_proto(group) for group in message.groups),
        routes=tuple(Route(r.prefill, r.decode, r.weight) for r in message.routes),
        predicted=_prediction_from_proto(message),
        search_seconds=message.search.seconds,
        search_evaluations=message.search.evaluation_count,
        created_unix_s=unix_s_from_timestamp(message.create_time),
        reason=message.reason,
        chunk_tokens=message.chunk_token_count,
        certificate=_certificate_from_proto(message),
    )


def timestamp_from_unix_s(unix_s: float) -> Timestamp:
    """Microseconds are kept; a double holds no more."""
    micros = round(unix_s * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def unix_s_from_timestamp(timestamp: Timestamp) -> float:
    """Seconds since 1970."""
    return (timestamp.seconds * 1_000_000 + timestamp.nanos // 1000) / 1e6


def _prediction_to_proto(predicted: Prediction | None) -> types_pb2.Prediction | None:
    if predicted is None:
        return None
    return types_pb2.Prediction(
        slo_attainment_ratio=predicted.slo_attainment_ratio,
        goodput_rps=predicted.goodput_rps,
        throughput_tokens_per_s=predicted.throughput_tokens_per_s,
        ttft_p99_s=predicted.ttft_p99_s,
        tpot_p99_s=predicted.tpot_p99_s,
        usd_per_hour=predicted.usd_per_hour,
    )


def _prediction_from_proto(message: types_pb2.Plan) -> Prediction | None:
    if not message.HasField("predicted"):
        return None
    p = message.predicted
    return Prediction(
        slo_attainment_ratio=p.slo_attainment_ratio,
        goodput_rps=p.goodput_rps,
        throughput_tokens_per_s=p.throughput_tokens_per_s,
        ttft_p99_s=p.ttft_p99_s,
        tpot_p99_s=p.tpot_p99_s,
        usd_per_hour=p.usd_per_hour if p.HasField("usd_per_hour") else None,
    )


def _certificate_to_proto(certificate: Certificate | None) -> types_pb2.Certificate | None:
    if certificate is None:
        return None
    return types_pb2.Certificate(
        method=certificate.method,
        objective=certificate.objective,
        upper_bound=certificate.upper_bound,
    )


def _certificate_from_proto(message: types_pb2.Plan) -> Certificate | None:
    if not message.HasField("certificate"):
        return None
    c = message.certificate
    return Certificate(method=c.method, objective=c.objective, upper_bound=c.upper_bound)
