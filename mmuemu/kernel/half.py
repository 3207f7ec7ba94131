"""The kernel half: what lies above the user's half of every address space, supervisor-only.

The direct map of all physical memory, the vmalloc area with the kernel stacks, and the kernel text with its data
behind it. Where they lie and how far KASLR moves them is the layout's data (for Linux
Documentation/arch/x86/x86_64/mm.rst tells).

With page-table isolation (KPTI, Documentation/arch/x86/pti.rst) ring 3 runs on tables that hold of all this only the
entry area: the GDT, the per-CPU page and the trampoline that changes CR3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from mmuemu.errors import OutOfFrames, UsageError
from mmuemu.guest.build import load
from mmuemu.kernel.alternatives import NEW_TASK as NEW_TASK_AT
from mmuemu.kernel.alternatives import VERW_SELECTOR, harden_entry
from mmuemu.kernel.vulnerable import PER_CPU_WORD, Driver
from mmuemu.loader.layouts import LINUX, KernelArea, Layout
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.kernel_half import KernelHalf
from mmuemu.x86.paging import NX, PAGE_SIZE, RW, SIZE_1G, SIZE_2M, G, P
from mmuemu.x86.segments import KERNEL_GDT, KERNEL_SS

DIRECT_MAP: Final = LINUX.direct_map.base
VMALLOC: Final = LINUX.vmalloc.base
TEXT: Final = LINUX.text.base
STACK_PAGES: Final = 4
"""THREAD_SIZE is 16 KiB (arch/x86/include/asm/page_64_types.h)."""
PT_REGS_WORDS: Final = 21
MOST_UNUSED: Final = 64
"""Stacks of ended tasks that are kept."""
HYPERCALL_PORT: Final = 0x51
HYPERCALL: Final = bytes([0xE6, HYPERCALL_PORT])
"""``out 0x51, al``, by which the entry code calls the kernel."""
_STACK_STRIDE: Final = (STACK_PAGES + 1) * PAGE_SIZE
_TEXT_ROOM: Final = 2 * SIZE_2M
"""Text, and the data 2 MiB above."""
_EXIT_AT: Final = (0x40, 0x80)
"""Where in the trampoline the two ways out begin: by ``sysretq`` and by ``iretq``."""


def _slides(area: KernelArea, needed: int) -> int:
    """How many distances an area's content of ``needed`` bytes may be moved by."""
    return min(area.slides, (area.size - needed) // area.step + 1)


def _moved(area: KernelArea, needed: int, rng: Random | None) -> int:
    """Where an area's content begins: its base, moved as far as ``needed`` bytes leave room."""
    return area.base + (rng.randrange(_slides(area, needed)) * area.step if rng is not None else 0)


def kernel_places(layout: Layout, memory: int) -> dict[str, int]:
    """How many places ``direct_map``, ``vmalloc`` and ``text`` may be put at in ``layout`` (KASLR)."""
    return {
        "direct_map": _slides(layout.direct_map, memory),
        "vmalloc": _slides(layout.vmalloc, _STACK_STRIDE),
        "text": _slides(layout.text, _TEXT_ROOM),
    }


def _nothing() -> None:
    return None


class KernelLayout(NamedTuple):
    """Where the kernel's three areas begin, as linear addresses."""

    direct_map: int = DIRECT_MAP
    vmalloc: int = VMALLOC
    text: int = TEXT

    @classmethod
    def placed(cls, layout: Layout, memory: int, rng: Random | None = None) -> KernelLayout:
        """The bases in ``layout`` for ``memory`` bytes of RAM; with ``rng`` each area slides by itself (KASLR).

        Raises UsageError when the direct map cannot hold all of the memory.
        """
        room = layout.direct_map.size
        if memory > room:
            raise UsageError(
                f"--memory {memory >> 20}M: the direct map of layout {layout.name} holds {room >> 20}M; "
                "give less memory or choose another --layout"
            )
        return cls(
            _moved(layout.direct_map, memory, rng),
            _moved(layout.vmalloc, _STACK_STRIDE, rng),
            _moved(layout.text, _TEXT_ROOM, rng),
        )


class KernelStack(NamedTuple):
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

    def __init__(
        self,
        frames: FrameAllocator,
        layout: KernelLayout,
        shape: Layout = LINUX,
        *,
        isolated: bool = False,
        mitigations: Collection[str] = (),
        secret: bytes = b"",
        driver: bool = False,
    ) -> None:
        """Build it at ``layout``, bases chosen in ``shape``; ``isolated`` for KPTI. Raises OutOfFrames.

        The ring-0 code is hardened by ``mitigations``; the data has ``secret``; with ``driver`` system call 1000 exists
        (:mod:`mmuemu.kernel.vulnerable`).
        """
        self.frames = frames
        self.layout = layout
        self.half = KernelHalf(frames, shape.levels, isolated=isolated, inverts="pte-inversion" in mitigations)
        self._global = 0 if isolated else G
        self._vmalloc_end = shape.vmalloc.end
        self._stacks = 0
        self._unused: list[KernelStack] = []
        self._places: list[int] = []
        """Numbers of stacks that were unmapped."""
        self.on_unmap: Callable[[], None] = _nothing
        """Called when translations of the kernel half have gone."""
        self._map_direct()
        self.data = layout.text + SIZE_2M
        self.per_cpu = self.data + PAGE_SIZE
        trampoline = self.per_cpu + PAGE_SIZE
        self.driver = Driver(layout.text, trampoline + PAGE_SIZE, isolated=isolated, mitigations=mitigations)
        """The vulnerable driver, whose data are there always and its code only when asked for."""
        self.has_driver = driver
        first = self.driver.start if driver else layout.text
        words = {VERW_SELECTOR: KERNEL_SS, PER_CPU_WORD: self.driver.data}
        if isolated:
            values = (first, trampoline + _EXIT_AT[0], trampoline + _EXIT_AT[1], self.per_cpu + 0x40)
            words |= {0x10 + 8 * index: value for index, value in enumerate(values)}
        text = harden_entry(
            load("syscall_entry_kpti" if isolated else "syscall_entry"), mitigations, layout.text, words
        )
        self.entry = trampoline if isolated else first
        """What ``syscall`` enters (MSR_LSTAR)."""
        self.resume = layout.text + text.index(HYPERCALL) + len(HYPERCALL)
        """Where a task that is in the kernel goes on, with RSP at its pt_regs."""
        self._ways_out = [range(self.resume, layout.text + len(text))]
        code = self.driver.code.rjust(self.driver.end - layout.text, b"\xcc")[len(text) :] if driver else b""
        self.text_frame = self._map_page(layout.text, P | self._global, text + code)
        self._map_data(words, secret)
        self._new_task = (self.per_cpu_frame + NEW_TASK_AT) >> 3 if "rsb-fill" in mitigations else -1
        if isolated:
            # The only kernel code in ring 3's tables.
            code = harden_entry(load("trampoline"), mitigations, trampoline, words)
            self._map_page(trampoline, P | G, code, entry_area=True)
            self._ways_out.append(range(trampoline + min(_EXIT_AT), trampoline + len(code)))

    def _map_data(self, per_cpu: Mapping[int, int], secret: bytes) -> None:
        """The GDT, the per-CPU page with the words ``per_cpu`` by their offset, and the driver's page."""
        gdt = b"".join(descriptor.to_bytes(8, "little") for descriptor in KERNEL_GDT)
        self.gdt_limit = len(gdt) - 1
        self._map_page(self.data, P | RW | NX | G, gdt, entry_area=True)
        self.per_cpu_frame = self._map_page(self.per_cpu, P | RW | NX | G, b"", entry_area=True)
        self.data_frame = self._map_page(self.driver.data, P | RW | NX | self._global, self.driver.page(secret))
        """The frame of the driver's data, with the secret."""
        for offset, value in per_cpu.items():
            self.frames.ram.qwords[self.per_cpu_frame + offset >> 3] = value

    def _map_page(self, linear: int, flags: int, content: bytes, *, entry_area: bool = False) -> int:
        frame = self.frames.allocate()
        self.frames.ram.write(frame, content)
        self.half.table.map(linear, frame, flags)
        if entry_area and self.half.trampoline is not None:
            self.half.trampoline.map(linear, frame, flags)
        return frame

    def _map_direct(self) -> None:
        """All of physical memory, writable and never executable, by the largest pages that fit."""
        physical, size = 0, self.frames.ram.size
        while physical < size:
            linear = self.layout.direct_map + physical
            step = next(
                page
                for page in (SIZE_1G, SIZE_2M, PAGE_SIZE)
                if not (physical | linear) % page and physical + page <= size
            )
            self.half.table.map(linear, physical, P | RW | NX | self._global, step)
            physical += step

    def leaves(self, rip: int) -> bool:
        """Whether ``rip`` lies in the entry code behind the hypercall: only registers are still to be restored."""
        return any(rip in way for way in self._ways_out)

    @property
    def ways_out(self) -> list[range]:
        """Where the code lies that returns to ring 3."""
        return list(self._ways_out)

    def fixup(self, rip: int) -> int:
        """Where the kernel goes on after a fault at ``rip`` in its own code; 0: that cannot be."""
        driver = self.driver
        return driver.fixup if self.has_driver and driver.start <= rip < driver.end else 0

    def new_stack(self) -> KernelStack:
        """A kernel stack in the vmalloc area, with an unmapped guard page below it. Raises OutOfFrames."""
        if self._unused:
            return self._unused.pop()
        place = self._places.pop() if self._places else self._stacks
        if self.layout.vmalloc + (place + 1) * _STACK_STRIDE > self._vmalloc_end:
            raise OutOfFrames("the layout has no room for another kernel stack")
        base = self.layout.vmalloc + place * _STACK_STRIDE + PAGE_SIZE
        frames: list[int] = []
        try:
            for page in range(STACK_PAGES):
                frames.append(self.frames.allocate())
                self.half.table.map(base + page * PAGE_SIZE, frames[page], P | RW | NX | self._global)
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
            self._places.append((base - self.layout.vmalloc) // _STACK_STRIDE)
        del self._unused[kept:]
        self.on_unmap()

    def use_stack(self, stack: KernelStack) -> None:
        """Make ``stack`` the one that the next system call switches to, and that the CPU is on in the kernel."""
        if len(self._unused) > MOST_UNUSED:
            self._give_back()
        q = self.frames.ram.qwords
        q[self.per_cpu_frame >> 3] = stack.top
        if self._new_task >= 0:
            q[self._new_task] = 1

    def regions(self) -> list[tuple[int, int, str, str]]:
        """(start, end, permissions, name) of what is mapped, in address order."""
        layout = self.layout
        stacks = layout.vmalloc + self._stacks * _STACK_STRIDE
        found = [
            (layout.direct_map, layout.direct_map + self.frames.ram.size, "rw-", "direct map of physical memory"),
            (layout.vmalloc, stacks, "rw-", "kernel stacks"),
            (layout.text, layout.text + PAGE_SIZE, "r-x", "kernel text"),
            (self.data, self.per_cpu + PAGE_SIZE, "rw-", "kernel data"),
            (self.driver.data, self.driver.data + PAGE_SIZE, "rw-", "kernel data"),
        ]
        if self.half.trampoline is not None:
            found.append((self.entry, self.entry + PAGE_SIZE, "r-x", "entry trampoline"))
        return sorted(found)
