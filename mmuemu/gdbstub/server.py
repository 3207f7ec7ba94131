"""One conversation with gdb: packets in, answers out, until there is nothing left to debug or gdb goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mmuemu.gdbstub import queries
from mmuemu.gdbstub.events import Action, Failed, StopEvent, Target, ThreadId
from mmuemu.gdbstub.files import Files
from mmuemu.gdbstub.link import Gone, Link
from mmuemu.gdbstub.packets import ALL, ANY, PACKET_SIZE, BadPacket, escape, from_hex, number, numbers, thread_id
from mmuemu.gdbstub.signals import INT

EINVAL: Final = 22
ESRCH: Final = 3
_SIMPLE_REASONS: Final = frozenset({"swbreak", "hwbreak"})


class Server:
    """Answers the packets of one :class:`Link` about one target."""

    def __init__(self, link: Link, target: Target) -> None:
        self.link = link
        self.target = target
        self.files = Files(target)
        self.over = False
        """Nothing is left to be debugged: the connection ends."""
        self.general: ThreadId = (ANY, ANY)
        """The thread that register and memory packets are about (``Hg``)."""
        self.control: ThreadId = (ALL, ALL)
        self.last = StopEvent("signal", self._first())
        self._listing: list[ThreadId] = []

    def _first(self) -> ThreadId:
        threads = self.target.threads()
        return threads[0] if threads else (ANY, ANY)

    # -- the conversation ------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until :attr:`over`. Raises Gone when the client goes before that."""
        while not self.over:
            packet = self.link.next()
            try:
                reply = self.answer(packet)
            except Failed as failure:
                reply = b"E%02x" % (failure.errno & 0xFF)
            except BadPacket:
                reply = b"E%02x" % EINVAL
            if reply is not None:
                self.link.send(reply)

    def answer(self, packet: bytes) -> bytes | None:
        """The answer to one packet; empty for one that is not known, None when there is to be none."""
        for prefix, function in _BY_PREFIX:
            if packet.startswith(prefix):
                return function(self, packet[len(prefix) :])
        return b""

    # -- threads ---------------------------------------------------------------------------------------------------

    def thread(self) -> ThreadId:
        """The thread that a request without a number is about. Raises Failed when there is none."""
        pid, tid = self.general
        for thread in (self.last.thread, *self.target.threads()):
            if pid in (ALL, ANY, thread[0]) and tid in (ALL, ANY, thread[1]) and thread in self.target.threads():
                return thread
        raise Failed(ESRCH)

    def name(self, thread: ThreadId) -> bytes:
        """A thread as packets name it."""
        return b"p%x.%x" % thread if self.target.wishes.multiprocess else b"%x" % thread[1]

    def select(self, text: bytes) -> bytes:
        """``H``: choose the thread that later packets are about."""
        chosen = thread_id(text[1:])
        if text[:1] not in (b"g", b"c"):
            raise BadPacket
        threads = self.target.threads()
        pid, tid = chosen
        if not any(pid in (ALL, ANY, one) and tid in (ALL, ANY, two) for one, two in threads):
            raise Failed(ESRCH)
        if text[:1] == b"g":
            self.general = chosen
        else:
            self.control = chosen
        return b"OK"

    def is_alive(self, text: bytes) -> bytes:
        """``T``."""
        pid, tid = thread_id(text)
        found = any(tid == thread[1] and pid in (ANY, ALL, thread[0]) for thread in self.target.threads())
        if not found:
            raise Failed(ESRCH)
        return b"OK"

    def list_threads(self, _text: bytes) -> bytes:
        """``qfThreadInfo``: the first part of the list."""
        self._listing = self.target.threads()
        return self.list_more(b"")

    def list_more(self, _text: bytes) -> bytes:
        """``qsThreadInfo``: the next part."""
        part, self._listing = self._listing[:256], self._listing[256:]
        return b"m" + b",".join(self.name(thread) for thread in part) if part else b"l"

    def current_thread(self, _text: bytes) -> bytes:
        """``qC``."""
        return b"QC" + self.name(self.thread())

    def thread_info(self, text: bytes) -> bytes:
        """``qThreadExtraInfo``."""
        pid, tid = thread_id(text)
        for thread in self.target.threads():
            if thread[1] == tid and pid in (ANY, ALL, thread[0]):
                return self.target.thread_name(thread).encode().hex().encode()
        raise Failed(ESRCH)

    # -- registers and memory --------------------------------------------------------------------------------------

    def read_registers(self, _text: bytes) -> bytes:
        """``g``."""
        return self.target.read_registers(self.thread()).hex().encode()

    def write_registers(self, text: bytes) -> bytes:
        """``G``."""
        data = from_hex(text)
        if len(data) != self.target.layout.size:
            raise Failed(EINVAL)
        self.target.write_registers(self.thread(), data)
        return b"OK"

    def _place(self, text: bytes) -> slice:
        index = number(text)
        if index >= len(self.target.layout.registers):
            raise Failed(EINVAL)
        return self.target.layout.place(index)

    def read_register(self, text: bytes) -> bytes:
        """``p``."""
        return self.target.read_registers(self.thread())[self._place(text)].hex().encode()

    def write_register(self, text: bytes) -> bytes:
        """``P``."""
        index, _, value = text.partition(b"=")
        place, data = self._place(index), from_hex(value)
        if len(data) != place.stop - place.start:
            raise Failed(EINVAL)
        whole = bytearray(self.target.read_registers(self.thread()))
        whole[place] = data
        self.target.write_registers(self.thread(), bytes(whole))
        return b"OK"

    def _read(self, text: bytes) -> bytes:
        address, count = _pair(text)
        return self.target.read_memory(self.thread(), address, min(count, (PACKET_SIZE - 8) // 2)) if count else b""

    def read_memory(self, text: bytes) -> bytes:
        """``m``: what can be read of it, in hexadecimal."""
        return self._read(text).hex().encode()

    def read_binary(self, text: bytes) -> bytes:
        """``x``: the same as it is."""
        return b"b" + escape(self._read(text))

    def write_memory(self, text: bytes) -> bytes:
        """``M``."""
        place, _, data = text.partition(b":")
        return self._write(place, from_hex(data))

    def write_binary(self, text: bytes) -> bytes:
        """``X``; without data it asks whether the packet is known."""
        place, _, data = text.partition(b":")
        return self._write(place, data)

    def _write(self, place: bytes, data: bytes) -> bytes:
        address, count = _pair(place)
        if count != len(data):
            raise Failed(EINVAL)
        if data:
            self.target.write_memory(self.thread(), address, data)
        return b"OK"

    # -- breakpoints -----------------------------------------------------------------------------------------------

    def set_point(self, text: bytes) -> bytes:
        """``Z``."""
        kind, address, length = _fields(text.partition(b";")[0], 3)
        return b"OK" if self.target.set_point(self.thread(), kind, address, length) else b""

    def remove_point(self, text: bytes) -> bytes:
        """``z``."""
        kind, address, length = _fields(text.partition(b";")[0], 3)
        return b"OK" if self.target.remove_point(self.thread(), kind, address, length) else b""

    # -- running ---------------------------------------------------------------------------------------------------

    def resume(self, text: bytes) -> bytes:
        """``vCont``."""
        return self._run([_action(part) for part in text.split(b";") if part])

    def resume_old(self, letter: bytes, text: bytes) -> bytes:
        """``c``, ``s``, ``C`` and ``S``: the control thread, or all; an address to go on at is refused."""
        signal, _, place = text.partition(b";") if letter in b"CS" else (b"0", b"", text)
        if place:
            raise Failed(EINVAL)
        step = letter in b"sS"
        first = self.last.thread if self.control[1] in (ALL, ANY) else self.control
        actions = [Action(first, number(signal), step)]
        if self.control[1] in (ALL, ANY):
            actions.append(Action((ALL, ALL)))
        return self._run(actions)

    def _run(self, actions: list[Action]) -> bytes:
        if not actions:
            raise BadPacket
        self.link.start()
        try:
            self.last = self.target.resume(actions, lambda: self.link.interrupted)
        finally:
            self.link.stop()
        if self.link.gone:
            raise Gone
        self.general = self.last.thread
        return self._after()

    def _after(self) -> bytes:
        if not self.target.alive:
            self.over = True
        return self.stop_reply()

    def why(self, _text: bytes) -> bytes:
        """``?``."""
        return self.stop_reply()

    def stop_reply(self) -> bytes:
        """The last stop as a packet."""
        event, wishes = self.last, self.target.wishes
        if event.kind == "none":
            return b"N"
        if event.kind in ("exited", "killed"):
            letter = b"W" if event.kind == "exited" else b"X"
            tail = b";process:%x" % event.thread[0] if wishes.multiprocess else b""
            return letter + b"%02x" % (event.signal & 0xFF) + tail
        out = b"T%02x" % event.signal
        wanted = event.kind not in _SIMPLE_REASONS or getattr(wishes, event.kind)
        if event.kind != "signal" and wanted:
            out += event.kind.encode() + b":" + event.detail + b";"
        registers = self.target.read_registers(event.thread)
        for index, place in self.target.layout.expedited:
            out += b"%x:%s;" % (index, registers[place].hex().encode())
        return out + b"thread:" + self.name(event.thread) + b";"

    # -- endings ---------------------------------------------------------------------------------------------------

    def detach(self, text: bytes) -> bytes:
        """``D``, ``D;PID``."""
        self.target.detach(number(text[1:]) if text else ALL)
        self.over = not self.target.alive
        return b"OK"

    def kill(self, text: bytes) -> bytes | None:
        """``vKill``; ``k`` has no answer."""
        self.target.kill(number(text))
        self.over = not self.target.alive
        return b"OK"

    def kill_all(self, _text: bytes) -> None:
        """``k``."""
        self.target.kill(ALL)
        self.over = True

    def interrupt(self, _text: bytes) -> bytes:
        """``vCtrlC``, which finds everything stopped already."""
        return b"OK"

    def plain(self, _text: bytes) -> None:
        """``QStartNoAckMode``: the answer is the last that is acknowledged."""
        self.link.send(b"OK")
        self.link.acknowledging = False


def _fields(text: bytes, count: int) -> list[int]:
    found = numbers(text)
    if len(found) != count:
        raise BadPacket(text[:32])
    return found


def _pair(text: bytes) -> tuple[int, int]:
    first, second = _fields(text, 2)
    return first, second


def _action(text: bytes) -> Action:
    """One action of ``vCont``. Raises BadPacket."""
    what, colon, where = text.partition(b":")
    thread = thread_id(where) if colon else (ALL, ALL)
    letter, rest = what[:1], what[1:]
    if letter in (b"C", b"S"):
        return Action(thread, number(rest), letter == b"S")
    if letter in (b"c", b"s") and not rest:
        return Action(thread, 0, letter == b"s")
    if letter == b"t" and not rest:
        return Action(thread, INT)
    if letter == b"r":
        start, end = _pair(rest)
        return Action(thread, 0, True, (start, end))
    raise BadPacket(text[:32])


def _old(letter: bytes) -> Callable[[Server, bytes], bytes]:
    return lambda server, text: server.resume_old(letter, text)


Function = Callable[[Server, bytes], "bytes | None"]
_BY_PREFIX: Final[tuple[tuple[bytes, Function], ...]] = (
    (b"vCont?", lambda server, text: b"vCont;c;C;s;S;r"),
    (b"vCont;", Server.resume),
    (b"vFile:", lambda server, text: server.files.answer(text)),
    (b"vKill;", Server.kill),
    (b"vCtrlC", Server.interrupt),
    (b"qfThreadInfo", Server.list_threads),
    (b"qsThreadInfo", Server.list_more),
    (b"qThreadExtraInfo,", Server.thread_info),
    (b"QStartNoAckMode", Server.plain),
    (b"qSupported", queries.supported),
    (b"qAttached", lambda server, text: b"0"),
    (b"qSymbol:", lambda server, text: b"OK"),
    (b"qXfer:", queries.transfer),
    (b"qRcmd,", queries.monitor),
    (b"QPassSignals:", queries.pass_signals),
    (b"QCatchSyscalls:", queries.catch_syscalls),
    (b"QNonStop:0", lambda server, text: b"OK"),
    (b"qC", Server.current_thread),
    (b"q", lambda server, text: b""),
    (b"Q", lambda server, text: b""),
    (b"v", lambda server, text: b""),
    (b"g", Server.read_registers),
    (b"G", Server.write_registers),
    (b"p", Server.read_register),
    (b"P", Server.write_register),
    (b"m", Server.read_memory),
    (b"x", Server.read_binary),
    (b"M", Server.write_memory),
    (b"X", Server.write_binary),
    (b"Z", Server.set_point),
    (b"z", Server.remove_point),
    (b"H", Server.select),
    (b"T", Server.is_alive),
    (b"?", Server.why),
    (b"D", Server.detach),
    (b"k", Server.kill_all),
    *((letter, _old(letter)) for letter in (b"c", b"s", b"C", b"S")),
)
"""What each packet begins with, longer beginnings first, and who answers it."""

__all__ = ["Gone", "Server"]
