"""The line discipline of terminals (termios(3), drivers/tty/n_tty.c): what becomes of typed and of written bytes."""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

ISTRIP, INLCR, IGNCR, ICRNL, IXON = 0o40, 0o100, 0o200, 0o400, 0o2000
OPOST, ONLCR, OCRNL = 0o1, 0o4, 0o10
ISIG, ICANON, ECHO, ECHOE, ECHOK, ECHONL, NOFLSH = 0o1, 0o2, 0o10, 0o20, 0o40, 0o100, 0o200
TOSTOP, ECHOCTL, ECHOKE, IEXTEN = 0o400, 0o1000, 0o4000, 0o100000
VINTR, VQUIT, VERASE, VKILL, VEOF, VTIME, VMIN, _VSWTC, VSTART, VSTOP, VSUSP, VEOL = range(12)
VWERASE, VLNEXT, VEOL2 = 14, 15, 16
TERMIOS: Final = struct.Struct("<IIIIB19s")
"""The kernel's ``struct termios``: input, output, control and local flags, line, characters."""
DEFAULT: Final = TERMIOS.pack(
    ICRNL | IXON, OPOST | ONLCR, 0xBF, ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN, 0,
    bytes((3, 0x1C, 0x7F, 0x15, 4, 0, 1, 0, 0x11, 0x13, 0x1A, 0, 0x12, 0xF, 0x17, 0x16, 0, 0, 0)),
)  # fmt: skip
LONGEST_LINE: Final = 4096
MOST_TYPED: Final = 3 * LONGEST_LINE
"""Bytes that wait for reads: N_TTY_BUF_SIZE and what the tty buffers hold; Linux 6.18 takes 11 to 14 KiB."""
_KEYS: Final = {VINTR: Signal.SIGINT, VQUIT: Signal.SIGQUIT, VSUSP: Signal.SIGTSTP}
_RUBOUT: Final = b"\b \b"


class LineDiscipline:
    """``ready`` are the pieces that reads give, lines in canonical mode; ``echo`` takes what is to be shown."""

    __slots__ = ("_line", "_literal", "characters", "echo", "iflag", "lflag", "oflag", "ready", "signal", "termios")

    def __init__(self, echo: Callable[[bytes], None], signal: Callable[[int], None]) -> None:
        self.echo = echo
        self.signal = signal
        self.ready: deque[bytes] = deque()
        self._line = bytearray()
        self._literal = False
        self.termios = b""
        self.set(DEFAULT)

    def set(self, termios: bytes) -> None:
        """Take over a ``struct termios``; leaving canonical mode makes the unfinished line readable."""
        self.termios = termios
        self.iflag, self.oflag, _, self.lflag, _, self.characters = TERMIOS.unpack(termios)
        if not self.lflag & ICANON and self._line:
            self.ready.append(bytes(self._line))
            self._line.clear()

    def flush(self) -> None:
        """Forget what was typed."""
        self.ready.clear()
        self._line.clear()

    def waiting(self) -> int:
        """Bytes that can be read."""
        return sum(map(len, self.ready))

    def room(self) -> int:
        """How many bytes may be typed before somebody reads; what is lost at the end of a full line needs no room."""
        return max(0, MOST_TYPED - sum(len(piece) or 1 for piece in self.ready))

    def is_readable(self) -> bool:
        """Whether poll(2) says so: there is a line, or VMIN bytes (one with VTIME, input_available_p)."""
        if self.lflag & ICANON or not self.ready:
            return bool(self.ready)
        return self.waiting() >= (1 if self.characters[VTIME] else self.characters[VMIN])

    def patience(self, count: int) -> int | None:
        """How long a read of ``count`` bytes may still wait for more, in tenths of a second; None for ever.

        0: it takes what there is, which may be nothing (termios(3), canonical and noncanonical mode). With both VMIN
        and VTIME the time runs anew from each byte.
        """
        if self.lflag & ICANON:
            return 0 if self.ready else None
        least, tenths, there = self.characters[VMIN], self.characters[VTIME], self.waiting()
        if not least:
            return 0 if there else tenths
        if there >= min(least, count):
            return 0
        return tenths if tenths and there else None

    def take(self, count: int) -> bytes:
        """What a read of ``count`` bytes gives now: part of one line, or a buffer full without canonical mode."""
        if self.lflag & ICANON:
            piece = self.ready.popleft()
        else:
            count = min(count, LONGEST_LINE - 1)
            piece = b"".join(self.ready)
            self.ready.clear()
        if len(piece) > count:
            self.ready.appendleft(piece[count:])
        return piece[:count]

    def processed(self, data: bytes) -> bytes:
        """What a program wrote, as it reaches the screen."""
        if not self.oflag & OPOST:
            return data
        if self.oflag & OCRNL:
            data = data.replace(b"\r", b"\n")
        return data.replace(b"\n", b"\r\n") if self.oflag & ONLCR else data

    def typed(self, data: bytes) -> None:
        """Bytes from the keyboard."""
        raw = bytearray()
        keys = bytes(filter(None, self.characters)) + b"\r\n"
        if self._literal or len(data.translate(None, keys)) < len(data):
            for byte in data:
                self._type(byte, raw)
        else:
            self._keep_all(data, raw)
        if raw:
            self.ready.append(bytes(raw))

    def _type(self, byte: int, raw: bytearray) -> None:
        if self._literal:
            self._literal = False
            self._keep(byte, raw)
            return
        if byte == 13 and self.iflag & (IGNCR | ICRNL):
            if self.iflag & IGNCR:
                return
            byte = 10
        elif byte == 10 and self.iflag & INLCR:
            byte = 13
        if not self._acts(byte):
            self._keep(byte, raw)

    def _keep_all(self, data: bytes, raw: bytearray) -> None:
        """Bytes none of which is a key or ends a line."""
        if self.lflag & ICANON:
            data = data[: max(0, LONGEST_LINE - 1 - len(self._line))]
            self._line += data
        else:
            raw += data
        if self.lflag & ECHO:
            for byte in data:
                self._show(byte)

    def _is(self, byte: int, key: int) -> bool:
        return byte != 0 and self.characters[key] == byte

    def _acts(self, byte: int) -> bool:
        """Whether ``byte`` is a key that does something, having done it."""
        if self.lflag & ISIG:
            for key, number in _KEYS.items():
                if self._is(byte, key):
                    if not self.lflag & NOFLSH:
                        self.flush()
                    self._show(byte)
                    self.signal(number)
                    return True
        if self.iflag & IXON and (self._is(byte, VSTART) or self._is(byte, VSTOP)):
            return True
        return bool(self.lflag & ICANON) and self._edits(byte)

    def _edits(self, byte: int) -> bool:
        """Erasing, the end of input, and quoting."""
        line = self._line
        if self._is(byte, VERASE):
            self._erase(1)
        elif self._is(byte, VKILL):
            self._erase(len(line))
        elif self._is(byte, VEOF):
            self.ready.append(bytes(line))
            line.clear()
        elif self.lflag & IEXTEN and self._is(byte, VWERASE):
            kept = bytes(line).rstrip(b" \t")
            while kept and kept[-1:] not in (b" ", b"\t"):
                kept = kept[:-1]
            self._erase(len(line) - len(kept))
        elif self.lflag & IEXTEN and self._is(byte, VLNEXT):
            self._literal = True
            if self.lflag & ECHO and self.lflag & ECHOCTL:
                self.echo(b"^\b")
        else:
            return False
        return True

    def _erase(self, count: int) -> None:
        for _ in range(min(count, len(self._line))):
            byte = self._line.pop()
            if self.lflag & ECHO and self.lflag & ECHOE:
                self.echo(_RUBOUT * (2 if byte < 32 and self.lflag & ECHOCTL else 1))

    def _keep(self, byte: int, raw: bytearray) -> None:
        """An ordinary character: part of the line, or readable at once."""
        if not self.lflag & ICANON:
            raw.append(byte)
            self._show(byte)
            return
        ends = byte == 10 or self._is(byte, VEOL) or self._is(byte, VEOL2)
        if len(self._line) >= LONGEST_LINE - 1 and not ends:
            return
        self._line.append(byte)
        self._show(byte)
        if ends:
            self.ready.append(bytes(self._line))
            self._line.clear()

    def _show(self, byte: int) -> None:
        if not self.lflag & ECHO and not (byte == 10 and self.lflag & ECHONL and self.lflag & ICANON):
            return
        if self.lflag & ECHOCTL and (byte == 127 or (byte < 32 and byte not in (9, 10))):
            self.echo(b"^" + bytes((byte ^ 64,)))
        else:
            self.echo(self.processed(bytes((byte,))))
