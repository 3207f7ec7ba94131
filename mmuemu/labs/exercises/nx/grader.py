"""Grader: the stack, NX, and why."""

import re

import pytest

from mmuemu.testing import assert_faults, assert_unexecutable

DATA_ONLY = re.compile(r"\s*(\w+\s*:)?\s*(\.(data|quad|zero|byte|space|skip|fill|balign|ascii)\b[^#]*)?(#.*)?$")
FRAME = """
    .text
_start:
    sub rsp, 0x200
    mov eax, 10                     # mprotect
    mov rdi, rsp
    and rdi, -4096
    mov esi, 4096
    mov edx, {prot}
    syscall
    xor edi, edi
    call lab_vulnerable
    mov eax, 60
    mov edi, 1
    syscall
lab_vulnerable:
    sub rsp, 64
    mov rdi, rsp
    lea rsi, [rip + payload]
    lea rcx, [rip + payload_end]
    sub rcx, rsi
    and ecx, 511
    rep movsb
    xor eax, eax
    xor edi, edi
    add rsp, 64
    ret
pop_rdi:
    pop rdi
    ret
pop_rax:
    pop rax
    ret
do_syscall:
    syscall
    ret
jump_rsp:
    jmp rsp
"""


@pytest.fixture
def run(lab):
    def with_stack(name, prot):
        return lab.run(lab.program(name, FRAME.format(prot=prot)))

    return with_stack


@pytest.mark.points(1)
def test_injected_code_runs(run):
    """Where the stack may be executed, the injected code does"""
    result = run("inject.s", 7)
    assert result.exit_code == 42, f"with an executable stack: {result}"


@pytest.mark.points(2)
def test_injected_code_dies(run):
    """On a real stack it faults, at the code on the stack"""
    result = run("inject.s", 3)
    fault = assert_faults(result, error="P|U|I", signal=11)
    assert "[stack]" in fault.region, f"it died elsewhere: {fault}"
    assert fault.rip == fault.address
    assert_unexecutable(result, fault.address)


@pytest.mark.points(2)
def test_answers(lab):
    """What the fault says"""
    bits = {bit.strip().upper() for bit in lab.answer("error code").split("|")}
    assert bits == {"P", "U", "I"}, "error code: was the page present? Was it a read, a write or a fetch? Which ring?"
    assert lab.answer("PTE bit").upper() == "NX", "PTE bit: which one forbids a fetch?"


@pytest.mark.points(3)
def test_rop(lab, run):
    """Code that is there already does it"""
    for line in lab.text("rop.s").splitlines():
        assert DATA_ONLY.match(line), f"rop.s: {line.strip()!r} is no data: bring addresses and numbers, no code"
    result = run("rop.s", 3)
    assert result.exit_code == 42, f"on a real stack: {result}"
