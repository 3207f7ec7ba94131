"""The assertions: what they accept, and what their messages say."""

from __future__ import annotations

import shutil

import pytest

from mmuemu.testing import (
    assert_executable,
    assert_faults,
    assert_isolated,
    assert_maps,
    assert_no_leak,
    assert_readable,
    assert_unexecutable,
    assert_unmapped,
    assert_unreadable,
    assert_unwritable,
    assert_writable,
)
from mmuemu.testing.walks import error_bits, error_names
from mmuemu.x86.paging import FaultBits
from tests.plugin.guests import EXIT, HELLO, NULL, SHARED, SPIN

CODE, DATA = 0x40_1000, 0x40_2000
gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def refused(check, *arguments, **options):
    """The message of an assertion that must fail."""
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **options)
    return str(caught.value)


def test_error_codes_are_written_as_names():
    assert error_bits("P|W|U") == FaultBits.P | FaultBits.W | FaultBits.U == 7
    assert error_bits("0") == error_bits("") == 0
    assert error_bits(5) == 5
    assert error_names(0x25) == "P|U|PK"
    assert all(error_bits(error_names(code)) == code for code in range(64))
    with pytest.raises(ValueError, match="'X' is no bit"):
        error_bits("P|X")


def test_the_fault_that_came_is_the_one_that_was_expected(guest):
    result = guest.run(guest.asm(NULL))
    fault = assert_faults(result, at=0, error="W|U", access="write", rip=CODE, rule="not present", signal=11)
    assert fault == result.fault
    message = refused(assert_faults, result, at=8, error="P|W|U", rule="SMEP")
    assert "address: expected 0x8, got 0x0" in message
    assert "error: expected P|W|U, got W|U" in message
    assert "rule: expected 'SMEP'" in message
    assert "PDE    [  0] 0000000000000000  not present" in message
    assert "<- refuses" in message
    assert "vector: expected #GP, got #PF" in refused(assert_faults, result, vector="#GP")
    assert "expected SIGBUS, and it was killed by SIGSEGV" in refused(assert_faults, result, signal=7)
    for wrong in ({"error": "Q"}, {"vector": "#ZZ"}, {"access": "touch"}):
        with pytest.raises(ValueError, match=r"no bit|no exception|none of"):
            assert_faults(result, **wrong)


def test_an_exception_without_an_address(guest):
    result = guest.run(guest.asm("ud2"))
    assert assert_faults(result, vector="#UD", signal=4).rip == CODE
    assert "address: expected 0x0, got None" in refused(assert_faults, result, vector="ud", at=0)


def test_no_fault_shows_what_the_access_would_meet(guest):
    result = guest.run(guest.asm(HELLO))
    message = refused(assert_faults, result, at=DATA, error="P|U")
    assert "nothing faulted" in message
    assert f"read of {DATA:#x} by user code (ring 3)" in message
    assert "allowed: physical" in message
    assert "write of 0x401000" in refused(assert_faults, result, at=CODE, error="P|W|U")


def test_areas_are_what_maps_says(guest):
    result = guest.run(guest.asm(HELLO))
    assert_maps(result, CODE, "r-xp", name="guest")
    assert_maps(result, DATA, "rw-")
    message = refused(assert_maps, result, CODE, "rw-")
    assert message.startswith("0x401000 is mapped r-xp, not rw-")
    assert "> 00401000-00402000 r-xp" in message
    assert "PTE" in message
    assert "not in [heap]" in refused(assert_maps, result, CODE, name="[heap]")
    message = refused(assert_maps, result, 0x1000)
    assert "nothing is mapped at 0x1000" in message
    assert "  00401000-00402000" in message
    assert_unmapped(result, 0x1000)
    assert "0x401000 is mapped" in refused(assert_unmapped, result, CODE)


def test_access_is_what_the_walk_and_the_area_allow(guest):
    result = guest.run(guest.asm(HELLO))
    assert_readable(result, CODE)
    assert_executable(result, CODE)
    assert_unwritable(result, CODE)
    assert_unexecutable(result, DATA)
    # It has been read only: its page is the file's, and the kernel would copy it.
    assert_writable(result, DATA)
    message = refused(assert_unwritable, result, DATA)
    assert "can write 0x402000" in message
    assert "the kernel would copy the page" in message
    message = refused(assert_writable, result, CODE)
    assert "PTE    [  1]" in message
    assert "PTE is read-only (R/W = 0)" in message
    with pytest.raises(ValueError, match="none of user, kernel"):
        assert_readable(result, CODE, as_="root")
    with pytest.raises(TypeError, match="no GuestProcess"):
        assert_readable("result", CODE)


def test_an_untouched_page_counts_as_what_its_area_allows(guest):
    process = guest.start(guest.asm(".text\n" + SPIN + ".data\nx: .quad 0\n"))
    assert process.translate(DATA).error_code == 4
    assert_readable(process, DATA)
    assert "the kernel would map the page" in refused(assert_unreadable, process, DATA)
    assert_unreadable(process, 0x1000)


ACCESSES = {"read": "mov al, [rbx]", "write": "mov [rbx], al", "execute": "call rbx"}
ASKED = {"read": assert_readable, "write": assert_writable, "execute": assert_executable}
TOUCHES = {"": "", "read": "mov al, [rbx]", "write": "mov byte ptr [rbx], 0xc3"}
TRY = """
    mov eax, 9
    xor edi, edi
    mov esi, 4096
    mov edx, 7
    mov r10d, 0x22
    mov r8, -1
    xor r9d, r9d
    syscall
    mov rbx, rax
    {touch}
    mov eax, 10
    mov rdi, rbx
    mov esi, 4096
    mov edx, {protection}
    syscall
    {again}
    mov eax, 186
    syscall
    {access}
"""


@pytest.mark.parametrize("protection", range(8))
def test_what_is_foreseen_is_what_happens(guest, session, protection):
    """An area of each protection, touched before or after it got that, and the access made at once."""
    for touch in TOUCHES:
        # What the program may do only: a read where it can read, a write where it can write.
        for again in [name for name, bit in (("", 0), ("read", 1), ("write", 2)) if bit & protection == bit]:
            for access, check in ASKED.items():
                code = TRY.format(
                    touch=TOUCHES[touch], again=TOUCHES[again], protection=protection, access=ACCESSES[access]
                )
                machine = session.machine()
                foreseen = []

                @machine.on_syscall("gettid")
                def ask(event, check=check, machine=machine, foreseen=foreseen):
                    (process,) = machine.processes
                    try:
                        check(process, process.threads[0].registers["rbx"])
                        foreseen.append(True)
                    except AssertionError:
                        foreseen.append(False)

                process = guest.start(guest.asm(code + EXIT.format(0)), machine=machine)
                process.wait(10)
                # Zeros are `add [rax], al`, where rax is a thread's number: a fault, and not at the page itself.
                trap = None if process.process.death is None else process.process.death.trap
                happened = trap is None or (access == "execute" and trap.address == process.pid)
                assert foreseen == [happened], (protection, touch, again, access)
                session.close()


@pytest.mark.parametrize("kpti", [False, True])
def test_the_kernel_is_seen_from_ring_0_only(guest, kpti):
    process = guest.start(guest.asm(SPIN), kpti=kpti)
    process.wait(max_instructions=100)
    entry = process.machine.kernel.memory.entry
    direct = process.machine.kernel.memory.layout.direct_map
    assert_executable(process, entry, as_="kernel")
    assert_unreadable(process, entry)
    assert_readable(process, direct + 0x1000, as_="kernel")
    message = refused(assert_readable, process, direct + 0x1000)
    assert ("not present" if kpti else "supervisor-only") in message
    assert "SMAP" in refused(assert_readable, process, CODE, as_="kernel")
    assert "SMEP" in refused(assert_executable, process, CODE, as_="kernel")


def test_a_bare_machine_has_no_kernel_to_map_anything(bare):
    bare.map(0x50_0000, 4096, "r--", user=False)
    result = bare.run("mov rax, [0x500000]\nend:")
    assert_faults(result, at=0x50_0000, error="P|U", rule="supervisor-only")
    assert_unreadable(bare, 0x50_0000)
    assert_readable(bare, 0x50_0000, as_="kernel")
    assert_readable(bare.attachment, CODE)
    assert_unreadable(result, 0x60_0000)


# -- isolation ---------------------------------------------------------------------------------------------------------


def test_processes_of_their_own_are_isolated(guest, session):
    machine = session.machine()
    one, other = (guest.start(guest.asm("again: inc qword ptr [rsp]\njmp again"), machine=machine) for _ in range(2))
    for process in (one, other):
        process.wait(max_instructions=100)
    assert_isolated(one, other)
    assert_isolated(one, other, frame=one.translate(CODE, "execute").physical)
    message = refused(assert_isolated, one, one)
    assert "share" in message
    assert message.count("PTE") >= 2
    with pytest.raises(ValueError, match="two machines"):
        assert_isolated(one, guest.start(guest.asm(SPIN)))


@gcc
@pytest.mark.parametrize("flags", ["MAP_PRIVATE", "MAP_SHARED"])
def test_fork_shares_what_is_mapped_shared(guest, flags):
    parent = guest.start(guest.c(SHARED.replace("FLAGS", flags)))
    parent.wait(max_instructions=300_000)
    (child,) = parent.children
    where = {int(line, 16) for line in parent.stdout.split()}
    assert len(where) == 1
    frame = parent.translate(*where).physical
    if flags == "MAP_PRIVATE":
        assert_isolated(parent, child)
        assert_isolated(parent, child, frame=frame)
        return
    message = refused(assert_isolated, parent, child)
    assert f"share 1 frames, the first at physical {frame:#x}" in message
    assert f"process {child.pid}" in message
    assert f"physical {frame:#x}" in refused(assert_isolated, parent, child, frame=frame)
    code = next(area.start for area in parent.areas if "x" in area.permissions)
    common = parent.translate(code, "execute").physical
    assert "read-only:" in refused(assert_isolated, parent, child, frame=common)


# -- transient execution -----------------------------------------------------------------------------------------------

MISPREDICTED = (
    """
    lea rbx, [rip + probe]
    mov ecx, 20
    again:
    dec ecx
    jnz again
    clflush [rbx]
    mfence
    mov rax, [rbx]
    test rax, rax
    jz over
    mov rdx, [rbx + 0x200]
    over:
"""
    + EXIT.format(0)
    + """
    .data
    probe: .zero 4096
"""
)


def test_lines_that_transient_accesses_fetch_are_listed(guest):
    program = guest.asm(MISPREDICTED)
    result = guest.run(program, cpu="skylake")
    probe = program.address("probe")
    window = (probe + 0x200, probe + 0x240)
    if not result.leaked:
        pytest.fail(f"nothing was fetched: {result}")
    (fill,) = [fill for fill in result.leaked["v1"] if fill.line == probe + 0x200]
    assert (fill.causes, fill.ring) == (("v1",), 3)
    message = refused(assert_no_leak, result, lines=window)
    assert f"{probe + 0x200:#x} by {fill.instruction:#x} in ring 3 (v1)" in message
    assert "PTE" in message
    assert_no_leak(result, lines=(probe + 0x400, probe + 0x800))
    assert_no_leak(result, causes="meltdown")
    assert_no_leak(guest.run(program, cpu="in-order"))
    with pytest.raises(ValueError, match="no CPU model"):
        assert_no_leak(guest.run(program))


VICTIM = """
    {exit}
    victim:
    cmp rdi, [rip + size]
    jae done
    {remedy}
    lea rsi, [rip + table]
    movzx eax, byte ptr [rsi + rdi]
    shl eax, 6
    lea rdx, [rip + probe]
    mov rcx, [rdx + rax]
    done: ret
    .data
    size: .quad 16
    table: .zero 64
    secret: .zero 64
    probe: .zero 16384
"""


def test_two_secrets_are_told_apart_or_not(guest):
    def ask(remedy):
        program = guest.asm(VICTIM.format(exit=EXIT.format(0), remedy=remedy))
        return guest.leaks(program, "secret", b"\x05", b"\x2a", function="victim", calls=[(64,)])

    assert_no_leak(ask("lfence"))
    report = ask("")
    message = refused(assert_no_leak, report)
    assert "lines that transient accesses touch depend on the secret" in message
    assert "probe" in message
    assert_no_leak(report, causes=["meltdown"])
