"""Addresses that people name: numbers, symbols of a process's images and of the kernel, areas, distances from them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage, UsageError, printable
from mmuemu.kernel.maps import area_name
from mmuemu.kernel.proc import KernelProc
from mmuemu.loader.elf import read_image
from mmuemu.loader.symbols import all_symbols
from mmuemu.loader.tables import SHN_ABS, STB_LOCAL
from mmuemu.view.symbols import LARGEST_IMAGE, NAMELESS
from mmuemu.x86.paging import USER_TOP_5LEVEL

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.vma import Vma

_PARTS: Final = re.compile(r"(.+?)(?:([+-])(0[xX][0-9a-fA-F]+|\d+))?")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|\d+")
_BARE_HEX: Final = re.compile(r"[0-9a-fA-F]{4,16}")
_LAST: Final = 1 << 64
_HEXES: Final = re.compile(r"(0[xX])?[0-9a-fA-F]+-(0[xX])?[0-9a-fA-F]+")


def _symbol_in(vma: Vma, name: str) -> int | None:
    """The address of symbol ``name`` of the image whose first page ``vma`` shows; a global one before a local one."""
    if vma.file is None or vma.offset:
        return None
    inode = vma.file.inode
    if not 64 <= inode.size <= LARGEST_IMAGE or inode.read_at(0, 4) != b"\x7fELF":
        return None
    try:
        image = read_image(inode.read_at(0, inode.size), vma.name, USER_TOP_5LEVEL)
        symbols = all_symbols(image)
    except BadImage:
        return None
    usable = [s for s in symbols if s.name == name and s.kind not in NAMELESS and s.section != SHN_ABS]
    best = min(usable, key=lambda symbol: symbol.binding == STB_LOCAL, default=None)
    return None if best is None else best.value + vma.start - image.start


def find_symbol(kernel: Kernel, mm: AddressSpace, name: str) -> int | None:
    """The address of a symbol: of the images of the process in address order, then of the kernel."""
    for vma in mm.vmas:
        found = _symbol_in(vma, name)
        if found is not None:
            return found
    return next((address for address, _, known in KernelProc(kernel).symbols() if known == name), None)


def find_area(mm: AddressSpace, name: str) -> Vma | None:
    """The first area that maps calls ``name``: a path, the last part of one, ``[heap]`` and the like."""
    return next((vma for vma in mm.vmas if name in (area := area_name(mm, vma), area.rpartition("/")[2])), None)


def find_address(kernel: Kernel, mm: AddressSpace, text: str) -> int:
    """The address that ``text`` means: ``0x401000``, a symbol, ``[stack]`` or a file's name, each with ``+0x10``.

    Raises UsageError, naming what was tried, when there is none.
    """
    parts = _PARTS.fullmatch(text)
    name, sign, distance = parts.groups() if parts else (text, None, None)
    base = _base(kernel, mm, name)
    if base is None and sign is not None:
        name, sign, base = text, None, _base(kernel, mm, text)
    if base is None:
        hint = f" (write 0x{name} for the number)" if _BARE_HEX.fullmatch(name) else ""
        raise UsageError(f"{printable(text)}: neither an address nor a symbol or area of the process{hint}")
    step = int(distance, 0) if sign is not None and distance is not None else 0
    address = base - step if sign == "-" else base + step
    if not 0 <= address < _LAST:
        raise UsageError(f"{printable(text)}: an address has 64 bits")
    return address


def _base(kernel: Kernel, mm: AddressSpace, name: str) -> int | None:
    if _NUMBER.fullmatch(name):
        return int(name, 16 if name[:2] in ("0x", "0X") else 10)
    symbol = find_symbol(kernel, mm, name)
    if symbol is not None:
        return symbol
    area = find_area(mm, name)
    return None if area is None else area.start


def find_range(kernel: Kernel, mm: AddressSpace, text: str) -> tuple[int, int]:
    """``[start, end)`` in whole pages for ``user``, ``kernel``, ``all``, ``START-END``, or a place (its area or page).

    Raises UsageError.
    """
    top = 1 << kernel.layout.linear_bits - 1
    whole = {"user": (0, top), "kernel": (_LAST - top, _LAST), "all": (0, _LAST)}
    if text in whole:
        return whole[text]
    low, dash, high = text.partition("-")
    if dash and _HEXES.fullmatch(text):
        start, end = int(low, 16), int(high, 16)
        if not start < end <= _LAST:
            raise UsageError(f"{text}: give START-END with START below END, in hexadecimal")
        return start & ~0xFFF, min(end + 0xFFF & ~0xFFF, _LAST)
    area = find_area(mm, text)
    if area is not None:
        return area.start, area.end
    page = find_address(kernel, mm, text) & ~0xFFF
    return page, page + 0x1000


__all__ = ["find_address", "find_area", "find_range", "find_symbol"]
