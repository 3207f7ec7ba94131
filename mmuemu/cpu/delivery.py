"""Delivering exceptions and interrupts through the guest's own IDT, as hardware does.

SDM volume 3, chapter 6: gates and their checks (6.12), long mode (6.14), double and triple faults (6.15,
table 6-5), error codes (6.13). Nothing of the CPU's state changes before a whole delivery has succeeded.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.cpu.linear import AccessFault, LinearMemory
from mmuemu.cpu.window import (
    CS,
    D_HFLAGS,
    D_OLD_EXCEPTION,
    GDT,
    HFLAG_CPL,
    HFLAG_CS32,
    HFLAG_CS64,
    HFLAG_SS32,
    LDT,
    NO_EXCEPTION,
    Q_CR2,
    Q_EFER,
    Q_RIP,
    Q_RSP,
    SS,
    TR,
    put_rflags,
)
from mmuemu.cpu.window import IDT as IDTR
from mmuemu.x86.descriptors import (
    TYPE_INTERRUPT_GATE,
    TYPE_TRAP_GATE,
    Descriptor,
    Gate,
    descriptor,
    gate,
)
from mmuemu.x86.exceptions import WITH_ERROR_CODE, Vector, vector_name
from mmuemu.x86.paging import is_canonical
from mmuemu.x86.registers import (
    EFER_LMA,
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_RF,
    RFLAGS_TF,
    RFLAGS_VM,
)

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

# Places in the window, looked up once: every attribute counts here.
_CS_BASE: Final = CS.base
_CS_FLAGS: Final = CS.flags
_CS_LIMIT: Final = CS.limit
_CS_SELECTOR: Final = CS.selector
_IDTR_BASE: Final = IDTR.base
_IDTR_LIMIT: Final = IDTR.limit
_SS_BASE: Final = SS.base
_SS_FLAGS: Final = SS.flags
_SS_LIMIT: Final = SS.limit
_SS_SELECTOR: Final = SS.selector
_TR_BASE: Final = TR.base
_TR_LIMIT: Final = TR.limit
_TR_SELECTOR: Final = TR.selector
_KEPT: Final = 1024
"""Gates and descriptors that are kept judged."""
_PF: Final = int(Vector.PF)
_FRAME: Final = struct.Struct("<5Q").pack
CLEARED: Final = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM
HFLAGS_KEPT: Final = ~(HFLAG_CPL | HFLAG_CS32 | HFLAG_CS64 | HFLAG_SS32)
HFLAGS_LONG: Final = HFLAG_CS64 | HFLAG_CS32 | HFLAG_SS32
EXT: Final = 1
IDT: Final = 2
_MASK_64: Final = (1 << 64) - 1
_CONTRIBUTORY: Final = frozenset({Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.CP})
_PAGE_FAULTS: Final = frozenset({Vector.PF, Vector.VE})


class TripleFault(Exception):
    """An exception while delivering #DF: the processor shuts down."""

    def __init__(self, chain: list[Event]) -> None:
        super().__init__(" -> ".join(str(event) for event in chain))
        self.chain = chain


class Event(NamedTuple):
    """What is to be delivered.

    ``rip`` is where the handler returns to; ``software`` says that an INT n, INT3 or INTO caused it (gate DPL is
    checked); ``external`` that it came from outside the program; ``address`` is CR2 for #PF.
    """

    vector: int
    error_code: int = 0
    rip: int = 0
    address: int = 0
    software: bool = False
    external: bool = False
    start: int | None = None
    """The instruction that raised it, where ``rip`` is the next one: a fault during delivery returns here."""
    fault: bool = False
    """A fault: RF is set in the saved flags, so that an instruction breakpoint does not hit again."""

    def __str__(self) -> str:
        text = vector_name(self.vector)
        if self.vector in WITH_ERROR_CODE:
            text += f"({self.error_code:#x})"
        return f"{text} at {self.address:#x}" if self.vector == Vector.PF else text

    @property
    def has_error_code(self) -> bool:
        """Whether the handler finds an error code on its stack."""
        return self.vector in WITH_ERROR_CODE and not self.software and not self.external


class Delivery:
    """Delivers events to the guest of one CPU."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self._memory = LinearMemory(cpu)

    def deliver(self, event: Event) -> list[Event]:
        """Enter the guest's handler for ``event``; what was delivered in the end is the last of the list.

        The list grows when delivery itself faults. Raises TripleFault when #DF cannot be delivered either.
        """
        chain = [event]
        while True:
            try:
                state = self.cpu.window
                flags = self.cpu.rflags
                state.save()
                Attempt(state.q, state.d, self._memory.sync(), chain[-1], flags).run()
                state.gather_flags()
                state.restore()
                return chain
            except AccessFault as refused:
                chain.append(_after(chain, refused))


def _kind(vector: int) -> int:
    """0 benign, 1 contributory, 2 page fault (SDM volume 3, table 6-4)."""
    return 1 if vector in _CONTRIBUTORY else 2 if vector in _PAGE_FAULTS else 0


def _after(chain: list[Event], refused: AccessFault) -> Event:
    """What an exception during delivery becomes (SDM volume 3, table 6-5)."""
    first = chain[-1]
    if first.vector == Vector.DF:
        raise TripleFault([*chain, Event(refused.vector, refused.error_code, address=refused.address)])
    kinds = (0 if first.software or first.external else _kind(first.vector), _kind(refused.vector))
    if kinds in ((1, 1), (2, 1), (2, 2)):
        return Event(Vector.DF, 0, first.rip, fault=False)
    return Event(refused.vector, refused.error_code, _restart(first), refused.address, fault=True)


def _restart(first: Event) -> int:
    """Where a nested fault's handler returns to: the instruction whose event could not be delivered."""
    return first.rip if first.start is None else first.start


@lru_cache(_KEPT)
def _judge_gate(low: int, high: int, long: bool, software: bool, cpl: int) -> tuple[Gate, int]:
    """An IDT entry taken apart, and the vector of what is wrong with it or 0 (SDM volume 3, 6.12.1)."""
    entry = gate(high << 64 | low, long=long)
    if not entry.is_system or entry.type not in (TYPE_INTERRUPT_GATE, TYPE_TRAP_GATE):
        return entry, Vector.GP
    if software and entry.dpl < cpl:
        return entry, Vector.GP
    return entry, 0 if entry.present else Vector.NP


@lru_cache(_KEPT)
def _judge_code(raw: int, long: bool, cpl: int) -> tuple[Descriptor, int, int]:
    """A handler's code segment, the ring it runs in, and the vector of what is wrong with it or 0."""
    found = descriptor(raw)
    ring = cpl if found.is_conforming else found.dpl
    if not found.is_code or found.dpl > cpl or (long and (not found.long or found.big)):
        return found, ring, Vector.GP
    return found, ring, 0 if found.present else Vector.NP


class Attempt:
    """One try at one event, on a state: its 64-bit and 32-bit words."""

    __slots__ = ("cpl", "d", "event", "ext", "flags", "long", "memory", "q")

    def __init__(self, q: memoryview, d: memoryview, memory: LinearMemory, event: Event, flags: int) -> None:
        self.event = event
        self.flags = flags
        self.q, self.d = q, d
        self.long = bool(q[Q_EFER] & EFER_LMA)
        self.cpl = d[D_HFLAGS] & 3
        self.memory = memory
        # EXT: delivery of something external or of an exception, as opposed to INT n (SDM volume 3, 6.13).
        self.ext = 0 if event.software else EXT

    def run(self) -> None:
        """Check everything, push the frame, then change the state."""
        event = self.event
        entry = self.gate()
        code, ring = self.code_segment(entry)
        if self.long:
            self._enter_long(entry, code, ring)
        else:
            self._enter_protected(entry, code, ring)
        if event.vector == _PF:
            self.q[Q_CR2] = event.address
        self.d[D_OLD_EXCEPTION] = NO_EXCEPTION

    # -- checks ----------------------------------------------------------------------------------------

    def gate(self) -> Gate:
        event, q, d = self.event, self.q, self.d
        size = 16 if self.long else 8
        code = event.vector * 8 + IDT + self.ext
        if event.vector * size + size - 1 > d[_IDTR_LIMIT]:
            raise AccessFault(Vector.GP, code)
        place = (q[_IDTR_BASE] + event.vector * size) & _MASK_64
        low = self.memory.qword(place)
        high = self.memory.qword(place + 8 & _MASK_64) if self.long else 0
        entry, refused = _judge_gate(low, high, self.long, event.software, self.cpl)
        if refused:
            raise AccessFault(refused, code)
        return entry

    def _read_descriptor(self, selector: int, vector: int) -> int:
        """The descriptor a selector names, or ``vector`` with the selector as error code."""
        table = LDT if selector & 4 else GDT
        if selector & 0xFFF8 | 7 > self.d[table.limit]:
            raise AccessFault(vector, (selector & 0xFFFC) | self.ext)
        return self.memory.qword(self.q[table.base] + (selector & 0xFFF8) & _MASK_64)

    def code_segment(self, entry: Gate) -> tuple[Descriptor, int]:
        """The handler's code segment and the ring it runs in."""
        selector = entry.selector
        if not selector & 0xFFFC:
            raise AccessFault(Vector.GP, self.ext)
        found, ring, refused = _judge_code(self._read_descriptor(selector, Vector.GP), self.long, self.cpl)
        if refused:
            raise AccessFault(refused, (selector & 0xFFFC) | self.ext)
        return found, ring

    # -- long mode -------------------------------------------------------------------------------------

    def stack_offset(self, entry: Gate, ring: int) -> int:
        """Where in the TSS RSP for the handler is: the IST's, or that of a more privileged ring; -1: it stays."""
        if entry.ist:
            return 36 + 8 * (entry.ist - 1)
        return 4 + 8 * ring if ring < self.cpl else -1

    def stack_pointer(self, entry: Gate, ring: int) -> int:
        """RSP for the handler."""
        offset = self.stack_offset(entry, ring)
        return self.q[Q_RSP] if offset < 0 else self._task_state(offset)

    def _task_state(self, offset: int) -> int:
        """A 64-bit field of the TSS; #TS with TR's selector when it does not reach that far."""
        if offset + 7 > self.d[_TR_LIMIT]:
            raise AccessFault(Vector.TS, (self.d[_TR_SELECTOR] & 0xFFFC) | self.ext)
        return self.memory.read_int(self.q[_TR_BASE] + offset, 8)

    def _enter_long(self, entry: Gate, code: Descriptor, ring: int) -> None:
        event, q, d = self.event, self.q, self.d
        if not is_canonical(entry.offset):
            raise AccessFault(Vector.GP, self.ext)
        stack = self.stack_pointer(entry, ring) & -16
        flags = self.flags | (RFLAGS_RF if event.fault else 0)
        frame = _FRAME(event.rip, d[_CS_SELECTOR], flags, q[Q_RSP], d[_SS_SELECTOR])
        if event.has_error_code:
            frame = event.error_code.to_bytes(8, "little") + frame
        stack = (stack - len(frame)) & _MASK_64
        self.memory.write(stack, frame, bad=Vector.SS)
        q[Q_RSP] = stack
        if ring != self.cpl:
            # A NULL selector with the new RPL (SDM volume 3, 6.14.2).
            d[_SS_SELECTOR] = ring
            q[_SS_BASE] = 0
            d[_SS_FLAGS] = ring << 13
        self._enter(entry, code, ring)

    # -- protected mode ----------------------------------------------------------------------------------

    def _enter_protected(self, entry: Gate, code: Descriptor, ring: int) -> None:
        event, q, d = self.event, self.q, self.d
        old = (d[_SS_SELECTOR], q[Q_RSP] & 0xFFFF_FFFF)
        words = [event.rip & 0xFFFF_FFFF, d[_CS_SELECTOR], self.flags & 0xFFFF_FFFF]
        if event.fault:
            words[2] |= RFLAGS_RF
        if event.has_error_code:
            words.insert(0, event.error_code)
        selector, stack = old
        found: Descriptor | None = None
        base = q[_SS_BASE]
        if ring < self.cpl:
            selector, stack, found = self._inner_stack(ring)
            base = found.base
            words += [old[1], old[0]]
        frame = struct.pack(f"<{len(words)}I", *words)
        stack = (stack - len(frame)) & 0xFFFF_FFFF
        self.memory.write((base + stack) & 0xFFFF_FFFF, frame, bad=Vector.SS)
        q[Q_RSP] = stack
        if found is not None:
            d[_SS_SELECTOR] = selector
            q[_SS_BASE] = found.base
            d[_SS_LIMIT] = found.limit
            d[_SS_FLAGS] = found.flags
        self._enter(entry, code, ring)

    def _inner_stack(self, ring: int) -> tuple[int, int, Descriptor]:
        """SS and ESP of ``ring`` from the 32-bit TSS, checked (SDM volume 3, 6.12.1)."""
        offset = 4 + 8 * ring
        if offset + 5 > self.d[_TR_LIMIT]:
            raise AccessFault(Vector.TS, (self.d[_TR_SELECTOR] & 0xFFFC) | self.ext)
        stack = self.memory.read_int(self.q[_TR_BASE] + offset, 4)
        selector = self.memory.read_int(self.q[_TR_BASE] + offset + 4, 2)
        code = (selector & 0xFFFC) | self.ext
        if not selector & 0xFFFC:
            raise AccessFault(Vector.TS, self.ext)
        found = descriptor(self._read_descriptor(selector, Vector.TS))
        if selector & 3 != ring or found.dpl != ring or not found.is_writable_data:
            raise AccessFault(Vector.TS, code)
        if not found.present:
            raise AccessFault(Vector.SS, code)
        return selector, stack, found

    def _enter(self, entry: Gate, code: Descriptor, ring: int) -> None:
        """CS:RIP, flags and the privilege level of the handler."""
        q, d = self.q, self.d
        d[_CS_SELECTOR] = (entry.selector & 0xFFFC) | ring
        q[_CS_BASE] = 0 if self.long else code.base
        d[_CS_LIMIT] = code.limit
        d[_CS_FLAGS] = code.flags
        q[Q_RIP] = entry.offset
        put_rflags(q, d, self.flags & ~(CLEARED | RFLAGS_IF if entry.type == TYPE_INTERRUPT_GATE else CLEARED))
        hidden = d[D_HFLAGS] & HFLAGS_KEPT | ring
        if code.long and self.long:
            hidden |= HFLAGS_LONG
        else:
            hidden |= HFLAG_CS32 if code.big else 0
            hidden |= HFLAG_SS32 if d[_SS_FLAGS] >> 22 & 1 else 0
        d[D_HFLAGS] = hidden
