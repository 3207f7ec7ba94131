"""The MMU for a Uc that somebody else made.

Three lines give any 64-bit ``Uc`` page tables, rings and traps::

    mmu = attach(uc, memory="64M")
    mmu.map(0x400000, code, "r-x")
    mmu.set_ring(3)

Then ``uc.emu_start`` as usual and :attr:`Attachment.trap` afterwards, or :meth:`Attachment.run`, which returns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unicorn import Uc

from mmuemu.cpu.cpu import DEFAULT_CONTROLS, Cpu, Stop
from mmuemu.cpu.traps import NoHandler, Trap
from mmuemu.errors import UsageError
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.page_table import PageTable
from mmuemu.memory.ram import GuestRam, parse_size
from mmuemu.mmu.state import Access, PageFault, PagingState, Translation
from mmuemu.mmu.walk import walk
from mmuemu.x86.paging import NX, PAGE_MASK, PAGE_SIZE, RW, US, P

_FIRST_FRAME: Final = 0x1000
"""Physical page 0 stays unused, so that a zero entry never looks like a frame."""

FaultCallback = Callable[[int, int], bool]


class _Handler(NoHandler):
    """Asks the user's callback about page faults; keeps the last trap."""

    on_fault: FaultCallback | None = None

    def page_fault(self, page: int, error_code: int) -> int:
        return int(self.on_fault is not None and self.on_fault(page, error_code))


class Attachment:
    """A ``Uc`` with guest RAM at physical 0, page tables in it and paging switched on.

    ``cpu`` is the CPU behind it, ``ram`` its memory, ``frames`` the allocator, ``page_table`` the tables CR3 points to.
    Without a ``uc`` it makes its own.
    """

    def __init__(self, uc: Uc | None, memory: int, mmu: str) -> None:
        self.ram = GuestRam(memory)
        self.frames = FrameAllocator(self.ram, _FIRST_FRAME)
        self.page_table = PageTable(self.frames)
        self._handler = _Handler()
        self.cpu = Cpu(self.ram, mmu=mmu, uc=uc, handler=self._handler)
        self.frames.on_free.append(self.cpu.engine.forget_code)
        controls = DEFAULT_CONTROLS
        self.cpu.set_paging(PagingState(self.page_table.root, controls.cr0, controls.cr4, controls.efer))

    @property
    def on_fault(self) -> FaultCallback | None:
        """Called with (page, error code) on a page fault; True means that it mapped the page: try again."""
        return self._handler.on_fault

    @on_fault.setter
    def on_fault(self, callback: FaultCallback | None) -> None:
        self._handler.on_fault = callback

    def map(self, linear: int, content: bytes | int, permissions: str = "rwx", *, user: bool = True) -> None:
        """Map fresh frames at ``linear`` holding ``content`` (bytes, or a number of zero bytes).

        ``permissions`` are letters of ``rwx`` (``-`` is ignored); ``user`` pages are open to ring 3.
        """
        if linear & PAGE_MASK:
            raise UsageError(f"{linear:#x} is not the start of a page")
        if set(permissions) - set("rwx-"):
            raise UsageError(f"permissions {permissions!r}: use the letters r, w and x")
        data = bytes(content) if isinstance(content, int) else content
        flags = P | (US if user else 0) | (RW if "w" in permissions else 0) | (0 if "x" in permissions else NX)
        for offset in range(0, max(len(data), 1), PAGE_SIZE):
            frame = self.frames.allocate()
            self.ram.write(frame, data[offset : offset + PAGE_SIZE])
            if "x" in permissions:
                self.frames.mark_executed(frame)
            self.page_table.map(linear + offset, frame, flags)

    def unmap(self, linear: int, size: int = PAGE_SIZE) -> None:
        """Unmap what :meth:`map` mapped, give the frames back and flush."""

        def release(entry: int, _linear: int, _size: int) -> None:
            self.frames.release(entry & 0x000F_FFFF_FFFF_F000)

        self.page_table.unmap_range(linear, linear + size, release)
        self.cpu.flush_tlb()

    def translate(self, linear: int, access: Access = Access.READ, *, user: bool = True) -> Translation | PageFault:
        """What the walk says of one access, by the paging state in force; nothing changes."""
        return walk(self.ram, self.cpu.paging, linear, access, user=user)

    def set_ring(self, ring: int) -> None:
        """Put the CPU into ring 0 or 3."""
        self.cpu.set_ring(ring)

    def flush_tlb(self) -> None:
        """Drop cached translations: after editing present entries by hand."""
        self.cpu.flush_tlb()

    @property
    def trap(self) -> Trap | None:
        """The exception that ended the last ``uc.emu_start`` (which returns, or raises UcError, for it), or None."""
        trap = self.cpu.take_trap()
        if trap is not None:
            self._handler.last = trap
        return self._handler.last

    def run(self, *, until: int | None = None, max_instructions: int | None = None) -> Trap | Stop:
        """Run from RIP to the first exception (returned), or to what else stops the run."""
        self._handler.last = None
        stop = self.cpu.run(until=until, max_instructions=max_instructions)
        return self._handler.last or stop

    def detach(self) -> None:
        """Remove the hooks and unmap guest RAM; the ``Uc`` is its owner's again."""
        self.cpu.close()
        self.cpu.uc.mem_unmap(0, self.ram.size)
        self.ram.close()


def attach(uc: Uc, *, memory: int | str = "64M", mmu: str = "python") -> Attachment:
    """Give ``uc`` (64-bit x86) an MMU: guest RAM of ``memory`` bytes at physical 0, page tables, rings, traps.

    Raises UsageError when something is mapped in ``uc`` where RAM goes, or ``mmu`` names no engine.
    """
    return Attachment(uc, parse_size(memory) if isinstance(memory, str) else memory, mmu)
