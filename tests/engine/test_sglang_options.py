"""How SGLang is started: decided from the options, with nothing of it imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thunderserve.core.plan import Phase
from thunderserve.core.request import FinishReason, SamplingParams
from thunderserve.engine.sglang.cpu import CPU_PATH, cpu_environment
from thunderserve.engine.sglang.options import (
    Device,
    SglangOptions,
    launch_arguments,
    launch_environment,
)
from thunderserve.engine.sglang.sampling import abort_error, sglang_sampling, token_chunk

MODEL = Path("/models/m")


def test_arguments_switch_roles_when_split() -> None:
    arguments = launch_arguments(SglangOptions(MODEL), Phase.DECODE, bootstrap_port=7001)
    assert arguments["disaggregation_mode"] == "decode"
    assert arguments["disaggregation_transfer_backend"] == "kvlink"
    assert arguments["disaggregation_bootstrap_port"] == 7001
    assert arguments["enable_pd_role_switch"] is True
    assert arguments["host"] == "127.0.0.1"
    assert "max_total_tokens" not in arguments


def test_arguments_do_not_switch_when_pipelined() -> None:
    """SGLang refuses to start with both."""
    arguments = launch_arguments(SglangOptions(MODEL, pp=2), Phase.PREFILL, bootstrap_port=1)
    assert arguments["enable_pd_role_switch"] is False


def test_arguments_name_no_role_when_colocated() -> None:
    arguments = launch_arguments(SglangOptions(MODEL), Phase.COLOCATED, bootstrap_port=1)
    assert not any(key.startswith("disaggregation_mode") for key in arguments)


def test_arguments_leave_kernels_to_sglang_when_on_cuda() -> None:
    cuda = launch_arguments(SglangOptions(MODEL, Device.CUDA), Phase.DECODE, bootstrap_port=1)
    assert "attention_backend" not in cuda
    cpu = launch_arguments(SglangOptions(MODEL, Device.CPU), Phase.DECODE, bootstrap_port=1)
    assert cpu["attention_backend"] == "torch_native"


def test_environment_stays_on_loopback_and_names_the_socket() -> None:
    options = SglangOptions(MODEL, Device.CUDA, kvlink_engine_socket="/run/e")
    variables = launch_environment(options, rendezvous=Path("/run/r"), unique_port=7002)
    assert variables["SGLANG_HOST_IP"] == "127.0.0.1"
    assert variables["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] == "file:///run/r"
    assert variables["THUNDERSERVE_KVLINK_ENGINE_SOCKET"] == "/run/e"
    assert "PYTHONPATH" not in variables
    assert "SGLANG_USE_CPU_ENGINE" not in variables


def test_cpu_environment_keeps_others_path_and_binds_each_rank() -> None:
    first = cpu_environment(2, "/mine")
    assert first["PYTHONPATH"] == f"{CPU_PATH}{os.pathsep}/mine"
    assert cpu_environment(2, first["PYTHONPATH"]) == first
    assert len(first["SGLANG_CPU_OMP_THREADS_BIND"].split("|")) == 2
    assert "SGLANG_CPU_OMP_THREADS_BIND" not in cpu_environment(1)


@pytest.mark.parametrize(
    ("pool", "expected"), [(0, 2046), (8192, 2046), (2048, 2048 - 128 - 2), (512, 512 - 32 - 2)]
)
def test_usable_context_leaves_what_sglang_cuts_off(pool: int, expected: int) -> None:
    assert SglangOptions(MODEL, max_total_tokens=pool).usable_context(2048) == expected


def test_child_process_gets_stubs_and_shims_by_its_path() -> None:
    """`sgl_kernel` raises when called, torchvision imports, and a hidden sitecustomize runs."""
    program = (
        "import sys, sgl_kernel\n"
        "assert 'torch' not in sys.modules, 'the shim must cost nothing until it is needed'\n"
        "try:\n    sgl_kernel.verify_tree_greedy_cpu()\n"
        "except NotImplementedError:\n    print('stub raised')\n"
        "import torchvision\nprint(torchvision.__version__)\n"
    )
    environment = os.environ | cpu_environment(1) | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "stub raised"


def test_sitecustomize_runs_the_one_it_hides(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.hidden_ran = True\n")
    program = "import sys; print(sys.hidden_ran)"
    environment = os.environ | cpu_environment(1, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_sampling_is_spelled_as_sglang_does() -> None:
    sampling = SamplingParams(max_tokens=9, temperature=0.5, stop_token_ids=(2,), seed=3)
    assert sglang_sampling(sampling, max_tokens=9) == {
        "max_new_tokens": 9,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": -1,
        "ignore_eos": False,
        "stop_token_ids": [2],
        "sampling_seed": 3,
    }


def test_output_ends_with_sglangs_reason() -> None:
    assert token_chunk({"output_ids": [4], "meta_info": {"finish_reason": None}}).token_ids == (4,)
    for kind, reason in (("length", FinishReason.LENGTH), ("stop", FinishReason.STOP)):
        output = {"output_ids": [], "meta_info": {"finish_reason": {"type": kind}}}
        assert token_chunk(output).finish_reason is reason
        assert abort_error(output, transferred=True) is None


@pytest.mark.parametrize(
    ("status", "transferred", "name"),
    [(400, True, "InvalidArgumentError"), (500, True, "TransferError"), (None, False, "Unavail")],
)
def test_abort_is_the_error_it_means(*, status: int | None, transferred: bool, name: str) -> None:
    reason = {"type": "abort", "message": "no memory", "status_code": status}
    error = abort_error({"meta_info": {"finish_reason": reason}}, transferred=transferred)
    assert type(error).__name__.startswith(name)
    assert "no memory" in str(error)
