"""Grader: mitigations."""

import re

import pytest

from mmuemu.guest.attacks import ATTACKS
from mmuemu.testing import assert_no_leak

SERIALIZING = re.compile(
    r"\b(?:[lms]fence|cpuid|iretq?|serialize|wrmsr|rsm|lock|syscall|rdtscp)\b|\.\w*(?:byte|word|long|quad|octa)\b"
)
CALLS = (0, 1, 15, 16, 64, 1 << 63, (1 << 64) - 1)

DATA = """
    .data
size: .quad 16
array: .byte 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3
    .zero 48
secret: .zero 64
    .balign 4096
table:
"""
FRAME = """
    .text
_start:
{calls}
    mov eax, 1
    mov edi, 1
    lea rsi, [rip + lab_results]
    mov edx, {size}
    syscall
    mov eax, 60
    xor edi, edi
    syscall
    .data
lab_results: .zero {size}
"""
TABLE = DATA + "\n".join(f".byte {value + 100}\n.zero 63" for value in range(10)) + "\n.zero 15744\n"


def check(lab, guest, name):
    """The function does what it did, and leaks nothing."""
    calls = "\n".join(
        f"    mov rdi, {index:#x}\n    call lookup\n    mov [rip + lab_results + {8 * n}], rax"
        for n, index in enumerate(CALLS)
    )
    program = lab.program(name, FRAME.format(calls=calls, size=8 * len(CALLS)) + TABLE)
    result = lab.run(program)
    assert result.fault is None, f"lookup() faults: {result.fault}"
    for n, index in enumerate(CALLS):
        found = int.from_bytes(result.stdout[8 * n : 8 * n + 8], "little", signed=True)
        right = 100 + (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3)[index] if index < 16 else -1
        assert found == right, f"lookup({index:#x}) returns {found}, not {right}"
    alone = lab.program(name, "    .text\n_start:\n    mov eax, 60\n    syscall\n" + TABLE)
    report = guest.leaks(alone, "secret", b"\x05", b"\x2a", function="lookup", calls=[(64,)])
    assert_no_leak(report)


@pytest.mark.points(4)
@pytest.mark.mmuemu(cpu="skylake")
def test_fence(lab, guest):
    """fence.s is right and leaks nothing"""
    check(lab, guest, "fence.s")


@pytest.mark.points(4)
@pytest.mark.mmuemu(cpu="skylake")
def test_mask(lab, guest):
    """mask.s is right and leaks nothing, without a fence"""
    code = "\n".join(line.partition("#")[0] for line in lab.text("mask.s").splitlines())
    fence = SERIALIZING.search(code.lower())
    assert fence is None, f"mask.s has {fence[0]}: do it with arithmetic alone"
    check(lab, guest, "mask.s")


@pytest.mark.points(1)
@pytest.mark.parametrize("attack", ["v1-kernel", "v2-kernel", "v2-cross", "v4", "meltdown", "l1tf", "mfbds"])
def test_answers(lab, attack):
    """What stops it"""
    given = lab.answer(attack).lower()
    assert given in ATTACKS[attack].stopped_by, (
        f"{attack}: {given} does not: mmuemu demo {attack} --mitigations {given}"
    )
