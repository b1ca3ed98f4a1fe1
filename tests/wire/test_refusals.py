"""What arrives malformed is refused by name, before any decision sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.types.v1 import types_pb2
from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.wire.enums import phase_from_proto
from thunderserve.wire.fleet import hello_from_proto
from thunderserve.wire.plans import plan_from_proto
from thunderserve.wire.requests import prefill_leg_from_proto, sampling_from_proto

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = types_pb2.Group(
    id="g0",
    phase=types_pb2.PHASE_PREFILL,
    tp=1,
    pp=1,
    stages=[types_pb2.Stage(layer_count=1, gpus=[types_pb2.Gpu(id="n0/0", type="A40")])],
)


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (phase_from_proto, types_pb2.PHASE_UNSPECIFIED),
        (phase_from_proto, 99),
        (hello_from_proto, control_pb2.Hello()),
        (hello_from_proto, control_pb2.Hello(worker=control_pb2.Worker())),
        (plan_from_proto, types_pb2.Plan(epoch=-1)),
        (plan_from_proto, types_pb2.Plan(groups=[GROUP, GROUP])),
        (
            plan_from_proto,
            types_pb2.Plan(routes=[types_pb2.Route(prefill="a", decode="b", weight=1)]),
        ),
        (sampling_from_proto, types_pb2.SamplingParams(max_tokens=0)),
        (sampling_from_proto, types_pb2.SamplingParams(max_tokens=1, temperature=float("nan"))),
        (
            prefill_leg_from_proto,
            worker_pb2.PrefillRequest(sampling=types_pb2.SamplingParams(max_tokens=1)),
        ),
    ],
)
def test_message_is_refused_when_it_is_malformed(
    parse: Callable[[Any], Any], message: object
) -> None:
    """Never a crash, never a guess."""
    with pytest.raises(InvalidArgumentError):
        parse(message)
