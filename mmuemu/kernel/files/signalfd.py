"""Signals that are read from a descriptor (signalfd(2)): those of whoever reads."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_RDWR, POLLIN
from mmuemu.kernel.files.anonymous import AnonymousFile
from mmuemu.kernel.files.openfile import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import FileSystem
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.signals.pending import Pending, SigInfo
    from mmuemu.kernel.wait import WaitQueue

SIZE: Final = 128
_SI_TIMER: Final = -2
_SIGCHLD: Final = 17
_FAULTS: Final = frozenset({4, 5, 7, 8, 11})


def pack(info: SigInfo) -> bytes:
    """``struct signalfd_siginfo`` (include/uapi/linux/signalfd.h): the union's fields each at its own place."""
    payload = info.payload.ljust(32, b"\0")
    first, second, third = struct.unpack_from("<IIi", payload)
    pointer = int.from_bytes(payload[8:16], "little")
    pid = uid = timer = overrun = status = address = user = system = value = 0
    if info.code == _SI_TIMER:
        timer, overrun, value = first, second, pointer
    elif info.signal == _SIGCHLD and info.code > 0:
        pid, uid, status = first, second, third
        user, system = struct.unpack_from("<QQ", payload, 16)
    elif info.signal in _FAULTS and info.code > 0:
        address = int.from_bytes(payload[:8], "little")
    else:
        pid, uid, value = first, second, pointer
    low = struct.unpack("<i", (value & 0xFFFF_FFFF).to_bytes(4, "little"))[0]
    return struct.pack(
        "<IiiIIiIIIIiiQQQQH46x", info.signal, info.errno, info.code, pid, uid, 0, timer, 0, overrun, 0, status, low,
        value, user, system, address, 0,
    )  # fmt: skip


class SignalFd(AnonymousFile):
    """``mask`` has bit ``signal - 1`` for each signal that is read here and not delivered otherwise."""

    __slots__ = ("kernel", "mask")

    label = b"anon_inode:[signalfd]"
    pollable = True

    def __init__(self, fs: FileSystem, kernel: Kernel, mask: int, flags: int) -> None:
        super().__init__(fs, O_RDWR | flags)
        self.kernel = kernel
        self.mask = mask

    def _sources(self) -> tuple[Pending, ...]:
        task = self.kernel.current
        return (task.signals, task.process.signals) if task is not None else ()

    def read(self, count: int) -> bytes:
        """As many pending signals as fit, 128 bytes each; EINVAL when not one fits."""
        if count < SIZE:
            raise SyscallError(Errno.EINVAL)
        pieces: list[bytes] = []
        for source in self._sources():
            while len(pieces) < count // SIZE and (info := source.take(self.mask)) is not None:
                pieces.append(pack(info))
        if not pieces:
            raise SyscallError(Errno.EAGAIN) if self.nonblocking else Blocked(*self.wait_queues())
        return b"".join(pieces)

    def unread(self, data: bytes) -> None:
        """What was taken is lost when the buffer was bad."""

    def poll(self) -> int:
        """Readable while such a signal is pending for the caller."""
        return POLLIN if any(source.bits & self.mask for source in self._sources()) else 0

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """Those of the caller's signals."""
        return tuple(source.arrived for source in self._sources())
