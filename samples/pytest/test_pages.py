"""Tests of a guest: run them with `python -m pytest samples/pytest` (docs/howto-pytest.md)."""

import pytest

from mmuemu.testing import assert_faults, assert_maps, assert_unwritable

STORE_TO_CODE = """
    _start:
        mov byte ptr [_start], 0x90
"""


@pytest.mark.mmuemu(mmu=["python", "native"])
def test_code_is_read_only(guest):
    program = guest.asm(STORE_TO_CODE)
    result = guest.run(program)
    start = program.address("_start")
    assert_faults(result, at=start, error="P|W|U", rule="read-only")
    assert_maps(result, start, "r-x")
    assert_unwritable(result, start)
