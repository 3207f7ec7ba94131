"""Conversations with the gdb stub about a program: every packet is answered, and the machine is whole afterwards.

An input is packets separated by newlines: each is sent with a right checksum, but what begins with 0xFF, which is sent
as it is. 0x03 alone is an interruption.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import cache
from typing import Any, Final

from mmuemu.gdbstub.link import Gone, Link
from mmuemu.gdbstub.packets import ALL, Decoder, frame
from mmuemu.gdbstub.processes import ProcessTarget
from mmuemu.gdbstub.server import Server
from mmuemu.machine import Machine
from tests.fuzz.machines import Kept, waiting
from tests.kernel import isolation

LONGEST: Final = 4096
_MOST_PACKETS: Final = 64
_PATIENCE: Final = 0.05
"""Seconds that a program may run before somebody presses Ctrl-C."""
_HOPELESS: Final = 100
"""Ctrl-Cs in one conversation after which gdb goes away."""


class Wire(Link):
    """A link whose other end is a list of bytes. It ends when they do; a program that runs on is interrupted."""

    def __init__(self, pieces: list[bytes], interrupt: Any) -> None:
        self.acknowledging = True
        self.running = False
        self.presses = 0
        self.gone = False
        self.sent: list[bytes] = []
        self.since = 0.0
        self._pieces = deque(pieces)
        self._interrupt = interrupt
        self._decoder = Decoder()
        self._packets = deque()
        self._answered = 0
        self._lock = threading.Lock()

    def _receive(self) -> None:
        if not self._pieces:
            self.gone = True
            return
        self._connection = _Piece(self._pieces.popleft())
        super()._receive()

    def start(self) -> None:
        self.since = time.monotonic()
        super().start()

    def press(self) -> None:
        """Ctrl-C, when the program has run for long."""
        if self.running and time.monotonic() - self.since > _PATIENCE:
            self.presses += 1
            self.gone = self.gone or self.presses > _HOPELESS
            self._interrupt()

    def _write(self, data: bytes) -> None:
        self.sent.append(data)


class _Piece:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv(self, _most: int) -> bytes:
        return self._data


class _Impatience:
    """One thread for all conversations."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            wire = self.wire
            if wire is not None:
                wire.press()

    def close(self) -> None:
        self._over.set()


@cache
def _kept() -> tuple[Kept, _Impatience]:
    return Kept(waiting("debugged", memory="64M", max_processes=40)), _Impatience()


def forget() -> None:
    """Make another machine the next time."""
    if _kept.cache_info().currsize:
        kept, impatience = _kept()
        impatience.close()
        kept.machine.close()
        _kept.cache_clear()


def pieces(data: bytes) -> list[bytes]:
    """What comes over the wire."""
    out = []
    for body in data.split(b"\n")[:_MOST_PACKETS]:
        raw = body == b"\x03" or body[:1] == b"\xff"
        out.append((body[1:] if body[:1] == b"\xff" else body) if raw else frame(body))
    return [piece for piece in out if piece]


def one(data: bytes) -> None:
    """Have the conversation; then gdb goes away, and the program is killed."""
    kept, impatience = _kept()
    with kept as machine:
        wire = impatience.wire = Wire(pieces(data), machine.kernel.cpu.interrupt)
        try:
            _converse(machine, wire)
        finally:
            impatience.wire = None
        for sent in wire.sent:
            assert sent in (b"+", b"-") or _framed(sent), sent
        machine.kernel.cpu.forget_interrupt()
        machine.run(max_instructions=100_000, timeout=2)
        isolation.check(machine.kernel)
        assert machine.kernel.debugger is None


def _converse(machine: Machine, wire: Wire) -> None:
    target = ProcessTarget(machine)
    try:
        Server(wire, target).serve()
    except Gone:
        if target.alive:
            target.kill(ALL)
    finally:
        target.finish()


def _framed(sent: bytes) -> bool:
    return sent[:1] == b"$" and sent[-3:-2] == b"#" and int(sent[-2:], 16) == sum(sent[1:-3]) & 0xFF


_HELLO: Final = b"qSupported:multiprocess+;swbreak+;hwbreak+;fork-events+;vfork-events+;exec-events+\nQStartNoAckMode\n"


def seeds() -> list[bytes]:
    """Conversations as gdb has them, and each packet at least once."""
    main = 0x401000
    return [
        _HELLO + line
        for line in (
            b"?\nqC\nqfThreadInfo\nqsThreadInfo\nqThreadExtraInfo,p1.1\nHg0\nHc-1\nT1\nqAttached\nqSymbol::",
            b"g\np10\nP0=0100000000000000\nm%x,40\nM%x,4:00000000\nx%x,10\nX%x,2:ab" % (main, main, main, main),
            b"Z0,%x,1\nvCont;c\nz0,%x,1\nvCont;c" % (main, main),
            b"Z2,4c0000,8\nZ3,4c0000,4\nZ4,4c0000,1\nZ1,%x,1\nc\nc\nz2,4c0000,8" % main,
            b"s\ns\nvCont;s:1\nvCont;r%x,%x:p1.1;c\nc" % (main, main + 64),
            b"C0a\nS0b\nvCont;C0a:p1.1;c\nQPassSignals:e;14\nvCont;c\nc",
            b"QCatchSyscalls:1\nc\nc\nQCatchSyscalls:1;27;3c\nc\nQCatchSyscalls:0\nc",
            b"qXfer:auxv:read::0,1000\nqXfer:exec-file:read:1:0,100\nqXfer:features:read:target.xml:0,fff\n"
            b"qXfer:siginfo:read::0,80\nqXfer:libraries-svr4:read::0,100\nqXfer:threads:read::0,100",
            b"qRcmd,%s\nqRcmd,%s" % (b"help".hex().encode(), b"translate 0x401000".hex().encode()),
            b"vFile:setfs:0\nvFile:open:2f746d70,0,0\nvFile:pread:3,10,0\nvFile:close:3\nvFile:readlink:2f746d70",
            b"vCont?\nc\n\x03\nc\nD;1\nvKill;1\nk", b"D", b"vKill;1\n?", b"c\nc\nc\nc\nc\nc\nc",
            b"\xff$?#3f+-$$$#\x03$c#63", b"G" + b"00" * 100 + b"\nvCtrlC\nQNonStop:0\nc01\nHc1\nHg-1\ng",
        )
    ]  # fmt: skip
