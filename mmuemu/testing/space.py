"""Whose memory an assertion is about: a process, the result of a run, or a machine without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mmuemu.cpu.attach import Attachment
from mmuemu.cpu.window import Q_PKRU
from mmuemu.guestprocess import GuestProcess
from mmuemu.kernel.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from mmuemu.mmu.state import Access, PageFault, PagingState
from mmuemu.testing.walks import Walk, walk_of
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import ADDRESS_MASK, PAGE_SIZE, PS, RW, US, FaultBits, P

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.vma import Vma

_NEEDED: Final = {Access.READ: PROT_READ | PROT_WRITE | PROT_EXEC, Access.WRITE: PROT_WRITE, Access.FETCH: PROT_EXEC}
"""Any of these lets the kernel map a page for an access: x86 has no unreadable page (access_error, fault.c)."""
_FOR_GOOD: Final = int(FaultBits.RSVD | FaultBits.PK)


class Space:
    """One address space, with or without a kernel that maps pages on demand."""

    def __init__(self, name: str, ram: Any, task: Task | None, attachment: Attachment | None) -> None:
        self.name = name
        self.ram = ram
        self._task = task
        self._attachment = attachment

    @property
    def key(self) -> int:
        """What tells machines apart."""
        return id(self.ram)

    def paging(self, *, user: bool) -> PagingState:
        """The paging state in ring 3 (``user``) or in the kernel; page-table isolation gives each a root of its own."""
        task = self._task
        if task is None:
            assert self._attachment is not None
            return self._attachment.cpu.paging
        kernel, table = task.kernel, task.mm.page_table
        state = replace(kernel.cpu.paging, cr3=table.user_root if user else table.root)
        if kernel.protection_keys and task is not kernel.current and not task.ended:
            window = kernel.cpu.window
            window.load(task.snapshot)
            state = replace(state, pkru=window.q[Q_PKRU] & 0xFFFF_FFFF)
        return state

    def walk(self, address: int, access: Access, *, user: bool) -> Walk:
        """What the MMU says of an access now."""
        return walk_of(self.ram, self.paging(user=user), address, access, user=user)

    def area(self, address: int) -> Vma | None:
        """The area of the process that ``address`` lies in."""
        return None if self._task is None else self._task.mm.vmas.find(address)

    def judge(self, address: int, access: Access, *, user: bool) -> tuple[bool, Walk, str]:
        """Whether an access would succeed, its walk, and what the kernel would do about it if that matters.

        A page that user code may have and has not touched yet, or not written since fork, counts as its own.
        """
        walked = self.walk(address, access, user=user)
        result = walked.result
        if not isinstance(result, PageFault):
            return True, walked, ""
        vma = self.area(address)
        if vma is None or not user or result.vector != Vector.PF or result.error_code & _FOR_GOOD:
            return False, walked, ""
        if not vma.flags & _NEEDED[access]:
            return False, walked, f"the area is {vma.permissions}"
        if result.error_code & FaultBits.P and access != Access.WRITE:
            return False, walked, ""
        does = "copy the page" if result.error_code & FaultBits.P else "map the page"
        return True, walked, f"the area is {vma.permissions}: the kernel would {does}"

    def user_pages(self) -> Iterator[tuple[int, int, int, bool]]:
        """Every page that ring 3 may touch: (linear address, physical address, size, whether it may write)."""
        state = self.paging(user=True)
        levels = state.mode.levels
        yield from self._pages(state.root, len(levels), 0, RW)

    def _pages(self, table: int, depth: int, base: int, allowed: int) -> Iterator[tuple[int, int, int, bool]]:
        size = PAGE_SIZE << 9 * (depth - 1)
        for index, entry in enumerate(self.ram.qwords[table >> 3 : (table >> 3) + 512].tolist()):
            if not entry & P or not entry & US:
                continue
            linear = base + index * size
            if depth == 1 or (depth <= 3 and entry & PS):
                yield linear, entry & ADDRESS_MASK & -size, size, bool(entry & allowed & RW)
            else:
                yield from self._pages(entry & ADDRESS_MASK, depth - 1, linear, allowed & entry)


def space_of(target: object) -> Space:
    """The address space of a GuestProcess, a result, a bare machine or an Attachment. Raises TypeError for else."""
    if isinstance(target, GuestProcess):
        return of_process(target)
    if isinstance(target, Attachment):
        return Space("the machine without a kernel", target.ram, None, target)
    space = getattr(target, "space", None)
    if not isinstance(space, Space):
        raise TypeError(f"{target!r} is no GuestProcess, no result of a run and no bare machine")
    return space


def of_process(process: GuestProcess) -> Space:
    """The address space of a process, which may have ended."""
    task = next(iter(process.process.threads.values()), process.process.leader)
    assert task is not None
    return Space(f"process {process.pid} ({process.process.exe})", task.kernel.ram, task, None)


__all__ = ["Space", "of_process", "space_of"]
