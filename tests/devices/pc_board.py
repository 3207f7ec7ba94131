"""A machine and the few words in which drivers talk to it."""

from __future__ import annotations

from mmuemu.devices.platform import Platform

LAPIC = 0xFEE0_0000
IOAPIC = 0xFEC0_0000


class Machine(Platform):
    """The platform with the x86 instructions a driver uses, and what came out of it."""

    def __init__(self, **options):
        self.console = bytearray()
        self.debug = bytearray()
        self.woken = 0
        super().__init__(
            options.pop("ram", 64 << 20),
            serial_out=self.console.extend,
            debug_out=self.debug.extend,
            wake=self._note,
            **options,
        )

    def _note(self):
        self.woken += 1

    def inb(self, port):
        return self.ports.read(port, 1)

    def inw(self, port):
        return self.ports.read(port, 2)

    def inl(self, port):
        return self.ports.read(port, 4)

    def outb(self, port, value):
        self.ports.write(port, 1, value)

    def outw(self, port, value):
        self.ports.write(port, 2, value)

    def outl(self, port, value):
        self.ports.write(port, 4, value)

    def lapic_read(self, register):
        return self.mmio.read(LAPIC + register, 4)

    def lapic_write(self, register, value):
        self.mmio.write(LAPIC + register, 4, value)

    def ioapic_read(self, register):
        self.mmio.write(IOAPIC, 4, register)
        return self.mmio.read(IOAPIC + 0x10, 4)

    def ioapic_write(self, register, value):
        self.mmio.write(IOAPIC, 4, register)
        self.mmio.write(IOAPIC + 0x10, 4, value)

    def remap_pic(self, mask=0xFFFF):
        """The sequence every OSDev tutorial has: vectors 0x20 and 0x28."""
        for port, value in (
            *((0x20, 0x11), (0xA0, 0x11), (0x21, 0x20), (0xA1, 0x28)),
            *((0x21, 4), (0xA1, 2), (0x21, 1), (0xA1, 1)),
            *((0x21, mask & 0xFF), (0xA1, mask >> 8)),
        ):
            self.outb(port, value)

    def run(self, instructions):
        """Run without taking interrupts."""
        self.clock.advance(instructions)

    def take_until(self, instructions):
        """Run with interrupts on, ended at once by EOI to all: [(instruction count, vector)]."""
        taken = []
        end = self.clock.instructions + instructions
        while True:
            while (vector := self.pending_vector()) is not None:
                assert self.acknowledge() == vector
                taken.append((self.clock.instructions, vector))
                self.outb(0xA0, 0x20)
                self.outb(0x20, 0x20)
                if self.lapic.isr:
                    self.lapic_write(0xB0, 0)
            step = self.clock.next_event_in()
            left = end - self.clock.instructions
            if step is None or step > left:
                self.clock.advance(left)
                return taken
            self.clock.advance(step)
