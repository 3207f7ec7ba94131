"""Random system calls: the machine lives, and nothing outside what was mounted changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hostile.trial import fuzz


def everything(top: Path) -> dict[str, tuple[int, int, int]]:
    """Each file under ``top`` by name: its kind and rights, size and time of change."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            st = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (st.st_mode, st.st_size, st.st_mtime_ns)
    return found


@pytest.mark.parametrize(("seed", "engine"), [(1, "python"), (2, "native")])
def test_random_calls(seed, engine, tmp_path):
    bystanders = tmp_path / "bystanders"
    bystanders.mkdir()
    (bystanders / "f").write_bytes(b"untouched")
    (bystanders / "link").symlink_to("f")
    before = everything(bystanders)
    ending = fuzz(seed, 4000, tmp_path, "--mmu", engine)
    assert not ending.broke, ending.err
    assert ending.code == 0, ending.err[-2000:]
    assert int(ending.out.split()[0]) >= 4000
    assert ending.peak < 500
    assert everything(bystanders) == before
