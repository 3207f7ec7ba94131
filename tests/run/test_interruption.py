"""Being interrupted changes nothing: not one instruction is executed twice."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.run.harness import ENGINES, Programs, command_line, compare, emulator_environment, mmuemu


@pytest.mark.parametrize("engine", ENGINES)
def test_ticks_of_the_host(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, programs("ticks", "glibc-static"), cwd=tmp_path)
    assert (found.code, found.out) == (0, b"0 0\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_counted_slices(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, "--seed", "1", programs("ticks", "glibc-static"), cwd=tmp_path)
    assert (found.code, found.out) == (0, b"0 0\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_code_that_ran_alone_is_counted_from_the_first_timer_on(
    engine: str, programs: Programs, tmp_path: Path
) -> None:
    compare(programs("spins"), ["timer"], engine, tmp_path, options=["--seed", "1"])


@pytest.mark.parametrize("options", [("--mmu", "python"), ("--mmu", "native"), ("--seed", "1")])
def test_sigint_comes_between_two_instructions(options: tuple[str, ...], programs: Programs, tmp_path: Path) -> None:
    """The terminal's SIGINT finds the program in ring 3; it goes on where it was."""
    with subprocess.Popen(
        command_line(*options, programs("spins"), "signal"),
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=emulator_environment(),
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline()]
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            lines += process.communicate(timeout=30)[0].splitlines(True)
        finally:
            process.kill()
    assert lines == [b"spins\n", b"lost 0 begun 1 ended by 2\n"]
    assert process.returncode == 0
