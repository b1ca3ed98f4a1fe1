"""A plan as a JSON-ready mapping, and back.

::

    {"epoch": 0, "strategy": "thunderserve", "seed": 0, "model": "llama-30b",
     "groups": [{"id": "g0", "phase": "PREFILL", "tp": 2, "pp": 1,
                 "stages": [{"layers": 60, "gpus": [{"id": "n0/0", "type": "A40"}, ...]}]}],
     "routes": [{"prefill": "g0", "decode": "g7", "weight": 0.13}],
     "predicted": {"slo_attainment_ratio": 0.97, ...},
     "search": {"evaluations": 5100},
     "certificate": {"method": "bound", "objective": 9.1, "upper_bound": 9.2, "gap_ratio": 0.01},
     "chunk_tokens": 1024, "reason": "...", "created_unix_s": 0.0}

Everything after `routes` is there when the plan has it. `reschedule` may be there too: what moving
to this plan gains, for people; it is not read. How many seconds the search took is not:
the same problem and seed give the same file.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from thunderserve.core.mapping import Reader
from thunderserve.core.plan import (
    Certificate,
    Gpu,
    Group,
    Phase,
    Plan,
    Prediction,
    Route,
    Stage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["plan_from_mapping", "plan_to_mapping"]

_FIGURES = tuple(figure.name for figure in fields(Prediction))


def plan_to_mapping(plan: Plan) -> dict[str, Any]:
    """The plan as plain dicts, lists, strings and numbers."""
    mapping: dict[str, Any] = {
        "epoch": plan.epoch,
        "strategy": plan.strategy,
        "seed": plan.seed,
        "model": plan.model,
        "groups": [_group_to_mapping(group) for group in plan.groups],
        "routes": [asdict(route) for route in plan.routes],
        "search": {"evaluations": plan.search_evaluations},
    }
    if plan.predicted is not None:
        mapping["predicted"] = asdict(plan.predicted)
    if plan.certificate is not None:
        gap = {"gap_ratio": plan.certificate.gap_ratio}
        mapping["certificate"] = asdict(plan.certificate) | gap
    if plan.chunk_tokens:
        mapping["chunk_tokens"] = plan.chunk_tokens
    if plan.reason:
        mapping["reason"] = plan.reason
    if plan.created_unix_s:
        mapping["created_unix_s"] = plan.created_unix_s
    return mapping


def _group_to_mapping(group: Group) -> dict[str, Any]:
    stages = [
        {"layers": stage.layers, "gpus": [asdict(gpu) for gpu in stage.gpus]}
        for stage in group.stages
    ]
    return {
        "id": group.id,
        "phase": group.phase.value,
        "tp": group.tp,
        "pp": group.pp,
        "stages": stages,
    }


def plan_from_mapping(mapping: Mapping[str, Any]) -> Plan:
    """The plan that a mapping describes.

    Raises:
        InvalidArgumentError: Names the place in the mapping and what is wrong there.
    """
    top = Reader(mapping)
    top.only(
        *("epoch", "strategy", "seed", "model", "groups", "routes", "predicted", "search"),
        *("reason", "created_unix_s", "certificate", "chunk_tokens", "reschedule"),
    )
    search = top.inner("search") or Reader({})
    search.only("seconds", "evaluations")
    return top.build(
        Plan,
        epoch=top.integer("epoch", 0),
        strategy=top.text("strategy", "thunderserve"),
        seed=top.integer("seed", 0),
        model=top.text("model"),
        groups=tuple(_read_group(each) for each in top.items("groups")),
        routes=tuple(_read_route(each) for each in top.items("routes")),
        predicted=_read_prediction(top.inner("predicted")),
        search_seconds=search.number("seconds", 0.0),
        search_evaluations=search.integer("evaluations", 0),
        created_unix_s=top.number("created_unix_s", 0.0),
        reason=top.text("reason", ""),
        chunk_tokens=top.integer("chunk_tokens", 0),
        certificate=_read_certificate(top.inner("certificate")),
    )


def _read_group(reader: Reader) -> Group:
    reader.only("id", "phase", "tp", "pp", "stages")
    phase = reader.text("phase")
    if phase not in Phase.__members__:
        raise reader.error(f"{phase!r} is not one of {', '.join(Phase)}", "phase")
    stages = tuple(_read_stage(each) for each in reader.items("stages"))
    tp, pp = reader.integer("tp"), reader.integer("pp")
    return reader.build(Group, reader.text("id"), Phase[phase], tp, pp, stages)


def _read_stage(reader: Reader) -> Stage:
    reader.only("layers", "gpus")
    gpus = tuple(_read_gpu(each) for each in reader.items("gpus"))
    return reader.build(Stage, reader.integer("layers"), gpus)


def _read_gpu(reader: Reader) -> Gpu:
    reader.only("id", "type")
    return reader.build(Gpu, reader.text("id"), reader.text("type"))


def _read_route(reader: Reader) -> Route:
    reader.only("prefill", "decode", "weight")
    return reader.build(
        Route, reader.text("prefill"), reader.text("decode"), reader.number("weight")
    )


def _read_prediction(reader: Reader | None) -> Prediction | None:
    if reader is None:
        return None
    reader.only(*_FIGURES)
    priced = reader.value.get("usd_per_hour") is not None
    return Prediction(
        **{figure: reader.number(figure) for figure in _FIGURES if figure != "usd_per_hour"},
        usd_per_hour=reader.number("usd_per_hour") if priced else None,
    )


def _read_certificate(reader: Reader | None) -> Certificate | None:
    if reader is None:
        return None
    reader.only("method", "objective", "upper_bound", "gap_ratio")
    return Certificate(
        reader.text("method"), reader.number("objective"), reader.number("upper_bound")
    )
