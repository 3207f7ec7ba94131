"""Ways out of what was mounted: a program tries them, and neither sees nor changes what lies outside."""

from __future__ import annotations

import os

import pytest

from tests.hostile.host import everything
from tests.hostile.trial import compiled, emulate
from tests.run.harness import ENGINES


@pytest.mark.parametrize("engine", ENGINES)
def test_no_attempt_works(engine, tmp_path, compiled_guests):
    for name in ("rw", "ro", "outside", "work"):
        (tmp_path / name).mkdir()
    secret = tmp_path / "outside" / "name"
    secret.write_bytes(b"secret")
    (tmp_path / "ro" / "file").write_bytes(b"kept")
    for side in ("rw", "ro"):
        (tmp_path / side / "link").symlink_to(secret)
        (tmp_path / side / "directory").symlink_to(tmp_path / "outside")
    program = compiled("escape", compiled_guests)
    before = [everything(tmp_path / name) for name in ("outside", "ro")]
    descriptor = os.open(secret, os.O_RDWR)
    os.set_inheritable(descriptor, True)
    try:
        ending = emulate(
            "--mmu", engine, "--seed", "1", "--mount", f"{tmp_path}/rw:{tmp_path}/rw:rw",
            "--mount", f"{tmp_path}/ro:{tmp_path}/ro",
            program, tmp_path / "rw", tmp_path / "ro", tmp_path / "outside", secret, cwd=tmp_path / "work",
        )  # fmt: skip
    finally:
        os.close(descriptor)
    assert not ending.broke, ending.err
    *worked, tried = ending.out.splitlines()
    assert worked == []
    assert int(tried.split()[1]) > 3000
    assert [everything(tmp_path / name) for name in ("outside", "ro")] == before
    assert secret.read_bytes() == b"secret"
    assert secret.stat().st_nlink == (tmp_path / "ro" / "file").stat().st_nlink == 1
