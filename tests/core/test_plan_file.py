"""A plan survives being written and read; what is wrong in a file is named by its place."""

import json
from dataclasses import replace
from typing import Any

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Certificate, Gpu, Group, Phase, Plan, Prediction, Route, Stage
from thunderserve.core.plan_file import plan_from_mapping, plan_to_mapping

PREFILL = Group("g0", Phase.PREFILL, 1, 1, (Stage(60, (Gpu("n0/0", "A40"),)),))
DECODE = Group("g1", Phase.DECODE, 1, 1, (Stage(60, (Gpu("n0/1", "A40"),)),))
PLAN = Plan(
    epoch=4,
    strategy="thunderserve",
    seed=7,
    model="llama-30b",
    groups=(PREFILL, DECODE),
    routes=(Route("g0", "g1", 1.0),),
    predicted=Prediction(0.97, 9.1, 3210.0, 1.8, 0.11, 11.33),
    search_evaluations=5100,
    created_unix_s=12.5,
    reason="flip g1",
    chunk_tokens=1024,
    certificate=Certificate("bound", 9.0, 10.0),
)


def test_plan_is_equal_after_json_and_back() -> None:
    assert plan_from_mapping(json.loads(json.dumps(plan_to_mapping(PLAN)))) == PLAN


def test_plan_of_unknown_price_is_equal_after_json_and_back() -> None:
    assert PLAN.predicted is not None
    plan = replace(PLAN, predicted=replace(PLAN.predicted, usd_per_hour=None))
    assert plan_from_mapping(json.loads(json.dumps(plan_to_mapping(plan)))) == plan


def test_plan_file_has_the_documented_form() -> None:
    assert plan_to_mapping(PLAN) == {
        "epoch": 4,
        "strategy": "thunderserve",
        "seed": 7,
        "model": "llama-30b",
        "groups": [
            {
                "id": "g0",
                "phase": "PREFILL",
                "tp": 1,
                "pp": 1,
                "stages": [{"layers": 60, "gpus": [{"id": "n0/0", "type": "A40"}]}],
            },
            {
                "id": "g1",
                "phase": "DECODE",
                "tp": 1,
                "pp": 1,
                "stages": [{"layers": 60, "gpus": [{"id": "n0/1", "type": "A40"}]}],
            },
        ],
        "routes": [{"prefill": "g0", "decode": "g1", "weight": 1.0}],
        "predicted": {
            "slo_attainment_ratio": 0.97,
            "goodput_rps": 9.1,
            "throughput_tokens_per_s": 3210.0,
            "ttft_p99_s": 1.8,
            "tpot_p99_s": 0.11,
            "usd_per_hour": 11.33,
        },
        "search": {"evaluations": 5100},
        "certificate": {
            "method": "bound",
            "objective": 9.0,
            "upper_bound": 10.0,
            "gap_ratio": 0.1,
        },
        "chunk_tokens": 1024,
        "reason": "flip g1",
        "created_unix_s": 12.5,
    }


def test_a_plan_needs_no_more_than_model_groups_and_routes() -> None:
    read = plan_from_mapping({"model": "m", "search": {"seconds": 1.9}})
    assert (read.epoch, read.strategy, read.groups, read.predicted) == (0, "thunderserve", (), None)
    assert "predicted" not in plan_to_mapping(read)


def changed(*path: Any, value: Any) -> dict[str, Any]:
    mapping = plan_to_mapping(PLAN)
    at: Any = mapping
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return mapping


@pytest.mark.parametrize(
    ("mapping", "place"),
    [
        (changed("model", value=3), "model"),
        (changed("groups", 0, "phase", value="PREFIL"), "groups[0].phase"),
        (changed("groups", 1, "tp", value=2), "groups[1]"),
        (changed("groups", 1, "stages", 0, "layers", value=0), "groups[1].stages[0]"),
        (
            changed("groups", 1, "stages", 0, "gpus", 0, "id", value="x"),
            "groups[1].stages[0].gpus[0]",
        ),
        (changed("routes", 0, "weight", value="1"), "routes[0].weight"),
        (changed("routes", 0, "wieght", value=1), "routes[0].wieght"),
        (changed("predicted", "goodput_rps", value=None), "predicted.goodput_rps"),
        (changed("search", "evaluations", value=1.5), "search.evaluations"),
    ],
)
def test_reading_names_the_place_of_what_is_wrong(mapping: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        plan_from_mapping(mapping)
    assert refused.value.param == place
    assert str(refused.value).startswith(f"{place}: ")


def test_reading_refuses_a_plan_that_cannot_be_built() -> None:
    with pytest.raises(InvalidArgumentError, match=r"weights sum to 0\.5"):
        plan_from_mapping(changed("routes", 0, "weight", value=0.5))
