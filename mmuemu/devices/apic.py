"""The local APIC of one CPU: xAPIC registers by MMIO, x2APIC registers by MSR, interrupt acceptance and priority.

Source: Intel SDM volume 3, chapter 11 (11.4 local APIC, 11.5 LVT and errors, 11.6 IPIs, 11.8 acceptance and priority,
11.12 x2APIC). The CPU asks :meth:`LocalApic.pending_vector` and :attr:`LocalApic.nmi_pending`, and acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from mmuemu.devices import apic_data as reg
from mmuemu.devices.apic_data import Delivery, Shorthand, highest
from mmuemu.devices.apic_timer import ApicTimer
from mmuemu.devices.bus import ONES, Range
from mmuemu.devices.clock import InstructionClock


class MsrRefused(Exception):
    """``rdmsr`` or ``wrmsr`` must raise #GP(0); no state has changed."""


class ExternalController(Protocol):
    """What LINT0 in ExtINT mode leads to: the 8259 pair."""

    intr: bool

    def peek(self) -> int | None: ...

    def acknowledge(self) -> int: ...


class Register(NamedTuple):
    """How one register is reached; None: not readable, or not writable."""

    read: Callable[[], int] | None
    write: Callable[[int], None] | None
    x2: str = "rw"
    """Which accesses x2APIC mode allows by MSR (SDM table 11-6)."""
    mask: int = 0xFFFF_FFFF
    """Bits that may be set in x2APIC mode; others are reserved and raise #GP."""


class LocalApic:
    """One local APIC. Callbacks left out do nothing."""

    def __init__(
        self,
        clock: InstructionClock,
        pic: ExternalController,
        *,
        apic_id: int = 0,
        x2apic: bool = True,
        tsc_deadline: bool = True,
        address_bits: int = 40,
        wake: Callable[[], None] = lambda: None,
        eoi: Callable[[int], None] = lambda _vector: None,
        moved: Callable[[], None] = lambda: None,
        init: Callable[[], None] = lambda: None,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """``wake``: an interrupt or NMI may be deliverable now; ``eoi``: the EOI broadcast of a level-triggered vector;
        ``moved``: ``base`` or ``mmio_enabled`` changed; ``init``: an INIT reached this CPU; ``opened``: messages that
        were refused while the APIC was disabled are accepted from now on."""
        self._pic = pic
        self.id = apic_id
        self._tsc_deadline = tsc_deadline
        self._base_mask = (1 << address_bits) - reg.PAGE | reg.BASE_EN | reg.BASE_BSP
        if x2apic:
            self._base_mask |= reg.BASE_EXTD
        self._wake, self._eoi, self._moved, self._init, self._opened = wake, eoi, moved, init, opened
        self.base_msr = reg.DEFAULT_BASE | reg.BASE_EN | (reg.BASE_BSP if apic_id == 0 else 0)
        self.timer = ApicTimer(clock, lambda: self._fire(reg.LVT_TIMER))
        clock.on_tsc = self.timer.tsc_was_set
        self._levels = [False, False]
        self._lvt_masks = reg.LVT_MASKS if tsc_deadline else reg.LVT_MASKS | {reg.LVT_TIMER: 0x3_00FF}
        self.nmi_pending = False
        self._registers = self._table()
        self._reset()

    def _reset(self) -> None:
        """The state after power-up or INIT (SDM 11.4.7.1)."""
        self.irr = self.isr = self.tmr = 0
        self.tpr = self.ldr = self.esr = self._errors = self._icr_low = self._icr_high = 0
        self.dfr = 0xFFFF_FFFF
        self.svr = 0xFF
        self.lvt = dict.fromkeys(reg.LVT_MASKS, reg.LVT_MASKED)
        self.timer.reset()

    # What the CPU asks.

    @property
    def enabled(self) -> bool:
        """Globally enabled by IA32_APIC_BASE; if not, the CPU has bare INTR and NMI pins."""
        return bool(self.base_msr & reg.BASE_EN)

    @property
    def x2_mode(self) -> bool:
        return bool(self.base_msr & reg.BASE_EXTD)

    @property
    def mmio_enabled(self) -> bool:
        """Whether the registers are to be seen in memory, at :attr:`base`."""
        return self.enabled and not self.x2_mode

    @property
    def base(self) -> int:
        """The physical address of the register page."""
        return self.base_msr & self._base_mask & ~(reg.PAGE - 1)

    @property
    def ppr(self) -> int:
        """The processor priority (SDM 11.8.3.1)."""
        in_service = max(highest(self.isr), 0) & 0xF0
        return self.tpr if self.tpr & 0xF0 >= in_service else in_service

    @property
    def cr8(self) -> int:
        """CR8: bits 7 to 4 of TPR."""
        return self.tpr >> 4

    @cr8.setter
    def cr8(self, value: int) -> None:
        self._set_tpr((value & 0xF) << 4)

    def pending_vector(self) -> int | None:
        """The vector the CPU would get if it could take an interrupt now; an external one goes first."""
        if self._external():
            return self._pic.peek()
        vector = highest(self.irr)
        return vector if vector >> 4 > self.ppr >> 4 else None

    def acknowledge(self) -> int:
        """Take the pending interrupt: its vector, now in service; the spurious vector if it has gone."""
        if self._external():
            return self._pic.acknowledge()
        vector = self.pending_vector()
        if vector is None:
            return self.svr & 0xFF
        self.irr &= ~(1 << vector)
        self.isr |= 1 << vector
        return vector

    def acknowledge_nmi(self) -> bool:
        """Take the pending NMI: whether there was one."""
        was, self.nmi_pending = self.nmi_pending, False
        return was

    def _external(self) -> bool:
        if not self._pic.intr:
            return False
        entry = self.lvt[reg.LVT_LINT0]
        return not self.enabled or (not entry & reg.LVT_MASKED and entry >> 8 & 7 == Delivery.EXTINT)

    # Interrupts that arrive.

    def set_lint(self, pin: int, level: bool) -> None:
        """Drive LINT0 (INTR, the 8259s) or LINT1 (NMI)."""
        rising = level and not self._levels[pin]
        self._levels[pin] = level
        if not self.enabled:
            if rising and pin == 1:
                self.nmi_pending = True
        elif rising or (level and pin == 0 and self.lvt[reg.LVT_LINT0] & reg.LVT_LEVEL):
            self._fire(reg.LINTS[pin])
        if rising:
            self._wake()

    def message(self, destination: int, logical: bool, mode: int, vector: int, level: bool) -> bool:
        """A message from the I/O APIC (8-bit destination): whether this CPU was meant and has accepted it."""
        if not self.enabled or not self._is_meant(destination, logical, reg.BROADCAST):
            return False
        return self._deliver(mode, vector, level)

    def _is_meant(self, destination: int, logical: bool, broadcast: int) -> bool:
        """The destination rules (SDM 11.6.2); in x2APIC mode the logical ID is made of the ID (11.12.10.2)."""
        if destination == broadcast:
            return True
        if not logical:
            return destination == self.id
        if self.x2_mode:
            mine = self._logical_x2()
            return destination >> 16 == mine >> 16 and bool(destination & mine & 0xFFFF)
        mine = self.ldr >> 24
        if self.dfr >> 28 == 0xF:
            return bool(destination & mine)
        return destination >> 4 == mine >> 4 and bool(destination & mine & 0xF)

    def _logical_x2(self) -> int:
        return self.id >> 4 << 16 | 1 << (self.id & 0xF)

    def _deliver(self, mode: int, vector: int, level: bool) -> bool:
        if mode == Delivery.NMI:
            self.nmi_pending = True
            self._wake()
            return True
        if mode == Delivery.INIT:
            self._init()
            return True
        if mode not in (Delivery.FIXED, Delivery.LOWEST):
            return False
        return self._accept(vector, level)

    def _accept(self, vector: int, level: bool) -> bool:
        """Put a vector into IRR; not while software-disabled, nor a vector below 16 (SDM 11.4.7.2, 11.5.2)."""
        if not self.svr & reg.SVR_ENABLE:
            return False
        if vector < 16:
            self._error(reg.ESR_RECEIVE_ILLEGAL)
            return False
        bit = 1 << vector
        self.irr |= bit
        self.tmr = self.tmr | bit if level else self.tmr & ~bit
        self._wake()
        return True

    def _fire(self, register: int) -> None:
        """One local interrupt, by its LVT entry."""
        entry = self.lvt[register]
        if entry & reg.LVT_MASKED or entry & reg.LVT_REMOTE_IRR:
            return
        mode = entry >> 8 & 7 if register not in (reg.LVT_TIMER, reg.LVT_ERROR) else Delivery.FIXED
        if mode == Delivery.EXTINT:
            self._wake()
            return
        # LINT1 is always edge-triggered (SDM 11.5.1, trigger mode).
        level = register == reg.LVT_LINT0 and mode == Delivery.FIXED and bool(entry & reg.LVT_LEVEL)
        if self._deliver(mode, entry & 0xFF, level) and level:
            self.lvt[register] |= reg.LVT_REMOTE_IRR

    def _error(self, bit: int) -> None:
        """Note an error; the error interrupt comes unless its own vector is what is wrong."""
        self._errors |= bit
        entry = self.lvt[reg.LVT_ERROR]
        if not entry & reg.LVT_MASKED and entry & 0xFF >= 16:
            self._accept(entry & 0xFF, False)

    # Registers.

    def _table(self) -> dict[int, Register]:
        table = {
            reg.ID: Register(self._read_id, lambda _value: None, "r"),
            reg.VERSION_REGISTER: Register(lambda: reg.VERSION, lambda _value: None, "r"),
            reg.TPR: Register(lambda: self.tpr, self._set_tpr, mask=0xFF),
            reg.APR: Register(lambda: 0, None, ""),
            reg.PPR: Register(lambda: self.ppr, None, "r"),
            reg.EOI: Register(None, lambda _value: self.end_of_interrupt(), "w", mask=0),
            reg.LDR: Register(self._read_ldr, self._write_ldr, "r"),
            reg.DFR: Register(lambda: self.dfr, self._write_dfr, ""),
            reg.SVR: Register(lambda: self.svr, self._write_svr, mask=0x1FF),
            reg.ESR: Register(lambda: self.esr, self._write_esr, mask=0),
            reg.ICR_LOW: Register(lambda: self._icr_low, self._write_icr, ""),
            reg.ICR_HIGH: Register(lambda: self._icr_high, self._write_icr_high, ""),
            reg.INITIAL_COUNT: Register(lambda: self.timer.initial, self.timer.set_initial),
            reg.CURRENT_COUNT: Register(self.timer.current, None, "r"),
            reg.DIVIDE: Register(lambda: self.timer.divide, self.timer.set_divide, mask=0xB),
        }
        for bank, name in ((reg.ISR, "isr"), (reg.TMR, "tmr"), (reg.IRR, "irr")):
            for word in range(8):
                table[bank + 0x10 * word] = Register(self._word(name, 32 * word), None, "r")
        for entry, mask in self._lvt_masks.items():
            # Read-only bits are no reserved bits: what was read can be written back.
            mask |= reg.LVT_STATUS | (reg.LVT_REMOTE_IRR if entry in reg.LINTS else 0)
            table[entry] = Register(self._lvt_reader(entry), self._lvt_writer(entry), mask=mask)
        return table

    def _word(self, name: str, shift: int) -> Callable[[], int]:
        return lambda: int(getattr(self, name)) >> shift & 0xFFFF_FFFF

    def _lvt_reader(self, register: int) -> Callable[[], int]:
        return lambda: self.lvt[register]

    def _lvt_writer(self, register: int) -> Callable[[int], None]:
        return lambda value: self._write_lvt(register, value)

    def _read_id(self) -> int:
        return self.id if self.x2_mode else self.id << 24

    def _read_ldr(self) -> int:
        return self._logical_x2() if self.x2_mode else self.ldr

    def _write_ldr(self, value: int) -> None:
        self.ldr = value & 0xFF00_0000

    def _write_dfr(self, value: int) -> None:
        self.dfr = value | 0x0FFF_FFFF

    def _set_tpr(self, value: int) -> None:
        self.tpr = value & 0xFF
        self._wake()

    def _write_svr(self, value: int) -> None:
        was, self.svr = self.svr, value & 0x1FF
        if value & reg.SVR_ENABLE:
            if not was & reg.SVR_ENABLE:
                self._opened()
        else:
            for register in reg.LVT_MASKS:
                self._write_lvt(register, self.lvt[register])

    def _write_esr(self, _value: int) -> None:
        # A write moves what was collected into the register that is read (SDM 11.5.3).
        self.esr, self._errors = self._errors, 0

    def _write_lvt(self, register: int, value: int) -> None:
        masked = reg.LVT_MASKED if not self.svr & reg.SVR_ENABLE else 0
        kept = self.lvt[register] & reg.LVT_REMOTE_IRR if value & reg.LVT_LEVEL else 0
        self.lvt[register] = value & self._lvt_masks[register] | masked | kept
        if register == reg.LVT_TIMER:
            self.timer.configure(self.lvt[register] >> 17 & 3, bool(self.lvt[register] & reg.LVT_MASKED))
        elif register == reg.LVT_LINT0 and self._levels[0] and self._by_level(value):
            # A level that is there already counts as soon as it is let in.
            self._fire(register)

    def _by_level(self, entry: int) -> bool:
        return bool(entry & reg.LVT_LEVEL) or entry >> 8 & 7 == Delivery.EXTINT

    def _write_icr_high(self, value: int) -> None:
        self._icr_high = value & 0xFF00_0000

    def _write_icr(self, value: int) -> None:
        self._icr_low = value & reg.ICR_MASK
        self._send(self._icr_low, self._icr_high >> 24, reg.BROADCAST)

    def _send(self, low: int, destination: int, broadcast: int) -> None:
        """An IPI. Other CPUs do not exist: what is meant for them alone goes nowhere."""
        mode, vector, shorthand = low >> 8 & 7, low & 0xFF, low >> 18 & 3
        if mode in (Delivery.FIXED, Delivery.LOWEST) and vector < 16:
            self._error(reg.ESR_SEND_ILLEGAL)
            return
        # INIT level de-assert only synchronizes arbitration IDs, and not even that since the Pentium 4.
        if mode == Delivery.INIT and low & reg.ICR_LEVEL and not low & reg.ICR_ASSERT:
            return
        # A shorthand that includes the sender takes no INIT or SIPI (SDM table 11-3).
        if shorthand == Shorthand.OTHERS or (shorthand and mode in (Delivery.INIT, Delivery.STARTUP)):
            return
        if shorthand == Shorthand.NONE and not self._is_meant(destination, bool(low & reg.ICR_LOGICAL), broadcast):
            return
        self._deliver(mode, vector, False)

    def end_of_interrupt(self) -> None:
        """EOI: the highest vector in service ends; a level-triggered one is told to the I/O APIC."""
        vector = highest(self.isr)
        if vector < 0:
            return
        bit = 1 << vector
        self.isr &= ~bit
        if self.tmr & bit:
            entry = self.lvt[reg.LVT_LINT0]
            if entry & reg.LVT_REMOTE_IRR and entry & 0xFF == vector:
                self.lvt[reg.LVT_LINT0] &= ~reg.LVT_REMOTE_IRR
                if self._levels[0]:
                    self._fire(reg.LVT_LINT0)
            self._eoi(vector)
        self._wake()

    # MMIO.

    def ranges(self) -> Iterator[Range]:
        """The register page, where :attr:`base` has it now; nothing unless :attr:`mmio_enabled`."""
        if self.mmio_enabled:
            yield Range("lapic", self.base, reg.PAGE, self._read_mmio, self._write_mmio, (1, 2, 4))

    def _read_mmio(self, offset: int, size: int) -> int:
        register = self._register(offset & ~0xF)
        if register is None or register.read is None:
            return 0
        # Only 32-bit accesses at multiples of 16 are defined; others see the bytes that are there.
        byte = offset & 0xF
        return register.read() >> 8 * byte & ONES[size] if byte < 4 else 0

    def _write_mmio(self, offset: int, size: int, value: int) -> None:
        register = self._register(offset & ~0xF)
        if register is not None and register.write is not None and size == 4 and not offset & 0xF:
            register.write(value)

    def _register(self, offset: int) -> Register | None:
        register = self._registers.get(offset)
        if register is None:
            self._error(reg.ESR_ILLEGAL_REGISTER)
        return register

    # MSRs.

    def owns_msr(self, msr: int) -> bool:
        """Whether an MSR number is this device's to answer or refuse."""
        return msr in (reg.MSR_APIC_BASE, reg.MSR_TSC_DEADLINE) or msr in reg.X2APIC_MSRS

    def read_msr(self, msr: int) -> int:
        """``rdmsr``. Raises MsrRefused for #GP(0)."""
        if msr == reg.MSR_APIC_BASE:
            return self.base_msr
        if msr == reg.MSR_TSC_DEADLINE and self._tsc_deadline:
            return self.timer.deadline
        offset = self._x2_offset(msr)
        if offset == reg.ICR_LOW:
            return self._icr_high << 32 | self._icr_low
        register = self._registers.get(offset)
        if register is None or register.read is None or "r" not in register.x2:
            raise MsrRefused
        return register.read()

    def write_msr(self, msr: int, value: int) -> None:
        """``wrmsr`` of a 64-bit value. Raises MsrRefused for #GP(0), with no state changed."""
        if msr == reg.MSR_APIC_BASE:
            self._write_base(value)
            return
        if msr == reg.MSR_TSC_DEADLINE and self._tsc_deadline:
            self.timer.set_deadline(value)
            return
        offset = self._x2_offset(msr)
        if offset == reg.ICR_LOW:
            if value & 0xFFFF_FFFF & ~(reg.ICR_MASK | reg.ICR_STATUS):
                raise MsrRefused
            self._icr_low, self._icr_high = value & reg.ICR_MASK, value >> 32
            self._send(self._icr_low, self._icr_high, reg.X2_BROADCAST)
        elif offset == reg.SELF_IPI:
            if value >> 8:
                raise MsrRefused
            self._send(Shorthand.SELF << 18 | value, 0, reg.X2_BROADCAST)
        else:
            register = self._registers.get(offset)
            if register is None or register.write is None or "w" not in register.x2 or value & ~register.mask:
                raise MsrRefused
            register.write(value)

    def _x2_offset(self, msr: int) -> int:
        if msr not in reg.X2APIC_MSRS or not self.x2_mode:
            raise MsrRefused
        return (msr - reg.X2APIC_MSRS.start) << 4

    def _write_base(self, value: int) -> None:
        """IA32_APIC_BASE and its state machine (SDM 11.12.5 and figure 11-27)."""
        if value & ~self._base_mask:
            raise MsrRefused
        on, extended = bool(value & reg.BASE_EN), bool(value & reg.BASE_EXTD)
        if extended and (not on or not self.enabled):
            raise MsrRefused
        if self.x2_mode and on and not extended:
            raise MsrRefused
        was_on, was_x2 = self.enabled, self.x2_mode
        self.base_msr = value
        if was_on and not on:
            self._reset()
        if extended and not was_x2:
            # The destination is 32 bits wide from now on; the ICR's high half starts empty (SDM 11.12.5.1).
            self._icr_high = 0
        self._moved()
        self._wake()
