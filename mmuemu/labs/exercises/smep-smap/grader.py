"""Grader: SMEP and SMAP."""

import pytest

from mmuemu.testing import assert_faults

USER, KERNEL = 0x50_0000, 0xFFFF_8000_0000_0000
TEXT = b"what the user wrote"
BITS, AC = 0x30_0000, 1 << 18

FRAME = """
    .text
_start:
    mov rbx, cr4
{code}
end:
    nop
    hlt
    .data
lab_target: .zero 64
"""
OFF = "    and rbx, ~0x300000\n    mov cr4, rbx\n    mov rbx, cr4\n"


@pytest.fixture
def ring0(lab, bare):
    """Run code with the answer in ring 0."""

    def run(code):
        program = lab.program("answer.s", FRAME.format(code=OFF + code))
        if not getattr(run, "mapped", False):
            bare.map(USER, TEXT + bytes(4096 - len(TEXT)), "rwx", user=True)
            bare.map(0x7FFF_FFFF_F000, b"the last page".ljust(4096, b"!"), "rw", user=True)
            bare.map(KERNEL, b"the kernel's own".ljust(4096, b"."), "rw", user=False)
            run.mapped = True
        result = bare.run(program, ring=0, max_instructions=100_000)
        assert result.stop != "limit", "it does not end: stopped after 100000 instructions"
        return result, program

    return run


def target(bare, program, size):
    walked = bare.translate(program.address("lab_target"), user=False)
    return bare.attachment.ram.read(walked.physical, size)


def no_fault(result):
    assert result.fault is None, f"it faults: {result.fault}"


@pytest.mark.points(2)
def test_harden(ring0):
    """SMEP and SMAP are on, and nothing else has changed"""
    result, _ = ring0("    call harden\n    mov rcx, cr4")
    no_fault(result)
    before, after = result.registers["rbx"], result.registers["rcx"]
    assert after & BITS == BITS, f"CR4 is {after:#x}: SMEP (bit 20) or SMAP (bit 21) is off"
    assert after & ~BITS == before & ~BITS, f"CR4 was {before:#x} and is {after:#x}: other bits have changed"


SMAP_ON = "    or rbx, 0x300000\n    mov cr4, rbx\n"


def copy(source, size):
    return SMAP_ON + (
        f"    lea rdi, [rip + lab_target]\n    mov rsi, {source:#x}\n    mov rdx, {size:#x}\n    call copy_from_user\n"
        "    mov r15, rax\n    pushfq\n    pop r14\n    mov r13, cr4"
    )


@pytest.mark.points(3)
def test_copy(ring0, bare):
    """copy_from_user copies with SMAP on, and leaves AC clear"""
    result, program = ring0(copy(USER, len(TEXT)))
    no_fault(result)
    assert result.registers["r15"] == 0, f"copy_from_user returned {result.registers['r15']:#x}, not 0"
    assert target(bare, program, len(TEXT) + 1) == TEXT + b"\0", "what arrived is not what the user wrote"
    assert not result.registers["r14"] & AC, "EFLAGS.AC is 1 on return: the door stays open"
    assert result.registers["r13"] & BITS == BITS, "SMEP or SMAP is off after the copy: that is not what stac is for"


@pytest.mark.points(2)
def test_whose_pointer(ring0, bare):
    """copy_from_user refuses what is not the user's"""
    for source, size in ((KERNEL, 16), (0x7FFF_FFFF_FFF8, 16), (USER, 0xFFFF_FFFF_FFFF_FFFF), (1 << 47, 1)):
        result, program = ring0(copy(source, size))
        no_fault(result)
        found = result.registers["r15"]
        assert found == (1 << 64) - 14, f"{size:#x} bytes from {source:#x}: returned {found:#x}, not -14"
        assert target(bare, program, 16) == bytes(16), f"{size:#x} bytes from {source:#x}: something was copied"
    result, _ = ring0(copy(0x7FFF_FFFF_FFF0, 16))
    no_fault(result)
    assert result.registers["r15"] == 0, "the last 16 bytes of the user's half are the user's"


@pytest.mark.points(1)
@pytest.mark.parametrize(("what", "code"), [("jump", "jmp rax"), ("read", "mov rcx, [rax]")], ids=["jump", "read"])
def test_answers(lab, bare, what, code):
    """What the error codes say"""
    bare.map(USER, b"\x90" * 4096, "rwx", user=True)
    result = bare.run(f"mov rax, cr4\nor rax, 0x300000\nmov cr4, rax\nmov eax, {USER}\n{code}", ring=0)
    fault = assert_faults(result, at=USER)
    given = {bit.strip().upper() for bit in lab.answer(f"error code of a {what}").split("|")}
    assert given == set(fault.error.split("|")), f"error code of a {what}: who was it, and was the page there?"
