"""Address-space layouts as data: where user and kernel meet, what lies where, and how far each may move.

``linux`` and ``linux-5level`` are Documentation/arch/x86/x86_64/mm.rst, arch/x86/mm/mmap.c, arch/x86/mm/kaslr.c and
fs/binfmt_elf.c. ``windows-x64`` has the halves of Windows before 8.1 (8 TiB for the user, the system from
0xffff0800'00000000) with 64 KiB steps; what runs in it is a Linux program all the same. ``split-2g`` is a 32-bit
kernel's VMSPLIT_2G with the kernel's 2 GiB sign-extended to the top of the 64-bit space.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mmuemu.x86.paging import PAGE_SIZE, SIZE_1G, SIZE_2M, USER_TOP, USER_TOP_5LEVEL

_MIB: Final = 1 << 20
_TIB: Final = 1 << 40
_PIB: Final = 1 << 50
GRANULARITY: Final = 0x10000
"""What Windows rounds addresses to (SYSTEM_INFO.dwAllocationGranularity)."""


class Place(NamedTuple):
    """Where something of the user's begins: at ``base``, moved by a random number of ``bits`` bits, in ``step`` bytes.

    Which way it moves is told where the place is used.
    """

    base: int
    bits: int = 0
    step: int = PAGE_SIZE

    @property
    def span(self) -> int:
        """The furthest it moves, in bytes."""
        return ((1 << self.bits) - 1) * self.step


class KernelArea(NamedTuple):
    """A part of the kernel's range: ``size`` bytes from ``base``, whose content moves up by one of ``slides``
    distances (0 the least) that are ``step`` bytes apart.
    """

    base: int
    size: int
    slides: int = 1
    step: int = SIZE_2M

    @property
    def end(self) -> int:
        return self.base + self.size


class Layout(NamedTuple):
    """The shape of a 64-bit address space. Sizes and addresses are in bytes; what is left out is Linux's."""

    name: str = "linux"
    about: str = "Linux with 4-level paging"
    levels: int = 4
    """Levels of the page tables: 4 (48-bit linear addresses) or 5 (57-bit)."""
    user_start: int = 0x10000
    """Nothing is mapped below this address (vm.mmap_min_addr)."""
    user_top: int = USER_TOP
    """TASK_SIZE: the first address the user may not map."""
    map_window: int = USER_TOP
    """DEFAULT_MAP_WINDOW: nothing is placed above it unless a hint above it is given."""
    kernel_start: int = 0xFFFF_8000_0000_0000
    """The first address that is the kernel's; what lies between the user's top and it is nobody's."""
    image: Place = Place(USER_TOP // 3 * 2, 28)
    """A position-independent program with an interpreter (ELF_ET_DYN_BASE); moves up."""
    heap: Place = Place(USER_TOP // 3 * 2, 18)
    """The break: it moves up from the program's end, or from ``base`` if the program lies among the mappings."""
    stack: Place = Place(USER_TOP, 22)
    """The end of the stack; moves down."""
    mmap: Place = Place(USER_TOP, 28)
    """The mappings: top-down, ``base`` less the stack's room and the random number; bottom-up, ``base`` plus it."""
    mmap_top_down: bool = True
    direct_map: KernelArea = KernelArea(0xFFFF_8880_0000_0000, 64 * _TIB, 1 << 13, SIZE_1G)
    """All of physical memory."""
    vmalloc: KernelArea = KernelArea(0xFFFF_C900_0000_0000, 32 * _TIB, 1 << 12, SIZE_1G)
    """The kernel stacks."""
    text: KernelArea = KernelArea(0xFFFF_FFFF_8000_0000, SIZE_1G, 511, SIZE_2M)
    """The kernel's text, and its data 2 MiB above."""
    mmap_gap_min: int = 128 * _MIB
    """The least room kept for the stack above mappings that are placed top-down."""
    stack_guard_gap: int = _MIB
    stack_shuffle: int = 8192
    """``arch_align_stack`` lowers the stack pointer by less than this many bytes."""
    initial_stack: int = 33 * PAGE_SIZE
    """What ``setup_arg_pages`` makes the stack's mapping hold at once (128 KiB below its first page)."""

    @property
    def linear_bits(self) -> int:
        """Width of a linear address."""
        return 12 + 9 * self.levels


LINUX: Final = Layout()
LINUX_5LEVEL: Final = LINUX._replace(
    name="linux-5level",
    about="Linux with 5-level paging (CR4.LA57): above 47 bits only where a hint asks for it",
    levels=5,
    user_top=USER_TOP_5LEVEL,
    kernel_start=0xFF00_0000_0000_0000,
    direct_map=KernelArea(0xFF11_0000_0000_0000, 32 * _PIB, 1 << 23, SIZE_1G),
    vmalloc=KernelArea(0xFFA0_0000_0000_0000, 12 * _PIB, 1 << 22, SIZE_1G),
)
WINDOWS: Final = Layout(
    name="windows-x64",
    about="Windows x64 before 8.1: 8 TiB for the user, mappings bottom-up, the kernel's lowest part not canonical",
    levels=4,
    user_start=0x10000,
    user_top=0x0800_0000_0000,
    map_window=0x0800_0000_0000,
    kernel_start=0xFFFF_0800_0000_0000,
    image=Place(0x1_4000_0000, 17, GRANULARITY),
    heap=Place(0x1_4000_0000, 14, GRANULARITY),
    stack=Place(0x07FF_FFFE_0000, 17, GRANULARITY),
    mmap=Place(0x0200_0000_0000, 24, GRANULARITY),
    mmap_top_down=False,
    direct_map=KernelArea(0xFFFF_8000_0000_0000, 64 * _TIB, 1 << 13, SIZE_1G),
    vmalloc=KernelArea(0xFFFF_F880_0000_0000, 128 << 30, 1 << 16, GRANULARITY),
    text=KernelArea(0xFFFF_F800_0000_0000, 512 << 30, 1 << 8, SIZE_2M),
)
WINDOWS_5LEVEL: Final = WINDOWS._replace(
    name="windows-x64-5level",
    about="The same with 5-level paging: all of the kernel's range can be used",
    levels=5,
    direct_map=KernelArea(0xFFFF_0800_0000_0000, 128 * _TIB, 1 << 13, SIZE_1G),
)
SPLIT_2G: Final = Layout(
    name="split-2g",
    about="2 GiB for the user, 2 GiB for the kernel, sign-extended to 64 bits",
    levels=4,
    user_start=0x10000,
    user_top=0x8000_0000,
    map_window=0x8000_0000,
    kernel_start=0xFFFF_FFFF_8000_0000,
    image=Place(0x8000_0000 // 3 * 2, 8),
    heap=Place(0x8000_0000 // 3 * 2, 13),
    stack=Place(0x8000_0000, 11),
    mmap=Place(0x8000_0000, 8),
    mmap_top_down=True,
    direct_map=KernelArea(0xFFFF_FFFF_8000_0000, 1280 * _MIB, 1 << 7, SIZE_2M),
    vmalloc=KernelArea(0xFFFF_FFFF_D000_0000, 256 * _MIB, 1 << 15, PAGE_SIZE),
    text=KernelArea(0xFFFF_FFFF_E000_0000, 256 * _MIB, 1 << 6, SIZE_2M),
)
LAYOUTS: Final = {layout.name: layout for layout in (LINUX, LINUX_5LEVEL, WINDOWS, WINDOWS_5LEVEL, SPLIT_2G)}
"""The layouts there are by name; ``linux`` is the default."""
