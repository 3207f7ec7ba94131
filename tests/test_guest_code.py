"""The guest code in the package is what its sources say."""

from __future__ import annotations

import pytest

from mmuemu.guest.build import IMAGES, SOURCES, assemble_functions, build, load


@pytest.mark.parametrize("name", [*SOURCES, *IMAGES])
def test_built_bytes_match_the_source(name):
    assert load(name) == build(name)


@pytest.mark.parametrize("name", [*SOURCES, *IMAGES])
def test_guest_code_is_position_independent_or_absolute_on_purpose(name):
    import capstone
    from capstone import x86

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    code = b"".join(assemble_functions(name).values()) if name in IMAGES else load(name)
    for instruction in engine.disasm(code, 0):
        for operand in instruction.operands:
            if operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP:
                pytest.fail(
                    f"{name}: {instruction.mnemonic} {instruction.op_str} (Keystone's silent RIP-relative form)"
                )
