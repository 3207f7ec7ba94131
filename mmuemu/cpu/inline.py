"""Exceptions delivered inside the hook that reports them, so that the run need not end and start again.

Only the plain case is taken here: 64-bit code, a delivery that succeeds at once, a handler whose code was looked at
(:meth:`Privileged.prepare`), nobody who wants the run to stop. For everything else nothing changes, and the run ends
as it does for any trap (:meth:`BareMetal.trap`). What the guest sees is the same.

What a delivery reads does not change from one exception to the next: gate, code segment, task state, and the entries
of the page tables that lead there. So its outcome is kept as a :class:`Plan` with all that was read, by the registers
that decided what was read, and followed again while the same words are in the same places.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from mmuemu.cpu import emulated
from mmuemu.cpu.delivery import CLEARED, HFLAGS_KEPT, HFLAGS_LONG, Attempt, Event
from mmuemu.cpu.engines import PythonEngine
from mmuemu.cpu.linear import AccessFault, LinearMemory
from mmuemu.cpu.privileged import FIRST_LOOK
from mmuemu.cpu.raising import Raising, works
from mmuemu.cpu.traps import LONGEST_INSTRUCTION, TRAPS
from mmuemu.cpu.window import (
    CC_OP_EFLAGS,
    CS,
    D_CC_OP,
    D_DF,
    D_ERROR_CODE,
    D_HFLAGS,
    D_IS_INT,
    D_OLD_EXCEPTION,
    GDT,
    HFLAG_CS64,
    HFLAG_LMA,
    IDT,
    NO_EXCEPTION,
    Q_CC_SRC,
    Q_CR0,
    Q_CR2,
    Q_CR3,
    Q_CR4,
    Q_EFER,
    Q_PKRU,
    Q_RFLAGS,
    Q_RIP,
    Q_RSP,
    SS,
    TR,
)
from mmuemu.x86.descriptors import TYPE_INTERRUPT_GATE
from mmuemu.x86.exceptions import WITH_ERROR_CODE, Vector
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE, FaultBits, is_canonical
from mmuemu.x86.registers import RFLAGS_ARITHMETIC, RFLAGS_DF, RFLAGS_IF, RFLAGS_RF

if TYPE_CHECKING:
    from mmuemu.cpu.bare import BareMetal
    from mmuemu.cpu.privileged import Privileged

_PF: Final = int(Vector.PF)
_UD: Final = int(Vector.UD)
_LONG: Final = HFLAG_CS64 | HFLAG_LMA
_LATER: Final = frozenset({int(Vector.DB), int(Vector.DF), int(Vector.GP)})
"""What these are, or where they return to, takes a look at registers or at the instruction."""
_ERROR_CODES: Final = frozenset(int(vector) for vector in WITH_ERROR_CODE)
_TRAPS: Final = frozenset(int(vector) for vector in TRAPS)
_FETCH: Final = int(FaultBits.I)
_MOST_PLANS: Final = 1024
_LARGEST_FRAME: Final = 48
_MASK_64: Final = (1 << 64) - 1
_CS_SELECTOR, _CS_BASE, _CS_LIMIT, _CS_FLAGS = CS
_SS_SELECTOR, _SS_BASE, _, _SS_FLAGS = SS
_DECIDING: Final = itemgetter(
    Q_CR0,
    Q_CR3,
    Q_CR4,
    Q_EFER,
    Q_PKRU,
    IDT.base,
    IDT.limit // 2,
    GDT.base,
    GDT.limit // 2,
    TR.base,
    TR.limit // 2,
)
"""Of a state's 64-bit words, those that say what a delivery reads; a limit is in one with the segment's flags."""
_PUSH: Final = struct.Struct("<5Q").pack_into
_PUSH_WITH_CODE: Final = struct.Struct("<6Q").pack_into
_ARITHMETIC: Final = RFLAGS_ARITHMETIC | RFLAGS_DF


class Plan:
    """How an exception of one kind is delivered while :attr:`reads` of guest RAM gives :attr:`read`."""

    __slots__ = ("clears", "code", "cs", "flags", "limit", "place", "read", "reads", "ring", "rip", "stack")

    reads: Any
    """Takes the words of RAM that matter."""
    read: tuple[int, ...]
    code: slice | None
    """Where the handler's code is in guest RAM, as far as it is looked at; None when that is in two pages."""
    rip: int
    ring: int
    cs: int
    limit: int
    flags: int
    """Selector, limit and flags of CS."""
    clears: int
    """Flags that stay as they are."""
    stack: int
    """RSP for the handler, aligned, before the frame; -1: the current one's."""
    place: int
    """The physical address of that, or the frame of the page that the current RSP points into."""


class Inline:
    """Delivers exceptions to the guest of one bare machine, from hooks."""

    def __init__(self, bare: BareMetal, privileged: Privileged) -> None:
        self._bare, self._privileged = bare, privileged
        self._cpu = cpu = bare.cpu
        self._q, self._d = cpu.window.live_q, cpu.window.live_d
        self._memory = LinearMemory(cpu, live=True)
        self._peek = LinearMemory(cpu, peek=True, live=True)
        self._words, self._bytes = cpu.ram.qwords, cpu.ram_bytes
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._cpuid = cpu.cpuid
        self._refused: tuple[int, int] | None = None
        python = isinstance(cpu.engine, PythonEngine)
        self._raising = Raising(cpu.handle) if python and works() else None

    def refuse(self, page: int, error_code: int) -> None:
        """From a fill hook that refuses an access to data: have that reported as a #PF, if it can be."""
        if self._raising is not None and self._cpu.goes_on_at(-1):
            self._refused = (page, error_code)
            # Left over from an INT n, it would have the engine move RIP.
            self._d[D_IS_INT] = 0
            self._raising.page_fault()

    def interrupt(self, vector: int) -> bool:
        """From the hook on exceptions and INT n: whether it is dealt with, and nobody else need to."""
        q, d = self._q, self._d
        if self._refused is not None:
            (page, error_code), self._refused = self._refused, None
            address = self._cpu.internals.fault_address(page)
            if address is not None and self._deliver(_PF, error_code, address, False):
                self._cpu.engine.forget_fault()
                assert self._raising is not None
                self._raising.go_on()
            # If not, the run ends, with what the engine has noted of the refusal.
            return True
        address = q[Q_CR2] if vector == _PF else 0
        if d[D_IS_INT]:
            return self._deliver(vector, 0, address, True)
        if vector in _LATER:
            return False
        delivered = self._deliver(vector, d[D_ERROR_CODE] if vector in _ERROR_CODES else 0, address, False)
        if delivered and vector == _PF:
            self._cpu.engine.count_fault()
        return delivered

    def invalid(self) -> bool:
        """From the hook on invalid instructions: whether a #UD is delivered."""
        if emulated.may_be(self._peek.sync().available(self._q[Q_RIP], LONGEST_INSTRUCTION)):
            return False
        return self._deliver(_UD, 0, 0, False)

    def _deliver(self, vector: int, error_code: int, address: int, software: bool) -> bool:
        cpu, bare, q, d = self._cpu, self._bare, self._q, self._d
        cpl, rip, rsp = d[D_HFLAGS] & 3, q[Q_RIP], q[Q_RSP]
        if d[D_HFLAGS] & _LONG != _LONG or bare.before_trap is not None or cpu.tlb is not None:
            return False
        if cpu.engine.permitted is not None or (
            vector == _PF and cpl == 3 and not software and not self._is_plain(address, error_code)
        ):
            return False
        key = (vector << 3 | software << 2 | cpl, cpl or rsp >> 12, cpu.pkrs, _DECIDING(q))
        plan = self._plans.get(key)
        if plan is None or cpu.cpuid is not self._cpuid or plan.reads(self._words) != plan.read:
            plan = self._plan(key, vector, software)
            if plan is None:
                return False
        if not cpu.goes_on_at(plan.rip) or not self._is_known(plan):
            return False
        fault = not software and vector not in _TRAPS
        with_code = not software and vector in _ERROR_CODES
        size = _LARGEST_FRAME if with_code else 40
        stack = plan.stack
        if stack < 0:
            stack = rsp & -16
            if not size <= stack & PAGE_MASK:
                return False
            place = (plan.place | stack & PAGE_MASK) - size
        else:
            place = plan.place - size
        # Nothing has changed so far, and nothing fails from here on.
        flags = q[Q_RFLAGS] | q[Q_CC_SRC] | d[D_DF] & RFLAGS_DF if d[D_CC_OP] == CC_OP_EFLAGS else cpu.rflags
        pushed = flags | RFLAGS_RF if fault else flags
        if with_code:
            _PUSH_WITH_CODE(self._bytes, place, error_code, rip, d[_CS_SELECTOR], pushed, rsp, d[_SS_SELECTOR])
        else:
            _PUSH(self._bytes, place, rip, d[_CS_SELECTOR], pushed, rsp, d[_SS_SELECTOR])
        q[Q_RSP] = stack - size
        ring = plan.ring
        if ring != cpl:
            d[_SS_SELECTOR], q[_SS_BASE], d[_SS_FLAGS] = ring, 0, ring << 13
        d[_CS_SELECTOR], q[_CS_BASE], d[_CS_LIMIT], d[_CS_FLAGS] = plan.cs, 0, plan.limit, plan.flags
        q[Q_RIP] = plan.rip
        q[Q_RFLAGS] = flags & plan.clears & ~_ARITHMETIC | 2
        q[Q_CC_SRC] = flags & RFLAGS_ARITHMETIC
        d[D_CC_OP] = CC_OP_EFLAGS
        d[D_DF] = 0xFFFF_FFFF if flags & RFLAGS_DF else 1
        d[D_HFLAGS] = d[D_HFLAGS] & HFLAGS_KEPT | HFLAGS_LONG | ring
        if vector == _PF:
            q[Q_CR2] = address
        d[D_OLD_EXCEPTION] = NO_EXCEPTION
        if fault and not (vector == _PF and (error_code & _FETCH or 0 <= address - rip < LONGEST_INSTRUCTION)):
            cpu.internals.uncount()
        if bare.on_event is not None:
            bare.on_event([Event(vector, error_code, rip, address, software, fault=fault)])
        return True

    def _is_plain(self, address: int, error_code: int) -> bool:
        return self._cpu.ring_three.is_plain(address, error_code, self._peek.sync())

    def _is_known(self, plan: Plan) -> bool:
        """Whether the handler's code was looked at as it is."""
        if plan.code is not None:
            return self._privileged.known(plan.rip) == self._bytes[plan.code].tobytes()
        return self._privileged.known(plan.rip) == self._peek.sync().available(plan.rip, FIRST_LOOK)

    # -- planning --------------------------------------------------------------------------------------

    def _plan(self, key: tuple[object, ...], vector: int, software: bool) -> Plan | None:
        """The plan for ``key``, made anew and kept; None for what cannot be delivered, or not by a plan."""
        if len(self._plans) >= _MOST_PLANS or self._cpu.cpuid is not self._cpuid:
            self._plans.clear()
            self._cpuid = self._cpu.cpuid
        self._plans.pop(key, None)
        attempt = Attempt(self._q, self._d, self._memory.sync(), Event(vector, software=software), 0)
        try:
            plan = self._made(attempt, vector)
        except AccessFault:
            return None
        if plan is not None:
            self._plans[key] = plan
        return plan

    def _made(self, attempt: Attempt, vector: int) -> Plan | None:
        q, memory = self._q, self._memory
        entry = attempt.gate()
        code, ring = attempt.code_segment(entry)
        offset = attempt.stack_offset(entry, ring)
        stack = attempt.stack_pointer(entry, ring) & -16
        if entry.selector & 4 or not is_canonical(entry.offset):
            return None
        plan = Plan()
        plan.rip, plan.ring, plan.cs = entry.offset, ring, entry.selector & 0xFFFC | ring
        plan.limit, plan.flags = code.limit, code.flags
        plan.clears = ~(CLEARED | RFLAGS_IF if entry.type == TYPE_INTERRUPT_GATE else CLEARED)
        words: dict[int, int] = {}
        whole = (entry.offset & PAGE_MASK) + FIRST_LOOK <= PAGE_SIZE
        places = [
            self._place(words, memory, q[IDT.base] + vector * 16, 16, read=True),
            self._place(words, memory, q[GDT.base] + (entry.selector & 0xFFF8), 8, read=True),
            self._place(words, self._peek.sync(), entry.offset, FIRST_LOOK) if whole else 0,
            self._place(words, memory, q[TR.base] + offset, 8, read=True) if offset >= 0 else 0,
            self._place(words, memory, stack & ~PAGE_MASK, 1, 1)
            if offset < 0
            else self._place(words, memory, stack - _LARGEST_FRAME, _LARGEST_FRAME, 1),
        ]
        if -1 in places:
            return None
        _, _, begin, _, place = places
        plan.code = slice(begin, begin + FIRST_LOOK) if whole else None
        plan.stack, plan.place = (-1, place) if offset < 0 else (stack, place + _LARGEST_FRAME)
        plan.reads, plan.read = itemgetter(*words), tuple(words.values())
        return plan

    def _place(
        self,
        words: dict[int, int],
        memory: LinearMemory,
        address: int,
        size: int,
        access: int = 0,
        *,
        read: bool = False,
    ) -> int:
        """The physical address of ``size`` bytes in one page, or -1; what says so goes to ``words``, by place: entries
        of page tables, and with ``read`` the bytes.
        """
        address &= _MASK_64
        if (address & PAGE_MASK) + size > PAGE_SIZE:
            return -1
        kept = memory.kept(address, access)
        if kept is None:
            return -1
        physical = kept[0] | address & PAGE_MASK
        words.update(zip(kept[1::2], kept[2::2], strict=True))
        if read:
            numbers = range(physical >> 3, (physical + size + 7) >> 3)
            words.update((number, self._words[number]) for number in numbers)
        return physical
