"""Grader: copy on write, by hand."""

import pytest

from mmuemu.mmu.state import Access, Translation
from mmuemu.testing import assert_readable, assert_unwritable, assert_writable

PARENT, CHILD, PAGES = 0x1000_0000, 0x2000_0000, 4

FRAME = """
    .text
_start:
    mov eax, 319                    # memfd_create
    lea rdi, [rip + lab_name]
    xor esi, esi
    syscall
    mov r12d, eax
    mov eax, 77                     # ftruncate
    mov edi, r12d
    mov esi, 0x4000
    syscall
    mov edi, 0x10000000
    call lab_map
    mov edi, 0x20000000
    call lab_map
    mov eax, 13                     # rt_sigaction
    mov edi, 11
    lea rsi, [rip + lab_action]
    xor edx, edx
    mov r10d, 8
    syscall
    xor eax, eax
lab_fill:                           # word N of the file is N + 1
    lea rcx, [rax + 1]
    mov [0x10000000 + 8 * rax], rcx
    inc eax
    cmp eax, 0x800
    jb lab_fill
    call share
{writes}
    mov eax, 60
    xor edi, edi
    syscall
lab_map:
    mov esi, 0x4000
    mov edx, 3
    mov r10d, 0x11                  # MAP_SHARED | MAP_FIXED
    mov r8d, r12d
    xor r9d, r9d
    mov eax, 9
    syscall
    ret
lab_restore:
    mov eax, 15                     # rt_sigreturn
    syscall
    .data
lab_action: .quad on_fault, 0x4000004, lab_restore, 0
lab_name: .asciz "memory"
"""


@pytest.fixture
def after(lab):
    def run(*writes):
        lines = [f"    mov edi, {at:#x}\n    mov qword ptr [rdi], {value}" for at, value in writes]
        reads = [f"    mov rax, [{view + 4096 * page:#x}]" for view in (PARENT, CHILD) for page in range(PAGES)]
        return lab.run(lab.program("answer.s", FRAME.format(writes="\n".join([*lines, *reads]))))

    return run


def frame(result, address):
    found = result.space.walk(address, Access.READ, user=True).result
    assert isinstance(found, Translation), f"{address:#x} cannot be read any more"
    return found.physical


def word(result, address):
    return int.from_bytes(result.process.read(address, 8), "little")


@pytest.mark.points(1)
def test_sharing(after):
    """Both views are read-only and have the same frames"""
    result = after()
    assert result.exit_code == 0, f"share() did not work: {result}"
    for page in range(PAGES):
        for view in (PARENT, CHILD):
            assert_readable(result, view + 4096 * page)
            assert_unwritable(result, view + 4096 * page)
        one, other = (frame(result, view + 4096 * page) for view in (PARENT, CHILD))
        assert one == other, f"page {page}: the parent has frame {one:#x}, the child {other:#x}"


@pytest.mark.points(2)
@pytest.mark.parametrize(("writer", "other"), [(CHILD, PARENT), (PARENT, CHILD)], ids=["child", "parent"])
def test_a_write(after, writer, other):
    """A write is seen by who wrote, and by nobody else"""
    result = after((writer + 0x1010, 77), (writer + 0x1018, 78))
    assert result.exit_code == 0, f"the write did not work: {result}"
    assert [word(result, writer + at) for at in (0x1010, 0x1018)] == [77, 78], "a write is lost"
    assert word(result, other + 0x1010) == 0x203, "the write shows in the other view: the page was not copied"
    for at in (0x1000, 0x1FF8):
        assert word(result, writer + at) == at // 8 + 1, f"the copy differs from the page at {at:#x}"
    assert frame(result, writer + 0x1000) != frame(result, other + 0x1000), "both views have the same frame"
    assert_writable(result, writer + 0x1000)
    assert len(result.faults) == 1, f"{len(result.faults)} faults for two writes to one page"


@pytest.mark.points(1)
def test_the_rest_stays_shared(after):
    """Pages that nobody wrote are not copied; both may write the same one"""
    result = after((CHILD + 0x3000, 5), (PARENT + 0x3000, 6))
    assert result.exit_code == 0, f"the writes did not work: {result}"
    assert (word(result, CHILD + 0x3000), word(result, PARENT + 0x3000)) == (5, 6), "a write is lost"
    for page in (0, 1, 2):
        assert frame(result, PARENT + 4096 * page) == frame(result, CHILD + 4096 * page), f"page {page} was copied"
        assert_unwritable(result, CHILD + 4096 * page)


@pytest.mark.points(1)
def test_a_mistake(after):
    """A fault elsewhere is exit(99)"""
    result = after((0x3000_0000, 1))
    assert result.exit_code == 99, f"a write to 0x30000000 ended with {result}"
