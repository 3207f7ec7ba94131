"""/proc says of a program what the host's says of the same program, where that can be compared."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.run.harness import Programs, compare, mmuemu


@pytest.mark.parametrize(
    ("flavour", "engine"), [("glibc-static", "python"), ("musl-static-pie", "native"), ("glibc-static-pie", "native")]
)
def test_proc_self(flavour: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    compare(programs("procself", flavour), ["one", "two"], engine, tmp_path)


def test_kernel_symbols_are_for_root_only(programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("/bin/busybox", "cat", "/proc/kallsyms", cwd=tmp_path)
    assert found.code == 0
    addresses = {line.split()[0] for line in found.out.splitlines()}
    assert addresses == {b"0" * 16}
    assert b" T entry_SYSCALL_64\n" in found.out


PAGEMAP = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct stat own, program;
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (pread(fd, &entry, 8, (uintptr_t)&entry / 4096 * 8) != 8) return 1;
    creat("/tmp/mine", 0600);
    stat("/tmp/mine", &own);
    stat(argv[0], &program);
    printf("%d %d %lu %lu %d %d ", getuid(), getegid(), getauxval(AT_UID), getauxval(AT_EGID), own.st_uid, own.st_gid);
    printf("%d %d\n", program.st_uid, (entry & ((1ull << 54) - 1)) != 0);
    return 0;
}
"""


@pytest.mark.parametrize(
    ("option", "expected"),
    [(None, "1000 1000 1000 1000 1000 1000 1000 0"), ("0", "0 0 0 0 0 0 0 1"), ("7:8", "7 8 7 8 7 8 7 0")],
)
def test_who_the_program_runs_as(option: str | None, expected: str, tmp_path: Path) -> None:
    source = tmp_path / "who.c"
    source.write_text(PAGEMAP)
    compiled = tmp_path / "who"
    subprocess.run(["gcc", "-static", "-O1", "-w", str(source), "-o", str(compiled)], check=True)
    options = [] if option is None else ["--user", option]
    found = mmuemu(*options, str(compiled), cwd=tmp_path)
    assert (found.code, found.out.decode()) == (0, expected + "\n")


def test_root_sees_where_the_kernel_is(tmp_path: Path) -> None:
    found = mmuemu("--user", "0", "/bin/busybox", "sh", "-c", "id -un; cat /proc/kallsyms", cwd=tmp_path)
    lines = found.out.decode().splitlines()
    assert lines[0] == "root"
    entry = next(int(line.split()[0], 16) for line in lines if line.endswith("entry_SYSCALL_64"))
    assert entry >> 47 == 0x1FFFF


@pytest.mark.parametrize("text", ["", "root", "-1", "0:", ":0", "1:2:3", "4294967295"])
def test_users_are_numbers(text: str, tmp_path: Path) -> None:
    found = mmuemu(f"--user={text}", "/bin/busybox", "true", cwd=tmp_path)
    assert found.code != 0
    assert b"not a user number" in found.err
