"""Where the tracer finds the guest's memory: it remembers where page tables lie."""

from __future__ import annotations

import pytest

from mmuemu.machine import Machine
from mmuemu.sources import assemble
from mmuemu.view.strace import Strace

SOURCE = """
_start: mov r15d, 3
        mov r13d, 0x30000000
again:  mov r12d, 0x10000000
        call map
        mov edi, 1
        mov rsi, r12
        mov edx, 1
        mov eax, 1
        syscall
        mov rdi, r12
        mov esi, 4096
        mov eax, 11
        syscall
        mov r12d, r13d
        call map
        mov qword ptr [r12], 7
        add r13d, 0x200000
        dec r15
        jnz again
        mov edi, 0
        mov eax, 231
        syscall
map:    mov rdi, r12
        mov esi, 4096
        mov edx, 3
        mov r10d, 0x32
        mov r8d, -1
        xor r9d, r9d
        mov eax, 9
        syscall
        lea eax, [r15 + 'a']
        mov [r12], al
        ret
"""
"""The frame of a table that has gone becomes a page whose first word reads like an entry."""


@pytest.mark.parametrize("mmu", ["python", "native"])
def test_tables_that_go_are_looked_for_again(mmu: str) -> None:
    lines: list[str] = []
    with Machine(seed=1, memory="64M", mmu=mmu) as machine:
        machine.kernel.tracer = Strace(lines.append, direct=True)
        machine.spawn(assemble(SOURCE, "places.s"), ["places"], {})
        assert machine.run().exit_code == 0
    assert [line.split('"')[1] for line in lines if line.startswith("write(")] == ["d", "c", "b"]
