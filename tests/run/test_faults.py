"""Programs that die of an exception: the host's signal, and one readable line that says why."""

from __future__ import annotations

import io
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from mmuemu.machine import Machine
from mmuemu.view.fault import explain
from tests.run.harness import ENGINES, ENVIRONMENT, PROGRAMS, Programs, Result, host, mmuemu

CASES = tuple(re.findall(r"CASE\((\w+)\)", PROGRAMS.joinpath("faults.c").read_text()))[1:]

ENGINE_DIFFERENCES = {
    "int80": (139, b""),
    "unaligned_sse": (0, b"survived\n"),
    "sse_exception": (0, b"survived\n"),
}
"""What the emulated processor does otherwise: there is no 32-bit system-call gate, and the engine checks neither the
alignment of SSE operands nor unmasked SSE exceptions."""

EXPLANATIONS = {
    "null_read": r"SIGSEGV \(SEGV_MAPERR\): ring 3 tried to read 0x0, in the null page: .* error code 0x4\)",
    "null_call": r"tried to execute 0x0, in the null page",
    "read_only": r"SEGV_ACCERR\): ring 3 tried to write 0x[0-9a-f]+, in \S+faults-\S+ \(\S+ r--\): PTE is read-only",
    "no_execute": r"tried to execute .* PTE is not executable \(NX = 1\) \(#PF error code 0x15\)",
    "divide": r"SIGFPE \(FPE_INTDIV\): #DE .*: idiv ",
    "undefined": r"SIGILL \(ILL_ILLOPN\): #UD .*: ud2",
    "invalid": r"SIGILL .*: 06 .* \(no instruction\)",
    "cli": r"SIGSEGV \(SI_KERNEL\): #GP general protection, error code 0x0, in ring 3.*: cli",
    "interrupt": r"#GP general protection, error code 0x212",
    "non_canonical_push": r"SIGBUS \(SI_KERNEL\): #SS .*: push rax",
    "non_canonical_jump": r"at no canonical address",
    "kernel_read": r"tried to read 0xffff888000000000, in the kernel half: PML4E is ",
    "top_of_user": r"above the top of user space",
    "no_access": r"the region is PROT_NONE",
    "unmapped": r"in no region, 0x0 bytes past the end of anonymous memory",
    "past_end_of_file": r"SIGBUS \(BUS_ADRERR\).*in \S+/short .* beyond the end of the mapped file",
    "stack_overflow": r"below \[stack\] .*: the stack may not grow beyond its limit of 8192 KiB",
}


@cache
def _on_host(program: Path, case: str, cwd: Path) -> Result:
    return host([program, case], cwd=cwd)


def _run(program: Path, case: str, engine: str, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bytes, str]:
    """Exit code, standard output and explanation of one death."""
    monkeypatch.chdir(cwd)
    out = io.BytesIO()
    with Machine(mmu=engine, seed=1) as machine, open("/dev/null", "rb") as nothing:
        machine.load(str(program), [str(program), case], ENVIRONMENT, stdin=nothing, stdout=out)
        outcome = machine.run(timeout=30)
        assert machine.task is not None
        why = explain(machine.kernel, machine.task) if machine.task.death is not None else ""
    return int(outcome.exit_code), out.getvalue(), why


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_death(case: str, engine: str, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = programs("faults", "glibc-static" if CASES.index(case) % 2 else "musl-static")
    code, out, why = _run(program, case, engine, tmp_path, monkeypatch)
    if case in ENGINE_DIFFERENCES:
        expected, more = ENGINE_DIFFERENCES[case]
        assert (code, out) == (expected, f"about to die: {case}\n".encode() + more)
        return
    on_host = _on_host(program, case, tmp_path)
    assert on_host.code > 128
    assert (code, out) == (on_host.code, on_host.out)
    assert "\n" not in why
    assert re.search(EXPLANATIONS.get(case, "ring 3"), why), why


def test_every_case_dies_on_the_host_and_is_listed(programs: Programs) -> None:
    program = programs("faults", "glibc-static")
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout.split() == list(CASES)
    assert set(EXPLANATIONS) | set(ENGINE_DIFFERENCES) <= set(CASES)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_line_says_it_in_one_line(engine: str, programs: Programs, tmp_path: Path) -> None:
    program = programs("faults", "glibc-static")
    found = mmuemu("--mmu", engine, program, "null_read", cwd=tmp_path)
    assert found.code == 139
    (line,) = found.err.decode().splitlines()
    assert line.startswith(f"mmuemu: {program}: SIGSEGV")
    assert re.search(r"at 0x[0-9a-f]+: mov ", line)


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_that_runs_out_kills_the_guest_and_not_the_host(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, "--memory", "8M", programs("sparse", "musl-static"), cwd=tmp_path)
    assert found.code == 137
    assert "out of memory: all 8 MiB of guest memory are in use (--memory)" in found.ours[0]
