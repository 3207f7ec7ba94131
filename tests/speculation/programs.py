"""Random programs: a list of blocks, a block a list of genes, a gene one number that says all of an instruction.

So a program is plain data: it can be drawn by hypothesis or by a seed, written down, and made smaller by leaving out
genes. Programs end: every block that can be reached twice, and every loop, takes from a count in R15.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from tests.speculation import places
from tests.speculation.encode import RSP, imm

GENE_BITS: Final = 96
BASES: Final = (12, 13, 5)
"""Registers that mostly point into data: R12, R13, RBP."""
FREE: Final = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14)
"""Registers that instructions are to change."""
FUEL: Final = 15
NOISES: Final = 64
"""How many different first memories there are."""


class Gene:
    """The choices that a number makes, one after the other."""

    __slots__ = ("left",)

    def __init__(self, value: int) -> None:
        self.left = value

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        self.left, chosen = divmod(self.left, count)
        return chosen

    def of(self, choices: Sequence[Any]) -> Any:
        """One of ``choices``; small genes take the first."""
        return choices[self.below(len(choices))]

    def chance(self, one_in: int) -> bool:
        """True once in ``one_in``; small genes say no."""
        return self.below(one_in) == one_in - 1


@dataclass(frozen=True)
class Program:
    """``seed`` makes the first registers and memory; ``blocks`` the code."""

    seed: int
    blocks: tuple[tuple[int, ...], ...]

    @property
    def genes(self) -> int:
        """How many there are."""
        return sum(map(len, self.blocks))


def random_program(seed: int) -> Program:
    """A program by ``seed`` alone."""
    draw = random.Random(seed)
    blocks = tuple(
        tuple(draw.getrandbits(GENE_BITS) for _ in range(draw.randrange(1, 10))) for _ in range(draw.randrange(2, 12))
    )
    return Program(seed, blocks)


class Emitter:
    """The code of a program while it is made."""

    def __init__(self, blocks: int, end: int) -> None:
        self.code = bytearray()
        self.end = end
        self.starts: list[int] = []
        """Offsets of the instructions."""
        self.entries: list[int] = []
        """Offset of each block."""
        self.blocks = blocks
        self.block = 0
        self._targets: list[tuple[int, int, int]] = []
        """Offset, number of bytes and block of addresses to be filled in: relative ones have 4 bytes."""

    def put(self, code: bytes) -> None:
        """One instruction."""
        self.starts.append(len(self.code))
        self.code += code

    def relative(self, opcode: bytes, block: int) -> None:
        """An instruction that ends with the distance to a block."""
        self.put(opcode + bytes(4))
        self._targets.append((len(self.code) - 4, 4, block))

    def absolute(self, opcode: bytes, block: int) -> None:
        """An instruction that ends with a block's address in four bytes (all of them are below 2 GiB)."""
        self.put(opcode + bytes(4))
        self._targets.append((len(self.code) - 4, 8, block))

    def to_end(self, opcode: bytes) -> None:
        """An instruction that ends with the distance to the end of the program."""
        here = places.CODE + len(self.code) + len(opcode) + 4
        self.put(opcode + imm(self.end - here, 4))

    def burn(self) -> None:
        """One less of the count; at none, the end."""
        self.put(b"\x49\xff\xcf")  # dec r15, which leaves CF alone
        self.to_end(b"\x0f\x88")

    def forward(self, gene: Gene) -> int:
        """A later block, or the one behind the last."""
        return min(self.block + 1 + gene.below(3), self.blocks)

    def counted(self, gene: Gene) -> int:
        """Any block that takes from the count: those with an even number."""
        return 2 * gene.below((self.blocks + 1) // 2)

    def finish(self) -> bytes:
        """The code, with the addresses of blocks in it."""
        self.entries.append(len(self.code))
        self.to_end(b"\xe9")
        for at, kind, block in self._targets:
            goal = self.entries[block]
            value = goal - (at + 4) if kind == 4 else places.CODE + goal
            self.code[at : at + 4] = imm(value, 4)
        return bytes(self.code)


@dataclass(frozen=True)
class Compiled:
    """A program as bytes: what goes where before it runs."""

    code: bytes
    resume: bytes
    """For places.MAP."""
    state: bytes
    data: tuple[tuple[int, bytes], ...]


Maker = Callable[[Emitter, Gene], None]


def generate(program: Program, end: int) -> Compiled:
    """The bytes of ``program``, which ends by a jump to ``end``."""
    from tests.speculation.instructions import KINDS

    out = Emitter(len(program.blocks), end)
    for number, genes in enumerate(program.blocks):
        out.block = number
        out.entries.append(len(out.code))
        if number % 2 == 0:
            out.burn()
        for value in genes:
            gene = Gene(value)
            KINDS[gene.below(len(KINDS))](out, gene)
            if len(out.code) > places.CODE_BYTES - 512:
                break
    code = out.finish()
    resume = bytearray(2 * len(code))
    following = [*out.starts[1:], len(code)]
    for start, after in zip(out.starts, following, strict=True):
        struct.pack_into("<H", resume, 2 * start, after if after < len(code) else out.entries[-1])
    counted = [places.CODE + entry for entry in out.entries[: len(program.blocks) : 2]] or [places.CODE]
    return Compiled(code, bytes(resume), _state(program.seed, counted), _data(program.seed, counted))


def _state(seed: int, counted: list[int]) -> bytes:
    """The first registers: random ones, bases that point to data, and the count."""
    draw = random.Random(f"{seed} state")
    image = bytearray(2048)
    struct.pack_into("<HHBBHQQII", image, 0, 0x37F, 0, draw.choice((0, 0, 0xFF, 0x3F)), 0, 0, 0, 0, 0x1F80, 0xFFFF)
    for number in range(8):
        mantissa = draw.getrandbits(63) | 1 << 63
        struct.pack_into("<QH", image, 32 + 16 * number, mantissa, draw.choice((0x3FFF, 0x4002, 0xBFF0, 0x7FFF)))
    image[160:416] = draw.randbytes(256)
    registers = [draw.choice((draw.getrandbits(64), draw.getrandbits(8), draw.getrandbits(31))) for _ in range(16)]
    registers[12] = places.DATA + draw.randrange(0, 3 * places.PAGE, 8)
    registers[13] = draw.choice((places.ALIAS_A, places.ALIAS_B, places.DATA + places.PAGE)) + draw.randrange(0, 64)
    registers[5] = places.DATA + 5 * places.PAGE + draw.randrange(0, 2048, 16)
    registers[RSP] = places.STACK + 2 * places.PAGE + draw.choice((0, 0, 0, 4, 1))
    registers[FUEL] = draw.randrange(8, 70)
    struct.pack_into("<16Q", image, places.S_REGISTERS, *registers)
    flags, rights = 0x202 | draw.getrandbits(12) & 0x8D5, 0x5555_5550 | draw.choice((0, 0, 4, 8))
    struct.pack_into("<QI", image, places.S_FLAGS, flags, rights)
    struct.pack_into("<16Q", image, places.S_RECOVERY, *(draw.choice(counted) for _ in range(16)))
    return bytes(image)


def _data(seed: int, counted: list[int]) -> tuple[tuple[int, bytes], ...]:
    """The first memory: noise, small numbers, and pointers to data and to code."""
    found = []
    for at, noise, slots in _noise(seed % NOISES):
        content = bytearray(noise)
        for number, slot in enumerate(slots):
            struct.pack_into("<Q", content, slot, counted[(seed + 7 * number) % len(counted)])
        found.append((at, bytes(content)))
    return tuple(found)


@cache
def _noise(number: int) -> tuple[tuple[int, bytes, tuple[int, ...]], ...]:
    """One of the first memories without the addresses of blocks, and where these go."""
    draw = random.Random(f"{number} data")
    found = []
    for at, size, codes in (
        (places.DATA, 2 * places.PAGE, 16), (places.READ_ONLY, 256, 4), (places.DATA + 5 * places.PAGE, 2048, 4),
        (places.NO_ACCESS, 64, 0), (places.KEYED, 256, 0), (places.ALIAS_A, 2 * places.PAGE, 8),
        (places.STACK + 2 * places.PAGE - 64, places.PAGE, 200),
    ):  # fmt: skip
        content = bytearray(draw.randbytes(size))
        for _ in range(size // 64):
            struct.pack_into("<Q", content, draw.randrange(0, size, 8), _pointer(draw))
        found.append((at, bytes(content), tuple(draw.randrange(0, size, 8) for _ in range(codes))))
    return tuple(found)


def _pointer(draw: random.Random) -> int:
    """A number that makes a good address, index or divisor."""
    kind = draw.randrange(6)
    if kind < 3:
        return places.DATA + draw.randrange(0, 6 * places.PAGE)
    if kind == 3:
        return draw.choice((places.ALIAS_A, places.ALIAS_B)) + draw.randrange(0, 2 * places.PAGE)
    return draw.choice((0, 1, 8, 64, 4095, draw.choice(places.KERNEL), draw.choice(places.STRANGE)))
