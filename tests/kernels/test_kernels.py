"""The Triton kernels, each file of claims in its own process: triton chooses its interpreter when it is imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent / "interpreter"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is for Linux")
@pytest.mark.parametrize("operation", sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "conftest"))
def test_the_kernels_keep_their_claims(operation: str) -> None:
    environment = dict(os.environ, TRITON_INTERPRET="0" if torch.cuda.is_available() else "1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / f"{operation}.py")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_package_is_imported_without_triton() -> None:
    code = "import sys, dg_kernels; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
