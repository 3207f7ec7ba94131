"""The packets that tell what either side can do, that read objects in parts, and that carry ``monitor`` commands."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from mmuemu.gdbstub.events import Failed
from mmuemu.gdbstub.packets import PACKET_SIZE, BadPacket, escape, from_hex, number, numbers

if TYPE_CHECKING:
    from mmuemu.gdbstub.server import Server

_EINVAL: Final = 22
_FEATURES: Final = (
    f"PacketSize={PACKET_SIZE:x}", "QStartNoAckMode+", "multiprocess+", "swbreak+", "hwbreak+", "vContSupported+",
    "QPassSignals+", "no-resumed+", "binary-upload+", "qXfer:features:read+", "qXfer:threads:read+",
)  # fmt: skip
_WISHES: Final = {
    "multiprocess": "multiprocess", "swbreak": "swbreak", "hwbreak": "hwbreak", "fork-events": "fork",
    "vfork-events": "vfork", "exec-events": "exec", "no-resumed": "no_resumed",
}  # fmt: skip


def supported(server: Server, text: bytes) -> bytes:
    """``qSupported``: take the client's features, tell ours."""
    wishes = server.target.wishes
    for feature in text[1:].decode("ascii", "replace").split(";"):
        name = _WISHES.get(feature[:-1])
        if name is not None and feature.endswith("+"):
            setattr(wishes, name, True)
    return ";".join((*_FEATURES, *server.target.features)).encode()


def transfer(server: Server, text: bytes) -> bytes:
    """``qXfer:OBJECT:read:ANNEX:OFFSET,LENGTH``."""
    what, verb, annex, place = (*text.split(b":", 3), b"", b"", b"")[:4]
    if verb != b"read":
        return b""
    # An annex may hold colons, the offset does not.
    annex, _, place = (annex + b":" + place).rpartition(b":")
    offset, length = (*numbers(place), 0)[:2]
    try:
        data = server.target.transfer(
            server.thread(), what.decode("ascii", "replace"), annex.decode("ascii", "replace")
        )
    except KeyError:
        return b""
    part = data[offset : offset + min(length, PACKET_SIZE // 2 - 2)]
    return (b"m" if offset + len(part) < len(data) else b"l") + escape(part)


def monitor(server: Server, text: bytes) -> bytes:
    """``qRcmd``: a line for ourselves."""
    line = from_hex(text).decode("utf-8", "replace")
    try:
        words = shlex.split(line)
    except ValueError:
        words = [line]
    out = server.target.monitor(server.thread(), words)
    most = PACKET_SIZE // 2 - 2
    data = out.encode()
    for start in range(0, max(len(data) - most, 0), most):
        server.link.send(b"O" + data[start : start + most].hex().encode())
    rest = data[(max(len(data) - most, 0) + most - 1) // most * most :]
    return rest.hex().encode() if rest else b"OK"


def pass_signals(server: Server, text: bytes) -> bytes:
    """``QPassSignals``: these go to the program without a stop."""
    server.target.wishes.passed = {number(part) for part in text.split(b";") if part}
    return b"OK"


def catch_syscalls(server: Server, text: bytes) -> bytes:
    """``QCatchSyscalls:1;SYSNO...`` or ``QCatchSyscalls:0``."""
    wishes = server.target.wishes
    if text[:1] not in (b"0", b"1") or "QCatchSyscalls+" not in server.target.features:
        raise BadPacket(text[:32])
    caught = {number(part) for part in text[2:].split(b";") if part}
    if len(caught) > 4096:
        raise Failed(_EINVAL)
    wishes.catching, wishes.caught = text[:1] == b"1", caught
    return b"OK"
