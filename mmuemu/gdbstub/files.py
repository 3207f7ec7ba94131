"""``vFile``: files as the guest sees them, to be read only (gdb manual, E.7 and E.13)."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, unpack_from
from typing import TYPE_CHECKING, Final

from mmuemu.gdbstub.events import Failed
from mmuemu.gdbstub.packets import PACKET_SIZE, BadPacket, escape, from_hex, number

if TYPE_CHECKING:
    from mmuemu.gdbstub.events import Target

_READ_ONLY: Final = 0
_EROFS: Final = 30
_EBADF: Final = 9
_EMFILE: Final = 24
_MOST: Final = 64
_UNKNOWN_ERROR: Final = 9999
_ERRNOS: Final = frozenset({1, 2, 4, 5, 9, 13, 14, 16, 17, 19, 20, 21, 22, 23, 24, 27, 28, 29, 30, 91})
"""The error numbers of the protocol; those of Linux but for ENAMETOOLONG."""
_ENAMETOOLONG: Final = {36: 91}
_STAT: Final = Struct(">IIIIIIIQQQIII")
"""dev, ino, mode, nlink, uid, gid, rdev, size, block size, blocks, times; all of it big-endian."""


def _failure(errno: int) -> bytes:
    errno = _ENAMETOOLONG.get(errno, errno)
    return b"F-1,%x" % (errno if errno in _ERRNOS else _UNKNOWN_ERROR)


def pack_fio_stat(stat: bytes) -> bytes:
    """The protocol's ``struct stat`` from that of x86-64 Linux."""
    dev, ino, nlink, mode, uid, gid = unpack_from("<QQQIII", stat)
    rdev, size, block, blocks, atime, _, mtime, _, ctime = unpack_from("<QQQQQQQQQ", stat, 40)
    narrow = [value & 0xFFFF_FFFF for value in (dev, ino, mode, nlink, uid, gid, rdev)]
    times = [value & 0xFFFF_FFFF for value in (atime, mtime, ctime)]
    return _STAT.pack(*narrow, size, block, blocks, *times)


class Files:
    """The files that one client has open."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._open: dict[int, tuple[Callable[[int, int], bytes], bytes]] = {}

    def answer(self, text: bytes) -> bytes:
        """The answer to ``vFile:`` and ``text``; empty for an operation that is not known."""
        operation, _, rest = text.partition(b":")
        function = _OPERATIONS.get(operation)
        if function is None:
            return b""
        try:
            return function(self, rest.split(b","))
        except Failed as failure:
            return _failure(failure.errno)
        except BadPacket:
            return _failure(22)

    def _file(self, text: bytes) -> tuple[Callable[[int, int], bytes], bytes]:
        found = self._open.get(number(text))
        if found is None:
            raise Failed(_EBADF)
        return found

    def _open_file(self, fields: list[bytes]) -> bytes:
        path, flags = from_hex(fields[0]), number(fields[1] if len(fields) > 1 else b"")
        if flags != _READ_ONLY:
            raise Failed(_EROFS)
        descriptor = next((number for number in range(_MOST) if number not in self._open), -1)
        if descriptor < 0:
            raise Failed(_EMFILE)
        self._open[descriptor] = self._target.open_file(path)
        return b"F%x" % descriptor

    def _close(self, fields: list[bytes]) -> bytes:
        self._file(fields[0])
        del self._open[number(fields[0])]
        return b"F0"

    def _pread(self, fields: list[bytes]) -> bytes:
        if len(fields) != 3:
            raise BadPacket
        read, _ = self._file(fields[0])
        count = min(number(fields[1]), PACKET_SIZE // 2 - 16)
        data = read(number(fields[2]), count)
        return b"F%x;" % len(data) + escape(data)

    def _fstat(self, fields: list[bytes]) -> bytes:
        data = pack_fio_stat(self._file(fields[0])[1])
        return b"F%x;" % len(data) + escape(data)

    def _readlink(self, fields: list[bytes]) -> bytes:
        data = self._target.read_link(from_hex(fields[0]))
        return b"F%x;" % len(data) + escape(data)

    def _setfs(self, _fields: list[bytes]) -> bytes:
        """All processes see the same files."""
        return b"F0"

    def _refuse(self, _fields: list[bytes]) -> bytes:
        raise Failed(_EROFS)


_OPERATIONS: Final[dict[bytes, Callable[[Files, list[bytes]], bytes]]] = {
    b"open": Files._open_file,
    b"close": Files._close,
    b"pread": Files._pread,
    b"fstat": Files._fstat,
    b"readlink": Files._readlink,
    b"setfs": Files._setfs,
    b"pwrite": Files._refuse,
    b"unlink": Files._refuse,
}
