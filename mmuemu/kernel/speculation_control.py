"""What a thread may say about speculation: prctl(PR_GET/PR_SET_SPECULATION_CTRL) (PR_SET_SPECULATION_CTRL(2const)).

The rules are those of Linux, arch/x86/kernel/cpu/bugs.c; what obeys them is the CPU, told by :class:`Task`'s ``ssbd``,
``ibpb`` and ``l1d_flush``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.kernel.abi.errno import Errno, SyscallError

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH = range(3)
PR_SPEC_NOT_AFFECTED: Final = 0
PR_SPEC_PRCTL: Final = 1 << 0
PR_SPEC_ENABLE: Final = 1 << 1
PR_SPEC_DISABLE: Final = 1 << 2
PR_SPEC_FORCE_DISABLE: Final = 1 << 3
PR_SPEC_DISABLE_NOEXEC: Final = 1 << 4

SSB_FORCE: Final = 1
IB_FORCE: Final = 2
SSB_NOEXEC: Final = 4

ALWAYS: Final = "always"
ASKED: Final = "prctl"


class SpeculationControl(NamedTuple):
    """The modes: None where the CPU has no such flaw, else ``"always"`` disabled, ``"prctl"``, or ``""`` for never.

    ``l1d_flush``: ``"always"`` emptied, ``"prctl"`` for the threads that ask (Linux's ``l1d_flush=on``), else never.
    """

    store_bypass: str | None = None
    indirect_branch: str | None = None
    l1d_flush: str = ""


UNAFFECTED: Final = SpeculationControl()

_STORE_BYPASS_TEXTS: Final = {
    PR_SPEC_NOT_AFFECTED: "not vulnerable",
    PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE: "thread force mitigated",
    PR_SPEC_PRCTL | PR_SPEC_DISABLE: "thread mitigated",
    PR_SPEC_PRCTL | PR_SPEC_ENABLE: "thread vulnerable",
    PR_SPEC_DISABLE: "globally mitigated",
}
"""fs/proc/array.c: task_seccomp; everything else is ``vulnerable`` there, PR_SPEC_DISABLE_NOEXEC too."""
_INDIRECT_BRANCH_TEXTS: Final = {
    PR_SPEC_NOT_AFFECTED: "not affected",
    PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE: "conditional force disabled",
    PR_SPEC_PRCTL | PR_SPEC_DISABLE: "conditional disabled",
    PR_SPEC_PRCTL | PR_SPEC_ENABLE: "conditional enabled",
    PR_SPEC_ENABLE: "always enabled",
    PR_SPEC_DISABLE: "always disabled",
}


def status_texts(task: Task) -> tuple[str, str]:
    """What /proc/PID/status says of store bypass and of indirect branches."""
    store, branch = _get_store_bypass(task), _get_indirect_branch(task)
    return _STORE_BYPASS_TEXTS.get(store, "vulnerable"), _INDIRECT_BRANCH_TEXTS[branch]


def get(task: Task, which: int) -> int:
    """PR_GET_SPECULATION_CTRL: the state of ``which`` for the thread. ENODEV for what there is not."""
    if which == PR_SPEC_STORE_BYPASS:
        return _get_store_bypass(task)
    if which == PR_SPEC_INDIRECT_BRANCH:
        return _get_indirect_branch(task)
    if which == PR_SPEC_L1D_FLUSH:
        mode = _modes(task).l1d_flush
        if not mode:
            return PR_SPEC_FORCE_DISABLE
        return PR_SPEC_ENABLE if task.l1d_flush or mode == ALWAYS else PR_SPEC_DISABLE
    raise SyscallError(Errno.ENODEV)


def put(task: Task, which: int, control: int) -> None:
    """PR_SET_SPECULATION_CTRL. ENODEV, ENXIO (no control), EPERM (forced, or not the thread's to say), ERANGE."""
    if which == PR_SPEC_STORE_BYPASS:
        _set_store_bypass(task, control)
    elif which == PR_SPEC_INDIRECT_BRANCH:
        _set_indirect_branch(task, control)
    elif which == PR_SPEC_L1D_FLUSH:
        _set_l1d_flush(task, control)
    else:
        raise SyscallError(Errno.ENODEV)
    _tell(task)
    hidden = task.kernel.hidden
    if hidden is not None and which == PR_SPEC_INDIRECT_BRANCH and control != PR_SPEC_ENABLE and task.ibpb:
        # What was trained before it asked steers it no more (ib_prctl_set, since Linux 6.2).
        hidden.ibpb()


def inherit(parent: Task, child: Task) -> None:
    """A new thread or process has what its maker has."""
    child.ssbd, child.ibpb, child.l1d_flush = parent.ssbd, parent.ibpb, parent.l1d_flush
    child.speculation_flags = parent.speculation_flags


def executed(task: Task) -> None:
    """A new program runs: PR_SPEC_DISABLE_NOEXEC was for the old one (arch_setup_new_exec)."""
    if task.ssbd and task.speculation_flags & SSB_NOEXEC:
        task.ssbd = False
        task.speculation_flags &= ~SSB_NOEXEC
        _tell(task)


def _modes(task: Task) -> SpeculationControl:
    return task.kernel.options.speculation_control


def _tell(task: Task) -> None:
    hidden = task.kernel.hidden
    if hidden is not None:
        task.kernel.hardening.asked(hidden, task)


def _get_store_bypass(task: Task) -> int:
    mode = _modes(task).store_bypass
    if mode != ASKED:
        return {None: PR_SPEC_NOT_AFFECTED, ALWAYS: PR_SPEC_DISABLE}.get(mode, PR_SPEC_ENABLE)
    if task.speculation_flags & SSB_FORCE:
        return PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE
    if task.speculation_flags & SSB_NOEXEC:
        return PR_SPEC_PRCTL | PR_SPEC_DISABLE_NOEXEC
    return PR_SPEC_PRCTL | (PR_SPEC_DISABLE if task.ssbd else PR_SPEC_ENABLE)


def _get_indirect_branch(task: Task) -> int:
    mode = _modes(task).indirect_branch
    if mode != ASKED:
        return {None: PR_SPEC_NOT_AFFECTED, ALWAYS: PR_SPEC_DISABLE}.get(mode, PR_SPEC_ENABLE)
    if task.speculation_flags & IB_FORCE:
        return PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE
    return PR_SPEC_PRCTL | (PR_SPEC_DISABLE if task.ibpb else PR_SPEC_ENABLE)


def _set_store_bypass(task: Task, control: int) -> None:
    if _modes(task).store_bypass != ASKED:
        raise SyscallError(Errno.ENXIO)
    flags = task.speculation_flags
    if control in (PR_SPEC_ENABLE, PR_SPEC_DISABLE_NOEXEC) and flags & SSB_FORCE:
        raise SyscallError(Errno.EPERM)
    if control not in (PR_SPEC_ENABLE, PR_SPEC_DISABLE, PR_SPEC_FORCE_DISABLE, PR_SPEC_DISABLE_NOEXEC):
        raise SyscallError(Errno.ERANGE)
    flags &= ~SSB_NOEXEC
    if control == PR_SPEC_FORCE_DISABLE:
        flags |= SSB_FORCE
    elif control == PR_SPEC_DISABLE_NOEXEC:
        flags |= SSB_NOEXEC
    task.ssbd = control != PR_SPEC_ENABLE
    task.speculation_flags = flags


def _set_indirect_branch(task: Task, control: int) -> None:
    mode = _modes(task).indirect_branch
    if control == PR_SPEC_ENABLE:
        if not mode:
            return
        if mode != ASKED or task.speculation_flags & IB_FORCE:
            raise SyscallError(Errno.EPERM)
        task.ibpb = False
    elif control in (PR_SPEC_DISABLE, PR_SPEC_FORCE_DISABLE):
        if not mode:
            raise SyscallError(Errno.EPERM)
        if mode == ASKED:
            task.ibpb = True
            if control == PR_SPEC_FORCE_DISABLE:
                task.speculation_flags |= IB_FORCE
    else:
        raise SyscallError(Errno.ERANGE)


def _set_l1d_flush(task: Task, control: int) -> None:
    if _modes(task).l1d_flush != ASKED:
        raise SyscallError(Errno.EPERM)
    if control not in (PR_SPEC_ENABLE, PR_SPEC_DISABLE):
        raise SyscallError(Errno.ERANGE)
    task.l1d_flush = control == PR_SPEC_ENABLE
