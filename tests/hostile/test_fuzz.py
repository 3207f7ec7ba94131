"""Random system calls: the machine lives, and nothing outside what was mounted changes."""

from __future__ import annotations

import pytest

from tests.hostile.host import everything
from tests.hostile.trial import fuzz


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
