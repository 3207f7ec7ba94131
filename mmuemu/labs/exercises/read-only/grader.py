"""Grader: make a page read-only."""

import pytest

from mmuemu.testing import assert_faults, assert_maps, assert_readable, assert_unwritable, assert_writable

FRAME = """
    .text
_start:
    call protect
{tried}
    mov eax, 60
    xor edi, edi
    syscall
    .data
    .balign 4096
before: .quad 7
    .balign 4096
page: .quad 1
    .balign 4096
after: .quad 9
    .zero 4088
"""


@pytest.fixture
def attempt(lab):
    """Run protect(), and then some code."""

    def run(tried=""):
        result = lab.run(lab.program("answer.s", FRAME.format(tried=tried)))
        return result, result.program.address("page")

    return run


@pytest.mark.points(1)
def test_the_number_is_there(attempt):
    """protect() stores 42 and returns"""
    result, page = attempt()
    assert result.fault is None, f"it faults: {result.fault}"
    assert int.from_bytes(result.process.read(page, 8), "little") == 42, "the number at `page` is not 42"


@pytest.mark.points(2)
def test_it_cannot_be_written(attempt):
    """The page is read-only"""
    result, page = attempt()
    assert_maps(result, page, "r--p")
    assert_readable(result, page)
    assert_unwritable(result, page)
    assert_unwritable(result, page + 4088)
    wrote, _ = attempt("    mov qword ptr [rip + page], 0")
    assert_faults(wrote, at=page, error="P|W|U", signal=11)


@pytest.mark.points(1)
def test_the_neighbours_can(attempt):
    """The pages beside it are writable, and the page is not"""
    result, page = attempt("    inc qword ptr [rip + before]\n    inc qword ptr [rip + after]")
    assert result.fault is None, f"a neighbour cannot be written: {result.fault}"
    assert_writable(result, page - 4096)
    assert_writable(result, page + 4096)
    assert_unwritable(result, page)


@pytest.mark.points(2)
def test_answers(lab):
    """What the fault says"""
    bits = {bit.strip().upper() for bit in lab.answer("error code").split("|")}
    assert bits == {"P", "W", "U"}, "error code: was the page present? What was tried? In which ring?"
    assert lab.answer("PTE bit").upper().replace("/", "") == "RW", "PTE bit: compare the walk before and after mprotect"
