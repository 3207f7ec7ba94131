from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.run.harness import Programs

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Compiles programs, once for all parallel workers."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "run-programs"
    directory.mkdir(exist_ok=True)
    return Programs(directory)


@pytest.fixture(scope="session")
def busybox() -> Path:
    """The host's statically linked busybox."""
    path = Path("/bin/busybox")
    if not path.exists():
        pytest.skip("busybox is not here")
    if b"ld-linux" in path.read_bytes()[:4096]:
        pytest.skip("busybox is not static")
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path
