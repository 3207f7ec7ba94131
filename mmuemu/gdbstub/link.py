"""The connection to gdb: where it is awaited, who reads it while the machine runs, what is written to it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from mmuemu.errors import UsageError
from mmuemu.gdbstub.packets import Decoder, Interrupt, Packet, frame

_LOOPBACK: Final = "127.0.0.1"
_REPEAT: Final = 0.02
"""Seconds between two interruptions: one that falls between two stretches of emulation is lost."""
_MOST_WAITING: Final = 64
"""Packets that may wait to be answered; a client that sends more while the machine runs is not read."""


class Gone(Exception):
    """The client has gone away."""


def parse_address(text: str) -> tuple[str, int]:
    """``[HOST:]PORT`` of the command line; IPv6 addresses in brackets. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"-g {text}: give [HOST:]PORT, with a port of 0 (any) to 65535")
    return (host or _LOOPBACK) if colon else _LOOPBACK, int(port)


def listen(text: str) -> socket.socket:
    """A socket that awaits gdb at ``text``. Raises UsageError."""
    host, port = parse_address(text)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        waiting = socket.socket(family, kind, protocol)
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        waiting.bind(address)
        waiting.listen(1)
    except OSError as error:
        raise UsageError(f"-g {text}: {error.strerror or error}") from None
    return waiting


def place_of(waiting: socket.socket) -> str:
    """HOST:PORT of a socket, for people."""
    host, port = waiting.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Link:
    """One connection, read by whoever waits for packets; while the machine runs, a thread looks at it now and then.

    While :attr:`running`, the byte 0x03 and the end of the connection call ``interrupt`` again and again.
    """

    def __init__(self, connection: socket.socket, interrupt: Callable[[], None]) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.acknowledging = True
        self.running = False
        self.presses = 0
        """Interruptions asked for so far."""
        self.gone = False
        self._connection = connection
        self._interrupt = interrupt
        self._decoder = Decoder()
        self._packets: deque[tuple[Packet, int]] = deque()
        self._answered = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mmuemu gdb", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closing.wait(_REPEAT):
            with self._lock:
                if not self.running:
                    continue
                if not self.gone and len(self._packets) < _MOST_WAITING:
                    with contextlib.suppress(OSError, ValueError):
                        if select.select([self._connection], [], [], 0)[0]:
                            self._receive()
                if self.interrupted:
                    self._interrupt()

    def _receive(self) -> None:
        """Take what has come, or wait for it."""
        try:
            data = self._connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.gone = True
        for item in self._decoder.feed(data):
            if isinstance(item, Interrupt):
                self.presses += 1
            else:
                self._packets.append((item, self.presses))

    @property
    def interrupted(self) -> bool:
        """Whether the client has asked for an interruption since the last packet, or has gone."""
        return self.gone or self.presses > self._answered

    def next(self) -> bytes:
        """The next packet's content. Raises Gone."""
        while True:
            while not self._packets:
                if self.gone:
                    raise Gone
                self._receive()
            packet, self._answered = self._packets.popleft()
            if self.acknowledging:
                self._write(b"+" if packet.good else b"-")
            if packet.good:
                return packet.content

    def start(self) -> None:
        """The machine runs from now on."""
        self.running = True

    def stop(self) -> None:
        """It has stopped."""
        with self._lock:
            self.running = False

    def send(self, body: bytes) -> None:
        """Send a packet. Raises Gone."""
        self._write(frame(body))

    def _write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            raise Gone from None

    def close(self) -> None:
        """End the thread and the connection."""
        self._closing.set()
        self._thread.join()
        self._connection.close()
