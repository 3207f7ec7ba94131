"""What a program stored through a shared mapping is in the file, however the program ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.harness import Programs, mmuemu

ENDINGS = {"exits": (0, b"Jello"), "dies": (132, b"Jello"), "loops": (124, b"JEllo")}


@pytest.mark.parametrize("engine", ["python", "native"])
@pytest.mark.parametrize("how", list(ENDINGS))
def test_stores_reach_the_file(how: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"Hello")
    program = programs("shared", "musl-static")
    options = ("--mmu", engine, "--mount", f"{tmp_path}:/data:rw", "--max-instructions", "200000")
    found = mmuemu(*options, program, "/data/file", how, cwd=tmp_path)
    assert (found.code, (tmp_path / "file").read_bytes()) == ENDINGS[how]
