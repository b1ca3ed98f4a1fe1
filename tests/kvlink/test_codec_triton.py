"""The GPU's int4 makes the reference's bits: interpreted anywhere, compiled where CUDA is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("triton_backend.py")


def test_triton_equals_the_reference_when_interpreted() -> None:
    """In a process of its own: the interpreter is chosen when Triton is imported."""
    pytest.importorskip("triton", reason="no Triton beside this PyTorch")
    environment = os.environ | {"TRITON_INTERPRET": "1"}

    done = subprocess.run(
        [sys.executable, PROGRAM, "cpu"],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"


@pytest.mark.gpu
def test_triton_equals_the_reference_when_compiled() -> None:
    """On the device itself."""
    done = subprocess.run(
        [sys.executable, PROGRAM, "cuda"], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"
