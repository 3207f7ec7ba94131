from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

if sys.platform != "linux" or shutil.which("gcc") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def compiled_guests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs of guest/ are compiled to, once for all parallel workers."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "hostile-guests"
    directory.mkdir(exist_ok=True)
    return directory
