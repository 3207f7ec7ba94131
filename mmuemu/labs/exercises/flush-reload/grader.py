"""Grader: Flush+Reload."""

import pytest

from mmuemu.labs.receiver import TABLE

pytestmark = pytest.mark.mmuemu(cpu="skylake")

FRAME = (
    """
    .text
_start:
"""
    + TABLE
    + """\
    call spy
    mov [rip + lab_result], rax
    mov eax, 1
    mov edi, 1
    lea rsi, [rip + lab_result]
    mov edx, 8
    syscall
    mov eax, 60
    xor edi, edi
    syscall
victim:
{victim}
    mov edx, 0x5eed
    xor ecx, ecx
    xor eax, eax
    ret
    .data
lab_result: .quad 0
"""
)
TOUCH = "    mov ecx, {key}\n    xor ecx, {masked}\n    shl ecx, 12\n    mov al, [0x10000000 + rcx]"


def spied(lab, victim):
    result = lab.run(lab.program("answer.s", FRAME.format(victim=victim)))
    return lab.numbers(result, "spy", 1)[0]


@pytest.mark.points(2)
@pytest.mark.parametrize("line", [0, 83, 254], ids=["first", "second", "third"])
def test_the_line_is_found(lab, line):
    """The line that the victim touched is found"""
    found = spied(lab, TOUCH.format(key=0x2A91, masked=0x2A91 ^ line))
    assert found == line, f"spy() returned {found}, the victim touched line {line}"
    assert spied(lab, "    nop") == -1, "spy() finds a line although the victim touched none"


@pytest.mark.points(2)
def test_silence(lab):
    """A victim that touches nothing is told from one that does"""
    assert spied(lab, "    nop") == -1, "spy() finds a line although the victim touched none"
    assert spied(lab, TOUCH.format(key=7, masked=7 ^ 200)) == 200, "spy() does not find a line that was touched"
