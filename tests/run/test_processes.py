"""Processes: the same binary makes them on the host and under mmuemu, and both print the same."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.run.harness import ENGINES, Programs, compare, mmuemu

MODES = {
    "processes": ("forks", "many", "statuses", "waits", "zombies", "orphans", "groups", "numbers", "usage"),
    "executes": ("scripts", "errors", "kept", "relative", "thread", "vforks", "repeat"),
    "clones": ("sharing", "parents", "settings", "threads", "errors", "clearing", "oddsignals", "exitsignals"),
}
CASES = [(name, mode) for name, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_as_on_the_host(name: str, mode: str, programs: Programs, tmp_path: Path) -> None:
    if os.geteuid() != 0 and name == "executes" and mode == "errors":
        pytest.skip("permissions of the host's user differ")
    index = CASES.index((name, mode))
    compare(programs(name), [mode], ENGINES[index % 2], tmp_path)


@pytest.mark.parametrize("schedule", ["1", "2", "3"])
def test_under_other_schedules(schedule: str, programs: Programs, tmp_path: Path) -> None:
    for mode in ("forks", "many", "orphans"):
        compare(programs("processes"), [mode], "native", tmp_path / mode, options=["--seed", schedule])


@pytest.mark.parametrize("mode", ["forks", "sharing"])
def test_a_seed_repeats_a_run(mode: str, programs: Programs, tmp_path: Path) -> None:
    program = programs("processes" if mode == "forks" else "clones")
    runs = [mmuemu("--seed", "7", "--strace", program, mode, cwd=tmp_path) for _ in range(2)]
    assert runs[0].code == 0
    assert len(runs[0].err.splitlines()) > 50
    assert runs[0] == runs[1]


@pytest.mark.parametrize("seed", ["1", "3"])
def test_a_window_sees_a_page_that_was_copied_meanwhile(seed: str, programs: Programs, tmp_path: Path) -> None:
    """Copy on write replaces a translation without a flush, and CR3 is loaded without mmuemu: a window that went by
    what it had seen before put the old page back."""
    script = "fcaFdawcakbekbfkabpbdwcewcdrbdwccpcb"
    options = ("--cpu", "skylake", "--mitigations", "off", "--kpti", "--seed", seed)
    found = mmuemu(*options, programs("memory_script"), script, cwd=tmp_path)
    assert (found.code, found.err) == (0, b"")


def pressed(programs: Programs, cwd: Path, *arguments: str, memory: str = "64M", most: int = 200, code: int = 0):
    found = mmuemu("--memory", memory, "--max-processes", str(most), programs("pressure"), *arguments, cwd=cwd)
    assert found.code == code, found.err
    return found


def killed(line: str) -> int:
    """The pages in mmuemu's line on a process that it killed."""
    found = re.fullmatch(
        r"mmuemu: out of memory \(64 MiB, --memory\): killed process \d+ \(\S*/pressure-glibc-static\), (\d+) pages",
        line,
    )
    assert found, line
    return int(found[1])


class TestMemoryThatRunsOut:
    def test_the_largest_dies_and_the_others_go_on(self, programs: Programs, tmp_path: Path) -> None:
        found = pressed(programs, tmp_path, "hogs")
        assert found.out.split() == b"large 0x9 small 0x100 middle 0x200".split()
        assert killed(found.ours[0]) > 8_000
        assert len(found.ours) == 1

    def test_inside_a_system_call(self, programs: Programs, tmp_path: Path) -> None:
        found = pressed(programs, tmp_path, "call")
        assert found.out == b"child 0x9\n"
        assert killed(found.ours[0]) > 15_000

    def test_who_offers_itself_dies_first(self, programs: Programs, tmp_path: Path) -> None:
        found = pressed(programs, tmp_path, "adjusted", memory="40M")
        assert found.out == b"adjustment 900\nstill here\noffered: 1\n"
        assert "40 MiB" in found.ours[0]

    def test_copies_cost_when_they_are_written(self, programs: Programs, tmp_path: Path) -> None:
        assert pressed(programs, tmp_path, "copies").out == b"child 0, mine 1\n"
        found = pressed(programs, tmp_path, "copies", memory="40M")
        assert found.out == b"child 0x9, mine 1\n"

    def test_the_first_process_itself(self, programs: Programs, tmp_path: Path) -> None:
        found = pressed(programs, tmp_path, "adjusted", memory="32M", code=137)
        assert re.search(
            r"out of memory: all 32 MiB of guest memory are in use \(--memory\), \d+ pages", found.ours[-1]
        )

    def test_obvious_overcommits_are_refused(self, programs: Programs, tmp_path: Path) -> None:
        lines = pressed(programs, tmp_path, "overcommit").out.decode().splitlines()
        refused = [line for line in lines if "mapped" not in line]
        assert refused == ["65 MiB: Cannot allocate memory", "1048576 MiB: Cannot allocate memory", "mode 0"]
        assert len(lines) == 13


class TestBombs:
    def test_forks(self, programs: Programs, tmp_path: Path) -> None:
        found = pressed(programs, tmp_path, "forks")
        refused = "then Resource temporarily unavailable"
        assert found.out.decode().splitlines() == [f"199 forks, {refused}", "again 1", f"199 zombies, {refused}"]

    def test_a_limit_of_the_guest_itself(self, programs: Programs, tmp_path: Path) -> None:
        assert pressed(programs, tmp_path, "limit").out.startswith(b"29 forks, then Resource temporarily")

    def test_everybody_forks(self, programs: Programs, tmp_path: Path) -> None:
        assert pressed(programs, tmp_path, "bomb").err == b""

    def test_threads(self, programs: Programs, tmp_path: Path) -> None:
        assert pressed(programs, tmp_path, "threads").out == b"199 threads, then Resource temporarily unavailable\n"

    def test_areas(self, programs: Programs, tmp_path: Path) -> None:
        assert pressed(programs, tmp_path, "areas").out == b"more than 65000: 1, then Cannot allocate memory\n"

    def test_descriptors(self, programs: Programs, tmp_path: Path) -> None:
        lines = pressed(programs, tmp_path, "descriptors").out.decode().splitlines()
        assert lines == ["1021 more, then Too many open files", "pipe: Too many open files"]
