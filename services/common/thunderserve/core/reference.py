"""How long a request takes alone on a reference GPU: what bounds can be given as multiples of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.cost import CostModel, Replica, StageHardware
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import GpuType, Link
from thunderserve.core.slo import Slo

if TYPE_CHECKING:
    from thunderserve.core.workload import Workload

__all__ = ["single_request_latency"]

_MOST_GPUS = 16
_LOCAL_LATENCY_S = 1e-5


def single_request_latency(cost: CostModel, gpu: GpuType, workload: Workload) -> Slo:
    """First token and each later token of the workload's mean request, nothing else running.

    On the fewest such GPUs, tensor-parallel in one host, that hold the model and the request.

    Raises:
        InvalidArgumentError: Not even 16 hold it.
    """
    prompt, output = workload.prompt.mean, workload.output.mean
    replica = _smallest(cost, gpu, prompt + output)
    return Slo(
        ttft_s=cost.prefill_latency_s(replica, prompt),
        tpot_s=cost.decode_step_s(replica, 1, prompt + output / 2),
    )


def _smallest(cost: CostModel, gpu: GpuType, tokens: float) -> Replica:
    model, link = cost.model, Link(gpu.local_bytes_per_s, _LOCAL_LATENCY_S)
    for number in range(1, _MOST_GPUS + 1):
        replica = (StageHardware(model.layers, (gpu,) * number, link),)
        if model.heads % number == 0 and cost.kv_capacity_tokens(replica) >= tokens:
            return replica
    raise InvalidArgumentError(
        f"{_MOST_GPUS} {gpu.name} do not hold {model.name} and a request of {tokens:.0f} tokens; "
        "name a larger reference GPU",
        param="slo_reference",
    )
