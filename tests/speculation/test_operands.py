"""What instructions read and write: by their text, as Capstone's details of them say."""

from __future__ import annotations

from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile

from mmuemu.speculation.operands import FLAGS, RSP, register
from mmuemu.speculation.ops import Kind, describe

PROGRAMS = ["/bin/busybox", "/lib/x86_64-linux-gnu/libc.so.6"]
CAPSTONE_SAYS_OTHERWISE = {
    "cdq", "cqo",  # it has them write EAX
    "div", "idiv", "mul",  # flags are undefined; 8-bit forms leave RDX alone
    "cmpxchg", "xadd",  # it forgets what a locked one writes
    "test", "syscall", "rdpkru", "rdsspq", "incsspq", "xbegin", "xtest", "fldenv", "fnstenv", "movhlps",
    "movsb", "movsw", "movsd", "movsq", "stosb", "stosw", "stosd", "stosq", "lodsb", "lodsd", "scasb", "cmpsb",  # DF
}  # fmt: skip


def text_of(path: str) -> tuple[bytes, int]:
    if not Path(path).exists():
        pytest.skip(f"no {path} here")
    with open(path, "rb") as stream:
        section = ELFFile(stream).get_section_by_name(".text")
        return section.data(), section["sh_addr"]


def instructions(path: str):
    """One instruction of each shape, but those of AVX, which the engine does not have."""
    code, address = text_of(path)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    seen = set()
    for found in decoder.disasm(code[: 400 << 10], address):
        if found.mnemonic[0] in "vkf" or "k1" in found.op_str:
            continue
        shape = (found.mnemonic, *((o.type, o.size, o.reg if o.type == 1 else 0) for o in found.operands))
        if shape not in seen:
            seen.add(shape)
            yield found


@pytest.mark.parametrize("path", PROGRAMS)
def test_text_and_details_agree(path):
    count = 0
    for found in instructions(path):
        op = describe(bytes(found.bytes), found.address, found.mnemonic, found.op_str)
        name = found.mnemonic.rpartition(" ")[2]
        memory = next((operand.mem for operand in found.operands if operand.type == 3), None)
        if memory is not None and name not in ("lea", "nop") and not op.pushes | op.pops:
            base = register(found.reg_name(memory.base)) if memory.base else -1
            index = register(found.reg_name(memory.index)) if memory.index else -1
            after = found.address + found.size if memory.base and found.reg_name(memory.base) == "rip" else 0
            assert op.memory is not None, found
            assert (op.memory.base, op.memory.index) == (base, index), found
            assert op.memory.displacement == memory.disp + after, found
            assert index < 0 or op.memory.scale == memory.scale, found
        if name in CAPSTONE_SAYS_OTHERWISE or op.kind in (Kind.JUMP, Kind.CALL, Kind.PREFETCH, Kind.FLUSH):
            continue
        read, written = ({register(found.reg_name(r)) for r in some} - {-1, RSP} for some in found.regs_access())
        sources = {*op.sources, *(op.memory.registers if op.memory is not None else ())} - {RSP}
        assert read <= sources or not op.sources, found
        assert written == set(op.destinations) - {RSP}, found
        count += 1
    assert count > 1000


def test_a_register_made_zero_waits_for_nothing():
    assert describe(b"\x31\xc0", 0, "xor", "eax, eax").sources == ()
    assert describe(b"\x31\xc8", 0, "xor", "eax, ecx").sources == (0, 1)
    assert describe(b"\x31\xc0", 0, "xor", "eax, eax").destinations == (0, FLAGS)
