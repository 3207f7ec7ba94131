"""Grader: demand paging, by hand."""

import pytest

from mmuemu.testing import assert_readable, assert_unreadable, assert_writable

REGION, PAGES = 0x1000_0000, 16

FRAME = """
    .text
_start:
    mov eax, 9                      # mmap
    mov edi, 0x10000000
    mov esi, 0x10000
    xor edx, edx                    # PROT_NONE
    mov r10d, 0x32                  # MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
    mov r8, -1
    xor r9d, r9d
    syscall
    mov eax, 13                     # rt_sigaction
    mov edi, 11
    lea rsi, [rip + lab_action]
    xor edx, edx
    mov r10d, 8
    syscall
{touches}
    mov eax, 60
    xor edi, edi
    syscall
lab_restore:
    mov eax, 15                     # rt_sigreturn
    syscall
    .data
lab_action: .quad on_fault, 0x4000004, lab_restore, 0
"""


@pytest.fixture
def touch(lab):
    def run(*touches):
        text = "\n".join(f"    {each}" for each in touches)
        return lab.run(lab.program("answer.s", FRAME.format(touches=text)))

    return run


def read(page, offset=0):
    return f"mov rax, [{REGION + 4096 * page + offset:#x}]"


@pytest.mark.points(3)
def test_pages_appear(touch):
    """A page that is touched is there, and holds its number"""
    result = touch(read(3), read(7, 0x123), f"mov qword ptr [{REGION + 4096 * 15 + 8:#x}], 5", read(0))
    assert result.exit_code == 0, f"touching pages 3, 7, 15 and 0 did not work: {result}"
    for page in (3, 7, 15, 0):
        assert_writable(result, REGION + 4096 * page)
        found = int.from_bytes(result.process.read(REGION + 4096 * page, 8), "little")
        assert found == page, f"page {page} begins with {found}"
    assert result.process.read(REGION + 4096 * 15 + 8, 8)[0] == 5, "the write that faulted was not done again"


@pytest.mark.points(2)
def test_only_those(touch):
    """Pages that nobody touched are not there; each page faults once"""
    result = touch(read(2), read(2, 8), read(9), read(2), read(9, 4088))
    assert result.exit_code == 0, f"touching pages 2 and 9 did not work: {result}"
    for page in range(PAGES):
        (assert_readable if page in (2, 9) else assert_unreadable)(result, REGION + 4096 * page)
    assert len(result.faults) == 2, f"{len(result.faults)} faults for two pages"


@pytest.mark.points(1)
@pytest.mark.parametrize("where", [REGION - 8, REGION + 0x10000, 0], ids=["before", "behind", "null"])
def test_a_mistake(touch, where):
    """A fault elsewhere is exit(99)"""
    result = touch(read(1), f"mov eax, {where:#x}", "mov rax, [rax]")
    assert result.exit_code == 99, f"a read of {where:#x} ended with {result}"
