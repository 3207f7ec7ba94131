"""Which pages of guest memory were written since the last look, as the host's kernel knows it.

Host facts: userfaultfd(2) and ioctl_userfaultfd(2) (write protection, resolved by the kernel itself with
UFFD_FEATURE_WP_ASYNC), ioctl PAGEMAP_SCAN (Documentation/admin-guide/mm/pagemap.rst; Linux 6.7). Whoever writes is
seen: the engine, Python, a read(2) into guest memory, a page given back to the host.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final

from mmuemu.memory.ram import GuestRam
from mmuemu.x86.paging import PAGE_SIZE

_SYSCALLS: Final = {"x86_64": 323, "aarch64": 282}
"""userfaultfd's number."""
_USER_MODE_ONLY: Final = 1
_API: Final = 0xC018_AA3F
_REGISTER: Final = 0xC020_AA00
_VERSION: Final = 0xAA
_WP_UNPOPULATED: Final = 1 << 13
_WP_ASYNC: Final = 1 << 15
_MODE_WP: Final = 2
_SCAN: Final = 3 << 30 | 96 << 16 | ord("f") << 8 | 16
_WP_MATCHING: Final = 1
_CHECK_WPASYNC: Final = 2
_IS_WRITTEN: Final = 2
_REGIONS: Final = 1024
"""Of written pages side by side, that one call tells."""


class WrittenPages:
    """Looks after the pages of one guest's memory; a page costs its first writer after each look about 1 us."""

    def __init__(self, ram: GuestRam, descriptor: int, pagemap: int) -> None:
        self._ram = ram
        self._descriptors = [descriptor, pagemap]
        self._regions = (ctypes.c_uint64 * (3 * _REGIONS))()
        self._argument = (ctypes.c_uint64 * 12)()
        self._ioctl = ctypes.CDLL(None, use_errno=True).ioctl
        self._ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]

    @classmethod
    def of(cls, ram: GuestRam) -> WrittenPages | None:
        """Who looks after ``ram`` from now on, all of which counts as written; None where the host cannot."""
        number = _SYSCALLS.get(os.uname().machine) if sys.platform == "linux" else None
        if number is None or os.sysconf("SC_PAGE_SIZE") != PAGE_SIZE:
            return None
        import fcntl

        flags = os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY
        descriptor = ctypes.CDLL(None, use_errno=True).syscall(number, flags)
        if descriptor < 0:
            return None
        found: WrittenPages | None = None
        try:
            fcntl.ioctl(descriptor, _API, bytearray(struct.pack("<3Q", _VERSION, _WP_ASYNC | _WP_UNPOPULATED, 0)))
            fcntl.ioctl(descriptor, _REGISTER, bytearray(struct.pack("<4Q", ram.address, ram.size, _MODE_WP, 0)))
            found = cls(ram, descriptor, os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC))
            found.take(PAGE_SIZE)
        except OSError:
            if found is None:
                os.close(descriptor)
            else:
                found.close()
            return None
        return found

    def take(self, end: int) -> set[int]:
        """Physical addresses, below ``end``, of the pages written since they were taken last (or ever). Raises OSError
        when the host refuses after all."""
        argument, regions, base = self._argument, self._regions, self._ram.address
        start, last = base, base + end
        found: set[int] = set()
        while start < last:
            argument[:] = [
                96, _WP_MATCHING | _CHECK_WPASYNC, start, last, 0, ctypes.addressof(regions), _REGIONS, 0,
                0, _IS_WRITTEN, 0, _IS_WRITTEN,
            ]  # fmt: skip
            count = self._ioctl(self._descriptors[1], _SCAN, ctypes.addressof(argument))
            if count < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            for index in range(0, 3 * count, 3):
                found.update(range(regions[index] - base, regions[index + 1] - base, PAGE_SIZE))
            start = argument[4]
        return found

    def close(self) -> None:
        """Look no longer."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
