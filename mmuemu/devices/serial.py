"""A 16550A UART: registers, FIFOs, interrupts, modem lines and loopback. Characters take no time.

Sources: National Semiconductor PC16550D datasheet (sections 8.1 to 8.7). As on QEMU, OUT2 does not gate the interrupt
line (small kernels never set it). A character-timeout interrupt comes at once, not after four character times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import Range
from mmuemu.devices.clock import InstructionClock

COM1: Final = 0x3F8
COM2: Final = 0x2F8
COM1_IRQ: Final = 4
COM2_IRQ: Final = 3

IER_RDA: Final = 1 << 0
IER_THRE: Final = 1 << 1
IER_RLS: Final = 1 << 2
IER_MSI: Final = 1 << 3

IIR_NONE: Final = 0x01
IIR_MSI: Final = 0x00
IIR_THRE: Final = 0x02
IIR_RDA: Final = 0x04
IIR_RLS: Final = 0x06
IIR_TIMEOUT: Final = 0x0C
IIR_FIFO: Final = 0xC0

FCR_ENABLE: Final = 1 << 0
FCR_CLEAR_RX: Final = 1 << 1
TRIGGERS: Final = (1, 4, 8, 14)

LCR_DLAB: Final = 1 << 7

MCR_LOOP: Final = 1 << 4
MCR_MASK: Final = 0x1F

LSR_DR: Final = 1 << 0
LSR_OE: Final = 1 << 1
LSR_THRE: Final = 1 << 5
LSR_TEMT: Final = 1 << 6
LSR_ERRORS: Final = 0x1E

MSR_TERI: Final = 1 << 2
MSR_CTS: Final = 1 << 4
MSR_DSR: Final = 1 << 5
MSR_RI: Final = 1 << 6
MSR_DCD: Final = 1 << 7

LOOP_LINES: Final = ((1 << 0, MSR_DSR), (1 << 1, MSR_CTS), (1 << 2, MSR_RI), (1 << 3, MSR_DCD))
"""In loopback, what DTR, RTS, OUT1 and OUT2 of MCR appear as in MSR (datasheet 8.6.7)."""

FIFO: Final = 16
POLL_NS: Final = 1_000_000
"""How often the input is asked for more while the guest waits for a receive interrupt."""

Source = Callable[[int], "bytes | None"]
"""Input: up to so many bytes that are there now (possibly none); None when there will be no more."""


def source_of(data: bytes) -> Source:
    """A source that gives ``data`` and then ends."""
    left = bytearray(data)

    def source(most: int) -> bytes | None:
        chunk = bytes(left[:most])
        del left[:most]
        return chunk or None

    return source


class Uart:
    """One port. Output goes byte by byte to ``out``; input is asked of ``source`` and never waited for."""

    def __init__(
        self,
        clock: InstructionClock,
        out: Callable[[bytes], None],
        irq: Callable[[bool], None],
        source: Source | None = None,
        *,
        name: str = "com1",
        port: int = COM1,
    ) -> None:
        self.name = name
        self._clock = clock
        self._port = port
        self._out = out
        self._irq = irq
        self._source = source
        self._poll = clock.timer(f"{name} input", lambda _deadline: self._poll_input())
        self._received: deque[int] = deque()
        self._level = False
        self.ier = self.lcr = self.mcr = self.scr = 0
        self.divisor = 12
        self._fifo = False
        self._trigger = 1
        self._lsr_errors = 0
        self._msr_deltas = 0
        self._thre_pending = False
        read = (self._rbr, self._read_ier, self._iir, self._read_lcr)
        self._reads = (*read, self._read_mcr, self._lsr, self._msr, self._read_scr)
        write = (self._thr, self._write_ier, self._fcr, self._write_lcr)
        self._writes = (*write, self._write_mcr, self._ignore, self._ignore, self._write_scr)

    def ports(self) -> Iterator[Range]:
        yield Range(self.name, self._port, 8, self._read, self._write)

    def _read(self, offset: int, _size: int) -> int:
        if offset < 2 and self.lcr & LCR_DLAB:
            return self.divisor >> 8 * offset & 0xFF
        return self._reads[offset]()

    def _write(self, offset: int, _size: int, value: int) -> None:
        if offset < 2 and self.lcr & LCR_DLAB:
            shift = 8 * offset
            self.divisor = self.divisor & ~(0xFF << shift) | value << shift
            return
        self._writes[offset](value)

    # Registers that only hold a value.

    def _read_ier(self) -> int:
        return self.ier

    def _read_lcr(self) -> int:
        return self.lcr

    def _write_lcr(self, value: int) -> None:
        self.lcr = value

    def _read_mcr(self) -> int:
        return self.mcr

    def _read_scr(self) -> int:
        return self.scr

    def _write_scr(self, value: int) -> None:
        self.scr = value

    def _ignore(self, _value: int) -> None:
        """LSR is written in factory tests only; MSR's lines come from outside."""

    # Receiving.

    def _capacity(self) -> int:
        return FIFO if self._fifo else 1

    def _fill(self) -> None:
        """Take what the input has, if the receiver is empty: the host is asked no more often than that."""
        if self._received or self._source is None or self.mcr & MCR_LOOP:
            return
        data = self._source(self._capacity())
        if data is None:
            self._source = None
        elif data:
            self._received.extend(data)

    def _poll_input(self) -> None:
        self._fill()
        self._update()

    def _receive_looped(self, byte: int) -> None:
        if len(self._received) >= self._capacity():
            self._lsr_errors |= LSR_OE
            # Without FIFOs the new character overwrites the old one; with them it is lost in the shift register.
            if self._fifo:
                return
            self._received.pop()
        self._received.append(byte)

    def _rbr(self) -> int:
        self._fill()
        byte = self._received.popleft() if self._received else 0
        self._update()
        return byte

    def _lsr(self) -> int:
        self._fill()
        value = LSR_THRE | LSR_TEMT | self._lsr_errors | (LSR_DR if self._received else 0)
        self._lsr_errors = 0
        self._update()
        return value

    def _fcr(self, value: int) -> None:
        enable = bool(value & FCR_ENABLE)
        if enable != self._fifo or (enable and value & FCR_CLEAR_RX):
            self._received.clear()
        self._fifo = enable
        self._trigger = TRIGGERS[value >> 6] if enable else 1
        self._update()

    # Sending.

    def _thr(self, byte: int) -> None:
        # The holding register is full for no time at all, but the interrupt line must fall and rise again.
        self._thre_pending = False
        self._update()
        if self.mcr & MCR_LOOP:
            self._receive_looped(byte)
        else:
            self._out(bytes((byte,)))
        self._thre_pending = True
        self._update()

    # Modem lines.

    def _lines(self) -> int:
        if self.mcr & MCR_LOOP:
            return sum(line for output, line in LOOP_LINES if self.mcr & output)
        return MSR_DCD | MSR_DSR | MSR_CTS

    def _write_mcr(self, value: int) -> None:
        before = self._lines()
        self.mcr = value & MCR_MASK
        after = self._lines()
        deltas = (before ^ after) >> 4
        # TERI reports only the trailing edge of RI.
        if after & MSR_RI:
            deltas &= ~MSR_TERI
        self._msr_deltas |= deltas
        self._update()

    def _msr(self) -> int:
        value = self._lines() | self._msr_deltas
        self._msr_deltas = 0
        self._update()
        return value

    # Interrupts.

    def _write_ier(self, value: int) -> None:
        if value & ~self.ier & IER_THRE:
            self._thre_pending = True
        self.ier = value & 0x0F
        self._update()

    def _cause(self) -> int:
        """The interrupt of highest priority (datasheet table III), as IIR's low bits."""
        if self.ier & IER_RLS and self._lsr_errors & LSR_ERRORS:
            return IIR_RLS
        if self.ier & IER_RDA and self._received:
            return IIR_RDA if len(self._received) >= self._trigger else IIR_TIMEOUT
        if self.ier & IER_THRE and self._thre_pending:
            return IIR_THRE
        if self.ier & IER_MSI and self._msr_deltas:
            return IIR_MSI
        return IIR_NONE

    def _iir(self) -> int:
        self._fill()
        cause = self._cause()
        if cause == IIR_THRE:
            self._thre_pending = False
        self._update()
        return cause | (IIR_FIFO if self._fifo else 0)

    def _update(self) -> None:
        level = self._cause() != IIR_NONE
        if level != self._level:
            self._level = level
            self._irq(level)
        waiting = bool(self.ier & IER_RDA) and self._source is not None and not self._received
        if not waiting:
            self._poll.cancel()
        elif self._poll.deadline is None:
            self._poll.arm(self._clock.now + POLL_NS)
