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

__all__ = ["CostModel", "Efficiency", "Replica", "StageHardware", "Work"]


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
class CostModel:
    """Times and memory of one model on any replica."""

    model: ModelSpec
    efficiency: Efficiency = Efficiency()

    # One stage.

    def stage_work_s(self, stage: StageHardware, work: Work) -> float:
        """Time of one stage over one pass, whatever rides along in it.

        Source: 2 FLOP per weight and token, 4 * width FLOP per layer and pair of attention.
        """
        m = self.model
        flops = 2 * m.layer_parameters * work.tokens + 4 * m.heads * m.head_dim * work.pairs
        arithmetic = stage.layers * flops / (stage.flops_per_s * self.efficiency.flops_ratio)
        cached_s = (
            work.cached_tokens
            * self._kv_bytes_per_token(stage)
            / (stage.memory_bytes_per_s * self.efficiency.memory_ratio)
        )
        memory = self._weights_s(stage) + cached_s
        return max(arithmetic, memory) + self._all_reduce_s(stage, work.tokens)

    def stage_prefill_s(self, stage: StageHardware, prompt_tokens: float) -> float:
        """Time of one stage over one prompt."""
        return self.stage_work_s(stage, Work.of_prompt(prompt_tokens))

    def stage_decode_s(self, stage: StageHardware, batch: float, context_tokens: float) -> float:
        """Time of one stage over one token of each of `batch` requests."""
        return self.stage_work_s(stage, Work.of_decode(batch, context_tokens))

    def _weights_s(self, stage: StageHardware) -> float:
        """Time to read the stage's layers once."""
        read = stage.layers * self.model.layer_parameters * self.model.dtype_bytes
        return read / (stage.memory_bytes_per_s * self.efficiency.memory_ratio)

    def _all_reduce_s(self, stage: StageHardware, tokens: float) -> float:
        """Two ring all-reduces per layer (Megatron-LM): after attention and after the MLP."""
        if stage.tp == 1:
            return 0.0
        payload = tokens * self.model.hidden * self.model.dtype_bytes
        wire_s = 2 * (stage.tp - 1) / stage.tp * payload / self._bytes_per_s(stage.link)
        return 2 * stage.layers * (wire_s + 2 * (stage.tp - 1) * stage.link.latency_s)

    def hop_s(self, stage: StageHardware, tokens: float) -> float:
        """Time to hand the activations of so many tokens to the next stage."""
        if stage.next_link is None:
            return 0.0
        payload = tokens * self.model.hidden * self.model.dtype_bytes
        return payload / self._bytes_per_s(stage.next_link) + stage.next_link.latency_s

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

    def kv_capacity_tokens(self, replica: Replica) -> float:
        """Tokens whose KV cache fits beside the weights; 0 or less when not even they fit."""
        return min(
            (
                stage.memory_bytes * self.efficiency.memory_use_ratio
                - self.stage_weight_bytes(replica, index)
            )
            / self._kv_bytes_per_token(stage)
            for index, stage in enumerate(replica)
        )

    def max_batch(self, replica: Replica, context_tokens: float) -> int:
        """Requests of that context that fit at once."""
        return max(0, int(self.kv_capacity_tokens(replica) // context_tokens))

    def transfer_s(self, wire_bytes: float, link: Link) -> float:
        """Time to move KV bytes over a link that nothing else uses."""
        return wire_bytes / self._bytes_per_s(link) + link.latency_s
