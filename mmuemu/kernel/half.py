"""The kernel half: what lies above the user's half of every address space, supervisor-only.

Places are Linux's (Documentation/arch/x86/x86_64/mm.rst): the direct map of all physical memory, the vmalloc area
with the kernel stacks, and the kernel text with its data behind it. KASLR moves each of the three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from mmuemu.errors import OutOfFrames
from mmuemu.guest.build import load
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.kernel_half import KernelHalf
from mmuemu.x86.paging import NX, PAGE_SIZE, RW, SIZE_1G, SIZE_2M, G, P
from mmuemu.x86.segments import KERNEL_GDT

DIRECT_MAP: Final = 0xFFFF_8880_0000_0000
VMALLOC: Final = 0xFFFF_C900_0000_0000
TEXT: Final = 0xFFFF_FFFF_8000_0000
STACK_PAGES: Final = 4
"""THREAD_SIZE is 16 KiB (arch/x86/include/asm/page_64_types.h)."""
PT_REGS_WORDS: Final = 21
MOST_UNUSED: Final = 64
"""Stacks of ended tasks that are kept."""
HYPERCALL_PORT: Final = 0x51
HYPERCALL: Final = bytes([0xE6, HYPERCALL_PORT])
"""``out 0x51, al``, by which the entry code calls the kernel."""
_TEXT_SLIDES: Final = 511
_DIRECT_SLIDES: Final = 1 << 13
_VMALLOC_SLIDES: Final = 1 << 12


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class KernelLayout:
    """Where the kernel's three areas begin, as linear addresses."""

    direct_map: int = DIRECT_MAP
    vmalloc: int = VMALLOC
    text: int = TEXT

    @classmethod
    def randomized(cls, rng: Random) -> KernelLayout:
        """KASLR: text moves by 2 MiB steps within 1 GiB, the other two by 1 GiB steps (arch/x86/mm/kaslr.c)."""
        return cls(
            DIRECT_MAP + rng.randrange(_DIRECT_SLIDES) * SIZE_1G,
            VMALLOC + rng.randrange(_VMALLOC_SLIDES) * SIZE_1G,
            TEXT + rng.randrange(1, _TEXT_SLIDES) * SIZE_2M,
        )


@dataclass(frozen=True, slots=True)
class KernelStack:
    """One task's kernel stack: the linear address of its top, and its frames from the lowest on."""

    top: int
    frames: tuple[int, ...]

    @property
    def registers(self) -> int:
        """Index among the qwords of RAM of the pt_regs that the system-call entry pushes."""
        return (self.frames[-1] + PAGE_SIZE >> 3) - PT_REGS_WORDS

    @property
    def pointer(self) -> int:
        """RSP when those pt_regs have been pushed."""
        return self.top - 8 * PT_REGS_WORDS


class KernelMemory:
    """The kernel half of one machine: built once, then shared by every address space."""

    def __init__(self, frames: FrameAllocator, layout: KernelLayout) -> None:
        self.frames = frames
        self.layout = layout
        self.half = KernelHalf(frames)
        self._stacks = 0
        self._unused: list[KernelStack] = []
        self._places: list[int] = []
        """Numbers of stacks that were unmapped."""
        self.on_unmap: Callable[[], None] = _nothing
        """Called when translations of the kernel half have gone."""
        self._map_direct()
        text = load("syscall_entry")
        self.entry = layout.text
        self.resume = layout.text + text.index(HYPERCALL) + len(HYPERCALL)
        """Where a task that is in the kernel goes on, with RSP at its pt_regs."""
        self.entry_end = layout.text + len(text)
        self.text_frame = self._map_page(layout.text, P | G, text)
        self.data = layout.text + SIZE_2M
        gdt = b"".join(descriptor.to_bytes(8, "little") for descriptor in KERNEL_GDT)
        self.gdt_limit = len(gdt) - 1
        self.per_cpu = self.data + PAGE_SIZE
        self._map_page(self.data, P | RW | NX | G, gdt)
        self.per_cpu_frame = self._map_page(self.per_cpu, P | RW | NX | G, b"")

    def _map_page(self, linear: int, flags: int, content: bytes) -> int:
        frame = self.frames.allocate()
        self.frames.ram.write(frame, content)
        self.half.table.map(linear, frame, flags)
        return frame

    def _map_direct(self) -> None:
        """All of physical memory, writable and never executable, by the largest pages that fit."""
        physical, size = 0, self.frames.ram.size
        while physical < size:
            step = next(
                page for page in (SIZE_1G, SIZE_2M, PAGE_SIZE) if not physical % page and physical + page <= size
            )
            self.half.table.map(self.layout.direct_map + physical, physical, P | RW | NX | G, step)
            physical += step

    def new_stack(self) -> KernelStack:
        """A kernel stack in the vmalloc area, with an unmapped guard page below it. Raises OutOfFrames."""
        if self._unused:
            return self._unused.pop()
        place = self._places.pop() if self._places else self._stacks
        base = self.layout.vmalloc + place * (STACK_PAGES + 1) * PAGE_SIZE + PAGE_SIZE
        frames: list[int] = []
        try:
            for page in range(STACK_PAGES):
                frames.append(self.frames.allocate())
                self.half.table.map(base + page * PAGE_SIZE, frames[page], P | RW | NX | G)
        except OutOfFrames:
            self._unmap(base, frames)
            self._places += [place] if place < self._stacks else []
            raise
        self._stacks = max(self._stacks, place + 1)
        return KernelStack(base + STACK_PAGES * PAGE_SIZE, tuple(frames))

    def _unmap(self, base: int, frames: Sequence[int]) -> None:
        for page, frame in enumerate(frames):
            self.half.table.unmap(base + page * PAGE_SIZE)
            self.frames.release(frame)

    def free_stack(self, stack: KernelStack) -> None:
        """Keep the stack of a task that has ended for the next one; the CPU may still be on it."""
        self._unused.append(stack)

    def _give_back(self) -> None:
        """Unmap some of the unused stacks, and tell the CPU."""
        kept = MOST_UNUSED // 2
        for old in self._unused[kept:]:
            base = old.top - STACK_PAGES * PAGE_SIZE
            self._unmap(base, old.frames)
            self._places.append((base - self.layout.vmalloc) // ((STACK_PAGES + 1) * PAGE_SIZE))
        del self._unused[kept:]
        self.on_unmap()

    def use_stack(self, stack: KernelStack) -> None:
        """Make ``stack`` the one that the next system call switches to, and that the CPU is on in the kernel."""
        if len(self._unused) > MOST_UNUSED:
            self._give_back()
        self.frames.ram.qwords[self.per_cpu_frame >> 3] = stack.top

    def regions(self) -> list[tuple[int, int, str, str]]:
        """(start, end, permissions, name) of what is mapped, in address order."""
        layout = self.layout
        stacks = layout.vmalloc + self._stacks * (STACK_PAGES + 1) * PAGE_SIZE
        return [
            (layout.direct_map, layout.direct_map + self.frames.ram.size, "rw-", "direct map of physical memory"),
            (layout.vmalloc, stacks, "rw-", "kernel stacks"),
            (layout.text, layout.text + PAGE_SIZE, "r-x", "kernel text"),
            (self.data, self.per_cpu + PAGE_SIZE, "rw-", "kernel data"),
        ]
