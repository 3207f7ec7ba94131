"""The kernel's secret, and the driver with mistakes that labs attack (``guest/vulnerable.s``).

One page of the kernel's data, supervisor-only and not in ring 3's tables under page-table isolation:

    0x000  the number of bytes in the array (a line of its own)
    0x040  four function pointers
    0x080  the secret
    0x0c0  where the driver copies it to, and at 0x0e0 a sum over it
    0x100  linux_proc_banner, the format of /proc/version
    0x200  the array
    0x800  256 words that the driver looks up
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.guest.build import PLACES, load
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.alternatives import harden_vulnerable, mark
from mmuemu.kernel.syscalls.table import Syscall, forms, signed64
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Collection
    from random import Random

    from mmuemu.kernel.task import Task

NUMBER: Final = 1000
SECRET_LENGTH: Final = 32
TEXT_OFFSET: Final = PLACES["vulnerable"]
"""How far behind the kernel's text its code begins."""
PER_CPU_WORD: Final = 0x70
"""Where in the per-CPU page the address of the data page lies."""
ARRAY: Final = bytes(range(1, 17))
SIZE_AT, FUNCTIONS_AT, SECRET_AT, SCRATCH_AT, SUM_AT, BANNER_AT, ARRAY_AT = 0, 0x40, 0x80, 0xC0, 0xE0, 0x100, 0x200
BANNER: Final = b"%s version %s (mmuemu@mmuemu) (gcc) %s\n"
"""linux_proc_banner (init/version.c)."""
_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_DATA: Final = {
    "mmuemu_size": SIZE_AT,
    "mmuemu_functions": FUNCTIONS_AT,
    "mmuemu_secret": SECRET_AT,
    "mmuemu_scratch": SCRATCH_AT,
    "linux_proc_banner": BANNER_AT,
    "mmuemu_array": ARRAY_AT,
}
"""Symbols of the data page."""
_TEXT: Final = {"mmuemu_bounds": "BNDS", "mmuemu_branch": "CALL", "mmuemu_gadget": "GADG"}
"""Symbols of the driver's code: behind its bounds check, its indirect call, and the gadget that nobody calls."""


def draw_secret(rng: Random) -> bytes:
    """A secret: printable, without two equal neighbours, so that a leak of the byte before is not taken for one."""
    found = bytearray()
    while len(found) < SECRET_LENGTH:
        byte = rng.choice(_ALPHABET)
        if not found or found[-1] != byte:
            found.append(byte)
    return bytes(found)


class Driver:
    """The driver's code, hardened, and where everything lies."""

    def __init__(self, text: int, data: int, *, isolated: bool, mitigations: Collection[str]) -> None:
        """``text`` is the linear address of the kernel's text, ``data`` of the page that :meth:`page` fills."""
        self.code = harden_vulnerable(load("vulnerable_kpti" if isolated else "vulnerable"), mitigations)
        self.start = text + TEXT_OFFSET
        """What ``syscall`` enters when the driver is there."""
        self.end = self.start + len(self.code)
        self.data = data
        self.fixup = self._marked("FIXU")
        """Where a fault in the driver goes on (Linux's exception table)."""

    def _marked(self, letters: str) -> int:
        return self.start + mark(self.code, letters)

    def page(self, secret: bytes) -> bytes:
        """The data page."""
        page = bytearray(PAGE_SIZE)
        struct.pack_into("<Q", page, SIZE_AT, len(ARRAY))
        struct.pack_into("<4Q", page, FUNCTIONS_AT, *(self._marked(name) for name in ("EVEN", "ODDF") * 2))
        for at, content in ((SECRET_AT, secret), (BANNER_AT, BANNER), (ARRAY_AT, ARRAY)):
            page[at : at + len(content)] = content
        return bytes(page)

    def text_symbols(self) -> dict[str, int]:
        """Places in the code by name."""
        return {name: self._marked(letters) for name, letters in _TEXT.items()}

    def data_symbols(self) -> dict[str, int]:
        """Places in the data page by name."""
        return {name: self.data + at for name, at in _DATA.items()}


def _result(_task: Task, *arguments: int) -> int:
    """The call's result, which ring 0 left in the register of the sixth argument."""
    value = signed64(arguments[5])
    if value < 0:
        raise SyscallError(-value)
    return value


CALL: Final = Syscall(
    NUMBER, "mmuemu_driver", ("int", "ulong", "ptr", "int", "ptr", "long"), _result, forms(*("ulong",) * 6)
)
"""What the kernel's table gets when the driver is there."""
