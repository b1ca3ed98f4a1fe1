"""`thunderserve bench kvlink`: its figures' names, arithmetic and end, and one small link."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.bench.codec_speed import ratios
from thunderserve.cli.bench.decode import Delivery
from thunderserve.cli.bench.delay import Lane
from thunderserve.cli.bench.figures import (
    CODEC_KEYS,
    COMPILE_KEYS,
    HIDING_KEYS,
    QUALITY_KEYS,
    Figures,
    link_keys,
)
from thunderserve.cli.bench.links import LINKS, link_named
from thunderserve.cli.bench.machine import cpu_name
from thunderserve.cli.bench.measure import Step, run_steps
from thunderserve.cli.bench.pair import Sending
from thunderserve.cli.bench.quality import quality_figures
from thunderserve.cli.bench.report import draw_figures
from thunderserve.cli.bench.wire import LinkRates, hidden_ratio, link_figures, measure_link
from thunderserve.cli.main import main
from thunderserve.core.errors import UnavailableError
from thunderserve.kvlink.codec.native import load_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMISED = {
    "bits_per_value",
    "quantize_x_memcpy",
    "dequantize_x_memcpy",
    "quantize_x_torch_eager",
    "wire_x_iperf3_1gbit",
    "delivered_x_raw16_1gbit",
    "delivered_x_raw16_5gbit",
    "perplexity_x_raw16",
    "greedy_agreement_ratio",
    "hidden_transfer_ratio",
}
MACHINE = {"machine_cpu", "machine_cores", "machine_simd", "machine_system"}
RATES = LinkRates(100.0, Delivery(1, 180, 200, 2.0), Delivery(2, 640, 180, 2.0))


def test_figures_keep_their_names() -> None:
    """Programs read them."""
    keys = {*CODEC_KEYS, *COMPILE_KEYS, *QUALITY_KEYS, *HIDING_KEYS}
    keys |= {key for link in LINKS for key in link_keys(link.name)}
    assert keys >= PROMISED
    assert [link.name for link in LINKS] == ["100mbit", "1gbit", "5gbit", "1gbit_10ms"]


@pytest.mark.skipif(load_library() is None, reason="no compiled codec")
def test_codec_part_prints_its_figures_as_one_flat_object(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the machine that they are of."""
    assert main(["bench", "kvlink", "--quick", "--only", "codec", "-o", "json"]) == 0

    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == set(CODEC_KEYS) | MACHINE
    assert figures["bits_per_value"] == 4.5
    assert all(figures[key] > 0 for key in CODEC_KEYS)


def test_links_are_named_as_missing_when_a_tool_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that would bring them; it is no failure."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main(["bench", "kvlink", "--quick", "--only", "links,hiding", "-o", "json"]) == 0

    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["wire_x_iperf3_1gbit"] is None
    assert figures["hidden_transfer_ratio"] is None
    assert set(figures) >= MACHINE
    (line,) = err.splitlines()
    assert "apt-get install util-linux" in line


def test_part_is_refused_when_there_is_none_of_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The others are named."""
    assert main(["bench", "kvlink", "--only", "codec,wires"]) == 2
    assert "codec, quality, hiding, links" in capsys.readouterr().err


def test_steps_go_on_when_one_cannot_be_had() -> None:
    """Its figures are null, and why is kept."""

    def fail() -> dict[str, float]:
        raise UnavailableError("no tool: install it")

    figures = run_steps([Step("a", ("x", "y"), fail), Step("b", ("z",), lambda: {"z": 2.0})])

    assert figures.flat() == {"z": 2.0, "x": None, "y": None}
    assert set(figures.missing.values()) == {"no tool: install it"}


def test_codec_ratios_divide_by_what_was_measured_beside() -> None:
    """Quantizing is held against reading, dequantizing against writing."""
    rates = {"memcpy": 10.0, "read_limit": 40.0, "write_limit": 20.0}
    rates |= {"quantize": 8.0, "quantize_fp16": 7.0, "quantize_torch": 0.1}
    rates |= {"dequantize": 15.0, "dequantize_fp16": 16.0, "dequantize_torch": 0.5}

    assert ratios(rates) == pytest.approx(
        {
            "quantize_x_memcpy": 0.8,
            "quantize_x_memcpy_fp16": 0.7,
            "quantize_x_read_limit": 0.2,
            "quantize_x_torch_eager": 80,
            "dequantize_x_memcpy": 1.5,
            "dequantize_x_memcpy_fp16": 1.6,
            "dequantize_x_write_limit": 0.75,
            "dequantize_x_torch_eager": 30,
        }
    )


def test_link_figures_compare_rates_of_one_run() -> None:
    """Wire bytes with iperf3's, delivered values with raw16's."""
    figures = link_figures("1gbit", RATES)

    assert set(figures) == set(link_keys("1gbit"))
    assert figures["wire_x_iperf3_1gbit"] == pytest.approx(0.9)
    assert figures["wire_raw16_x_iperf3_1gbit"] == pytest.approx(1.0)
    assert figures["delivered_x_raw16_1gbit"] == pytest.approx(640 / 180)
    assert figures["delivered_x_bf16_at_iperf3_1gbit"] == pytest.approx(3.2)


def test_hidden_ratio_is_what_prefill_covers_of_a_transfer() -> None:
    """Even rooms were computed before they were sent, odd ones while they were."""
    sendings = [Sending(2, 0.020, 0.0), Sending(3, 0.5, 0.004), Sending(4, 0.022, 0.0)]
    sendings += [Sending(5, 0.6, 0.006), Sending(6, 0.020, 0.0), Sending(7, 0.5, 0.005)]

    figures = hidden_ratio(sendings)

    assert set(figures) == set(HIDING_KEYS)
    assert figures["hidden_transfer_ratio"] == pytest.approx(0.75)


def test_lane_gives_packets_back_in_order_when_they_are_due() -> None:
    """Not before, and each once."""
    lane = Lane(0.005)
    lane.put(b"a", 1.000)
    lane.put(b"b", 1.001)

    assert lane.next_due_s == pytest.approx(1.005)
    assert lane.due(1.004) == []
    assert lane.due(1.0055) == [b"a"]
    assert lane.due(2.0) == [b"b"]
    assert lane.next_due_s is None


def test_cpu_name_says_the_generation(tmp_path: Path) -> None:
    """A virtual machine's `AMD EPYC` may be any of them."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: avx2\n")

    assert cpu_name(cpuinfo) == "AMD EPYC (family 25, model 1)"


def test_figure_is_drawn_of_the_links_that_were_measured(tmp_path: Path) -> None:
    """The others may be missing."""
    figures = Figures(link_figures("1gbit", RATES))
    draw_figures(tmp_path / "links.png", figures)

    assert (tmp_path / "links.png").read_bytes().startswith(b"\x89PNG")


def test_quality_of_a_few_samples_is_near_raw16() -> None:
    """Every figure of it, from the demo model's own caches."""
    figures = quality_figures(2)

    assert set(figures) == set(QUALITY_KEYS)
    assert figures["perplexity_x_raw16"] == pytest.approx(1, abs=0.02)
    assert 0 < figures["divergence_nats"] < 0.01
    assert figures["top_token_agreement_ratio"] > 0.9


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders go; short, as the paths of sockets must be."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


async def test_link_with_delay_is_measured_by_real_sidecars(place: Path) -> None:
    """Both modes fill some of it; 4 bits deliver more than 16."""
    try:
        rates = await measure_link(link_named("1gbit_10ms"), seconds=0.3)
    except UnavailableError as error:
        pytest.skip(str(error))

    assert 0 < rates.iperf3_bytes_per_s < 1e9 / 8
    assert rates.raw16.raw_bytes < rates.raw16.wire_bytes
    assert rates.int4.raw_bytes > 3 * rates.int4.wire_bytes
    assert left_in(place) == set()


def test_nothing_is_left_when_it_is_interrupted(place: Path) -> None:
    """Neither processes nor folders nor namespaces, which live in processes."""
    # A test run in the background ignores interrupts, and what it starts inherits that.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from thunderserve.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "bench", "kvlink", "--only", "links"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as bench:
        # Once its own processes run: an interrupt amid imports may be lost in one of them.
        _wait_until(lambda: " in " in str(left_in(place)) or bench.poll() is not None)
        if bench.poll() is not None:
            pytest.skip(str(bench.stderr and bench.stderr.read()))
        bench.send_signal(signal.SIGINT)
        assert bench.wait(30) == 128 + signal.SIGINT

    assert left_in(place) == set()


def left_in(place: Path) -> set[str]:
    """Folders, and processes that work in one."""
    left = {str(path) for path in place.iterdir()}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            working = str((entry / "cwd").readlink())
            if working.startswith(str(place)):
                left.add(f"{entry.name} in {working}")
    return left


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
