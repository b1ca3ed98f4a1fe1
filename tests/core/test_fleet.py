"""Workers say where they are; flips know when they have ended."""

from typing import Any

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.fleet import Capabilities, Flip, FlipStep, Worker
from thunderserve.core.plan import Gpu, Phase

WORKER: dict[str, Any] = {
    "group_id": "g0",
    "node_id": "n0",
    "gpus": (Gpu("n0/0", "CPU"),),
    "instance_id": "i",
    "address": "127.0.0.1:1",
    "kvlink_address": "127.0.0.1:2",
    "model": "demo",
    "capabilities": Capabilities((Phase.PREFILL,), True, 1, 1, "bfloat16", 16, 2048),  # noqa: FBT003 - flippable
}


@pytest.mark.parametrize("field", ["group_id", "node_id", "instance_id", "address", "model"])
def test_worker_is_refused_when_it_does_not_say_who_or_where_it_is(field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        Worker(**(WORKER | {field: "", "gpus": ()}))
    assert refused.value.param == field


def test_worker_is_refused_when_a_gpu_is_on_another_node() -> None:
    with pytest.raises(InvalidArgumentError, match="worker g0 is on node n0, but names GPU n1/0"):
        Worker(**(WORKER | {"gpus": (Gpu("n1/0", "CPU"),)}))


@pytest.mark.parametrize("step", list(FlipStep))
def test_flip_has_ended_when_done_or_rolled_back_only(step: FlipStep) -> None:
    flip = Flip("f", "g0", Phase.PREFILL, Phase.DECODE, step)
    assert flip.ended == (step in {FlipStep.DONE, FlipStep.ROLLED_BACK})
