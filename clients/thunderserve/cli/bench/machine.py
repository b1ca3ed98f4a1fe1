"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from thunderserve.kvlink.codec.backends import best_backend

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cpu_name", "describe_machine", "one_thread"]


def describe_machine() -> dict[str, str | int]:
    """Processor, cores that this process may use, the codec's instructions, system."""
    return {
        "machine_cpu": cpu_name(Path("/proc/cpuinfo")),
        "machine_cores": len(os.sched_getaffinity(0)),
        "machine_simd": best_backend().name,
        "machine_system": f"{platform.system()} {platform.release()}",
    }


def cpu_name(cpuinfo: Path) -> str:
    """Name, family and model: makers give one name to several generations."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, colon, value in pairs if colon}
    name = fields.get("model name", platform.machine())
    if "cpu family" not in fields:
        return name
    return f"{name} (family {fields['cpu family']}, model {fields.get('model', '?')})"


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch keeps to one core meanwhile: what is compared does, and others may need the rest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
