"""Putting a task on the CPU and taking it off, between two instructions of ring 3 or inside the kernel.

A task that is not running is always in one state: in the kernel, at the instruction behind the hypercall of
``guest/syscall_entry.s``, its user registers in the pt_regs on its kernel stack. So there is one way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.cpu.rings import put_ring
from mmuemu.cpu.window import Q_KERNEL_GS_BASE, Q_RIP, Q_RSP
from mmuemu.x86.registers import CR0_TS, RFLAGS_FIXED
from mmuemu.x86.segments import KERNEL_CS, KERNEL_SS

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task

_PUSHED: Final = (
    window.Q_R15, window.Q_R14, window.Q_R13, window.Q_R12, window.Q_RBP, window.Q_RBX, window.Q_R11, window.Q_R10,
    window.Q_R9, window.Q_R8, window.Q_RAX, window.Q_RCX, window.Q_RDX, window.Q_RSI, window.Q_RDI,
)  # fmt: skip
"""The registers of the first words of pt_regs, in memory order."""
NO_CALL: Final = (1 << 64) - 1
"""orig_ax of a task that did not come by a system call."""


def enter_from_user(kernel: Kernel, task: Task) -> None:
    """Bring the running task, which is in ring 3, into the kernel, as a trap or an interrupt does."""
    flags = kernel.cpu.rflags
    state = kernel.cpu.window
    state.save()
    q, d = state.q, state.d
    words = [q[index] for index in _PUSHED]
    words += [NO_CALL, q[Q_RIP], d[window.CS.selector], flags, q[Q_RSP], d[window.SS.selector]]
    task.registers.load(words)
    _kernel_form(kernel, task)
    state.restore()


def _kernel_form(kernel: Kernel, task: Task) -> None:
    """Make the saved window that of ``task`` in the kernel, behind the hypercall."""
    state = kernel.cpu.window
    q = state.q
    put_ring(state, 0, KERNEL_CS, KERNEL_SS)
    state.set_rflags(RFLAGS_FIXED)
    state.d[window.D_OLD_EXCEPTION] = window.NO_EXCEPTION
    q[window.Q_CR3] = task.mm.page_table.root
    q[Q_RIP] = kernel.memory.resume
    q[Q_RSP] = task.stack.pointer
    if q[window.GS.base] != kernel.memory.per_cpu:
        q[Q_KERNEL_GS_BASE] = q[window.GS.base]
        q[window.GS.base] = kernel.memory.per_cpu


def stopped_in_kernel(kernel: Kernel, task: Task) -> bool:
    """The run ended in ring 0. Whether the task's call had been served; else it goes on to the hypercall."""
    state = kernel.cpu.window
    state.save()
    if not kernel.memory.leaves(state.q[Q_RIP]):
        return False
    _kernel_form(kernel, task)
    state.restore()
    return True


def resume_at_fixup(kernel: Kernel, rip: int) -> None:
    """A fault in ring 0 that was to be expected: the CPU goes on at ``rip``, everything else as it was."""
    state = kernel.cpu.window
    state.save()
    state.q[Q_RIP] = rip
    state.d[window.D_OLD_EXCEPTION] = window.NO_EXCEPTION
    state.restore()


def first_state(kernel: Kernel, task: Task) -> bytes:
    """The CPU's state for a task that has never run: an idle CPU's, in the kernel."""
    state = kernel.cpu.window
    state.load(kernel.idle_state)
    _kernel_form(kernel, task)
    return state.snapshot()


def take_off(kernel: Kernel) -> None:
    """Keep the CPU's state for the task that is on it, and have nobody on it."""
    task = kernel.current
    if task is not None and not task.ended:
        state = kernel.cpu.window
        state.save()
        task.snapshot = state.snapshot()
    kernel.current = None


def park(kernel: Kernel) -> None:
    """Nobody is on the CPU: the engine stops only at the end of its block, which reads a stack on the way.

    It translates by the kernel's own tables: those of who ran last may be gone.
    """
    state = kernel.cpu.window
    state.save()
    kernel.loaded_root = kernel.memory.half.table.root
    state.q[window.Q_CR3], state.q[Q_RSP] = kernel.loaded_root, kernel.memory.per_cpu
    state.restore()
    kernel.cpu.flush_tlb("idle")


def _load_without_floats(kernel: Kernel, task: Task) -> None:
    """Load ``task``'s state but for floating-point registers that are not its own: CR0.TS guards those.

    A task's snapshot has its own ones exactly while :attr:`Task.floats` is None.
    """
    state, fp = kernel.cpu.window, kernel.cpu.fp
    state.save()
    there = fp.raw
    state.load(task.snapshot)
    if kernel.fpu_owner is None:
        kernel.fpu_owner = task
    if kernel.fpu_owner is task:
        task.floats = None
    else:
        if task.floats is None:
            task.floats = fp.raw
        fp.raw = there
    _guard_floats(kernel, task.floats is not None)


def _guard_floats(kernel: Kernel, on: bool) -> None:
    """CR0.TS in the saved window, and the engine's copy of it."""
    state = kernel.cpu.window
    q, d = state.q, state.d
    q[window.Q_CR0] = q[window.Q_CR0] & ~CR0_TS | (CR0_TS if on else 0)
    d[window.D_HFLAGS] = d[window.D_HFLAGS] & ~window.HFLAG_TS | (window.HFLAG_TS if on else 0)


def claim_floats(kernel: Kernel, task: Task) -> None:
    """Give the floating-point registers to ``task``, which is on the CPU, as #NM does. The window is saved then.

    Those of their last owner are in its snapshot since it left the CPU.
    """
    state = kernel.cpu.window
    state.save()
    if task.floats is None:
        return
    kernel.cpu.fp.raw = task.floats
    task.floats = None
    kernel.fpu_owner = task
    _guard_floats(kernel, False)
    state.restore()


def put_on(kernel: Kernel, task: Task) -> None:
    """Load ``task``'s state, inside a hook too: there the entry code goes on with another task's stack."""
    state = kernel.cpu.window
    if kernel.lazy_fpu:
        _load_without_floats(kernel, task)
    else:
        state.load(task.snapshot)
    root = task.mm.page_table.root
    q = state.q
    changed = kernel.loaded_root != root or state.live_q[window.Q_PKRU] != q[window.Q_PKRU]
    q[window.Q_CR3], q[Q_RIP], q[Q_RSP] = root, kernel.memory.resume, task.stack.pointer
    state.restore()
    kernel.current = task
    kernel.set_address_space(task.mm)
    kernel.memory.use_stack(task.stack)
    if kernel.hidden is not None:
        kernel.hardening.switch(kernel.hidden, task)
    if changed:
        kernel.cpu.flush_tlb("switch")
