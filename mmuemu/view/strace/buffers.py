"""Buffers, vectors, socket addresses and messages: types whose length stands in another argument or in the result."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Final

from mmuemu.kernel.syscalls.table import signed32
from mmuemu.view.strace.structs import LAYOUTS, show
from mmuemu.view.strace.values import (
    PATH_LIMIT,
    Call,
    Type,
    escaped,
    flag_text,
    name_text,
    pointer,
    quoted,
    signal_text,
)

_MOST: Final = 4096
"""Elements of an array that are looked at."""
_SOL_SOCKET: Final = 1
_SIGEV_NONE: Final = 1
_SIGEV_THREAD_ID: Final = 4
_OPTIONS: Final = {
    "SO_PEERCRED": "ucred",
    "SO_LINGER": "linger",
    "SO_RCVTIMEO_OLD": "timeval",
    "SO_SNDTIMEO_OLD": "timeval",
}
_CLONE3: Final = struct.Struct("<8Q")
_LEAST_CLONE3: Final = 64


def path(call: Call, address: int) -> str:
    """A path, whole."""
    if not address:
        return "NULL"
    text = call.string(address, PATH_LIMIT)
    return f"{address:#x}" if text is None else escaped(text)


def string(call: Call, address: int) -> str:
    """A string, cut like a buffer."""
    if not address:
        return "NULL"
    text = call.string(address, call.limit + 1)
    return f"{address:#x}" if text is None else quoted(text, call.limit)


def bytes_at(call: Call, address: int, count: int, hexadecimal: bool = False) -> str:
    """``count`` bytes, cut."""
    if not address:
        return "NULL"
    limit = call.limit
    data = call.read(address, limit if count > limit else count)
    if data is None:
        return f"{address:#x}"
    return f"{escaped(data, hexadecimal)}..." if count > limit else escaped(data, hexadecimal)


def given(index: int) -> Type:
    """A type: bytes the caller gives, as many as argument ``index`` says."""
    return lambda call, address: bytes_at(call, address, call.args[index])


def taken(call: Call, address: int) -> str:
    """Bytes that the call has left, as many as its result says."""
    return bytes_at(call, address, call.result)


def random_bytes(call: Call, address: int) -> str:
    """The same in hexadecimal."""
    return bytes_at(call, address, call.result, True)


def c_string(call: Call, address: int) -> str:
    """What getcwd leaves: a path of as many bytes as its result says, with the NUL."""
    return path(call, address)


def array(call: Call, address: int, count: int, name: str) -> str:
    """Structures one after the other, cut at the limit."""
    if not address:
        return "NULL"
    form, text = LAYOUTS[name]
    shown = []
    for index in range(min(count, call.limit, _MOST)):
        data = call.read(address + index * form.size, form.size)
        if data is None:
            if not index:
                return f"{address:#x}"
            shown.append(f"... /* {address + index * form.size:#x} */")
            break
        shown.append(text(*form.unpack(data)))
    if count > min(call.limit, _MOST):
        shown.append("...")
    return f"[{', '.join(shown)}]"


def plain_array(index: int, name: str) -> Type:
    """A type: as many structures as argument ``index`` says."""
    return lambda call, address: array(call, address, call.args[index] & 0xFFFF_FFFF, name)


def result_array(name: str) -> Type:
    """A type: as many structures as the result says."""
    return lambda call, address: array(call, address, call.result, name)


def vector(call: Call, address: int, count: int, filled: int | None = None) -> str:
    """``[{iov_base="abc", iov_len=3}]``; with ``filled`` the bytes that a read has put there."""
    if not address:
        return "NULL"
    shown = []
    left = filled
    for index in range(min(count, call.limit, _MOST)):
        data = call.read(address + 16 * index, 16)
        if data is None:
            return f"{address:#x}"
        base, size = struct.unpack("<QQ", data)
        there = size if left is None else min(size, left)
        shown.append(f"{{iov_base={bytes_at(call, base, there)}, iov_len={size}}}")
        left = None if left is None else left - there
    if count > min(call.limit, _MOST):
        shown.append("...")
    return f"[{', '.join(shown)}]"


def vector_given(call: Call, address: int) -> str:
    """writev's buffers."""
    return vector(call, address, call.args[2] & 0xFFFF_FFFF)


def vector_taken(call: Call, address: int) -> str:
    """readv's buffers."""
    return vector(call, address, call.args[2] & 0xFFFF_FFFF, call.result)


# -- sockets ----------------------------------------------------------------------------------------------------------


def socket_address(call: Call, address: int, size: int) -> str:
    """A ``struct sockaddr`` of ``size`` bytes."""
    if not address:
        return "NULL"
    data = call.read(address, min(size, 128))
    if data is None or len(data) < 2:
        return pointer(address)
    family = int.from_bytes(data[:2], "little")
    head = f"sa_family={name_text(family, 'AF_')}"
    rest = data[2:]
    if family == 1 and rest:
        name = rest if rest[:1] == b"\0" else rest.split(b"\0")[0]
        shown = f"@{escaped(name[1:])}" if name[:1] == b"\0" else escaped(name)
        return f"{{{head}, sun_path={shown}}}"
    if family == 2 and len(rest) >= 6:
        host = ".".join(str(byte) for byte in rest[2:6])
        return f'{{{head}, sin_port=htons({int.from_bytes(rest[:2], "big")}), sin_addr=inet_addr("{host}")}}'
    if family == 10 and len(rest) >= 22:
        host = str(ipaddress.IPv6Address(rest[6:22]))
        flow, scope = int.from_bytes(rest[2:6], "big"), int.from_bytes(rest[22:26], "little")
        return (
            f"{{{head}, sin6_port=htons({int.from_bytes(rest[:2], 'big')}), sin6_flowinfo=htonl({flow}), "
            f'inet_pton(AF_INET6, "{host}", &sin6_addr), sin6_scope_id={scope}}}'
        )
    return f"{{{head}, sa_data={escaped(rest[:14])}}}" if rest else f"{{{head}}}"


def address_given(index: int) -> Type:
    """A type: a socket address, its length in argument ``index``."""
    return lambda call, address: socket_address(call, address, signed32(call.args[index]))


def address_taken(index: int) -> Type:
    """A type: a socket address the call has left, its length where argument ``index`` points."""

    def show_it(call: Call, address: int) -> str:
        size = call.read(call.args[index], 4) if call.args[index] else None
        if not address or size is None:
            return pointer(address)
        room = call.kept if isinstance(call.kept, int) else 128
        return socket_address(call, address, min(int.from_bytes(size, "little"), room))

    return show_it


def remember_length(index: int) -> Callable[[Call], None]:
    """What to do at the call: keep the length that argument ``index`` points to."""

    def keep(call: Call) -> None:
        data = call.read(call.args[index], 4) if call.args[index] else None
        call.kept = None if data is None else int.from_bytes(data, "little")

    return keep


def length_changed(call: Call, address: int) -> str:
    """``[110 => 2]``: a length before and after."""
    data = call.read(address, 4) if address else None
    if data is None:
        return pointer(address)
    now = int.from_bytes(data, "little")
    return f"[{now}]" if call.failed or call.kept in (None, now) else f"[{call.kept} => {now}]"


def option_given(call: Call, address: int) -> str:
    """setsockopt's value."""
    return _option(call, address, signed32(call.args[4]))


def option_taken(call: Call, address: int) -> str:
    """getsockopt's value."""
    size = call.read(call.args[4], 4) if call.args[4] else None
    return pointer(address) if size is None else _option(call, address, int.from_bytes(size, "little"))


def _option(call: Call, address: int, size: int) -> str:
    if not address:
        return "NULL"
    name = name_text(call.args[2] & 0xFFFF_FFFF, "SO_") if call.args[1] & 0xFFFF_FFFF == _SOL_SOCKET else ""
    layout = _OPTIONS.get(name, "int")
    if size < LAYOUTS[layout][0].size:
        return bytes_at(call, address, size)
    if layout == "int" and size > 4:
        return bytes_at(call, address, size)
    return show(call, layout, address)


def option_name(call: Call, value: int) -> str:
    """SO_* at SOL_SOCKET, a number elsewhere."""
    value &= 0xFFFF_FFFF
    return name_text(value, "SO_") if call.args[1] & 0xFFFF_FFFF == _SOL_SOCKET else f"{value:#x}"


def protocol(call: Call, value: int) -> str:
    """IPPROTO_* of an internet socket, a number for others."""
    value &= 0xFFFF_FFFF
    return name_text(value, "IPPROTO_") if call.args[0] & 0xFFFF_FFFF in (2, 10) else str(value)


def message(call: Call, address: int, count: int | None) -> str:
    """A ``struct msghdr``; ``count`` bytes have been received into it (None: it is sent)."""
    data = call.read(address, 56) if address else None
    if data is None:
        return pointer(address)
    name, length, iov, vectors, control, room, marks = struct.unpack("<QI4xQQQQI4x", data)
    where = socket_address(call, name, length) if name and length else pointer(name)
    parts = [f"msg_name={where}", f"msg_namelen={_length(call, length, count)}"]
    parts += [f"msg_iov={vector(call, iov, vectors, count)}", f"msg_iovlen={vectors}"]
    if room and control:
        parts.append(f"msg_control={_control(call, control, room)}")
    parts += [f"msg_controllen={room}", f"msg_flags={flag_text(marks, 'MSG_')}"]
    return f"{{{', '.join(parts)}}}"


def _length(call: Call, now: int, count: int | None) -> str:
    before = call.kept if count is not None and isinstance(call.kept, int) else now
    return str(now) if before == now else f"{before} => {now}"


def remember_name(call: Call) -> None:
    """What to do at recvmsg: keep the room there is for the sender's name."""
    data = call.read(call.args[1] + 8, 4) if call.args[1] else None
    call.kept = None if data is None else int.from_bytes(data, "little")


def _control(call: Call, address: int, room: int) -> str:
    shown = []
    at = 0
    while at + 16 <= min(room, _MOST):
        head = call.read(address + at, 16)
        if head is None:
            break
        size, level, kind = struct.unpack("<QII", head)
        if not 16 <= size <= room - at:
            break
        names = {1: "SCM_RIGHTS", 2: "SCM_CREDENTIALS"} if level == _SOL_SOCKET else {}
        text = f"cmsg_len={size}, cmsg_level={name_text(level, 'SOL_')}, cmsg_type={names.get(kind, f'{kind:#x}')}"
        data = call.read(address + at + 16, size - 16) or b""
        if kind == 1 and names:
            fds = struct.unpack(f"<{len(data) // 4}i", data[: len(data) // 4 * 4])
            text += f", cmsg_data=[{', '.join(map(str, fds))}]"
        elif kind == 2 and len(data) >= 12:
            text += f", cmsg_data={LAYOUTS['ucred'][1](*struct.unpack('<iII', data[:12]))}"
        shown.append(f"{{{text}}}")
        at += size + 7 & ~7
    return f"[{', '.join(shown)}]" if shown else f"{address:#x}"


def message_given(call: Call, address: int) -> str:
    """sendmsg's message."""
    return message(call, address, None)


def message_taken(call: Call, address: int) -> str:
    """recvmsg's message."""
    return message(call, address, call.result)


def messages(received: bool) -> Type:
    """A type: sendmmsg's or recvmmsg's messages."""

    def show_them(call: Call, address: int) -> str:
        count = min(call.result, _MOST) if not call.failed else 0
        shown = []
        for index in range(count):
            done = call.read(address + 64 * index + 56, 4)
            if done is None:
                break
            size = int.from_bytes(done, "little")
            text = message(call, address + 64 * index, size if received else None)
            shown.append(f"{{msg_hdr={text}, msg_len={size}}}")
        return f"[{', '.join(shown)}]" if shown else pointer(address)

    return show_them


# -- waiting for descriptors ------------------------------------------------------------------------------------------


def poll_asked(call: Call, address: int) -> str:
    """poll's descriptors and what is waited for."""
    return _poll(call, address, False)


def _poll(call: Call, address: int, after: bool) -> str:
    if not address:
        return "NULL"
    shown: list[str] = []
    for index in range(min(call.args[1] & 0xFFFF_FFFF, _MOST)):
        data = call.read(address + 8 * index, 8)
        if data is None:
            return f"{address:#x}"
        fd, events, found = struct.unpack("<ihh", data)
        if after and not found:
            continue
        if not after and len(shown) >= call.limit:
            shown.append("...")
            break
        what = (
            f"revents={flag_text(found & 0xFFFF, 'POLL')}" if after else f"events={flag_text(events & 0xFFFF, 'POLL')}"
        )
        shown.append(f"{{fd={fd}}}" if fd < 0 else f"{{fd={fd}, {what}}}")
    return f"[{', '.join(shown)}]"


def poll_result(call: Call) -> str:
    """What poll adds to its result."""
    if call.failed:
        return ""
    if not call.result:
        return " (Timeout)"
    left = show(call, "timespec", call.args[2]) if call.number == 271 and call.args[2] else ""
    return f" ({_poll(call, call.args[0], True)}{f', left {left}' if left else ''})"


def descriptors(call: Call, address: int) -> str:
    """select's set of descriptors."""
    found = _descriptors(call, address)
    return pointer(address) if found is None else f"[{' '.join(map(str, found))}]"


def _descriptors(call: Call, address: int) -> list[int] | None:
    count = min(max(signed32(call.args[0]), 0), 1024)
    data = call.read(address, (count + 63) // 64 * 8) if address else None
    if data is None:
        return None
    bits = int.from_bytes(data, "little")
    return [fd for fd in range(count) if bits >> fd & 1]


def select_result(call: Call) -> str:
    """What select adds to its result."""
    if call.failed:
        return ""
    if not call.result:
        return " (Timeout)"
    parts = []
    for name, address in zip(("in", "out", "except"), call.args[1:4], strict=True):
        found = _descriptors(call, address)
        if found:
            parts.append(f"{name} [{' '.join(map(str, found))}]")
    if call.args[4]:
        parts.append(f"left {show(call, 'timeval' if call.number == 23 else 'timespec', call.args[4])}")
    return f" ({', '.join(parts)})"


# -- others -----------------------------------------------------------------------------------------------------------


def entries(call: Call, address: int) -> str:
    """getdents' buffer: how many entries it has."""
    data = call.read(address, call.result) or b""
    count = at = 0
    while at + 18 < len(data):
        count, at = count + 1, at + max(int.from_bytes(data[at + 16 : at + 18], "little"), 18)
    return f"{address:#x} /* {count} entr{'y' if count == 1 else 'ies'} */"


def sigevent(call: Call, address: int) -> str:
    """A ``struct sigevent``."""
    data = call.read(address, 64) if address else None
    if data is None:
        return pointer(address)
    value, number, kind, thread = struct.unpack("<Qiii", data[:20])
    parts = []
    if value:
        parts.append(f"sigev_value={{sival_int={signed32(value)}, sival_ptr={value:#x}}}")
    parts.append(f"sigev_signo={number if kind == _SIGEV_NONE else signal_text(number)}")
    parts.append(f"sigev_notify={name_text(kind, 'SIGEV_')}")
    if kind == _SIGEV_THREAD_ID:
        parts.append(f"sigev_notify_thread_id={thread}")
    return f"{{{', '.join(parts)}}}"


def clone3(call: Call, address: int) -> str:
    """clone3's arguments."""
    data = call.read(address, min(call.args[1], 88)) if address else None
    if data is None or len(data) < _LEAST_CLONE3:
        return pointer(address)
    marks, pidfd, child, parent, number, stack, size, tls = _CLONE3.unpack(data[:64])
    parts = [f"flags={flag_text(marks, 'CLONE_')}"]
    if marks & 0x1000:
        parts.append(f"pidfd={pointer(pidfd)}")
    if marks & 0x0120_0000:
        parts.append(f"child_tid={pointer(child)}")
    if marks & 0x0010_0000:
        parts.append(f"parent_tid={pointer(parent)}")
    parts += [
        f"exit_signal={signal_text(number)}",
        f"stack={pointer(stack)}",
        f"stack_size={size:#x}" if size else "stack_size=0",
    ]
    if marks & 0x0008_0000:
        parts.append(f"tls={pointer(tls)}")
    return f"{{{', '.join(parts)}}}"


def remember_parent(call: Call) -> None:
    """What to do at clone3: keep where the child's number goes."""
    data = call.read(call.args[0], 32) if call.args[0] else None
    wanted = data is not None and data[2] & 0x10
    call.kept = int.from_bytes(data[24:32], "little") if data is not None and wanted else 0


def clone3_size(call: Call, value: int) -> str | None:
    """The size of clone3's arguments, unless something that the call writes is shown before it."""
    return None if call.kept else str(value)


def clone3_size_after(call: Call, value: int) -> str | None:
    """The same, then."""
    return str(value) if call.kept else None


def clone3_after(call: Call, _address: int) -> str | None:
    """What clone3 has written."""
    if call.failed or not isinstance(call.kept, int) or not call.kept:
        return None
    return f" => {{parent_tid={show(call, 'int', call.kept)}}}"


def cpus(call: Call, address: int) -> str:
    """A set of processors."""
    count = call.result if call.number == 204 else min(call.args[1], _MOST)
    data = call.read(address, count) if address else None
    if data is None:
        return pointer(address)
    bits = int.from_bytes(data, "little")
    return f"[{' '.join(str(cpu) for cpu in range(bits.bit_length()) if bits >> cpu & 1)}]"


def message_queue_buffer(call: Call, address: int) -> str:
    """msgsnd's and msgrcv's message: its type and text."""
    kind = call.read(address, 8) if address else None
    if kind is None:
        return pointer(address)
    count = call.args[2]
    return f"{{mtype={int.from_bytes(kind, 'little', signed=True)}, mtext={bytes_at(call, address + 8, count)}}}"


def groups(call: Call, address: int) -> str:
    """Group numbers."""
    count = call.args[0] if call.number == 116 else call.result
    return array(call, address, count, "number")
