"""A task's registers for gdb: those on its kernel stack, and the rest in the CPU or in its snapshot."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.cpu.window import D_HFLAGS
from mmuemu.gdbstub import registers as gdb
from mmuemu.gdbstub.description import PROCESS
from mmuemu.gdbstub.events import Failed
from mmuemu.kernel import registers as pt
from mmuemu.kernel.registers import ORIG_AX

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

_PT_REGS: Final = {
    "rax": pt.AX, "rbx": pt.BX, "rcx": pt.CX, "rdx": pt.DX, "rsi": pt.SI, "rdi": pt.DI, "rbp": pt.BP, "rsp": pt.SP,
    "r8": pt.R8, "r9": pt.R9, "r10": pt.R10, "r11": pt.R11, "r12": pt.R12, "r13": pt.R13, "r14": pt.R14,
    "r15": pt.R15, "rip": pt.IP, "eflags": pt.FLAGS, "cs": pt.CS, "ss": pt.SS, "orig_rax": ORIG_AX,
}  # fmt: skip
_ERESTARTSYS: Final = (1 << 64) - 512
_CALL_BYTES: Final = 2
_BASES: Final = {"fs_base": window.FS.base, "gs_base": window.Q_KERNEL_GS_BASE}


def _load(task: Task) -> None:
    """Have the task's CPU state in the window."""
    state = task.kernel.cpu.window
    if task is task.kernel.current:
        state.save()
    else:
        state.load(task.snapshot)


def _store(task: Task) -> None:
    state = task.kernel.cpu.window
    if task is task.kernel.current:
        state.restore()
    else:
        task.snapshot = state.snapshot()


def read(task: Task) -> bytes:
    """The ``g`` packet. A task in a system call that sleeps shows -ERESTARTSYS, as Linux lets a debugger see it."""
    cpu = task.kernel.cpu
    _load(task)
    known = gdb.values(cpu)
    words = task.registers.words()
    known |= {name: words[index] for name, index in _PT_REGS.items()}
    known |= {name: cpu.window.q[index] for name, index in _BASES.items()}
    known["cr3"] = task.mm.page_table.root
    if task.in_call:
        known["rax"] = _ERESTARTSYS
    return gdb.pack(cpu, PROCESS, known)


def write(task: Task, data: bytes) -> None:
    """Set them. Raises Refused and Failed with nothing changed.

    A new RIP or system call number takes the task out of a call that sleeps (see :func:`go_on`).
    """
    changed = gdb.changes(PROCESS, read(task), data)
    integers = {name: int.from_bytes(value, "little") for name, value in changed.items() if not gdb.is_float(name)}
    for name in _BASES:
        if integers.get(name, 0) >= task.mm.task_size:
            raise Failed(errno.EIO)
    if changed:
        _load(task)
        floats = {name: value for name, value in changed.items() if gdb.is_float(name)}
        if floats:
            gdb.set_floats(task.kernel.cpu, floats)
        for name, index in (*_BASES.items(), ("cr2", window.Q_CR2)):
            if name in integers:
                task.kernel.cpu.window.q[index] = integers[name]
        _store(task)
    for name, value in integers.items():
        if name == "eflags":
            value = task.registers[pt.FLAGS] & ~gdb.FLAGS_WRITABLE | value & gdb.FLAGS_WRITABLE
        if name in _PT_REGS and not (name == "rax" and task.in_call):
            task.registers[_PT_REGS[name]] = value
    if task.in_call and integers.keys() & {"rip", "orig_rax"}:
        _leave_call(task)


def go_on(task: Task) -> None:
    """Before a task is resumed: one that was taken out of a call, and has its registers back, makes the call again."""
    registers = task.registers
    if not task.in_call and registers[pt.AX] == _ERESTARTSYS and registers[ORIG_AX] < 1 << 32:
        registers[pt.AX] = registers[ORIG_AX]
        registers[pt.IP] -= _CALL_BYTES


def _leave_call(task: Task) -> None:
    """The call that the task sleeps in is not made any more."""
    scheduler = task.kernel.scheduler
    task.in_call = task.interrupted = False
    task.call_state = task.on_interrupt = task.progress = None
    task.signal_wait = 0
    scheduler.wake(task)


__all__ = ["D_HFLAGS", "ORIG_AX", "go_on", "read", "write"]
