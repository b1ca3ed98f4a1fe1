"""All parts of `bench kvlink`, one after the other; what cannot be had is named and passed over."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from thunderserve.cli.bench.figures import (
    CODEC_KEYS,
    COMPILE_KEYS,
    HIDING_KEYS,
    QUALITY_KEYS,
    Effort,
    Figures,
    link_keys,
)
from thunderserve.cli.bench.links import LINKS
from thunderserve.core.errors import ThunderServeError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thunderserve.cli.bench.kvlink import Part
    from thunderserve.cli.bench.links import BenchLink

__all__ = ["Step", "ended_by_sigterm", "measure", "run_steps"]


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement: the figures that it gives, or, without a value, those that are missing."""

    what: str
    keys: tuple[str, ...]
    run: Callable[[], Mapping[str, float]]


def measure(parts: Sequence[Part], effort: Effort, *, compiled: bool) -> Figures:
    """Measure `parts`; nothing that was made for it is left, whether it ends well or not.

    Args:
        parts: What to measure.
        effort: How much is done for each.
        compiled: Also measure what torch.compile makes of the codec.
    """
    from thunderserve.cli.bench.machine import describe_machine  # noqa: PLC0415 - imports the codec

    steps = [step for part in parts for step in _steps(effort, compiled=compiled)[part]]
    with ended_by_sigterm(), _compiler_cache():
        figures = run_steps(steps)
    figures.add(describe_machine())
    return figures


def run_steps(steps: Sequence[Step]) -> Figures:
    """All of them, with a bar on a terminal."""
    figures = Figures()
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("", total=len(steps))
        for step in steps:
            bar.update(task, description=step.what)
            try:
                figures.add(step.run())
            except ThunderServeError as error:
                figures.miss(step.keys, str(error))
            bar.advance(task)
    return figures


def _steps(effort: Effort, *, compiled: bool) -> dict[str, list[Step]]:
    """By part."""
    codec = [Step("codec", CODEC_KEYS, lambda: _codec(effort))]
    if compiled:
        codec.append(Step("torch.compile", COMPILE_KEYS, lambda: _compiled(effort)))
    return {
        "codec": codec,
        "quality": [Step("quality", QUALITY_KEYS, lambda: _quality(effort))],
        "hiding": [Step("hiding", HIDING_KEYS, lambda: _hiding(effort))],
        "links": [
            Step(link.name, link_keys(link.name), partial(_link, link, effort)) for link in LINKS
        ],
    }


def _codec(effort: Effort) -> dict[str, float]:
    from thunderserve.cli.bench.codec_speed import codec_figures  # noqa: PLC0415 - imports torch
    from thunderserve.kvlink.codec.native import load_library  # noqa: PLC0415 - as above

    if load_library() is None:
        raise UnavailableError(
            "there is no compiled codec: apt-get install g++, then install thunderserve again, or "
            "run `python services/kvlink/build_native.py` in a checkout"
        )
    return codec_figures(effort)


def _compiled(effort: Effort) -> dict[str, float]:
    from thunderserve.cli.bench.codec_speed import compiled_figures  # noqa: PLC0415 - imports torch

    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise UnavailableError("torch.compile needs a C++ compiler: apt-get install g++")
    return compiled_figures(effort)


def _quality(effort: Effort) -> dict[str, float]:
    from thunderserve.cli.bench.quality import quality_figures  # noqa: PLC0415 - imports torch

    return quality_figures(effort.quality_samples)


def _hiding(effort: Effort) -> dict[str, float]:
    from thunderserve.cli.bench.quality import demo_layout  # noqa: PLC0415 - imports torch
    from thunderserve.cli.bench.wire import measure_hiding  # noqa: PLC0415 - as above
    from thunderserve.demo_model.network import LlamaConfig  # noqa: PLC0415 - as above

    return asyncio.run(measure_hiding(demo_layout(LlamaConfig()), effort.prompts))


def _link(link: BenchLink, effort: Effort) -> dict[str, float]:
    from thunderserve.cli.bench.wire import link_figures, measure_link  # noqa: PLC0415 - as above

    return link_figures(link.name, asyncio.run(measure_link(link, effort.link_s)))


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what runs as Ctrl-C does, so that it is cleaned up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _compiler_cache() -> Iterator[None]:
    """torch.compile keeps what it makes in a folder that goes, and compiles in this process."""
    with tempfile.TemporaryDirectory(prefix="kvlink-bench-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        yield
