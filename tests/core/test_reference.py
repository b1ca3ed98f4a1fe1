"""A request alone, on as few GPUs as hold it."""

from __future__ import annotations

import pytest

from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, StageHardware
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset
from thunderserve.core.reference import single_request_latency
from thunderserve.core.workload import Workload

WORKLOAD = Workload.from_means(rate_rps=1.0, prompt_tokens=1000, output_tokens=100)
TYPES = catalogue("tensor_dense")


@pytest.mark.parametrize(
    ("model", "gpu", "number"), [("llama-7b", "A40", 1), ("llama-30b", "A40", 2)]
)
def test_single_request_latency_is_the_cost_model_s_on_the_fewest(
    model: str, gpu: str, number: int
) -> None:
    cost, kind = CostModel(model_preset(model)), TYPES.get(gpu)
    replica = (
        StageHardware(cost.model.layers, (kind,) * number, Link(kind.local_bytes_per_s, 1e-5)),
    )

    alone = single_request_latency(cost, kind, WORKLOAD)

    assert alone.ttft_s == pytest.approx(cost.prefill_latency_s(replica, 1000))
    assert alone.tpot_s == pytest.approx(cost.decode_step_s(replica, 1, 1050))


def test_single_request_latency_refuses_a_gpu_that_is_too_small() -> None:
    with pytest.raises(InvalidArgumentError, match="16 CPU do not hold"):
        single_request_latency(CostModel(model_preset("llama-3.3-70b")), TYPES.get("CPU"), WORKLOAD)
