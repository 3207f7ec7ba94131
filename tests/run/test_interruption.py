"""Being interrupted changes nothing: not one instruction is executed twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.harness import ENGINES, Programs, mmuemu


@pytest.mark.parametrize("engine", ENGINES)
def test_ticks_of_the_host(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, programs("ticks", "glibc-static"), cwd=tmp_path)
    assert (found.code, found.out) == (0, b"0 0\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_counted_slices(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, "--seed", "1", programs("ticks", "glibc-static"), cwd=tmp_path)
    assert (found.code, found.out) == (0, b"0 0\n")
