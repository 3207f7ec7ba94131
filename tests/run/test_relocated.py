"""Programs that bring neither a dynamic linker nor start-up code that relocates: the loader does it for them.

There is no host run to compare with: Linux relocates nothing, and such a program crashes there.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.run.harness import PROGRAMS, mmuemu

FLAGS = ["-O1", "-nostdlib", "-nostartfiles", "-ffreestanding", "-fno-stack-protector"]
KINDS = {
    "RELATIVE and IRELATIVE": ["-static-pie"],
    "RELR and IRELATIVE": ["-static-pie", "-Wl,-z,pack-relative-relocs"],
    "IRELATIVE at fixed addresses": ["-static", "-no-pie"],
}


@pytest.mark.parametrize("engine", ["python", "native"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_it_runs_relocated(kind: str, engine: str, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    program = tmp_path / "unrelocated"
    command = [compiler, *FLAGS, *KINDS[kind], "-o", str(program), str(PROGRAMS / "unrelocated.c")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "pack-relative-relocs" in done.stderr:
        pytest.skip("the linker packs no relative relocations")
    assert done.returncode == 0, done.stderr
    found = mmuemu("--mmu", engine, program, cwd=tmp_path)
    assert (found.out, found.err, found.code) == (b"pointer ok\nifunc ok\n", b"", 7)


def test_the_same_program_crashes_on_the_host(tmp_path: Path) -> None:
    """So the test above cannot pass by the program relocating itself."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    program = tmp_path / "unrelocated"
    command = [compiler, *FLAGS, "-static-pie", "-o", str(program), str(PROGRAMS / "unrelocated.c")]
    subprocess.run(command, check=True)
    assert subprocess.run([program], capture_output=True).returncode < 0
