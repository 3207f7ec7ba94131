"""The vDSO: a shared object of the kernel's, in every process (vdso(7)).

It is mapped like a file that only the kernel has, so that all processes share its frames; a store by force (a
debugger's breakpoint) copies the page, as on Linux (arch/x86/entry/vdso/vma.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmuemu.guest.build import load
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.mman import MAP_FIXED, MAP_PRIVATE
from mmuemu.kernel.vma import PROT_EXEC, PROT_READ, VM_DONTEXPAND
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.page_cache import MappedInode


class Vdso:
    """The vDSO of one kernel; its own opened file and inode, which show as 00:00 and 0."""

    __slots__ = ("_image", "inode", "mapping", "readable", "writable")

    dev = 0
    ino = 0

    def __init__(self) -> None:
        self._image = load("vdso")
        self.mapping: Any = None
        self.readable, self.writable = True, False
        self.inode: MappedInode = self

    @property
    def size(self) -> int:
        """Bytes of the image, in whole pages."""
        return self.pages * PAGE_SIZE

    @property
    def pages(self) -> int:
        """Pages that it takes in an address space."""
        return (len(self._image) + PAGE_SIZE - 1) // PAGE_SIZE

    def read_at(self, offset: int, count: int) -> bytes:
        """The image's bytes, zeros after them."""
        return self._image.ljust(self.size, b"\0")[offset : offset + count]

    def write_at(self, offset: int, data: bytes) -> int:
        """Nobody stores to the image."""
        raise SyscallError(Errno.EPERM)

    def map(self, space: AddressSpace, base: int) -> None:
        """Put it at ``base``. Raises SyscallError."""
        space.mmap(base, self.size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, self, 0, "[vdso]")
        vma = space.vmas.find(base)
        assert vma is not None
        vma.set_flags(vma.flags | VM_DONTEXPAND)
