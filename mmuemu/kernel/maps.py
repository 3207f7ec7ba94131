"""The text of /proc/PID/maps, as fs/proc/task_mmu.c prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.vma import Vma

_NAME_COLUMN: Final = 73
"""Names start here: ``25 + sizeof(void *) * 6 - 1`` characters, padded, and a space."""


def area_name(mm: AddressSpace, vma: Vma) -> str:
    """What maps calls ``vma``: its path or name, ``[heap]``, ``[stack]``, or nothing."""
    if vma.name:
        return vma.name
    if vma.file is None:
        if vma.start < mm.brk and vma.end > mm.start_brk:
            return "[heap]"
        if vma.start <= mm.start_stack <= vma.end:
            return "[stack]"
    return ""


def maps_line(mm: AddressSpace, vma: Vma) -> str:
    """The line of one area, without its newline (a newline in a path shows as ``\\012``)."""
    offset = major = minor = ino = 0
    if vma.file is not None:
        inode = vma.file.inode
        offset, ino = vma.offset, inode.ino
        # The kernel's own dev_t is cut in 12 and 20 bits; stat(2) shows it in this order (new_encode_dev).
        major = inode.dev >> 8 & 0xFFF
        minor = inode.dev & 0xFF | inode.dev >> 12 & 0xFFF00
    line = f"{vma.start:08x}-{vma.end:08x} {vma.permissions} {offset:08x} {major:02x}:{minor:02x} {ino} "
    name = area_name(mm, vma)
    return f"{line:<{_NAME_COLUMN}}{name}".replace("\n", "\\012") if name else line


def maps_text(mm: AddressSpace) -> str:
    """The whole of /proc/PID/maps."""
    return "".join(maps_line(mm, vma) + "\n" for vma in mm.vmas)
