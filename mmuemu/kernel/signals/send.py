"""Sending signals: to a thread, to a process or a group, and the kernel's own for a trap (kernel/signal.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import (
    SEGV_PKUERR,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    STOPPING,
    STOPS_BY_DEFAULT,
    UNBLOCKABLE,
    Signal,
)
from mmuemu.kernel.events import tell_signal
from mmuemu.kernel.process import Process
from mmuemu.kernel.signals import jobs
from mmuemu.kernel.signals.action import DEFAULT, Action, is_ignored, unpack_action
from mmuemu.kernel.signals.frame import TrapState
from mmuemu.kernel.signals.pending import FIRST_REALTIME, SigInfo
from mmuemu.x86.exceptions import Vector

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.traps import Death

RLIMIT_SIGPENDING: Final = 11
MOST_PENDING: Final = 4096
"""Signals that one process may have queued unless RLIMIT_SIGPENDING says otherwise."""
_CONT: Final = 1 << (Signal.SIGCONT - 1)
_PF_PROT, _PF_USER = 1, 4


def action_of(process: Process, number: int) -> Action:
    """The disposition of a signal."""
    data = process.actions.get(number)
    return DEFAULT if data is None else unpack_action(data)


def handler_of(process: Process, number: int) -> int:
    """The handler's address, SIG_DFL or SIG_IGN."""
    return int.from_bytes(process.actions.get(number, b"")[:8], "little")


def ignored(process: Process, number: int) -> bool:
    """Whether the signal, not being blocked, would have no effect."""
    return is_ignored(action_of(process, number), number)


def may_send(sender: Task, process: Process, number: int) -> bool:
    """Whether ``sender`` may send ``number`` (kill(2): the same user, or root; SIGCONT within the session)."""
    leader = process.leader
    if leader is None or sender.uid in (0, leader.uid):
        return True
    return number == Signal.SIGCONT and sender.process.sid == process.sid


def send(target: Task | Process, info: SigInfo) -> None:
    """Make a signal pending, unless it is ignored, and wake who is to take it.

    Of a process, the oldest thread that does not block it takes it. EAGAIN: a real-time signal finds the queue full
    (RLIMIT_SIGPENDING, counted per queue here).
    """
    process = target if isinstance(target, Process) else target.process
    number = info.signal
    if process.zombie or not process.threads or process.group_exit:
        return
    _prepare(process, number)
    bit = 1 << (number - 1)
    looked_at = next(iter(process.threads.values())) if isinstance(target, Process) else target
    if not looked_at.signal_mask & bit and bit & ~UNBLOCKABLE and ignored(process, number):
        if process.kernel.tracer is not None:
            process.kernel.tracer.ignored(looked_at, info)
        if process.kernel.events.signal:
            tell_signal("ignored", target, info, sender=process.kernel.current)
        return
    queue = target.signals
    if number >= FIRST_REALTIME and len(queue) >= process.limits.get(RLIMIT_SIGPENDING, (MOST_PENDING, 0))[0]:
        if info.code == SI_USER:
            return
        raise SyscallError(Errno.EAGAIN)
    if not queue.add(info):
        return
    if process.kernel.events.signal:
        tell_signal("sent", target, info, sender=process.kernel.current)
    for thread in process.threads.values() if isinstance(target, Process) else (target,):
        if not thread.signal_mask & bit:
            notify(thread)
            return
    _wake_waiters(process, bit)


def notify(thread: Task) -> None:
    """Have a thread look at its signals: it wakes, or does so before it returns to ring 3."""
    if thread is thread.kernel.current:
        thread.kernel.attention = True
    thread.wake()


def _wake_waiters(process: Process, bit: int) -> None:
    """A signal that every thread blocks may be what one of them waits for (sigtimedwait, signalfd)."""
    for thread in process.threads.values():
        if thread.signal_wait & bit:
            thread.wake()
            return


def _prepare(process: Process, number: int) -> None:
    """What sending alone does (``prepare_signal``): SIGCONT and the stop signals cancel each other out."""
    if number in STOPS_BY_DEFAULT:
        _discard(process, _CONT)
    elif number == Signal.SIGCONT:
        _discard(process, STOPPING)
        jobs.resume(process, told=True)
    elif number == Signal.SIGKILL:
        jobs.resume(process, told=False)


def _discard(process: Process, bits: int) -> None:
    process.signals.discard(bits)
    for thread in process.threads.values():
        thread.signals.discard(bits)


def discard_ignored(process: Process, number: int) -> None:
    """A signal whose disposition became to be ignored is pending no more (sigaction(2), POSIX)."""
    if ignored(process, number):
        _discard(process, 1 << (number - 1))


def force(task: Task, death: Death) -> None:
    """The signal of an exception in ``task``: blocked or ignored it kills (``force_sig_info``)."""
    trap = death.trap
    if trap is not None:
        error = trap.error_code
        if trap.vector == Vector.PF:
            # The kernel's pages look all alike to ring 3 (arch/x86/mm/fault.c, sanitize_error_code).
            error |= _PF_USER | (_PF_PROT if trap.address >= task.mm.task_size else 0)
            task.trap_state = TrapState(Vector.PF, error, trap.address)
        else:
            task.trap_state = TrapState(trap.vector, error, task.trap_state.cr2)
    payload = death.address.to_bytes(8, "little")
    if (death.signal, death.code) == (Signal.SIGSEGV, SEGV_PKUERR):
        vma = task.mm.vmas.find(death.address)
        payload += bytes(8) + (0 if vma is None else vma.key).to_bytes(4, "little")  # si_pkey, 16 bytes behind si_addr
    force_info(task, SigInfo(death.signal, death.code, payload, 0, death))


def force_info(task: Task, info: SigInfo) -> None:
    """A signal that cannot be put off: if it is blocked or ignored, its default action is taken."""
    process, number = task.process, info.signal
    bit = 1 << (number - 1)
    if task.signal_mask & bit or handler_of(process, number) == SIG_IGN:
        process.actions[number] = Action(SIG_DFL).pack()
        task.signal_mask &= ~bit
    task.signals.add(info)
    if task.kernel.events.signal:
        tell_signal("sent", task, info, sender=task)
    notify(task)


def to_group(kernel: Kernel, pgid: int, info: SigInfo) -> int:
    """Send to every process of a group; how many there were."""
    members = [process for process in kernel.processes.values() if process.pgid == pgid and not process.zombie]
    for process in members:
        send(process, info)
    return len(members)


def set_mask(task: Task, mask: int) -> None:
    """Block the signals ``mask``; what that unblocks is delivered next, what it blocks other threads may take."""
    process = task.process
    newly = mask & ~task.signal_mask & process.signals.bits
    task.signal_mask = mask & ~UNBLOCKABLE
    if (task.signals.bits | process.signals.bits) & ~task.signal_mask:
        task.kernel.attention = True
    if newly:
        retarget(process, newly)


def retarget(process: Process, bits: int) -> None:
    """Somebody who might have taken the pending signals ``bits`` will not: others do (``retarget_shared_pending``)."""
    for thread in process.threads.values():
        if bits & ~thread.signal_mask:
            notify(thread)
