"""Guest physical memory: one lazily committed stretch of host memory, seen as bytes and as quadwords.

Host facts: mmap(2), madvise(2) (``MADV_DONTNEED`` on private anonymous memory: the next read gives zeros,
Linux only) and mincore(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import re
import sys
from typing import Final

from mmuemu.errors import UsageError
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

ZERO_PAGE: Final = bytes(PAGE_SIZE)
_LINUX: Final = sys.platform == "linux"
_MAP_NORESERVE: Final = 0x4000  # include/uapi/asm-generic/mman-common.h; the mmap module names it since 3.13
_MADV_POPULATE_WRITE: Final = 23  # include/uapi/asm-generic/mman-common.h
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE: Final = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes meant by ``"64M"``, ``"1G"``, ``"512KiB"`` or ``"4096"``; every unit is a power of 1,024.

    Raises UsageError for anything else, zero included.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(match[1]) << _UNITS[match[2].lower()] if match else 0
    if not size:
        raise UsageError(f"not a size: {text!r} (write for example 64M, 1G or 512KiB)")
    return size


def anonymous(size: int) -> mmap.mmap:
    """Private zero-filled host memory of ``size`` bytes that costs nothing until touched.

    Raises UsageError when the host refuses.
    """
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANON
        if _LINUX:
            flags |= _MAP_NORESERVE
        area = mmap.mmap(-1, size, flags=flags)
    except (OSError, OverflowError, ValueError) as error:
        raise UsageError(f"the host gives no {size:#x} bytes of memory: {error}") from error
    if sys.platform == "linux":
        # With huge pages one touched byte commits 2 MiB, and resident() would say little.
        with contextlib.suppress(OSError):
            area.madvise(mmap.MADV_NOHUGEPAGE)
    return area


def _host_address(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


class GuestRam:
    """``size`` bytes of physical memory starting at physical address 0.

    ``bytes`` and ``qwords`` are the same memory by byte and by 8-byte word (index ``physical >> 3``), for
    whoever needs speed; ``address`` is the host pointer for ``uc_mem_map_ptr``, valid until :meth:`close`.
    """

    __slots__ = ("_area", "_populates", "address", "bytes", "qwords", "size", "tables_gone")

    def __init__(self, size: int) -> None:
        """Reserve ``size`` bytes. Raises UsageError unless it is a positive multiple of 4,096."""
        if size <= 0 or size & PAGE_MASK:
            raise UsageError(f"guest memory must be a positive multiple of {PAGE_SIZE} bytes, not {size}")
        self.size = size
        self.tables_gone = 0
        """Page tables that :class:`~mmuemu.memory.page_table.PageTable` has taken away: who remembers where tables lie
        looks here."""
        self._area = anonymous(size)
        self._populates = _LINUX
        self.address = _host_address(self._area)
        self.bytes = memoryview(self._area)
        self.qwords = self.bytes.cast("Q")

    def _check(self, pa: int, size: int) -> None:
        if pa < 0 or size < 0 or pa + size > self.size:
            raise ValueError(f"physical {pa:#x}+{size:#x} is outside the {self.size:#x} bytes of guest memory")

    def read(self, pa: int, size: int) -> bytes:
        """The ``size`` bytes at physical ``pa``. Raises ValueError outside of memory."""
        self._check(pa, size)
        return bytes(self.bytes[pa : pa + size])

    def write(self, pa: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` at physical ``pa``. Raises ValueError outside of memory."""
        size = len(data)
        self._check(pa, size)
        self.bytes[pa : pa + size] = data

    def zero(self, pa: int, size: int) -> None:
        """Fill ``size`` bytes at physical ``pa`` with zeros; the host keeps the pages committed."""
        self._check(pa, size)
        end = pa + size
        while pa < end:
            part = min(end - pa, PAGE_SIZE)
            self.bytes[pa : pa + part] = ZERO_PAGE[:part]
            pa += part

    def discard(self, pa: int, size: int) -> None:
        """Like :meth:`zero`, and whole pages go back to the host (on Linux; elsewhere they are only
        zeroed).
        """
        self._check(pa, size)
        if sys.platform == "linux":
            first = (pa + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
            last = (pa + size) & -mmap.PAGESIZE
            if first < last:
                self._area.madvise(mmap.MADV_DONTNEED, first, last - first)
                self.zero(pa, first - pa)
                self.zero(last, pa + size - last)
                return
        self.zero(pa, size)

    def populate(self, pa: int, size: int) -> None:
        """Have the host commit zero pages for ``[pa, pa + size)`` at once, which costs less than one by one.

        Only a hint: hosts without MADV_POPULATE_WRITE (Linux 5.14) commit on first touch as ever.
        """
        if not self._populates:
            return
        try:
            self._area.madvise(_MADV_POPULATE_WRITE, pa, size)
        except OSError:
            self._populates = False

    def resident(self) -> int:
        """Bytes the host has committed for this memory now; the whole size on a host that cannot tell."""
        if sys.platform == "win32":
            return self.size
        vector = (ctypes.c_ubyte * -(-self.size // mmap.PAGESIZE))()
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        if mincore(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size), vector):
            return self.size
        return (len(vector) - bytes(vector).translate(_RESIDENT_BIT).count(0)) * mmap.PAGESIZE

    def touched_frames(self) -> list[int]:
        """Physical addresses of the frames that may hold anything but zeros (/proc/self/pagemap: bits 62 and 63)."""
        pages = b""
        if sys.platform == "linux" and mmap.PAGESIZE == PAGE_SIZE:
            with contextlib.suppress(OSError), open("/proc/self/pagemap", "rb") as file:
                file.seek(self.address // PAGE_SIZE * 8)
                pages = file.read(self.size // PAGE_SIZE * 8)[7::8]
        if len(pages) * PAGE_SIZE != self.size:
            return list(range(0, self.size, PAGE_SIZE))
        return [number * PAGE_SIZE for number, bits in enumerate(pages) if bits & 0xC0]

    def close(self) -> None:
        """Give the memory back to the host; nothing may use this object, its views or its address afterwards.

        While someone else still holds a slice of a view, the host memory stays until that slice is dropped.
        """
        self.qwords.release()
        with contextlib.suppress(BufferError):
            self.bytes.release()
            self._area.close()


_RESIDENT_BIT: Final = bytes(value & 1 for value in range(256))
