"""How SGLang is started: its arguments and environment, decided from ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from thunderserve.core.plan import Phase
from thunderserve.engine.sglang.cpu import cpu_environment

__all__ = [
    "KVLINK_SOCKET_VARIABLE",
    "TRANSFER_BACKEND",
    "Device",
    "SglangOptions",
    "disaggregation_mode",
    "launch_arguments",
    "launch_environment",
]

KVLINK_SOCKET_VARIABLE = "THUNDERSERVE_KVLINK_ENGINE_SOCKET"
TRANSFER_BACKEND = "kvlink"
LOOPBACK = "127.0.0.1"
_RESERVED_TOKENS = 512  # SGLang's default
_UNUSABLE_TOKENS = 2

_MODES = {Phase.PREFILL: "prefill", Phase.DECODE: "decode", Phase.COLOCATED: "null"}


class Device(StrEnum):
    """What computes."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class SglangOptions:
    """What may be chosen of SGLang.

    Attributes:
        max_total_tokens: Tokens of KV cache over all requests; 0 lets SGLang fill the memory.
        max_running_requests: Requests in one batch; 0 lets SGLang choose.
        chunked_prefill_tokens: Longest piece of a prompt computed at once; 0 lets SGLang choose.
        cpu_threads: Threads of each rank on a CPU. Threads wait for each other by spinning: engines
            that share cores are ten times slower with one for each core than with one.
        kvlink_engine_socket: Path of the sidecar's socket for the engine.
        prefix_cache: Keep and reuse the cache of shared prefixes. Reuse computes a prompt in other
            pieces, so that greedy answers may differ in rounding from an engine without it.
    """

    model_path: Path
    device: Device = Device.CPU
    tp: int = 1
    pp: int = 1
    page_size_tokens: int = 1
    max_total_tokens: int = 0
    max_running_requests: int = 0
    chunked_prefill_tokens: int = 0
    cpu_threads: int = 1
    kvlink_engine_socket: str = ""
    prefix_cache: bool = False

    @property
    def reserved_tokens(self) -> int:
        """KV cache that a decode engine keeps free for each running request to grow into."""
        whole = _RESERVED_TOKENS
        return min(whole, self.max_total_tokens // 16) if self.max_total_tokens else whole

    def usable_context(self, model_context_tokens: int) -> int:
        """Prompt and answer together that SGLang serves in full.

        It cuts an answer short, and does not say so, two tokens before the model's context or the
        KV cache is full.
        """
        pool = self.max_total_tokens - self.reserved_tokens
        whole = min(model_context_tokens, pool) if self.max_total_tokens else model_context_tokens
        return whole - _UNUSABLE_TOKENS

    @property
    def flippable(self) -> bool:
        """True when SGLang can switch roles: it refuses to with pipeline stages."""
        return self.pp == 1


def disaggregation_mode(phase: Phase) -> str:
    """SGLang's word for a phase."""
    return _MODES[phase]


def launch_arguments(options: SglangOptions, phase: Phase, bootstrap_port: int) -> dict[str, Any]:
    """The keyword arguments of `sglang.Engine`.

    Args:
        options: What was chosen.
        phase: The phase to start in.
        bootstrap_port: A free port for SGLang's own rendezvous, of this engine alone.
    """
    arguments: dict[str, Any] = {
        "model_path": str(options.model_path),
        "device": options.device.value,
        "tp_size": options.tp,
        "pp_size": options.pp,
        "page_size": options.page_size_tokens,
        # Token ids go in and out: the router holds the tokenizer.
        "skip_tokenizer_init": True,
        "incremental_streaming_output": True,
        "disable_radix_cache": not options.prefix_cache,
        "host": LOOPBACK,
        "log_level": "error",
        # The scheduler polls; asleep it leaves its core to others and wakes at a request.
        "sleep_on_idle": True,
    }
    chosen = {
        "max_total_tokens": options.max_total_tokens,
        "max_running_requests": options.max_running_requests,
        "chunked_prefill_size": options.chunked_prefill_tokens,
    }
    arguments.update({key: value for key, value in chosen.items() if value})
    if phase is not Phase.COLOCATED:
        arguments.update(_disaggregation(options, phase, bootstrap_port))
    if options.device is Device.CPU:
        arguments.update(_ON_CPU)
    return arguments


_ON_CPU = {
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "disable_overlap_schedule": True,
    # The default keeps retracted requests in pinned host memory, which needs CUDA.
    "disaggregation_decode_retraction_backup": "none",
}


def _disaggregation(options: SglangOptions, phase: Phase, port: int) -> dict[str, Any]:
    return {
        "disaggregation_mode": disaggregation_mode(phase),
        "disaggregation_transfer_backend": TRANSFER_BACKEND,
        "disaggregation_bootstrap_port": port,
        "enable_pd_role_switch": options.flippable,
        "num_reserved_decode_tokens": options.reserved_tokens,
    }


def launch_environment(
    options: SglangOptions, *, rendezvous: Path, unique_port: int, python_path: str = ""
) -> dict[str, str]:
    """The environment of SGLang's processes.

    Args:
        options: What was chosen.
        rendezvous: A file that does not exist yet: its ranks find each other through it. The usual
            TCP store would listen on every interface of the host.
        unique_port: A port of this engine alone; SGLang names shared memory by it.
        python_path: `PYTHONPATH` as it is.
    """
    variables = {
        "SGLANG_HOST_IP": LOOPBACK,
        "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE": f"file://{rendezvous}",
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(unique_port),
        # A group's ranks are on one host; their sockets stay on its loopback.
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "SGLANG_PLUGINS": TRANSFER_BACKEND,
        KVLINK_SOCKET_VARIABLE: options.kvlink_engine_socket,
        # Nothing is fetched from a model hub: the model is a folder.
        "HF_HUB_OFFLINE": "1",
        # At import SGLang warns of every accelerator that is not there.
        "PYTHONWARNINGS": "ignore::UserWarning",
    }
    if options.device is Device.CPU:
        variables["OMP_NUM_THREADS"] = str(options.cpu_threads)
        variables.update(cpu_environment(options.tp * options.pp, python_path))
    return variables
