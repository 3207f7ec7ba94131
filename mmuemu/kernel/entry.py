"""The ways into the kernel: page faults, other exceptions, system calls.

This is the CPU's trap handler. What happens on the way back to ring 3 is :meth:`Kernel.work`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.emulated import emulate
from mmuemu.cpu.traps import Trap
from mmuemu.errors import MmuemuError, OutOfFrames
from mmuemu.kernel import switching
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.events import FaultEvent
from mmuemu.kernel.half import HYPERCALL_PORT
from mmuemu.kernel.registers import AX, IP, ORIG_AX, argument_words
from mmuemu.kernel.signals.deliver import die_asleep, interrupt_call
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import force
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.kernel.traps import FLOATING_POINT, Death, as_delivered, floating_point_code, signal_of
from mmuemu.kernel.wait import Blocked
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import KEY_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task

_MASK: Final = (1 << 64) - 1
_NONE: Final[tuple[int, ...]] = ()
MOST_UNKNOWN: Final = 256
"""How many different numbers of calls that do not exist are counted and told of."""


class Entry:
    """Takes the traps of one kernel's CPU."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.serving = -1
        """The page whose fault is being resolved in the middle of an instruction; -1 for none."""

    def page_fault(self, page: int, error_code: int) -> int:
        """Demand paging: the address space maps the page, or the access was wrong."""
        mm = self.kernel.mm
        # P without U: SMEP or SMAP refused an access by supervisor rights, which no paging can resolve.
        if mm is None or page >= mm.task_size or error_code & 5 == 1:
            return 0
        mm.installed = 0
        self.serving = mm.serving = page
        result = mm.fault(page, error_code)
        self.serving = mm.serving = -1
        if self.kernel.events.fault and not result and self.kernel.current is not None:
            self._tell_fault(FaultEvent(self.kernel.current, page, error_code, True))
        # Whether the page's protection key lets the access through is for the walk to say.
        return mm.installed if mm.installed and not mm.installed & KEY_MASK else not result

    def _tell_fault(self, event: FaultEvent) -> None:
        for callback in self.kernel.events.fault:
            callback(event)

    def trap(self, trap: Trap) -> None:
        """An exception nothing resolved: in ring 3 a signal, in ring 0 the end of everything."""
        kernel = self.kernel
        task = kernel.current
        if task is None:
            raise MmuemuError(f"kernel panic: {trap}")
        if trap.cpl != 3:
            self._trap_in_kernel(task, trap)
            return
        trap = as_delivered(trap)
        if trap.vector == Vector.UD:
            left = emulate(kernel.cpu, trap)
            if left is None:
                return
            trap = left
        if trap.vector == Vector.NM and task.floats is not None:
            switching.claim_floats(kernel, task)
            return
        if trap.vector != Vector.PF:
            death = signal_of(trap)
        else:
            page = trap.address & ~(PAGE_SIZE - 1)
            death = Death(Signal.SIGSEGV, 1, trap.address, trap)
            if page < task.mm.task_size and trap.error_code & 5 != 1:
                kernel.relieve()
                result = task.mm.fault(page, trap.error_code)
                if result == 0:
                    return
                death = Death(Signal(result.signal), result.si_code, trap.address, trap)
            if kernel.events.fault:
                self._tell_fault(
                    FaultEvent(task, trap.address, trap.error_code, False, death.signal, death.code, trap.rip)
                )
        if trap.vector in FLOATING_POINT:
            kernel.cpu.window.save()
            code = floating_point_code(trap, kernel.cpu.fp)
            if not code:
                return
            death = Death(death.signal, code, trap.rip, trap)
        switching.enter_from_user(kernel, task)
        task.registers[IP] = trap.rip
        force(task, death)
        kernel.work()

    def _trap_in_kernel(self, task: Task, trap: Trap) -> None:
        """The way back to ring 3 faults when the place is not canonical: the task's own fault.

        A fault in the vulnerable driver fails the call (EFAULT).
        """
        fixup = self.kernel.memory.fixup(trap.rip)
        if fixup:
            switching.resume_at_fixup(self.kernel, fixup)
            return
        if not switching.stopped_in_kernel(self.kernel, task):
            raise MmuemuError(f"kernel panic: {trap}")
        force(task, Death(Signal.SIGSEGV, 0x80, 0, trap))
        self.kernel.work()

    def syscall(self) -> None:
        """The ``syscall`` instruction: into ring 0 at LSTAR."""
        self.kernel.cpu.enter_kernel()

    def port_in(self, port: int, size: int) -> int:
        """No device answers: all ones, as on a bus nobody drives."""
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        """The hypercall: serve the system call whose registers lie on the kernel stack."""
        if port != HYPERCALL_PORT:
            return
        kernel = self.kernel
        task = kernel.current
        assert task is not None
        kernel.statistics.syscalls += 1
        self.call(task)
        if kernel.attention:
            kernel.work()
        if kernel.hidden is not None and kernel.hardening.flush_l1d:
            kernel.hidden.flush_l1d()

    def call(self, task: Task) -> None:
        """Make the system call in ``task``'s registers, for the first time or again after it has slept."""
        kernel = self.kernel
        q = kernel.ram.qwords
        base = task.registers.base
        number = q[base + ORIG_AX] & 0xFFFF_FFFF
        call = kernel.table.get(number) or kernel.late_call(number)
        tracer = kernel.tracer
        arguments = _NONE
        if tracer is not None:
            r10, r9, r8, dx, si, di = argument_words(q, base * 8)
            arguments = di, si, dx, r10, r8, r9
            if not task.in_call:
                tracer.enter(task, call, number, arguments)
        if call is None:
            result = self._unknown(number)
        else:
            try:
                result = call.call(task, q, base)
            except Blocked as blocked:
                self._sleep(task, blocked)
                return
            except SyscallError as error:
                result = -error.errno
                if error.errno is Errno.EPIPE:
                    kernel.send_signal(task, SigInfo(Signal.SIGPIPE))
            except OutOfFrames:
                result = -Errno.ENOMEM
        if task.in_call or task.call_state is not None:
            task.in_call = False
            task.call_state = None
        if tracer is not None:
            tracer.leave(task, call, number, arguments, result)
        if not task.ended:
            q[base + AX] = result & _MASK

    def call_left(self, task: Task, result: int) -> None:
        """Tell the tracer how a call ended that a signal interrupted."""
        if self.kernel.tracer is not None:
            number = task.registers[ORIG_AX] & 0xFFFF_FFFF
            self.kernel.tracer.leave(task, TABLE.get(number), number, _arguments(task), result)

    def _sleep(self, task: Task, blocked: Blocked) -> None:
        """The call cannot go on: the task sleeps, unless a signal is there already."""
        self.kernel.attention = True
        task.in_call = True
        if self.kernel.tracer is not None:
            self.kernel.tracer.sleeps(task)
        if self.kernel.signalled(task) and not blocked.killable:
            interrupt_call(task, blocked)
        elif blocked.killable and die_asleep(task):
            return
        else:
            self.kernel.scheduler.sleep(task, blocked)

    def _unknown(self, number: int) -> int:
        unknown = self.kernel.statistics.unknown
        if number not in unknown and len(unknown) >= MOST_UNKNOWN:
            return -Errno.ENOSYS
        unknown[number] = unknown.get(number, 0) + 1
        if unknown[number] == 1 and self.kernel.on_unknown_syscall is not None:
            self.kernel.on_unknown_syscall(number)
        return -Errno.ENOSYS


def _arguments(task: Task) -> tuple[int, ...]:
    """The six argument registers of a call, raw."""
    r10, r9, r8, dx, si, di = argument_words(task.kernel.ram.qwords, task.registers.base * 8)
    return di, si, dx, r10, r8, r9
