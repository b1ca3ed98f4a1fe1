"""What one group serves in time, at any load: prompts, batches, queues and bursts."""

from thunderserve.control.planner.physics.colocating import ColocatedFigures
from thunderserve.control.planner.physics.curves import (
    LOAD_SHARES,
    Points,
    hull,
    loss_lines,
    most_on_target_rps,
    until_best,
)
from thunderserve.control.planner.physics.decoding import DecodeFigures
from thunderserve.control.planner.physics.figures import GroupFigures, Transfer, pair_in_time
from thunderserve.control.planner.physics.passes import PromptTimes, prompt_times
from thunderserve.control.planner.physics.ports import Ports
from thunderserve.control.planner.physics.prefilling import PrefillFigures
from thunderserve.control.planner.physics.sample import FloatArray, Sample
from thunderserve.control.planner.physics.waiting import Levels, Waits

__all__ = [
    "LOAD_SHARES",
    "ColocatedFigures",
    "DecodeFigures",
    "FloatArray",
    "GroupFigures",
    "Levels",
    "Points",
    "Ports",
    "PrefillFigures",
    "PromptTimes",
    "Sample",
    "Transfer",
    "Waits",
    "hull",
    "loss_lines",
    "most_on_target_rps",
    "pair_in_time",
    "prompt_times",
    "until_best",
]
