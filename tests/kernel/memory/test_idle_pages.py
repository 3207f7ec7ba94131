"""Pages of files stay when the last process that maps them ends, as long as that is right."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from mmuemu.machine import Files, Machine

BUSY = "/bin/busybox"


@pytest.fixture
def place(tmp_path):
    if not os.path.exists(BUSY):
        pytest.skip("busybox is not here")
    shutil.copy(BUSY, tmp_path / "busybox")
    return tmp_path


def run(machine: Machine, place, *arguments: str) -> bytes:
    """Run it as the child of a shell: the memory of a process that was spawned stays to be looked at."""
    command = " ".join([str(place / "busybox"), *arguments])
    process = machine.spawn(BUSY, ["sh", "-c", f"{command}; exit $?"])
    assert process.wait(60).exit_code == 0
    return process.stdout


@pytest.mark.parametrize("mmu", ["python", "native"])
def test_a_program_that_starts_again_finds_its_pages(mmu, place):
    with Machine(mmu=mmu, seed=1, files=Files(mounts=[f"{place}:{place}"])) as machine:
        assert run(machine, place, "echo", "one") == b"one\n"
        kept = len(machine.kernel.idle_pages)
        assert kept > 10
        in_use = machine.kernel.frames.used
        assert run(machine, place, "echo", "two") == b"two\n"
        assert len(machine.kernel.idle_pages) >= kept
        assert machine.kernel.frames.used - in_use < kept
        assert machine.kernel.idle_pages.give_up()
        assert len(machine.kernel.idle_pages) == 0
        assert machine.kernel.frames.used < in_use
        assert not machine.kernel.idle_pages.give_up()
        assert run(machine, place, "echo", "three") == b"three\n"


def test_a_file_that_changed_is_read_anew(place):
    with Machine(seed=1, files=Files(mounts=[f"{place}:{place}"])) as machine:
        assert run(machine, place, "true") == b""
        time.sleep(0.01)
        content = (place / "busybox").read_bytes().replace(b"BusyBox v", b"FuzzyBox ")
        with open(place / "busybox", "r+b") as file:
            file.write(content)
        assert b"FuzzyBox" in run(machine, place, "--help")


def test_there_are_never_more_than_the_limit(place):
    with Machine(seed=1, memory=32 << 20, files=Files(mounts=[f"{place}:{place}"])) as machine:
        limit = machine.kernel.idle_pages.limit
        for _ in range(3):
            run(machine, place, "echo", "x")
            assert len(machine.kernel.idle_pages) <= limit
