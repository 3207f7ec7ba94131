"""C programs of four builds give the same bytes under ``mmuemu run`` as on the host."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.harness import Programs, Result, compare, host, mmuemu

NAMES = (
    "recursion", "mappings", "sparse", "heap", "files", "directories", "descriptors", "selfmodify", "floats",
    "algorithms", "start", "clocks",
)  # fmt: skip
ARGUMENTS = {"start": ["one", "", "two words", "--strace", "\xe9\xff"]}


def _runs() -> Iterator[tuple[str, str, str]]:
    """Each program in three of the four builds, and on both engines."""
    builds = ("glibc-static", "musl-static-pie", "glibc-static-pie", "musl-static")
    for position, name in enumerate(NAMES):
        for turn in range(3):
            yield name, builds[(position + turn) % 4], ("python", "native")[turn % 2]


@pytest.mark.parametrize(("name", "flavour", "engine"), list(_runs()))
def test_program(name: str, flavour: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    compare(programs(name, flavour), ARGUMENTS.get(name, []), engine, tmp_path)


@pytest.mark.parametrize(("flavour", "engine"), [("glibc-static", "python"), ("musl-static-pie", "native")])
def test_hundreds_of_mib(flavour: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    compare(programs("alloc", flavour), [], engine, tmp_path)


@pytest.mark.parametrize("engine", ["python", "native"])
@pytest.mark.parametrize(("steps", "pages"), [("2000", "20"), ("500", "90"), ("200", "550")])
@pytest.mark.parametrize("seed", ["3", "11", "12"])
def test_code_that_is_made_at_run_time(
    seed: str, steps: str, pages: str, engine: str, programs: Programs, tmp_path: Path
) -> None:
    """Pieces in pages whose rights come and go, shared and private, moved and copied: each call finds the last one."""
    found = compare(programs("jit", "glibc-static"), [seed, steps, pages], engine, tmp_path)
    assert found.out.endswith(b" 0 wrong\n")


ENDINGS = (
    "", "exit", "_exit", "abort", "raw", "smash", "ignored", "blocked", "sigpipe", "signal 9", "signal 15",
    "signal 11", "signal 17", "signal 34",
)  # fmt: skip


@pytest.mark.parametrize("how", ENDINGS)
def test_endings(how: str, programs: Programs, tmp_path: Path) -> None:
    index = ENDINGS.index(how)
    flavour = ("glibc-static", "musl-static")[index % 2]
    found = compare(programs("ending", flavour), how.split(), ("python", "native")[index // 2 % 2], tmp_path)
    assert len(found.ours) == (found.code > 128)


def _maps(result: Result, program: Path) -> list[str]:
    """The lines of /proc/self/maps but for the vDSO's and vsyscall's (which mmuemu has none of), then the rest."""
    assert result.code == 0, result.err
    lines = result.out.decode().replace(str(program), "PROGRAM").splitlines()
    return [line for line in lines if not re.search(r"\[(vvar|vdso|vsyscall)", line)]


def _shape(lines: list[str]) -> list[tuple[int, str, str]]:
    """Size, rights and name of every region, in order."""
    out = []
    for line in lines[:-1]:
        start, end, rights, rest = re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+) (\S+) (.*)", line).groups()
        out.append((int(end, 16) - int(start, 16), rights, " ".join(rest.split()[3:])))
    return out


@pytest.mark.parametrize("flavour", ["glibc-static", "glibc-static-pie", "musl-static", "musl-static-pie"])
def test_maps_without_randomization_are_linux_byte_for_byte(flavour: str, programs: Programs, tmp_path: Path) -> None:
    if shutil.which("setarch") is None:
        pytest.skip("no setarch")
    program = programs("selfmaps", flavour)
    expected = _maps(host(["setarch", "x86_64", "-R", program], cwd=tmp_path), program)
    assert _maps(mmuemu("--no-aslr", program, cwd=tmp_path), program) == expected


@pytest.mark.parametrize("flavour", ["glibc-static", "musl-static-pie"])
def test_maps_with_randomization_have_the_same_shape(flavour: str, programs: Programs, tmp_path: Path) -> None:
    program = programs("selfmaps", flavour)
    expected = _maps(host([program], cwd=tmp_path), program)
    first = _maps(mmuemu("--mmu", "native", program, cwd=tmp_path), program)
    second = _maps(mmuemu(program, cwd=tmp_path), program)
    assert _shape(first) == _shape(second)
    assert sorted(_shape(first)) == sorted(_shape(expected))
    assert first != second
