from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gdb.harness import build


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that compiles a program of ``programs``."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "gdb-programs"
    root.mkdir(exist_ok=True)
    return lambda name, *flags: build(root, name, *flags)
