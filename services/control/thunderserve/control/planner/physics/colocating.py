"""Prefill and decode on one group: chunks of prompts ride along in decode steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics.passes import (
    PromptTimes,
    decode_steps_s,
    pass_s,
    prompt_times,
)
from thunderserve.control.planner.physics.population import Population
from thunderserve.control.planner.physics.prefilling import HIGHEST_UTILISATION
from thunderserve.control.planner.physics.riding import busy_beyond
from thunderserve.control.planner.physics.sample import FloatArray, Sample
from thunderserve.control.planner.physics.waiting import Levels, Waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.cost import StageRates

__all__ = ["ColocatedFigures"]

_SWEEPS = 12


@dataclass(frozen=True, eq=False)
class _Rounds:
    """Rounds of a group by how many requests decode: n = 1, 2, ...

    Attributes:
        plain_s: A round without prompts.
        mixed_s: A round with chunks of prompts.
        mean_s: Of all rounds.
        prompt_s: What a mean prompt takes of mixed rounds.
        queued_s: What it takes of rounds that are full of prompts.
        slower: How much longer a prompt's own rounds take than alone.
    """

    plain_s: FloatArray
    mixed_s: FloatArray
    mean_s: FloatArray
    prompt_s: FloatArray
    queued_s: FloatArray
    slower: FloatArray

    def first(self, count: int) -> _Rounds:
        """Of at most so many requests."""
        return _Rounds(
            self.plain_s[:count],
            self.mixed_s[:count],
            self.mean_s[:count],
            self.prompt_s[:count],
            self.queued_s[:count],
            self.slower[:count],
        )


@dataclass(frozen=True, eq=False)
class ColocatedFigures:
    """A group that does both phases.

    A round gives every decoding request a token and computes chunks of prompts beside it. Where n
    requests decode, they are served at n / (steps * mean round).

    Source: Sarathi-Serve (OSDI 2024), stall-free batching.
    """

    sample: Sample
    times: PromptTimes
    rounds: _Rounds
    population: Population
    fits: FloatArray
    left_ratio: float

    @classmethod
    def of(
        cls,
        replica: Sequence[StageRates],
        sample: Sample,
        levels: Levels,
        *,
        chunk_tokens: float,
        room_tokens: float,
        max_batch: int,
    ) -> ColocatedFigures | None:
        """What these stages serve of a sample; None when not even one request fits."""
        slots = sample.slots(room_tokens)
        if slots < 1:
            return None
        times = prompt_times(replica, sample.prompt, chunk_tokens)
        batch = np.arange(1, min(slots, max_batch) + 1, dtype=np.float64)
        rounds = _rounds(replica, sample, batch, chunk_tokens)
        rates = batch / (sample.mean_steps * rounds.mean_s)
        rates = np.maximum.accumulate(np.minimum(rates, 1 / rounds.queued_s))
        held = batch + rates * sample.mean(times.latency_s) * rounds.slower
        fits = max(1, int(np.searchsorted(held, slots, side="right")))
        full = np.interp(slots, [0.0, *held], [0.0, *rates])
        unused = len(replica) * chunk_tokens - sample.mean(times.last_tokens)
        work = np.maximum(1.0, sample.steps)
        population = Population(
            levels,
            np.array([0.0, *rates[: fits - 1], full]),
            sample.mean(work**2) / sample.mean(work) ** 2,
            fits / full,
        )
        return cls(
            sample,
            times,
            rounds.first(fits),
            population,
            fits=sample.fits(room_tokens),
            # The round that ends a prompt is filled up with prompts that wait behind it.
            left_ratio=1 / (1 + unused / sample.mean_prompt),
        )

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most."""
        return HIGHEST_UTILISATION * self.population.capacity_rps

    @property
    def idle_s(self) -> float:
        """Mean time to the first token and time per later token of a request alone."""
        return self.sample.mean(self.times.latency_s) + float(self.rounds.plain_s[0])

    @cached_property
    def _prompt_moments(self) -> tuple[float, float]:
        alone = self.times.busy_s
        return self.sample.mean(alone), self.sample.mean(alone**2)

    def _decoding(self, load_rps: FloatArray) -> FloatArray:
        """Mean number of requests that decode."""
        shares = self.population.shares(load_rps)
        found: FloatArray = shares @ np.arange(shares.shape[-1])
        return np.clip(found, 1.0, len(self.rounds.plain_s))

    def _at(self, values: FloatArray, decoding: FloatArray) -> FloatArray:
        """A round's figure with that many requests that decode, which need not be whole."""
        at: FloatArray = np.interp(decoding, np.arange(1.0, len(values) + 1), values)
        return at

    def in_time(self, load_rps: FloatArray, bound_s: FloatArray, step_s: FloatArray) -> FloatArray:
        """Probability that first tokens and paces meet their bounds: (loads, levels, requests)."""
        decoding = self._decoding(self.population.loads(load_rps))
        paced = self._paced(load_rps, self._waits(load_rps), decoding, step_s)
        met: FloatArray = self.begun(load_rps, bound_s) * paced
        return met

    def begun(self, load_rps: FloatArray, bound_s: FloatArray) -> FloatArray:
        """Probability of a first token within each bound: (loads, levels, requests)."""
        population = self.population
        felt = population.loads(load_rps)
        decoding = self._decoding(felt)
        here = self._at(self.rounds.slower, decoding)[..., None]
        plain_s = self._at(self.rounds.plain_s, decoding)[..., None]
        mixed_s = self._at(self.rounds.mixed_s, decoding)[..., None]
        mixed = self._mixed(felt, decoding)[..., None]
        # A round has begun when it comes.
        joined_s = (mixed * mixed_s + (1 - mixed) * plain_s) / 2
        slack_s = bound_s - self.times.latency_s * here - joined_s
        late = np.maximum(
            self._waits(load_rps).longer_than(slack_s),
            population.waits_longer(load_rps, population.shares(felt), slack_s),
        )
        stable = (load_rps < population.capacity_rps)[:, None, None]
        begun: FloatArray = np.where(stable, (1 - late) * self.fits, 0.0)
        return begun

    def step_s(self, load_rps: float) -> float:
        """Mean seconds per token at that load."""
        decoding = self._decoding(np.array([load_rps]))
        return float(self._at(self.rounds.mean_s, decoding)[0])

    def _mixed(self, loads_rps: FloatArray, decoding: FloatArray) -> FloatArray:
        """Share of the time in rounds with prompts."""
        mixed: FloatArray = np.minimum(1.0, loads_rps * self._at(self.rounds.prompt_s, decoding))
        return mixed

    def _stretch(self, decoding: FloatArray) -> FloatArray:
        """How much longer prompts that queue occupy the group than they would alone."""
        stretch: FloatArray = self._at(self.rounds.queued_s, decoding) / self._prompt_moments[0]
        return stretch

    def _waits(self, load_rps: FloatArray) -> Waits:
        """Prompts behind prompts, stretched as the mean load has it."""
        mean_s, square_s2 = self._prompt_moments
        stretch = self._stretch(self._decoding(load_rps))
        return Waits.at(
            self.population.levels,
            load_rps * mean_s * stretch,
            mean_s * stretch,
            square_s2 * stretch**2,
        )

    def _paced(
        self, load_rps: FloatArray, waits: Waits, decoding: FloatArray, step_s: FloatArray
    ) -> FloatArray:
        """Probability that the prompts of others do not slow a request's steps beyond a bound.

        A request may spend `bound * steps` on its steps, of which those that hold chunks may take
        `steps * (bound - plain) * mixed / (mixed - plain)`. They hold the prompts that wait when
        it begins, and those that come while it decodes.
        """
        plain_s = self._at(self.rounds.plain_s, decoding)[..., None]
        mixed_s = self._at(self.rounds.mixed_s, decoding)[..., None]
        stretch = self._at(self.rounds.prompt_s, decoding)[..., None] / self._prompt_moments[0]
        steps = self.sample.steps
        bound_s = np.where(steps > 0, np.minimum(step_s, 1e9), 1e9)
        chunks_s = steps * (bound_s - plain_s) * mixed_s / np.maximum(mixed_s - plain_s, 1e-12)
        rate = load_rps[:, None] * self.population.levels.factor
        # In a time in which a prompt takes as long as alone.
        ahead = busy_beyond(
            rate * stretch[..., 0],
            self.times.busy_s,
            self.sample.share,
            within_s=steps * bound_s / stretch,
            beyond_s=chunks_s / stretch,
            left_ratio=self.left_ratio,
        )
        ahead = np.maximum(ahead, waits.longer_than(chunks_s))
        always = (steps == 0) | (mixed_s <= bound_s)
        never = (steps > 0) & (plain_s > bound_s)
        paced: FloatArray = np.where(always, 1.0, np.where(never, 0.0, 1 - ahead))
        return paced


def _rounds(
    replica: Sequence[StageRates], sample: Sample, batch: FloatArray, chunk_tokens: float
) -> _Rounds:
    """Rounds beside so many requests that decode.

    What comes in a round with prompts is computed in the next one, together; after a round in which
    nothing comes, rounds are plain until a prompt comes alone. So the mean number of prompts in a
    round that has some is exp(-rate * mixed_s) + rate * mixed_s. They share the round's passes,
    which are filled one after another; a prompt that is longer than that takes several rounds.
    """
    prompt = sample.mean_prompt
    most = len(replica) * chunk_tokens
    pieces = sample.mean(np.ceil(sample.prompt / most))
    alone = prompt / pieces
    plain_s = np.maximum.accumulate(decode_steps_s(replica, batch, sample.context))
    mixed_s = _round_s(replica, sample, batch, np.full_like(batch, alone), chunk_tokens)
    full_s = _round_s(replica, sample, batch, np.full_like(batch, most), chunk_tokens)
    queued_s = np.maximum.accumulate(full_s) * prompt / most
    mean_s, together = plain_s, np.ones_like(batch)
    for _ in range(_SWEEPS):
        come = pieces * np.minimum(batch / (sample.mean_steps * mean_s), 1 / queued_s)
        together = (together + np.exp(-come * mixed_s) + come * mixed_s) / 2
        tokens = np.minimum(alone * together, most)
        mixed_s = np.maximum(_round_s(replica, sample, batch, tokens, chunk_tokens), plain_s)
        mixed = np.minimum(1.0, come * mixed_s / together)
        mean_s = (mean_s + 1 / (mixed / mixed_s + (1 - mixed) / plain_s)) / 2
    alone_s = _round_s(replica, sample, np.zeros(1), np.array([alone]), chunk_tokens)[0]
    return _Rounds(
        plain_s,
        mixed_s,
        mean_s,
        prompt_s=mixed_s * pieces / together,
        queued_s=queued_s,
        slower=np.maximum(1.0, mixed_s / alone_s),
    )


def _round_s(
    replica: Sequence[StageRates],
    sample: Sample,
    batch: FloatArray,
    tokens: FloatArray,
    chunk_tokens: float,
) -> FloatArray:
    """Time of a round with so many requests that decode and tokens of prompts."""
    stages = len(replica)
    micro = np.clip(batch, 0.0, stages)
    part = batch / np.maximum(micro, 1.0)
    found = part * sample.context
    piece = np.minimum(tokens, chunk_tokens)
    filled = np.maximum(1.0, tokens / chunk_tokens)
    longest = sample.mean(sample.prompt**2) / sample.mean(sample.prompt)
    pairs = found + piece * longest / 2
    busiest, visits = [], []
    for rates in replica:
        mixed = pass_s(rates, part + piece, pairs, found)
        plain = pass_s(rates, part, found, found)
        busiest.append(filled * mixed + np.maximum(0.0, micro - filled) * plain)
        visits.append(mixed + rates.hop_s + rates.hop_token_s * (part + piece))
    round_s: FloatArray = np.maximum(np.maximum.reduce(busiest), np.add.reduce(visits))
    return round_s
