"""The vDSO: an ELF object that programs and C libraries find and use, as they do the host's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.run.harness import ENGINES, FLAVOURS, Programs, host, mmuemu


def shown(result) -> list[str]:
    """What the program said, without the column in which the name of a mapping stands."""
    return [re.sub(r" +", " ", line) for line in result.out.decode().splitlines()]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_programs_find_its_functions(programs: Programs, flavour: str, engine: str, tmp_path: Path) -> None:
    program = programs("vdso", flavour)
    expected, found = host([program], cwd=tmp_path), mmuemu("--mmu", engine, program, cwd=tmp_path)
    assert shown(found) == shown(expected), found.err
    assert found.code == 0
    assert "soname linux-vdso.so.1" in shown(found)


def test_ld_so_lists_it(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    source = Path(__file__).parent / "programs" / "vdso.c"
    subprocess.run([compiler, "-O1", "-w", source, "-o", tmp_path / "vdso"], check=True)
    found = mmuemu(tmp_path / "vdso", cwd=tmp_path)
    assert shown(found) == shown(host([tmp_path / "vdso"], cwd=tmp_path))
    assert "loaded linux-vdso.so.1: 1" in shown(found)


def test_it_is_mapped_as_the_hosts_and_read_only(programs: Programs, tmp_path: Path) -> None:
    program = programs("vdso", "glibc-static")
    expected, found = host([program, "maps"], cwd=tmp_path), mmuemu(program, "maps", cwd=tmp_path)
    assert found.code == expected.code == 139
    assert shown(found)[-1] == shown(expected)[-1] == " r-xp 00000000 00:00 0 [vdso]"


def test_unwinders_find_its_frames(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    (tmp_path / "unwind.c").write_text(r"""
        #include <dlfcn.h>
        #include <stdio.h>
        #include <sys/auxv.h>
        struct bases { void *text, *data, *function; };
        extern const void *_Unwind_Find_FDE(void *, struct bases *);
        int main(void) {
            char *base = (char *)getauxval(AT_SYSINFO_EHDR), *call = 0;
            struct bases bases;
            for (int i = 0; i < 0x1000 && !call; i++)
                if (base[i] == 0x0f && base[i + 1] == 0x05) call = base + i;
            const void *found = call ? _Unwind_Find_FDE(call, &bases) : 0;
            printf("%d %d\n", found != 0, found && (char *)bases.function <= call && (char *)bases.function > base);
            printf("%d\n", _Unwind_Find_FDE(base, &bases) == 0);
            return 0;
        }""")
    subprocess.run([compiler, "-w", tmp_path / "unwind.c", "-o", tmp_path / "unwind", "-lgcc_s"], check=True)
    assert mmuemu(tmp_path / "unwind", cwd=tmp_path).out == b"1 1\n1\n"
