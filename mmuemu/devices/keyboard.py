"""An 8042 keyboard controller at 0x60 and 0x64 with an idle keyboard, and system control port A at 0x92.

Sources: IBM PS/2 Hardware Interface Technical Reference (controller commands, status and output port; keyboard
commands); Intel 82371SB (PIIX3) datasheet for port 92h. There is no mouse. A20 is kept but masks no address.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import Range

DATA_PORT: Final = 0x60
COMMAND_PORT: Final = 0x64
CONTROL_A: Final = 0x92

STATUS_OBF: Final = 1 << 0
STATUS_SYS: Final = 1 << 2
STATUS_COMMAND: Final = 1 << 3
STATUS_UNLOCKED: Final = 1 << 4

CONFIG_IRQ: Final = 1 << 0
CONFIG_SYS: Final = 1 << 2
CONFIG_KEYBOARD_OFF: Final = 1 << 4
CONFIG_AUX_OFF: Final = 1 << 5
CONFIG_TRANSLATE: Final = 1 << 6

OUTPUT_NOT_RESET: Final = 1 << 0
OUTPUT_A20: Final = 1 << 1
OUTPUT_IDLE: Final = 0xCC

ACK: Final = 0xFA
RESEND: Final = 0xFE
"""What the controller answers for the mouse that is not there."""
WITH_ARGUMENT: Final = frozenset({0xED, 0xF0, 0xF3})
"""Keyboard commands followed by a byte that is acknowledged too: LEDs, scan code set, typematic rate."""
ANSWERS: Final = {0xEE: (0xEE,), 0xF2: (ACK, 0xAB, 0x83), 0xFF: (ACK, 0xAA)}
"""Keyboard commands that are answered by more or other than an acknowledge: echo, identify, reset."""


class Keyboard:
    """The controller and its keyboard; the guest can always write at once, and a read never waits."""

    def __init__(self, irq: Callable[[bool], None], reset: Callable[[], None]) -> None:
        """``irq`` drives IRQ 1; ``reset`` is called when the guest pulses the reset line."""
        self._irq = irq
        self._reset = reset
        self._output: deque[int] = deque(maxlen=64)
        self._last = 0
        self._after_command = False
        self._config = CONFIG_IRQ | CONFIG_SYS | CONFIG_AUX_OFF | CONFIG_TRANSLATE
        self.a20 = True
        """The A20 gate as the guest last set it."""
        self._argument: Callable[[int], None] | None = None
        """Who gets the next byte written to port 0x60, if not the keyboard as a command."""
        self._commands: dict[int, Callable[[], None]] = {
            0x20: lambda: self._put(self._config),
            0x60: lambda: self._expect(self._set_config),
            0xA7: lambda: self._set_config(self._config | CONFIG_AUX_OFF),
            0xA8: lambda: self._set_config(self._config & ~CONFIG_AUX_OFF),
            0xA9: lambda: self._put(0x01),
            0xAA: lambda: self._put(0x55),
            0xAB: lambda: self._put(0x00),
            0xAD: lambda: self._set_config(self._config | CONFIG_KEYBOARD_OFF),
            0xAE: lambda: self._set_config(self._config & ~CONFIG_KEYBOARD_OFF),
            0xC0: lambda: self._put(0x80),
            0xD0: lambda: self._put(OUTPUT_IDLE | OUTPUT_NOT_RESET | (OUTPUT_A20 if self.a20 else 0)),
            0xD1: lambda: self._expect(self._set_output),
            0xD2: lambda: self._expect(self._put),
            0xD4: lambda: self._expect(lambda _byte: self._put(RESEND)),
            0xDD: lambda: self._set_a20(False),
            0xDF: lambda: self._set_a20(True),
        }

    def ports(self) -> Iterator[Range]:
        yield Range("keyboard-data", DATA_PORT, 1, self._read_data, self._write_data)
        yield Range("keyboard-command", COMMAND_PORT, 1, self._read_status, self._write_command)
        yield Range("control-a", CONTROL_A, 1, self._read_control_a, self._write_control_a)

    def press(self, scan_codes: bytes) -> None:
        """Put bytes into the output buffer as a keyboard would, while the keyboard is enabled."""
        if not self._config & CONFIG_KEYBOARD_OFF:
            for code in scan_codes:
                self._put(code)

    def _put(self, byte: int) -> None:
        self._output.append(byte)
        self._update()

    def _update(self) -> None:
        self._irq(bool(self._output) and bool(self._config & CONFIG_IRQ))

    def _expect(self, taker: Callable[[int], None]) -> None:
        self._argument = taker

    def _set_config(self, value: int) -> None:
        self._config = value & 0x7F
        self._update()

    def _set_a20(self, on: bool) -> None:
        self.a20 = on

    def _set_output(self, value: int) -> None:
        self.a20 = bool(value & OUTPUT_A20)
        if not value & OUTPUT_NOT_RESET:
            self._reset()

    def _read_data(self, _offset: int, _size: int) -> int:
        if self._output:
            self._last = self._output.popleft()
            # One byte, one edge: the line falls before the next byte raises it.
            self._irq(False)
            self._update()
        return self._last

    def _write_data(self, _offset: int, _size: int, value: int) -> None:
        self._after_command = False
        if self._argument is not None:
            taker, self._argument = self._argument, None
            taker(value)
            return
        if value in WITH_ARGUMENT:
            self._expect(lambda _byte: self._put(ACK))
        for byte in ANSWERS.get(value, (ACK,)):
            self._put(byte)

    def _read_status(self, _offset: int, _size: int) -> int:
        status = STATUS_UNLOCKED | (self._config & STATUS_SYS)
        return status | (STATUS_OBF if self._output else 0) | (STATUS_COMMAND if self._after_command else 0)

    def _write_command(self, _offset: int, _size: int, value: int) -> None:
        self._after_command = True
        self._argument = None
        # Commands 0xf0 to 0xff pulse the output lines whose bits are clear; bit 0 is the CPU's reset.
        if value >= 0xF0:
            if not value & OUTPUT_NOT_RESET:
                self._reset()
            return
        command = self._commands.get(value)
        if command is not None:
            command()

    def _read_control_a(self, _offset: int, _size: int) -> int:
        return OUTPUT_A20 if self.a20 else 0

    def _write_control_a(self, _offset: int, _size: int, value: int) -> None:
        self.a20 = bool(value & OUTPUT_A20)
        if value & 1:
            self._reset()
