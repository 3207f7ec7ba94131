"""Blocks of code as the engine runs them, decoded once and checked again when translations may have changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mmuemu.speculation.operands import RSP, Memory
from mmuemu.speculation.ops import BRANCHES, SLOW, STOPPED, WATCHED, Kind, Op, described, kind_of, outline
from mmuemu.speculation.scoreboard import OpTimes, Segment, op_times
from mmuemu.speculation.translations import FETCH, Translations
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmuemu.cpu.cpu import Cpu

_STORE: Final = re.compile(r"^[a-z ]*ptr (?:[fg]s:)?\[([^]]*)\]")
_LOAD: Final = re.compile(r"^(\w+), .*\[")
_LONGEST: Final = 15
_AHEAD: Final = 47
"""Bytes that are decoded at once on a wrong way."""
_LONG: Final = 100
"""A block of more instructions may be one long chain."""
_READ_ONLY: Final = frozenset({"cmp", "test", "push", "jmp", "call", "nop", "bt", "verw", "mul", "div", "idiv", "imul"})
_CONTEXTS: Final = 64
"""Address spaces whose code is kept."""
_MOST_BLOCKS: Final = 1 << 16


class Block:
    """What the engine translated as one piece: straight code and, at its end, perhaps a branch."""

    __slots__ = (
        "address",
        "branch",
        "bypasses",
        "code",
        "count",
        "end",
        "generation",
        "kind",
        "length",
        "meets",
        "ops",
        "pointers",
        "points",
        "readings",
        "repeated",
        "reset",
        "segments",
        "size",
        "slot",
        "slow",
        "special",
        "steps",
        "stores",
        "target",
        "watched",
    )

    def __init__(self, address: int, code: bytes, pattern_mask: int) -> None:
        self.address = address
        self.code = code
        self.size = len(code)
        self.generation = -1
        lines = outline(code, address)
        self.length = max(len(lines), 1)
        """Instructions."""
        self.count = 0
        """Times it was executed."""
        self.reset: dict[int, int] = {}
        """Load -> ``count`` when it last met a store of unknown address (:mod:`mmuemu.speculation.bypass`)."""
        self.ops: list[Op] | None = None
        self.steps: list[OpTimes] | None = None
        self.segments: dict[tuple[int, int], Segment] = {}
        self.points: list[list[Op] | None] = [None, None]
        self.readings: list[Op] | None = None
        kinds = [kind_of(mnemonic, operands) for _, _, mnemonic, operands in lines]
        self.kind: int = kinds[-1] if kinds and kinds[-1] in BRANCHES else Kind.PLAIN
        self.watched = any(kind in WATCHED for kind in kinds)
        self.repeated = bool(kinds) and kinds[0] == Kind.STRING
        self.slow = self.length > _LONG or any(mnemonic in SLOW for _, _, mnemonic, _ in lines)
        self.end = address + self.size
        if lines:
            last, size, _, operands = lines[-1]
            self.end = last + size
            self.slot = last & pattern_mask
            self.branch = last
        else:
            self.slot, self.branch = 0, address
        self.target = 0
        if self.kind in (Kind.CONDITIONAL, Kind.JUMP, Kind.CALL):
            self.target = int(operands.split()[-1], 0)
        self.stores, self.bypasses = _stores(lines)
        self.pointers: list[Memory] | None = None
        self.meets = self.stores and any(_LOAD.match(operands) for _, _, _, operands in lines)
        """Whether there are both stores and loads."""
        self.special = self.repeated or self.watched or self.bypasses

    @property
    def described(self) -> list[Op]:
        """Its instructions in detail."""
        if self.ops is None:
            self.ops = described(self.code, self.address)
        return self.ops

    def store_addresses(self) -> list[Memory]:
        """The loads of this block that say where its stores go, if all their addresses are known at its start.

        Empty: some are not, or none was found, or there is a flush.
        """
        if self.pointers is None:
            ops = self.described
            self.pointers = [] if any(op.kind == Kind.FLUSH for op in ops) else _pointers(ops)
        return self.pointers

    def stops(self, passing: bool) -> list[Op]:
        """Instructions to stop before, the last first; with ``passing``, loads behind a store are among them."""
        found = self.points[passing]
        if found is None:
            stored = False
            found = []
            for op in self.described:
                if op.kind in STOPPED or (passing and stored and op.loads):
                    found.append(op)
                stored = stored or (op.stores and not op.pushes)
            found.reverse()
            self.points[passing] = found
        return found

    def clocks(self) -> list[Op]:
        """Its RDTSC and RDTSCP."""
        if self.readings is None:
            self.readings = [op for op in self.described if op.kind in (Kind.RDTSC, Kind.RDTSCP)]
        return self.readings

    def segment(self, first: int, end: int, width: int) -> Segment:
        """Its instructions from number ``first`` to below address ``end``, as the scoreboard wants them."""
        found = self.segments.get((first, end))
        if found is None:
            if self.steps is None:
                self.steps = [op_times(op, width) for op in self.described]
            steps = [step for step in self.steps[first:] if step[-1] < end]
            found = self.segments[first, end] = Segment(steps, first + len(steps))
        return found


def _stores(lines: list[tuple[int, int, str, str]]) -> tuple[bool, bool]:
    """Whether there are stores, and whether one goes where a load of the same block says, with a load behind it."""
    loaded: set[str] = set()
    stores = waiting = False
    for _, _, mnemonic, operands in lines:
        if "[" not in operands or mnemonic == "lea":
            continue
        store = _STORE.match(operands)
        if store and mnemonic not in _READ_ONLY:
            stores = True
            if any(name in loaded for name in re.findall(r"\w+", store.group(1))):
                waiting = True
                continue
        if waiting:
            return True, True
        load = _LOAD.match(operands)
        if load:
            name = load.group(1)
            loaded.add("r" + name[1:] if name[0] == "e" else name.rstrip("d") if name[0] == "r" else name)
    return stores, False


def _pointers(ops: Sequence[Op]) -> list[Memory]:
    """:meth:`Block.store_addresses`: which loads reach the address of a store, through any registers."""
    loads: list[Memory | None] = []
    origins: dict[int, frozenset[int]] = {}
    needed: set[int] = set()
    for op in ops:
        memory = op.memory
        if memory is not None and op.stores:
            needed.update(*(origins.get(register, ()) for register in memory.registers))
        found: frozenset[int] = frozenset().union(*(origins.get(register, ()) for register in op.sources))
        if op.loads and memory is not None:
            known = not any(register in origins for register in memory.registers)
            found |= {len(loads)}
            loads.append(memory if known else None)
        origins |= dict.fromkeys(op.destinations, found)
        if op.pushes or op.pops:
            origins[RSP] = frozenset()
    pointers = [loads[number] for number in sorted(needed)]
    return [memory for memory in pointers if memory is not None] if None not in pointers else []


_ABORTS: Final = re.compile(
    rb"\xf0[\x26\x2e\x36\x3e\x40-\x4f\x64-\x67\xf0\xf2\xf3]*\x0f(?:[\xab\xb3\xbb][\xc0-\xff]|\xba[\xe8-\xff])"
)
"""LOCK BTS, BTR, BTC with a register: #UD on a processor, but Unicorn 2.1.4 may abort when it translates one, with
the whole emulator. Compilers write none; a wrong way into the middle of an instruction can find one."""


class BlockCache:
    """Decoded blocks by address space and address."""

    def __init__(self, cpu: Cpu, translations: Translations, pattern_mask: int) -> None:
        self.cpu = cpu
        self.translations = translations
        self._pattern_mask = pattern_mask
        self._spaces: dict[int, dict[int, Block]] = {}
        self._known: dict[tuple[int, bytes], Block] = {}
        """By address and code: what one process has decoded, another one need not."""
        self.blocks: dict[int, Block] = {}
        """Those of the address space in force."""
        self.ops: dict[int, Op] = {}
        """Single instructions of the address space in force, as long as no translation changes."""
        self._ops_generation = -1
        self._deadly: set[int] = set()
        self._harmless: set[int] = set()
        self._read_at = -1
        """Flushes of the engine when that was found."""
        self._unread: set[int] = set()
        """Frames that were stored to since :meth:`fetched`."""
        self.frames: dict[int, set[int]] = {}
        """Frame (physical address >> 12) -> addresses of blocks in it."""

    def enter(self, context: int) -> None:
        """Code of address space ``context`` runs from now on."""
        found = self._spaces.get(context)
        if found is None:
            if len(self._spaces) >= _CONTEXTS:
                del self._spaces[next(iter(self._spaces))]
            found = self._spaces[context] = {}
        self.blocks = found
        self._ops_generation = -1

    def block(self, address: int, size: int) -> Block:
        """The block of ``size`` bytes at linear ``address``, which is about to run."""
        found = self.blocks.get(address)
        code, page = self._code(address, size)
        if found is None or found.code != code:
            found = self._known.get((address, code))
            if found is None:
                if len(self._known) >= _MOST_BLOCKS:
                    self._known.clear()
                found = self._known[address, code] = Block(address, code, self._pattern_mask)
            self.blocks[address] = found
        found.generation = self.cpu.engine.flushes
        self.frames.setdefault(page >> 12, set()).add(address)
        last = (address + max(size, 1) - 1) & ~PAGE_MASK
        if last != address & ~PAGE_MASK:
            beyond = self.translations.page(last, FETCH)
            if beyond >= 0:
                self.frames.setdefault(beyond >> 12, set()).add(address)
        return found

    def _code(self, address: int, size: int) -> tuple[bytes, int]:
        """The bytes at linear ``address`` as far as they can be fetched, and the physical page of the first."""
        ram = self.cpu.ram_bytes
        first = self.translations.page(address, FETCH)
        if first < 0:
            return b"", 0
        first &= ~PAGE_MASK
        offset = address & PAGE_MASK
        code = bytes(ram[first + offset : first + min(offset + size, PAGE_SIZE)])
        if len(code) < size:
            second = self.translations.page(address + len(code), FETCH)
            if second >= 0:
                second &= ~PAGE_MASK
                code += bytes(ram[second : second + size - len(code)])
        return code, first

    def op(self, address: int) -> Op | None:
        """The instruction at linear ``address``; None: it cannot be fetched."""
        generation = self.cpu.engine.flushes
        if generation != self._ops_generation:
            self._ops_generation = generation
            self.ops.clear()
        found = self.ops.get(address)
        if found is None:
            code, _ = self._code(address, _AHEAD)
            if not code:
                return None
            for op in described(code, address):
                if op.end <= address + len(code) - _LONGEST or len(code) < _AHEAD or op.address == address:
                    self.ops.setdefault(op.address, op)
            found = self.ops[address]
        return found

    def fetched(self, frame: int) -> bool:
        """Code of ``frame`` (physical address >> 12) may run from now on; whether the engine might not survive it."""
        generation = self.cpu.engine.flushes
        if generation != self._read_at:
            self._read_at = generation
            self._harmless.clear()
        if frame in self._harmless:
            return False
        self._unread.discard(frame)
        page = bytes(self.cpu.ram_bytes[frame << 12 : (frame << 12) + PAGE_SIZE])
        if _ABORTS.search(page) is None:
            self._deadly.discard(frame)
            self._harmless.add(frame)
            return False
        self._deadly.add(frame)
        return True

    def deadly(self) -> bool:
        """Whether a wrong way may come upon code that the engine does not survive: then none is to be taken."""
        for frame in (*self._unread, *self._deadly):
            self.fetched(frame)
        return bool(self._deadly)

    def written(self, frame: int) -> None:
        """Code in ``frame`` (physical address >> 12) is being overwritten."""
        self._unread.add(frame)
        self._harmless.discard(frame)
        for address in self.frames.pop(frame, ()):
            for space in self._spaces.values():
                space.pop(address, None)
        self._ops_generation = -1
