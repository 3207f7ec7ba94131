"""Delivering signals just before a task returns to ring 3 (kernel/signal.c, arch/x86/kernel/signal.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.fpstate import PKRU_OFFSET
from mmuemu.kernel import life
from mmuemu.kernel import registers as pt
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import (
    DUMPS_CORE,
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTART,
    SA_RESTORER,
    SA_SIGINFO,
    SI_KERNEL,
    SIG_DFL,
    SS_AUTODISARM,
    STOPS_BY_DEFAULT,
    UNBLOCKABLE,
    Signal,
)
from mmuemu.kernel.events import tell_signal
from mmuemu.kernel.keys import INITIAL_PKRU, set_pkru
from mmuemu.kernel.signals import jobs
from mmuemu.kernel.signals.action import Action, is_ignored
from mmuemu.kernel.signals.frame import FRAME_BYTES, NO_ALTSTACK, build_frame, fp_area, fp_bytes, frame_place
from mmuemu.kernel.signals.info import SIGINFO_BYTES
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import action_of, force_info, ignored
from mmuemu.kernel.switching import claim_floats
from mmuemu.kernel.traps import Death
from mmuemu.kernel.wait import RESTART_ALWAYS
from mmuemu.x86.registers import RFLAGS_DF, RFLAGS_RF, RFLAGS_TF
from mmuemu.x86.segments import USER_CS, USER_SS

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.wait import Blocked

_ALL: Final = (1 << 64) - 1
_NO_FRAME: Final = _ALL
_ERESTARTSYS: Final = 512
_CALL_BYTES: Final = 2
"""Length of ``syscall``: how far RIP goes back for a call to be made again."""


def interrupt_call(task: Task, blocked: Blocked) -> None:
    """A signal ends the sleep of the call that ``task`` is in: :func:`deliver` decides how the call ends."""
    task.interrupted = True
    task.restart = blocked.restart
    task.on_interrupt = blocked.on_interrupt
    task.progress = blocked.progress


def deliver(task: Task) -> None:
    """Act on the signals that ``task`` does not block; its call, if one was interrupted, ends or sleeps on.

    Each signal that has a handler gets its frame, so that the last one runs first.
    """
    process = task.process
    while True:
        wanted = ~task.signal_mask & _ALL
        info = task.signals.take(wanted) or process.signals.take(wanted)
        if info is None:
            break
        number = info.signal
        action = action_of(process, number)
        ignored = number != Signal.SIGKILL and is_ignored(action, number)
        debugger = task.kernel.debugger
        if debugger is not None and not ignored and number != Signal.SIGKILL and debugger.holds(task, info):
            return
        if task.kernel.tracer is not None:
            task.kernel.tracer.signal(task, info)
        if task.kernel.events.signal:
            tell_signal("delivered", task, info, handler=action.handler)
        if ignored:
            continue
        if action.handler != SIG_DFL and number != Signal.SIGKILL:
            if action.flags & SA_RESETHAND:
                process.actions[number] = Action(SIG_DFL, action.flags, action.restorer, action.mask).pack()
            _run_handler(task, info, action)
        elif number in STOPS_BY_DEFAULT:
            if number == Signal.SIGSTOP or not jobs.is_orphaned(task.kernel, process.pgid):
                jobs.stop(process, number)
                task.interrupted = False
                return
        else:
            life.exit_group(process, death=_death(info))
            return
    task.interrupted = False
    if not task.in_call and task.saved_mask is not None:
        task.signal_mask, task.saved_mask = task.saved_mask, None


def die_asleep(task: Task) -> bool:
    """Whether a signal has come that ends the process even in a sleep that others do not end; it has ended then.

    That is one whose default action is to end it without a core dump (``complete_signal``, kernel/signal.c).
    """
    process = task.process
    bits = task.kernel.signalled(task)
    while bits:
        bit = bits & -bits
        bits ^= bit
        number = bit.bit_length()
        kills = number == Signal.SIGKILL or (
            number not in DUMPS_CORE
            and number not in STOPS_BY_DEFAULT
            and action_of(process, number).handler == SIG_DFL
            and not ignored(process, number)
        )
        info = task.signals.take(bit) or process.signals.take(bit) if kills else None
        if info is not None:
            if task.kernel.tracer is not None:
                task.kernel.tracer.signal(task, info)
            life.exit_group(process, death=_death(info))
            return True
    return False


def _death(info: SigInfo) -> Death:
    """Why ``info`` kills."""
    return info.cause or Death(info.signal, info.code)


def _run_handler(task: Task, info: SigInfo, action: Action) -> None:
    """Have the task go on in the handler (``handle_signal``)."""
    if task.in_call:
        _end_call(task, action)
    if not _push_frame(task, info, action):
        number = info.signal
        if number == Signal.SIGSEGV:
            task.process.actions[number] = Action().pack()
        force_info(task, SigInfo(Signal.SIGSEGV, SI_KERNEL, cause=_no_room(info)))
        return
    if task.kernel.events.signal:
        tell_signal("handler", task, info, handler=action.handler)
    task.saved_mask = None
    mask = task.signal_mask | action.mask
    if not action.flags & SA_NODEFER:
        mask |= 1 << (info.signal - 1)
    task.signal_mask = mask & ~UNBLOCKABLE
    if task.alternate_stack[1] & SS_AUTODISARM:
        task.alternate_stack = NO_ALTSTACK


def _no_room(info: SigInfo) -> Death:
    """The end of a task whose stack cannot take the frame: the exception itself is the better explanation."""
    if info.cause is not None and info.signal == Signal.SIGSEGV:
        return info.cause
    return Death(Signal.SIGSEGV, SI_KERNEL, reason="no room on the stack for the signal handler's frame")


def _end_call(task: Task, action: Action) -> None:
    """The call that the signal interrupted is made again after the handler, or fails with EINTR."""
    registers = task.registers
    if task.progress is not None:
        result = task.progress
        task.kernel.entry.call_left(task, result)
        registers[pt.AX] = result
    elif task.restart == RESTART_ALWAYS or (task.restart and action.flags & SA_RESTART):
        result = -_ERESTARTSYS
        task.kernel.entry.call_left(task, result)
        registers[pt.AX] = registers[pt.ORIG_AX]
        registers[pt.IP] -= _CALL_BYTES
    else:
        result = -_interrupted(task)
        task.kernel.entry.call_left(task, result)
        registers[pt.AX] = result
    task.in_call = task.interrupted = False
    task.call_state = task.on_interrupt = task.progress = None
    task.signal_wait = 0


def _interrupted(task: Task) -> int:
    """Let the call say what was left of it; the error it fails with."""
    if task.on_interrupt is not None:
        try:
            task.on_interrupt()
        except SyscallError as error:
            return error.errno
    return Errno.EINTR


def _push_frame(task: Task, info: SigInfo, action: Action) -> bool:
    """Write the signal frame and set the registers for the handler; False when it cannot be."""
    if not action.flags & SA_RESTORER:
        return False
    cpu = task.kernel.cpu
    claim_floats(task.kernel, task)
    fp = cpu.fp
    words = task.registers.words()
    frame, area = frame_place(words[pt.SP], task.alternate_stack, bool(action.flags & SA_ONSTACK), fp_bytes(fp.xcr0))
    if frame == _NO_FRAME:
        return False
    mask = task.signal_mask if task.saved_mask is None else task.saved_mask
    data = build_frame(
        words,
        info.pack() if action.flags & SA_SIGINFO else b"",
        action.restorer, mask, task.alternate_stack, task.trap_state, area, fp.xcr0 != 1,
    )  # fmt: skip
    head, tail = fp_area(fp)
    try:
        if len(data) == FRAME_BYTES:
            task.memory.write(frame, data + bytes(area - frame - FRAME_BYTES) + head)
        else:
            task.memory.write(area, head)
            task.memory.write(frame, data)
        if tail:
            task.memory.write(area + PKRU_OFFSET, tail)
    except SyscallError:
        return False
    words[pt.DI] = info.signal
    words[pt.AX] = 0
    words[pt.SI] = frame + FRAME_BYTES - SIGINFO_BYTES
    words[pt.DX] = frame + 8
    words[pt.IP] = action.handler
    words[pt.SP] = frame
    words[pt.CS], words[pt.SS] = USER_CS, USER_SS
    words[pt.FLAGS] &= ~(RFLAGS_DF | RFLAGS_RF | RFLAGS_TF)
    task.registers.load(words)
    fp.reset()
    set_pkru(cpu, INITIAL_PKRU)
    cpu.window.restore()
    return True
