from __future__ import annotations

import os
import sys

import pytest

from tests.boot.build import Kernels

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Compiles kernels, once for all parallel workers."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "boot-kernels"
    directory.mkdir(exist_ok=True)
    return Kernels(directory)
