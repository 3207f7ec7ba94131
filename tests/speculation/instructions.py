"""What a gene can be: one function for each kind of instruction, and the table of them."""

from __future__ import annotations

from typing import Final

from tests.speculation import places
from tests.speculation.encode import RAX, RCX, RDI, RDX, RSI, RSP, Mem, encode, imm, load_immediate, sized
from tests.speculation.programs import BASES, FREE, Emitter, Gene, Maker

SIZES: Final = (8, 4, 1, 2)
ANYWHERE: Final = (1 << 64) - 1
"""No file descriptor."""
_HOSTILE: Final = (places.NO_ACCESS, places.HOLE, places.READ_ONLY, *places.KERNEL, *places.STRANGE)
_EDGES: Final = (-1, -2, -3, -4, -7, -8, -15, 0)
_CONSTANTS: Final = (0, 1, 2, 0xFF, 0x7F, 64, 0x8000_0000, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 63, (1 << 64) - 1)


def free(gene: Gene) -> int:
    """A register to change."""
    return int(gene.of(FREE))


def memory(out: Emitter, gene: Gene, align: int = 1) -> Mem:
    """An operand in memory; sometimes instructions before it make a register fit."""
    kind = gene.below(16)
    base = gene.of(BASES)
    if kind < 7:
        return Mem(base, gene.below(64 * align) & -align)
    if kind < 9:
        return Mem(12, gene.below(6 * places.PAGE) & -align)
    if kind < 11:
        page = places.DATA + places.PAGE * (1 + gene.below(places.DATA_PAGES - 1))
        return Mem(None, page + (gene.of(_EDGES) if align == 1 else -align))
    if kind < 14:
        index = free(gene)
        if kind < 13:
            out.put(encode(b"\x81", 4, index, tail=imm(gene.of((0xF8, 0xFF, 0xFC0, 0x3FFF)) & -align, 4)))  # and
        return Mem(base, 0, index, gene.below(4))
    if kind == 14:
        register = free(gene)
        out.put(load_immediate(register, gene.of(_HOSTILE) + gene.below(64)))
        return Mem(register)
    return Mem(None, places.CODE + gene.below(512)) if gene.chance(2) else Mem(RSP, 8 * gene.below(16))


def operand(out: Emitter, gene: Gene) -> int | Mem:
    """A register or memory."""
    return memory(out, gene) if gene.below(2) else int(gene.below(16))


def nop(out: Emitter, gene: Gene) -> None:
    out.put(gene.of((b"\x90", b"\xf3\x90", b"\x0f\x1f\x40\x00")))


def move(out: Emitter, gene: Gene) -> None:
    size = gene.of(SIZES)
    out.put(sized(0x8A, free(gene), operand(out, gene), size))


def load(out: Emitter, gene: Gene) -> None:
    size = gene.of(SIZES)
    out.put(sized(0x8A, free(gene), memory(out, gene), size))


def store(out: Emitter, gene: Gene) -> None:
    size = gene.of(SIZES)
    out.put(sized(0x88, gene.below(16), memory(out, gene), size))


def store_immediate(out: Emitter, gene: Gene) -> None:
    size = gene.of(SIZES)
    out.put(sized(0xC6, 0, memory(out, gene), size, tail=imm(gene.below(1 << 16), min(size, 4))))


def constant(out: Emitter, gene: Gene) -> None:
    value = gene.of(_CONSTANTS) if gene.below(2) else gene.below(1 << 32)
    out.put(load_immediate(free(gene), value))


def base(out: Emitter, gene: Gene) -> None:
    register = gene.of(BASES)
    target = gene.of((places.DATA, places.ALIAS_A, places.ALIAS_B, places.FRESH, places.KEYED, places.READ_ONLY))
    out.put(load_immediate(register, target + gene.below(256)))


def chase(out: Emitter, gene: Gene) -> None:
    """A base from memory, which may point anywhere."""
    out.put(sized(0x8B, gene.of((13, 5)), Mem(gene.of(BASES), 8 * gene.below(256)), 8))


def gadget(out: Emitter, gene: Gene) -> None:
    """A load whose address is what a load gave."""
    register, other = free(gene), free(gene)
    out.put(encode(b"\x0f\xb6", register, memory(out, gene)))
    out.put(encode(b"\xc1", 4, register, tail=imm(gene.of((6, 3, 9)), 1)))
    out.put(sized(0x8A, other, Mem(gene.of(BASES), 0, register), gene.of(SIZES)))


def forbidden(out: Emitter, gene: Gene) -> None:
    """The same with an address that must not be read, and may be in the cache."""
    register, other = free(gene), free(gene)
    place = gene.of((*places.KERNEL[-3:], places.NO_ACCESS, places.KEYED, places.HOLE))
    out.put(load_immediate(register, place + 8 * gene.below(8)))
    out.put(encode(b"\x0f\xb6", other, Mem(register)))
    out.put(encode(b"\xc1", 4, other, tail=b"\x06"))
    out.put(sized(0x8A, free(gene), Mem(12, 0, other), gene.of(SIZES)))


def extend(out: Emitter, gene: Gene) -> None:
    opcode = gene.of((b"\x0f\xb6", b"\x0f\xb7", b"\x0f\xbe", b"\x0f\xbf", b"\x63"))
    out.put(encode(opcode, free(gene), operand(out, gene), wide=bool(gene.below(2))))


def lea(out: Emitter, gene: Gene) -> None:
    out.put(encode(b"\x8d", free(gene), Mem(gene.below(16), gene.below(256), free(gene), gene.below(4)), wide=True))


def arithmetic(out: Emitter, gene: Gene) -> None:
    size, operation = gene.of(SIZES), gene.below(8)
    form = gene.below(4)
    if form == 0:
        out.put(sized(operation << 3 | 2, free(gene), operand(out, gene), size))
    elif form == 1:
        out.put(sized(operation << 3, gene.below(16), memory(out, gene), size))
    elif form == 2:
        out.put(sized(0x80, operation, free(gene), size, tail=imm(gene.below(1 << 20), min(size, 4))))
    else:
        lock = b"\xf0" if gene.chance(3) and operation != 7 else b""
        out.put(sized(0x80, operation, memory(out, gene), size, imm(gene.below(1 << 20), min(size, 4)), lock))


def test(out: Emitter, gene: Gene) -> None:
    out.put(sized(0x84, gene.below(16), operand(out, gene), gene.of(SIZES)))


def unary(out: Emitter, gene: Gene) -> None:
    size = gene.of(SIZES)
    opcode, field = gene.of(((0xFE, 0), (0xFE, 1), (0xF6, 2), (0xF6, 3)))
    out.put(sized(opcode, field, memory(out, gene) if gene.below(2) else free(gene), size))


def multiply(out: Emitter, gene: Gene) -> None:
    size = gene.of(SIZES)
    if gene.below(2):
        out.put(sized(0xF6, 4 + gene.below(2), operand(out, gene), size))
    else:
        out.put(encode(b"\x0f\xaf", free(gene), operand(out, gene), wide=size == 8))


def divide(out: Emitter, gene: Gene) -> None:
    if gene.below(3):
        out.put(b"\x31\xd2")  # xor edx, edx
    out.put(sized(0xF6, 6 + gene.below(2), operand(out, gene), gene.of(SIZES)))


def shift(out: Emitter, gene: Gene) -> None:
    size, field = gene.of(SIZES), gene.below(8)
    where = memory(out, gene) if gene.chance(3) else free(gene)
    if gene.below(2):
        out.put(sized(0xC0, field, where, size, tail=imm(gene.below(80), 1)))
    else:
        out.put(sized(gene.of((0xD0, 0xD2)), field, where, size))


def double_shift(out: Emitter, gene: Gene) -> None:
    opcode = gene.of((b"\x0f\xa4", b"\x0f\xac"))
    out.put(encode(opcode, free(gene), free(gene), wide=bool(gene.below(2)), tail=imm(gene.below(70), 1)))


def bits(out: Emitter, gene: Gene) -> None:
    kind = gene.below(3)
    if kind < 2:
        if kind:
            opcode = gene.of((b"\x0f\xa3", b"\x0f\xab", b"\x0f\xb3", b"\x0f\xbb"))
            out.put(encode(opcode, free(gene), free(gene), wide=bool(gene.below(2))))
        else:
            out.put(encode(b"\x0f\xba", 4 + gene.below(4), operand_to_change(out, gene), tail=imm(gene.below(64), 1)))
        # All flags but CF and ZF are undefined now, and come from how the engine translated what was before.
        out.put(encode(b"\x83", 2, free(gene), tail=b"\0"))  # adc
    else:
        code, prefix = gene.of(((b"\xbc", b""), (b"\xbd", b""), (b"\xb8", b"\xf3"), (b"\xbc", b"\xf3")))
        out.put(encode(b"\x0f" + code, free(gene), operand(out, gene), prefix=prefix))


def operand_to_change(out: Emitter, gene: Gene) -> int | Mem:
    return memory(out, gene) if gene.below(2) else free(gene)


def conditional(out: Emitter, gene: Gene) -> None:
    """setcc and cmovcc."""
    condition = gene.below(16)
    if gene.below(2):
        out.put(encode(bytes((0x0F, 0x90 | condition)), 0, operand_to_change(out, gene), low=True))
    else:
        opcode = bytes((0x0F, 0x40 | condition))
        out.put(encode(opcode, free(gene), operand(out, gene), wide=bool(gene.below(2))))


def flags(out: Emitter, gene: Gene) -> None:
    kind = gene.below(10)
    if kind < 7:
        out.put(gene.of((b"\xf8", b"\xf9", b"\xf5", b"\x9f", b"\x9e", b"\xfd", b"\xfc", b"\x98", b"\x48\x99")))
    elif kind < 9:
        out.put(b"\x9c")  # pushfq
        out.put(b"\x58" if gene.below(2) else b"\x9d")
    else:
        wanted = gene.below(1 << 12) & 0x8D5 | gene.of((0, 0x400, 0x20_0000, 0x4_0000, 0x100, 0x4000))
        out.put(b"\x68" + imm(wanted, 4))
        out.put(b"\x9d")


def exchange(out: Emitter, gene: Gene) -> None:
    size = gene.of(SIZES)
    lock = b"\xf0" if gene.below(2) else b""
    kind = gene.below(4)
    where = memory(out, gene)
    if kind == 0:
        out.put(sized(0x86, free(gene), where, size))
    elif kind == 1:
        out.put(encode(b"\x0f\xb1", free(gene), where, wide=size == 8, prefix=lock))
    elif kind == 2:
        out.put(encode(b"\x0f\xc1", free(gene), where, wide=size == 8, prefix=lock))
    else:
        # The engine takes the flags that stay from where a translated block left them: end one.
        out.put(b"\x9c")
        out.put(b"\x9d")
        out.put(encode(b"\x0f\xc7", 1, where, wide=bool(gene.below(2)), prefix=lock))  # cmpxchg8b, cmpxchg16b


def swap_bytes(out: Emitter, gene: Gene) -> None:
    register = free(gene)
    if gene.below(2):
        out.put(bytes((0x48 | register >> 3, 0x0F, 0xC8 | register & 7)))
    else:
        out.put(encode(gene.of((b"\x0f\x38\xf0", b"\x0f\x38\xf1")), register, memory(out, gene)))


def stack(out: Emitter, gene: Gene) -> None:
    kind = gene.below(8)
    register = free(gene)
    prefix = b"\x41" if register & 8 else b""
    if kind < 3:
        out.put(prefix + bytes((0x50 | register & 7,)))
    elif kind < 6:
        out.put(prefix + bytes((0x58 | register & 7,)))
    elif kind == 6:
        out.put(encode(b"\xff", 6, memory(out, gene)) if gene.below(2) else encode(b"\x8f", 0, memory(out, gene)))
    else:
        out.put(gene.of((b"\x68\x34\x12\x00\x00", b"\x6a\xff", b"\xc8\x10\x00\x00", b"\xc9", b"\x66\x50")))


def string(out: Emitter, gene: Gene) -> None:
    """A string instruction with registers that fit, mostly."""
    prefix = gene.of((b"\xf3", b"\xf2", b""))
    count = gene.of((5, 1, 0, 17, 40, 64, 700))
    for register in (RSI, RDI):
        if gene.below(4):
            target = gene.of((places.DATA, places.ALIAS_A, places.ALIAS_B, places.STACK + 2048, places.READ_ONLY))
            out.put(load_immediate(register, target + gene.below(2 * places.PAGE)))
    out.put(load_immediate(RCX, count))
    if gene.chance(3):
        out.put(gene.of((b"\xfd", b"\xfc")))
    opcode = gene.of((0xA4, 0xAA, 0xA6, 0xAE, 0xAC))
    size = gene.of(SIZES)
    width = (b"\x66" if size == 2 else b"") + prefix + (b"\x48" if size == 8 else b"")
    out.put(width + bytes((opcode | (size > 1),)))


# -- control ---------------------------------------------------------------------------------------------------------


def branch(out: Emitter, gene: Gene) -> None:
    """A conditional jump to a later block, or to any that counts."""
    block = out.forward(gene) if gene.below(3) else out.counted(gene)
    out.relative(bytes((0x0F, 0x80 | gene.below(16))), block)


def slow_branch(out: Emitter, gene: Gene) -> None:
    """A comparison with memory that is flushed first, and a branch on it: a long window."""
    where = Mem(gene.of(BASES), 8 * gene.below(64))
    out.put(encode(b"\x0f\xae", 7, where))
    if gene.below(2):
        out.put(b"\x0f\xae\xf0")
    if gene.below(2):
        out.put(sized(0x3A, gene.below(16), where, gene.of(SIZES)))
    else:
        out.put(encode(b"\x81", 7, where, tail=imm(gene.of((0, 64, 1 << 30)), 4)))
    branch(out, gene)


def skip(out: Emitter, gene: Gene) -> None:
    """A branch over a few bytes: over instructions that are harmless or not, JRCXZ and LOOP among them."""
    inner = Emitter(out.blocks, out.end)
    inner.block = out.block
    for _ in range(1 + gene.below(3)):
        gene.of((load, store, arithmetic, constant, gadget, sse_memory, flags, x87_memory))(inner, gene)
    opcode = bytes((0x70 | gene.below(16),)) if gene.below(4) else gene.of((b"\xe3", b"\xe2", b"\xe1"))
    if len(inner.code) > 120:
        return
    out.put(opcode + imm(len(inner.code), 1))
    begin = len(out.code)
    out.starts += [begin + start for start in inner.starts]
    out.code += inner.code


def loop(out: Emitter, gene: Gene) -> None:
    """Back over some of the block's instructions, until a counter or data says no."""
    first = out.entries[-1]
    starts = [start for start in out.starts if start >= first][-1 - gene.below(12) :]
    if not starts:
        return
    out.burn()
    if gene.below(2):
        register = free(gene)
        out.put(encode(b"\xff", 1, register))
    else:
        out.put(encode(b"\x83", 5, Mem(gene.of(BASES), 8 * gene.below(32)), tail=b"\x01"))
    opcode = bytes((0x0F, gene.of((0x85, 0x8F, 0x89, 0x82))))
    out.put(opcode + imm(starts[0] - len(out.code) - 6, 4))


def jump(out: Emitter, gene: Gene) -> None:
    if gene.below(2):
        out.relative(b"\xe9", out.forward(gene))
    else:
        indirect(out, gene, b"\xff", 4)


def call(out: Emitter, gene: Gene) -> None:
    if gene.below(3):
        out.relative(b"\xe8", out.counted(gene))
    else:
        indirect(out, gene, b"\xff", 2)


def indirect(out: Emitter, gene: Gene, opcode: bytes, field: int) -> None:
    """Through a register or memory; memory may hold what was there, or a block's address stored now, late or early."""
    register = free(gene)
    kind = gene.below(5)
    where = Mem(gene.of(BASES), 8 * gene.below(64))
    if kind < 2:
        out.absolute((b"\x41" if register & 8 else b"") + bytes((0xB8 | register & 7,)), out.counted(gene))
        out.put(encode(opcode, field, register))
        return
    if kind < 4:
        out.absolute(encode(b"\xc7", 0, where, wide=True), out.counted(gene))
        if kind == 3:
            out.put(encode(b"\x0f\xae", 7, where))
            out.put(b"\x0f\xae\xf0")
        out.put(encode(opcode, field, where))
        return
    # One of two, by the flags.
    other = FREE[(FREE.index(register) + 1) % len(FREE)]
    for chosen in (register, other):
        out.absolute((b"\x41" if chosen & 8 else b"") + bytes((0xB8 | chosen & 7,)), out.counted(gene))
    out.put(encode(bytes((0x0F, 0x40 | gene.below(16))), register, other, wide=True))
    out.put(encode(opcode, field, register))


def back(out: Emitter, gene: Gene) -> None:
    """A return: to whoever called, or to where the stack was made to point."""
    kind = gene.below(6)
    if kind == 0:
        out.absolute(encode(b"\xc7", 0, Mem(RSP), wide=True), out.counted(gene))
    elif kind == 1:
        out.absolute(b"\x68", out.counted(gene))
    elif kind == 2:
        out.put(encode(b"\x0f\xae", 7, Mem(RSP)))
    out.put(b"\xc2\x08\x00" if gene.chance(5) else b"\xc3")


def retpoline(out: Emitter, gene: Gene) -> None:
    register = free(gene)
    out.absolute((b"\x41" if register & 8 else b"") + bytes((0xB8 | register & 7,)), out.counted(gene))
    out.put(b"\xe8\x10\x00\x00\x00")
    out.put(b"\xf3\x90")
    out.put(b"\x0f\xae\xe8")
    out.burn()  # when the call has faulted, the trap is not only a transient one
    out.put(b"\xeb\xf0")
    out.put(sized(0x88, register, Mem(RSP), 8))
    out.put(b"\xc3")


def bypass(out: Emitter, gene: Gene) -> None:
    """A store whose address comes late, and a load of the same place or its other name."""
    offset = 8 * gene.below(32)
    pointer, place = Mem(None, places.DATA + 1024 + offset), places.ALIAS_A + 64 + offset
    register, target = free(gene), free(gene)
    out.put(encode(b"\xc7", 0, pointer, wide=True, tail=imm(place, 4)))
    out.put(encode(b"\x0f\xae", 7, pointer))
    out.put(b"\x0f\xae\xf0")
    out.put(sized(0x8B, register, pointer, 8))
    out.put(sized(0x88, gene.below(16), Mem(register, gene.below(8)), gene.of(SIZES)))
    alias = gene.of((places.ALIAS_A, places.ALIAS_B))
    out.put(encode(b"\x0f\xb6", target, Mem(None, alias + 64 + offset + gene.below(8))))
    out.put(encode(b"\x81", 4, target, tail=imm(0xFF8, 4)))
    out.put(sized(0x8A, free(gene), Mem(12, 0, target), gene.of(SIZES)))


# -- the rest ----------------------------------------------------------------------------------------------------------


def x87(out: Emitter, gene: Gene) -> None:
    register = gene.below(8)
    kind = gene.below(4)
    if kind < 2:
        out.put(bytes((gene.of((0xD8, 0xDC, 0xDE, 0xDB, 0xDF, 0xDA)), 0xC0 | gene.below(8) << 3 | register)))
    elif kind == 2:
        out.put(bytes((0xD9, 0xC0 | gene.below(2) << 3 | register)))
    else:
        out.put(gene.of((
            b"\xd9\xe8", b"\xd9\xeb", b"\xd9\xee", b"\xd9\xe0", b"\xd9\xe1", b"\xd9\xfa", b"\xd9\xfc", b"\xdf\xe0",
            b"\xd9\xf7", b"\xd9\xf6", b"\xdb\xe3", b"\xdb\xe2", b"\xdd\xc0", b"\xd9\xe4",
        )))  # fmt: skip


def x87_memory(out: Emitter, gene: Gene) -> None:
    opcode, fields = gene.of((
        (0xD9, (0, 2, 3)), (0xDD, (0, 2, 3)), (0xDB, (0, 2, 3, 5, 7)), (0xDF, (0, 2, 3, 5, 7)), (0xD8, (0, 1, 4, 6)),
        (0xD9, (5, 7)), (0xDD, (7,)), (0xD9, (6,)),
    ))  # fmt: skip
    out.put(encode(bytes((opcode,)), gene.of(fields), memory(out, gene)))


def mmx(out: Emitter, gene: Gene) -> None:
    if gene.chance(4):
        out.put(b"\x0f\x77")
        return
    opcode = gene.of((0x6F, 0xFC, 0xFD, 0xEF, 0xD4, 0x60, 0xF5, 0x7F))
    out.put(encode(bytes((0x0F, opcode)), gene.below(8), memory(out, gene) if gene.below(2) else gene.below(8)))


def sse_memory(out: Emitter, gene: Gene) -> None:
    prefix, opcode = gene.of((
        (b"", 0x10), (b"", 0x11), (b"\xf3", 0x6F), (b"\xf3", 0x7F), (b"\x66", 0x6F), (b"\x66", 0x7F), (b"", 0x28),
        (b"", 0x29), (b"\xf2", 0x10), (b"\xf2", 0x11), (b"\xf3", 0x10), (b"\xf3", 0x11), (b"\x66", 0x6E),
        (b"\x66", 0x7E), (b"\x66", 0xD6), (b"\xf3", 0x7E), (b"\x66", 0xE7), (b"", 0x2B), (b"", 0x12), (b"", 0x17),
        (b"\xf2", 0xF0),
    ))  # fmt: skip
    align = 16 if gene.below(2) else 1
    out.put(encode(bytes((0x0F, opcode)), gene.below(16), memory(out, gene, align), prefix=prefix))


_SSE: Final = tuple(
    (prefix, bytes((0x0F, opcode)))
    for prefix, opcodes in (
        (
            b"\x66",
            (0xEF, 0xFE, 0xD4, 0x74, 0x76, 0xDB, 0xEB, 0xF4, 0x61, 0x6C, 0x14, 0x58, 0x59, 0x5E, 0x51, 0x2E),
        ),
        (b"", (0x58, 0x59, 0x5C, 0x5E, 0x51, 0x54, 0x57, 0x14, 0x2F, 0x5B, 0x28)),
        (b"\xf3", (0x58, 0x59, 0x5E, 0x51, 0x5A, 0x5B, 0x10, 0xE6)),
        (b"\xf2", (0x58, 0x59, 0x5E, 0x51, 0x5A, 0x10, 0x7C)),
    )
    for opcode in opcodes
)


def sse(out: Emitter, gene: Gene) -> None:
    kind = gene.below(6)
    target, other = gene.below(16), gene.below(16)
    if kind < 3:
        prefix, opcode = gene.of(_SSE)
        out.put(encode(opcode, target, memory(out, gene, 16) if gene.chance(3) else other, prefix=prefix))
    elif kind == 3:
        prefix, opcode = gene.of((
            (b"\x66", b"\x0f\x70"), (b"\xf2", b"\x0f\x70"), (b"", b"\x0f\xc6"), (b"\x66", b"\x0f\x3a\x0f"),
            (b"\x66", b"\x0f\xc2"), (b"\xf3", b"\x0f\xc2"), (b"\x66", b"\x0f\x3a\x44"),
        ))  # fmt: skip
        out.put(encode(opcode, target, other, prefix=prefix, tail=imm(gene.below(8), 1)))
    elif kind == 4:
        prefix, opcode = gene.of((
            (b"\x66", b"\x0f\x38\x00"), (b"\x66", b"\x0f\x38\x17"), (b"\x66", b"\x0f\x38\x40"),
            (b"\x66", b"\x0f\x38\x37"),
            (b"\x66", b"\x0f\x38\xdc"), (b"\x66", b"\x0f\x38\xdb"), (b"\x66", b"\x0f\x38\x30"),
        ))  # fmt: skip
        out.put(encode(opcode, target, other, prefix=prefix))
    else:
        between(out, gene, target)


def between(out: Emitter, gene: Gene, vector: int) -> None:
    """From vector to general registers and back."""
    prefix, opcode = gene.of((
        (b"\x66", b"\x0f\x6e"), (b"\x66", b"\x0f\x7e"), (b"\xf2", b"\x0f\x2a"), (b"\xf3", b"\x0f\x2a"),
        (b"\xf2", b"\x0f\x2d"), (b"\xf3", b"\x0f\x2c"), (b"\x66", b"\x0f\xd7"), (b"", b"\x0f\x50"),
        (b"\xf2", b"\x0f\x38\xf1"),
    ))  # fmt: skip
    general = free(gene)
    to_general = opcode in (b"\x0f\x2d", b"\x0f\x2c", b"\x0f\xd7", b"\x0f\x50", b"\x0f\x38\xf1")
    reg, rm = (general, vector & 7) if to_general else (vector, general)
    out.put(encode(opcode, reg, rm, wide=bool(gene.below(2)), prefix=prefix))


def control_words(out: Emitter, gene: Gene) -> None:
    """MXCSR, the x87 control word, whole areas."""
    kind = gene.below(6)
    if kind == 0:
        place = Mem(12, 64)
        out.put(encode(b"\xc7", 0, place, tail=imm(gene.of((0x1F80, 0x9FC0, 0x3F80, 0x5F80, 0x1F00, 0xFFFF_FFFF)), 4)))
        out.put(encode(b"\x0f\xae", 2, place))
    elif kind == 1:
        out.put(encode(b"\x0f\xae", 3, memory(out, gene)))
    else:
        field, wide = gene.of(((0, True), (1, True), (4, True), (5, True)))
        if field > 3:
            out.put(load_immediate(RAX, gene.below(4)))
            out.put(load_immediate(RDX, 0))
        offset = 512 * gene.below(6)
        out.put(encode(b"\x0f\xae", field, Mem(None, places.DATA + 2 * places.PAGE + offset), wide=wide))


def cache_control(out: Emitter, gene: Gene) -> None:
    prefix, opcode, field = gene.of((
        (b"", b"\x0f\xae", 7), (b"\x66", b"\x0f\xae", 7), (b"", b"\x0f\x18", 1), (b"", b"\x0f\x18", 0),
        (b"", b"\x0f\x18", 2), (b"", b"\x0f\x0d", 1), (b"\x66", b"\x0f\xae", 6),
    ))  # fmt: skip
    out.put(encode(opcode, field, memory(out, gene), prefix=prefix))


def fence(out: Emitter, gene: Gene) -> None:
    out.put(gene.of((b"\x0f\xae\xe8", b"\x0f\xae\xf0", b"\x0f\xae\xf8")))


def protection_keys(out: Emitter, gene: Gene) -> None:
    out.put(load_immediate(RCX, 1 if gene.chance(8) else 0))
    if gene.below(3) == 0:
        out.put(b"\x0f\x01\xee")  # rdpkru
        return
    out.put(load_immediate(RDX, 0))
    out.put(load_immediate(RAX, gene.of((0, 4, 8, 12, 0x5555_5554, 0xC))))
    out.put(b"\x0f\x01\xef")


def trap(out: Emitter, gene: Gene) -> None:
    """What ring 3 may not do, or nobody: each a fault."""
    out.put(gene.of((
        b"\x0f\x0b", b"\xf4", b"\xcc", b"\x0f\x20\xc0", b"\x0f\x01\xf8", b"\xfa", b"\x0f\x30", b"\x06",
        b"\xc5\xf8\x77", b"\xcd\x03", b"\xcd\x20", b"\xf1", b"\xf0\x90",
    )))  # fmt: skip


def get_xcr(out: Emitter, gene: Gene) -> None:
    out.put(load_immediate(RCX, gene.of((0, 1, 5))))
    out.put(b"\x0f\x01\xd0")


def system_call(out: Emitter, gene: Gene) -> None:
    page = places.DATA + places.PAGE * gene.below(places.DATA_PAGES)
    rights = gene.of((3, 1, 0, 7, 3))
    address = gene.of((places.DATA, page, page + 4090, places.NO_ACCESS, places.KERNEL[0], places.STRANGE[3]))
    number, *arguments = gene.of(
        (
            (39,),
            (1, 1, address, gene.of((8, 100, 3000))),
            (1, 1, places.DATA + gene.below(512), 64),
            (1, 1, places.ALIAS_B + gene.below(512), 64),
            (1, 1, places.STACK + 2 * places.PAGE - gene.below(64), 64),
            (10, page, places.PAGE * (1 + gene.below(2)), rights),
            (9, page, places.PAGE, rights, 0x32, ANYWHERE, 0),
            (11, page, places.PAGE),
            (12, 0),
            (28, page, places.PAGE, 4),
            (102,),
            (10, places.CODE, places.CODE_BYTES, gene.of((7, 5, 1))),
            (9, 0, places.PAGE, 3, 0x22, ANYWHERE, 0),
            (158, 0x1002, page),
            (999,),
            (28, page, places.PAGE, 3),
            (14, 0, address, 0, 8),
        )
    )
    for register, value in zip((RDI, RSI, RDX, 10, 8, 9), arguments, strict=False):
        out.put(load_immediate(register, value))
    out.put(load_immediate(RAX, number))
    out.put(b"\x0f\x05")


def patch(out: Emitter, gene: Gene) -> None:
    """A store into the constant of an instruction before or behind it."""
    register, source = free(gene), gene.below(16)
    prefix = b"\x41" if register & 8 else b""
    instruction = prefix + bytes((0xB8 | register & 7,)) + imm(gene.below(256), 4)
    ahead = bool(gene.below(2))
    # The engine loses the flags of instructions before one that changes its own block: it is the first of one.
    out.put(b"\xeb\x00")
    if not ahead:
        out.put(instruction)
    target = len(out.code) - 4 if not ahead else len(out.code) + (8 if source & 8 else 7) + len(instruction) - 4
    out.put(sized(0x88, source, Mem(None, places.CODE + target), 4))
    if ahead:
        out.code[-4:] = imm(places.CODE + len(out.code) + len(instruction) - 4, 4)
        out.put(instruction)


KINDS: Final[tuple[Maker, ...]] = tuple(
    kind
    for kind, weight in (
        (nop, 1), (move, 6), (load, 10), (store, 10), (store_immediate, 3), (constant, 4), (base, 3), (chase, 3),
        (gadget, 6), (forbidden, 2), (extend, 4), (lea, 3), (arithmetic, 14), (test, 3), (unary, 4), (multiply, 3),
        (divide, 2), (shift, 4), (double_shift, 1), (bits, 4), (conditional, 5), (flags, 4), (exchange, 4),
        (swap_bytes, 2), (stack, 7), (string, 5), (branch, 12), (slow_branch, 10), (skip, 8),
        (loop, 5), (jump, 5), (call, 7), (back, 7),
        (retpoline, 2), (bypass, 5), (x87, 4), (x87_memory, 4), (mmx, 3), (sse_memory, 8), (sse, 7),
        (control_words, 2), (cache_control, 5), (fence, 2), (protection_keys, 2), (trap, 2), (get_xcr, 1),
        (system_call, 8), (patch, 2),
    )
    for _ in range(weight)
)  # fmt: skip
"""Kinds of genes, as often as they are to come."""
