"""The machine: every device of a QEMU-"pc"-like board with one CPU, on its ports, addresses and interrupt lines.

Sources: QEMU ``hw/i386/pc.c`` and ``hw/i386/pc_piix.c`` (which device sits where; ISA IRQ 0 on I/O APIC input 2);
SeaBIOS ``src/hw/pic.c``, ``src/hw/timer.c`` and ``src/fw/smp.c`` (the state in which firmware leaves PICs, PIT and
local APIC to whatever it boots).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple, Protocol

from mmuemu.devices.acpi_pm import AcpiPm
from mmuemu.devices.apic import LocalApic
from mmuemu.devices.apic_data import LVT_LINT0, LVT_LINT1, SVR
from mmuemu.devices.bus import MmioBus, PortBus, Range
from mmuemu.devices.clock import InstructionClock
from mmuemu.devices.debug_exit import DebugConsole, DebugExit
from mmuemu.devices.fwcfg import FwCfg, standard_items
from mmuemu.devices.ioapic import IoApic
from mmuemu.devices.keyboard import Keyboard
from mmuemu.devices.pci import EmptyPci
from mmuemu.devices.pic import PicPair
from mmuemu.devices.pit import Pit
from mmuemu.devices.rtc import Rtc
from mmuemu.devices.serial import COM1_IRQ, COM2, COM2_IRQ, Source, Uart

EPOCH: Final = 1_704_067_200
"""2024-01-01 00:00:00 UTC, the time at which a machine starts unless told otherwise."""
PIT_IRQ: Final = 0
KEYBOARD_IRQ: Final = 1
RTC_IRQ: Final = 8
PIT_GSI: Final = 2

FIRMWARE_PORTS: Final = (
    *(
        (0x20, 0x11),
        (0xA0, 0x11),
        (0x21, 0x08),
        (0xA1, 0x70),
        (0x21, 0x04),
        (0xA1, 0x02),
        (0x21, 0x01),
        (0xA1, 0x01),
    ),
    *((0x21, 0xB8), (0xA1, 0x8E)),
    *((0x43, 0x34), (0x40, 0x00), (0x40, 0x00)),
)
"""What SeaBIOS has written: vectors 0x08 and 0x70, IRQ 0, 1, 2, 6, 8 and 12 to 14 open; channel 0 at 18.2 Hz."""
FIRMWARE_APIC: Final = ((SVR, 0x1FF), (LVT_LINT0, 0x8700), (LVT_LINT1, 0x8400))
"""Local APIC on, the 8259s through LINT0, NMI by LINT1."""


class Ending(NamedTuple):
    """Why the machine stopped by itself."""

    kind: str
    """``"exit"`` (the debug-exit port), ``"shutdown"`` (ACPI) or ``"reset"`` (keyboard, 0x92, 0xcf9)."""
    status: int
    """The exit status: ``value << 1 | 1`` for the debug-exit port, 0 otherwise."""


class PortDevice(Protocol):
    """What can be plugged into the port bus."""

    def ports(self) -> Iterator[Range]: ...


def _discard(_data: bytes) -> None:
    """Output that nobody wants."""


class Platform:
    """All of it. The CPU's side calls ``ports``, ``mmio``, ``read_msr``, ``write_msr`` for accesses, advances
    ``clock``, and asks :meth:`pending_vector`, :attr:`nmi_pending`, :attr:`ending`."""

    def __init__(
        self,
        ram: int,
        *,
        clock: InstructionClock | None = None,
        epoch: int = EPOCH,
        serial_out: Callable[[bytes], None] = _discard,
        serial_in: Source | None = None,
        com2_out: Callable[[bytes], None] | None = None,
        debug_out: Callable[[bytes], None] = _discard,
        wake: Callable[[], None] = lambda: None,
        x2apic: bool = True,
        tsc_deadline: bool = True,
        address_bits: int = 40,
        firmware: bool = True,
    ) -> None:
        """``ram`` bytes of memory, ``epoch`` seconds since 1970; COM2 exists if it has an output.

        ``wake``: called when something may be deliverable, or the next event has come nearer, or the machine has
        ended: a CPU that is running should look again.
        ``firmware``: start in the state a BIOS leaves, not in that of power-up.
        """
        self.clock = clock or InstructionClock()
        self.clock.on_sooner = wake
        self.ending: Ending | None = None
        """Set once the guest has ended the machine; nothing is delivered after that."""
        self._wake = wake
        self._com2_out = com2_out
        self.ports = PortBus()
        self.mmio = MmioBus()
        self.pic = PicPair(lambda level: self.lapic.set_lint(0, level))
        self.lapic = LocalApic(
            self.clock,
            self.pic,
            x2apic=x2apic,
            tsc_deadline=tsc_deadline,
            address_bits=address_bits,
            wake=self._look,
            eoi=lambda vector: self.ioapic.end_of_interrupt(vector),
            moved=self._place_lapic,
            init=self._reset,
            opened=lambda: self.ioapic.serve_levels(),
        )
        self.ioapic = IoApic(self.lapic.message)
        self.pit = Pit(self.clock, partial(self.irq, PIT_IRQ))
        self.rtc = Rtc(self.clock, partial(self.irq, RTC_IRQ), epoch=epoch, ram=ram)
        self.keyboard = Keyboard(partial(self.irq, KEYBOARD_IRQ), self._reset)
        self.com1 = Uart(self.clock, serial_out, partial(self.irq, COM1_IRQ), serial_in)
        self._plug(ram, debug_out)
        if firmware:
            self._as_firmware_leaves_it()

    # Interrupt lines.

    def irq(self, line: int, level: bool) -> None:
        """Drive ISA interrupt ``line`` (0 to 15): the 8259s' input and the I/O APIC's of that number, but 2 for 0."""
        self.pic.set_line(line, level)
        self.ioapic.set_pin(PIT_GSI if line == PIT_IRQ else line, level)

    def gsi(self, number: int, level: bool) -> None:
        """Drive an I/O APIC input that no ISA line leads to (16 to 23)."""
        self.ioapic.set_pin(number, level)

    def nmi(self) -> None:
        """Pulse the NMI line, unless the guest has blocked it by bit 7 of port 0x70."""
        if not self.rtc.nmi_disabled:
            self.lapic.set_lint(1, True)
            self.lapic.set_lint(1, False)

    # What the CPU asks.

    def pending_vector(self, interrupts_on: bool = True) -> int | None:
        """The vector to deliver before the next instruction; None: none, or the CPU cannot take one now.

        ``interrupts_on``: EFLAGS.IF set and no ``sti`` or ``mov ss`` shadow. Nothing changes by asking.
        """
        return self.lapic.pending_vector() if interrupts_on and self.ending is None else None

    def acknowledge(self) -> int:
        """Take the interrupt: the vector to deliver. Call it at the moment of delivery."""
        return self.lapic.acknowledge()

    @property
    def nmi_pending(self) -> bool:
        """An NMI waits; it goes before any vector."""
        return self.lapic.nmi_pending and self.ending is None

    def acknowledge_nmi(self) -> bool:
        """Take the NMI: whether there was one."""
        return self.lapic.acknowledge_nmi()

    def owns_msr(self, msr: int) -> bool:
        """Whether ``msr`` is to be read and written here: IA32_APIC_BASE, IA32_TSC_DEADLINE, 0x800 to 0xbff."""
        return self.lapic.owns_msr(msr)

    def read_msr(self, msr: int) -> int:
        """``rdmsr``. Raises MsrRefused for #GP(0)."""
        return self.lapic.read_msr(msr)

    def write_msr(self, msr: int, value: int) -> None:
        """``wrmsr``. Raises MsrRefused for #GP(0)."""
        self.lapic.write_msr(msr, value)

    # Inside.

    def _plug(self, ram: int, debug_out: Callable[[bytes], None]) -> None:
        pci = EmptyPci(self._reset)
        devices: list[PortDevice] = [
            *(self.pic, self.pit, self.rtc, self.keyboard, self.com1, pci),
            FwCfg(standard_items(ram)),
            DebugExit(lambda status: self._end("exit", status)),
            DebugConsole(debug_out),
            AcpiPm(self.clock, lambda: self._end("shutdown", 0)),
        ]
        if self._com2_out is not None:
            line = partial(self.irq, COM2_IRQ)
            devices.append(Uart(self.clock, self._com2_out, line, name="com2", port=COM2))
        for device in devices:
            for claim in device.ports():
                self.ports.claim(claim)
        for claim in (*self.ioapic.ranges(), *self.lapic.ranges()):
            self.mmio.claim(claim)

    def _place_lapic(self) -> None:
        self.mmio.release("lapic")
        for claim in self.lapic.ranges():
            self.mmio.claim(claim)

    def _as_firmware_leaves_it(self) -> None:
        for port, value in FIRMWARE_PORTS:
            self.ports.write(port, 1, value)
        for register, value in FIRMWARE_APIC:
            self.mmio.write(self.lapic.base + register, 4, value)

    def _look(self) -> None:
        if self.lapic.nmi_pending or self.lapic.pending_vector() is not None:
            self._wake()

    def _reset(self) -> None:
        self._end("reset", 0)

    def _end(self, kind: str, status: int) -> None:
        if self.ending is None:
            self.ending = Ending(kind, status)
            self._wake()
