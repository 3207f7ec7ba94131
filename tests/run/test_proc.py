"""/proc says of a program what the host's says of the same program, where that can be compared."""

from __future__ import annotations

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
