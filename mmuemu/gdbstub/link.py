"""The connection to gdb: where it is awaited, who reads it while the machine runs, what is written to it."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
from collections.abc import Callable
from typing import Final

from mmuemu.errors import UsageError
from mmuemu.gdbstub.packets import Decoder, Interrupt, Packet, frame

_LOOPBACK: Final = "127.0.0.1"
_REPEAT: Final = 0.02
"""Seconds between two interruptions: one that falls between two stretches of emulation is lost."""
_MOST_WAITING: Final = 64
"""Packets that may wait to be answered; a client that sends more is not read meanwhile."""


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
    """One connection. A thread reads it; :meth:`next` gives the packets to the thread that runs the machine.

    While :attr:`running` is set, the byte 0x03 and the end of the connection call ``interrupt`` again and again.
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
        self._packets: queue.Queue[tuple[Packet, int] | None] = queue.Queue(_MOST_WAITING)
        self._answered = 0
        self._closing = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name="mmuemu gdb", daemon=True)
        self._thread.start()

    # -- the reading thread ----------------------------------------------------------------------------------------

    def _read(self) -> None:
        decoder = Decoder()
        while not self._closing:
            pressing = self.running and self.interrupted
            readable = [self._wake_read] if self.gone else [self._connection, self._wake_read]
            ready, _, _ = select.select(readable, [], [], _REPEAT if pressing else None)
            if self._wake_read in ready:
                self._wake_read.recv(64)
            if self._connection in ready and not self.gone:
                try:
                    data = self._connection.recv(65536)
                except OSError:
                    data = b""
                if data:
                    self._take(decoder.feed(data))
                else:
                    self.gone = True
                    self._put(None)
            if self.running and self.interrupted:
                self._interrupt()

    def _take(self, found: list[Packet | Interrupt]) -> None:
        for item in found:
            if isinstance(item, Interrupt):
                self.presses += 1
            else:
                self._put((item, self.presses))

    def _put(self, item: tuple[Packet, int] | None) -> None:
        while not self._closing:
            try:
                self._packets.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    # -- the machine's thread --------------------------------------------------------------------------------------

    @property
    def interrupted(self) -> bool:
        """Whether the client has asked for an interruption since the last packet, or has gone."""
        return self.gone or self.presses > self._answered

    def next(self) -> bytes:
        """The next packet's content. Raises Gone."""
        while True:
            item = self._packets.get()
            if item is None:
                raise Gone
            packet, self._answered = item
            if self.acknowledging:
                self._write(b"+" if packet.good else b"-")
            if packet.good:
                return packet.content

    def start(self) -> None:
        """The machine runs from now on."""
        self.running = True
        if self.interrupted:
            self._wake()

    def stop(self) -> None:
        """It has stopped."""
        self.running = False

    def press(self) -> None:
        """As if the client had sent 0x03 (``vCtrlC``)."""
        self.presses += 1

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
        self._closing = True
        self._wake()
        self._thread.join()
        self._connection.close()
        self._wake_read.close()
        self._wake_write.close()
