"""Names for addresses: the symbols of the images that a process has mapped, the kernel's own, and areas' names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage
from mmuemu.kernel.maps import area_name
from mmuemu.kernel.proc import KernelProc
from mmuemu.loader.elf import read_image
from mmuemu.loader.symbols import all_symbols
from mmuemu.loader.tables import SHN_ABS, STB_LOCAL, STT_TLS, Symbol
from mmuemu.x86.paging import USER_TOP_5LEVEL

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.vma import Vma

_STT_SECTION: Final = 3
_STT_FILE: Final = 4
NAMELESS: Final = frozenset({_STT_SECTION, _STT_FILE, STT_TLS})
_MAGIC: Final = b"\x7fELF"
LARGEST_IMAGE: Final = 256 << 20
"""The symbols of larger files are not read."""


class SymbolMap:
    """Addresses of one image, or of the kernel, to ``name+0x10``. ``low`` to ``high`` is what it speaks of."""

    def __init__(self, entries: Iterable[tuple[int, int, str]], low: int, high: int) -> None:
        """``entries`` are (address, size, name), the best of several at one address last; size 0: up to the next."""
        best = {address: (size, name) for address, size, name in entries}
        self._starts = sorted(best)
        self._entries = [best[address] for address in self._starts]
        self.low = low
        self.high = high

    def name(self, address: int) -> str:
        """The symbol ``address`` lies in, with its distance from it; empty without one."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or not self.low <= address < self.high:
            return ""
        size, name = self._entries[index]
        distance = address - self._starts[index]
        if size and distance >= size:
            return ""
        return f"{name}+{distance:#x}" if distance else name


def _rank(symbol: Symbol) -> tuple[bool, bool, bool]:
    return symbol.kind != 0, symbol.binding != STB_LOCAL, not symbol.name.startswith("_")


def image_map(content: bytes, name: str, start: int) -> SymbolMap | None:
    """The symbols of the ELF file ``content`` whose first page lies at ``start``; None when it is not one."""
    try:
        image = read_image(content, name, USER_TOP_5LEVEL)
        symbols = all_symbols(image)
    except BadImage:
        return None
    bias = start - image.start
    named = [symbol for symbol in symbols if symbol.kind not in NAMELESS and symbol.section != SHN_ABS]
    entries = ((symbol.value + bias, symbol.size, symbol.name) for symbol in sorted(named, key=_rank))
    return SymbolMap(entries, image.start + bias, image.end + bias)


class Names:
    """Names and bytes of a running machine's addresses, by process. Images are read once, on the first question."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._kernel_map: SymbolMap | None = None
        self._files: dict[tuple[int, int, int], SymbolMap | None] = {}
        """By device, inode and first address."""
        self._spaces: dict[int, tuple[AddressSpace, int, list[SymbolMap]]] = {}
        """By pid: whose maps, for how many areas they were collected, the maps."""

    def symbol(self, context: int, address: int) -> str:
        """``name+0x10`` of an address in process ``context``; empty for one that no image has a name for."""
        if address >= self._kernel.layout.kernel_start:
            return self._of_kernel().name(address)
        mm = self._space(context)
        if mm is None:
            return ""
        for image in self._maps(context, mm):
            if image.low <= address < image.high:
                return image.name(address)
        return ""

    def place(self, context: int, address: int) -> str:
        """As :meth:`symbol`; where there is none, the area's name: ``[heap]+0x2a0``."""
        name = self.symbol(context, address)
        mm = None if name else self._space(context)
        vma = None if mm is None else mm.vmas.find(address)
        if mm is None or vma is None:
            return name
        area = area_name(mm, vma).rpartition("/")[2]
        distance = f"+{address - vma.start:#x}" if address > vma.start else ""
        return f"{area}{distance}" if area else ""

    def code(self, context: int, address: int, size: int = 15) -> bytes:
        """What lies at ``address`` in a process's tables, whatever the protection; fewer bytes, or none, where nothing
        is. Touches nothing: no page comes in by it."""
        mm = self._space(context)
        out = b""
        while mm is not None and len(out) < size:
            at = address + len(out)
            try:
                found = mm.page_table.lookup(at)
            except ValueError:  # not canonical
                break
            if found is None or found.physical + found.size > self._kernel.ram.size:
                break
            inside = at & found.size - 1
            out += self._kernel.ram.read(found.physical + inside, min(size - len(out), found.size - inside))
        return out

    def _space(self, context: int) -> AddressSpace | None:
        process = self._kernel.processes.get(context)
        return None if process is None or process.leader is None else process.leader.mm

    def _of_kernel(self) -> SymbolMap:
        if self._kernel_map is None:
            entries = [(address, 0, name) for address, _, name in KernelProc(self._kernel).symbols()]
            last = max(address for address, _, _ in entries)
            self._kernel_map = SymbolMap(entries, self._kernel.layout.kernel_start, last)
        return self._kernel_map

    def _maps(self, context: int, mm: AddressSpace) -> list[SymbolMap]:
        known = self._spaces.get(context)
        if known is not None and known[0] is mm and known[1] == len(mm.vmas):
            return known[2]
        maps = [found for vma in mm.vmas if (found := self._map(vma)) is not None]
        self._spaces[context] = (mm, len(mm.vmas), maps)
        return maps

    def _map(self, vma: Vma) -> SymbolMap | None:
        """The symbols of the image that begins with ``vma``."""
        if vma.file is None or vma.offset:
            return None
        inode = vma.file.inode
        key = (inode.dev, inode.ino, vma.start)
        if key not in self._files:
            self._files[key] = None
            if 64 <= inode.size <= LARGEST_IMAGE and inode.read_at(0, 4) == _MAGIC:
                self._files[key] = image_map(inode.read_at(0, inode.size), vma.name, vma.start)
        return self._files[key]
