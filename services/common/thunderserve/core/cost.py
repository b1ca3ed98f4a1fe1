"""How long work takes on given hardware: a roofline with efficiency factors.

A replica is a pipeline of stages, each tensor-parallel on GPUs of one host. Every operation takes
the longer of its arithmetic and its memory traffic, plus its communication. Not included: kernel
launches, norms, sampling, queueing. Near the ridge, where neither side dominates, this is
optimistic: at 128 tokens an A40 reaches half of what the roofline says (Vidur's mlp.csv).
"""

from __future__ import annotations

from dataclasses import dataclass

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import GpuType, Link, check_positive
from thunderserve.core.model import ModelSpec

__all__ = ["CostModel", "Efficiency", "Replica", "StageHardware", "StageRates", "Work"]


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What share of a nominal figure is reached; re-fit them from live measurements.

    Attributes:
        flops_ratio: Gated-MLP GEMMs of 2k-4k tokens reach 0.70-0.80 of the dense peak on A40, A100
            and H100. Source: Vidur's mlp.csv. On other GPUs nothing was measured.
        memory_ratio: The same GEMMs at 1-32 tokens reach 0.64-0.90 of peak bandwidth. Source:
            Vidur's mlp.csv; AIConfigurator scales by 0.8.
        link_ratio: 64 MiB send/recv reaches 228 of 300 GB/s (A100) and 348 of 450 GB/s (H100).
            Source: Vidur's network tables. Assumed for PCIe and Ethernet too.
        memory_use_ratio: Of a GPU's memory, what weights and KV cache may fill; the rest is
            activations and runtime. Source: the default of vLLM's gpu_memory_utilization.
    """

    flops_ratio: float = 0.75
    memory_ratio: float = 0.8
    link_ratio: float = 0.76
    memory_use_ratio: float = 0.9

    def __post_init__(self) -> None:
        for name in ("flops_ratio", "memory_ratio", "link_ratio", "memory_use_ratio"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InvalidArgumentError(f"{name} is {value}; it must be in (0, 1]", param=name)


@dataclass(frozen=True, slots=True)
class StageHardware:
    """One pipeline stage: so many layers, on these GPUs, joined by this link.

    Attributes:
        gpus: Tensor-parallel, each holds an equal share, so the slowest sets the pace.
        link: Between them.
        next_link: To the next stage; None for the last.
    """

    layers: int
    gpus: tuple[GpuType, ...]
    link: Link
    next_link: Link | None = None

    def __post_init__(self) -> None:
        check_positive("stage", layers=self.layers, gpus=len(self.gpus))

    @property
    def tp(self) -> int:
        """GPUs that share each layer."""
        return len(self.gpus)

    @property
    def flops_per_s(self) -> float:
        """Peak of all GPUs at the pace of the slowest."""
        return self.tp * min(gpu.flops_per_s for gpu in self.gpus)

    @property
    def memory_bytes_per_s(self) -> float:
        """Peak bandwidth of all GPUs at the pace of the slowest."""
        return self.tp * min(gpu.memory_bytes_per_s for gpu in self.gpus)

    @property
    def memory_bytes(self) -> float:
        """Memory that equal shares can fill."""
        return self.tp * min(gpu.memory_bytes for gpu in self.gpus)


Replica = tuple[StageHardware, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What one pass through a stage computes; prompts and decoding requests add up.

    Attributes:
        tokens: New ones, of prompts and of answers.
        pairs: Of a new token and one that it attends to.
        cached_tokens: Whose KV cache is read.
    """

    tokens: float
    pairs: float
    cached_tokens: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.tokens + other.tokens,
            self.pairs + other.pairs,
            self.cached_tokens + other.cached_tokens,
        )

    @classmethod
    def of_prompt(cls, tokens: float, past_tokens: float = 0.0) -> Work:
        """A prompt, or a chunk of one after `past_tokens`; attention is causal."""
        return cls(tokens, tokens * (past_tokens + tokens / 2), past_tokens)

    @classmethod
    def of_decode(cls, batch: float, context_tokens: float) -> Work:
        """One token of each of `batch` requests."""
        return cls(batch, batch * context_tokens, batch * context_tokens)


@dataclass(frozen=True, slots=True)
class StageRates:
    """What a stage takes for each kind of work: the longer of arithmetic and memory, plus sending.

    Attributes:
        token_s: Arithmetic per new token.
        pair_s: Arithmetic per pair of attention.
        weights_s: To read the stage's layers once, in every pass.
        cached_token_s: To read the KV cache of one token.
        reduced_token_s: All-reduces per new token.
        reduce_s: Latency of a pass's all-reduces.
        hop_token_s: To hand one token's activations to the next stage.
        hop_s: Latency of that.
    """

    token_s: float
    pair_s: float
    weights_s: float
    cached_token_s: float
    reduced_token_s: float
    reduce_s: float
    hop_token_s: float
    hop_s: float

    def time_s(self, work: Work) -> float:
        """Time of one pass."""
        arithmetic = self.token_s * work.tokens + self.pair_s * work.pairs
        memory = self.weights_s + self.cached_token_s * work.cached_tokens
        return max(arithmetic, memory) + self.reduced_token_s * work.tokens + self.reduce_s


@dataclass(frozen=True, slots=True)
class CostModel:
    """Times and memory of one model on any replica."""

    model: ModelSpec
    efficiency: Efficiency = Efficiency()

    # One stage.

    def stage_rates(self, stage: StageHardware) -> StageRates:
        """What each kind of work takes there.

        Source: 2 FLOP per weight and token, 4 * width FLOP per layer and pair of attention. Two
        ring all-reduces per layer (Megatron-LM): after attention and after the MLP.
        """
        m, tp = self.model, stage.tp
        flop_s = stage.layers / (stage.flops_per_s * self.efficiency.flops_ratio)
        byte_s = 1 / (stage.memory_bytes_per_s * self.efficiency.memory_ratio)
        token_bytes = m.hidden * m.dtype_bytes
        ring_s = 2 * (tp - 1) / tp * token_bytes / self._bytes_per_s(stage.link)
        wait_s = 2 * (tp - 1) * stage.link.latency_s
        onward = stage.next_link
        return StageRates(
            token_s=2 * m.layer_parameters * flop_s,
            pair_s=4 * m.heads * m.head_dim * flop_s,
            weights_s=stage.layers * m.layer_parameters * m.dtype_bytes * byte_s,
            cached_token_s=self._kv_bytes_per_token(stage) * byte_s,
            reduced_token_s=2 * stage.layers * ring_s,
            reduce_s=2 * stage.layers * wait_s,
            hop_token_s=token_bytes / self._bytes_per_s(onward) if onward else 0.0,
            hop_s=onward.latency_s if onward else 0.0,
        )

    def stage_work_s(self, stage: StageHardware, work: Work) -> float:
        """Time of one stage over one pass, whatever rides along in it."""
        return self.stage_rates(stage).time_s(work)

    def stage_prefill_s(self, stage: StageHardware, prompt_tokens: float) -> float:
        """Time of one stage over one prompt."""
        return self.stage_work_s(stage, Work.of_prompt(prompt_tokens))

    def stage_decode_s(self, stage: StageHardware, batch: float, context_tokens: float) -> float:
        """Time of one stage over one token of each of `batch` requests."""
        return self.stage_work_s(stage, Work.of_decode(batch, context_tokens))

    def hop_s(self, stage: StageHardware, tokens: float) -> float:
        """Time to hand the activations of so many tokens to the next stage."""
        rates = self.stage_rates(stage)
        return rates.hop_s + rates.hop_token_s * tokens

    def _bytes_per_s(self, link: Link) -> float:
        return link.bytes_per_s * self.efficiency.link_ratio

    def _kv_bytes_per_token(self, stage: StageHardware) -> float:
        """KV bytes of the stage's layers; heads are copied when there are fewer than GPUs."""
        copies = max(1.0, stage.tp / self.model.kv_heads)
        return stage.layers * self.model.kv_bytes_per_token_per_layer * copies

    # A replica.

    def prefill_latency_s(self, replica: Replica, prompt_tokens: float) -> float:
        """Time from a prompt's start to its first token, without queueing."""
        return sum(
            self.stage_prefill_s(stage, prompt_tokens) + self.hop_s(stage, prompt_tokens)
            for stage in replica
        )

    def prefill_period_s(self, replica: Replica, prompt_tokens: float) -> float:
        """Time after which the next prompt can follow: that of the slowest stage."""
        return max(self.stage_prefill_s(stage, prompt_tokens) for stage in replica)

    def decode_step_s(self, replica: Replica, batch: float, context_tokens: float) -> float:
        """Time between two tokens of a request when `batch` requests run.

        The batch is cut into one micro-batch per stage, so that every stage has work; the slowest
        stage then sets the pace.
        """
        parts = max(1.0, min(batch, len(replica)))
        part = batch / parts
        times = [self.stage_decode_s(stage, part, context_tokens) for stage in replica]
        hops = sum(self.hop_s(stage, part) for stage in replica)
        return max(sum(times) + hops, parts * max(times))

    def stage_weight_bytes(self, replica: Replica, index: int) -> float:
        """Memory of a stage's weights; the ends hold the embedding and the output projection."""
        model, last = self.model, len(replica) - 1
        ends = (index == 0) + (index == last and not (model.tied_embeddings and last == 0))
        weights = replica[index].layers * model.layer_parameters
        return (weights + ends * model.embedding_parameters) * model.dtype_bytes

    def activation_bytes(self, stage: StageHardware, chunk_tokens: float) -> float:
        """Memory of one GPU for the activations of a pass of that many tokens, at its peak.

        The residual stream, its norm and the attention's input and output are whole on every GPU;
        the MLP's two inner products are shared.
        """
        m = self.model
        return chunk_tokens * (4 * m.hidden + 2 * m.intermediate / stage.tp) * m.dtype_bytes

    def _room_bytes(self, stage: StageHardware, chunk_tokens: float) -> float:
        """Memory for weights and KV cache.

        Half of what `memory_use_ratio` leaves is for the runtime; activations beyond the other half
        take from the cache.
        """
        used = self.efficiency.memory_use_ratio
        spare = (1 - used) / 2 * stage.memory_bytes
        beyond = stage.tp * self.activation_bytes(stage, chunk_tokens) - spare
        return stage.memory_bytes * used - max(0.0, beyond)

    def kv_capacity_tokens(self, replica: Replica, chunk_tokens: float = 0.0) -> float:
        """Tokens whose KV cache fits beside the weights and a chunk's activations.

        0 or less when not even they fit.
        """
        return min(
            (self._room_bytes(stage, chunk_tokens) - self.stage_weight_bytes(replica, index))
            / self._kv_bytes_per_token(stage)
            for index, stage in enumerate(replica)
        )

    def max_batch(self, replica: Replica, context_tokens: float) -> int:
        """Requests of that context that fit at once."""
        return max(0, int(self.kv_capacity_tokens(replica) // context_tokens))

    def transfer_s(self, wire_bytes: float, link: Link) -> float:
        """Time to move KV bytes over a link that nothing else uses."""
        return wire_bytes / self._bytes_per_s(link) + link.latency_s
