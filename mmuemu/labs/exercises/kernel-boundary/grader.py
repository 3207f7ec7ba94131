"""Grader: the kernel boundary."""

from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "starter"


@pytest.mark.points(1)
@pytest.mark.parametrize("name", "abcdef")
@pytest.mark.mmuemu(aslr=False)
def test_how_it_ends(lab, guest, name):
    """How the program ends"""
    answer = lab.answer(name).lstrip("#").upper()
    result = guest.run(guest.program(PROGRAMS / f"{name}.s"))
    refused = any(call.error == "EFAULT" for call in result.syscalls)
    right = result.fault.name.lstrip("#") if result.fault is not None else "EFAULT" if refused else "WORKS"
    assert answer == right, f"{name}: not so: run it"


FRAME = """
    .text
_start:
    mov eax, 9                      # mmap: a page that nobody may touch
    mov edi, 0x10000000
    mov esi, 0x2000
    xor edx, edx
    mov r10d, 0x32
    mov r8, -1
    xor r9d, r9d
    syscall
    mov [rip + lab_stack], rsp
    lea rbx, [rip + lab_addresses]
    lea rbp, [rip + lab_results]
    mov r12d, {count}
lab_next:
    mov rdi, [rbx]
    push rbx
    push rbp
    push r12
    call probe
    pop r12
    pop rbp
    pop rbx
    mov [rbp], rax
    add rbx, 8
    add rbp, 8
    dec r12d
    jnz lab_next
    mov eax, 1
    mov edi, 1
    lea rsi, [rip + lab_results]
    mov edx, {size}
    syscall
    mov eax, 60
    xor edi, edi
    syscall
    .data
lab_addresses: .quad {numbers}
lab_stack: .quad 0
lab_results: .zero {size}
"""


@pytest.fixture
def probe(lab):
    """What the answer's function says of addresses, and of the stack."""

    def run(*addresses):
        count = len(addresses) + 1
        numbers = ", ".join(hex(address) for address in addresses)
        frame = FRAME.format(count=count, size=8 * count, numbers=numbers)
        result = lab.run(lab.program("answer.s", frame))
        assert not result.faults, f"probe() faults: {result.faults[0]}"
        return lab.numbers(result, "probe", count)

    return run


@pytest.mark.points(2)
@pytest.mark.mmuemu(aslr=False, kpti=[False, True])
def test_probe(probe):
    """probe() knows what can be read, and does not fault"""
    cases = {
        0x401000: 1, 0: 0, 0x402000: 1, 0x10000000: 0, 0xFFFFFFFF80000000: 0, 0x800000000000: 0, 0x500000: 0,
        0xFFFF888000000000: 0, 0x402010: 1,
    }  # fmt: skip
    *found, stack = probe(*cases)
    for (address, right), said in zip(cases.items(), found, strict=True):
        assert said == right, f"probe({address:#x}) returned {said}, not {right}"
    assert stack == 1, f"probe() of the stack returned {stack}"
