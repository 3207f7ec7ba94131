"""How tasks and processes begin and end: clone, exit, zombies and who reaps them (kernel/fork.c, kernel/exit.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.errors import OutOfFrames
from mmuemu.kernel import accounting, speculation_control
from mmuemu.kernel import registers as regs
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import LAST_SIGNAL, SIG_IGN, Signal
from mmuemu.kernel.process import Process
from mmuemu.kernel.registers import UserRegisters
from mmuemu.kernel.signals import jobs
from mmuemu.kernel.signals.info import by_process
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import retarget
from mmuemu.kernel.switching import claim_floats
from mmuemu.kernel.task import State, Task
from mmuemu.kernel.user_memory import UserMemory

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.half import KernelStack
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.traps import Death

CLONE_VM: Final = 0x100
CLONE_FS: Final = 0x200
CLONE_FILES: Final = 0x400
CLONE_SIGHAND: Final = 0x800
CLONE_PIDFD: Final = 0x1000
CLONE_PTRACE: Final = 0x2000
CLONE_VFORK: Final = 0x4000
CLONE_PARENT: Final = 0x8000
CLONE_THREAD: Final = 0x10000
CLONE_SETTLS: Final = 0x80000
CLONE_PARENT_SETTID: Final = 0x100000
CLONE_CHILD_CLEARTID: Final = 0x200000
CLONE_CHILD_SETTID: Final = 0x1000000
CLONE_CLEAR_SIGHAND: Final = 0x1_0000_0000
CLONE_NEWNS: Final = 0x2_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NAMESPACES: Final = 0x7E02_0080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWTIME: they need CAP_SYS_ADMIN."""
SCHED_RESET_ON_FORK: Final = 0x4000_0000
FIRST_PID: Final = 1000
PID_MAX: Final = 4194304
"""/proc/sys/kernel/pid_max of a 64-bit machine; numbers begin anew at RESERVED_PIDS then (kernel/pid.c)."""
RESERVED_PIDS: Final = 300
RLIMIT_NPROC: Final = 6
SA_NOCLDWAIT: Final = 2
SA_NOCLDSTOP: Final = 1
CLD_EXITED: Final = 1
CLD_KILLED: Final = 2
CLD_DUMPED: Final = 3


def new_pid(kernel: Kernel, limit: int | None = None) -> int:
    """The next free number. EAGAIN with as many tasks and zombies as may be (``limit``: for this caller)."""
    most = kernel.options.max_processes
    if len(kernel.tasks) + kernel.zombies >= (most if limit is None else min(limit, most)):
        raise SyscallError(Errno.EAGAIN)
    pid = kernel.last_pid
    while True:
        pid = pid + 1 if pid + 1 < PID_MAX else RESERVED_PIDS
        if pid not in kernel.tasks and pid not in kernel.processes:
            kernel.last_pid = pid
            return pid


def _process_limit(parent: Task) -> int | None:
    """RLIMIT_NPROC, which root does not feel (getrlimit(2)): everybody here is one user."""
    limit = parent.process.limits.get(RLIMIT_NPROC)
    return None if limit is None or not parent.uid else limit[0]


def _check_flags(flags: int) -> None:
    """clone(2), ERRORS: which flags need which."""
    if flags & CLONE_FS and flags & (CLONE_NEWNS | CLONE_NEWUSER):
        raise SyscallError(Errno.EINVAL)
    if (flags & CLONE_THREAD and not flags & CLONE_SIGHAND) or (flags & CLONE_SIGHAND and not flags & CLONE_VM):
        raise SyscallError(Errno.EINVAL)
    if flags & CLONE_SIGHAND and flags & CLONE_CLEAR_SIGHAND:
        raise SyscallError(Errno.EINVAL)
    if flags & CLONE_THREAD and flags & (CLONE_NEWUSER | CLONE_NEWPID):
        raise SyscallError(Errno.EINVAL)
    if flags & CLONE_NAMESPACES:
        raise SyscallError(Errno.EPERM)


def clone(parent: Task, flags: int, stack: int, tls: int, exit_signal: int, child_tid: int = 0) -> Task:
    """A copy of the calling task, ready to return 0 from the same call.

    ``flags`` are CLONE_*, ``stack`` the child's RSP (0: the parent's), ``tls`` its FS base with CLONE_SETTLS.
    Raises EAGAIN, EINVAL, ENOMEM and EPERM.
    """
    kernel = parent.kernel
    _check_flags(flags)
    tid = new_pid(kernel, _process_limit(parent))
    process = parent.process if flags & CLONE_THREAD else _new_process(parent, tid, flags, exit_signal)
    kernel_stack, mm = _memory(parent, bool(flags & CLONE_VM))
    child = Task(
        kernel, process, tid, mm, parent.memory if flags & CLONE_VM else UserMemory(mm),
        parent.files.acquire() if flags & CLONE_FILES else parent.files.clone(),
        parent.fs if flags & CLONE_FS else parent.fs.clone(),
        kernel_stack, UserRegisters(kernel.ram.qwords, kernel_stack.registers),
        name=parent.name, uid=parent.uid, gid=parent.gid, signal_mask=parent.signal_mask,
    )  # fmt: skip
    child.scheduling = inherited_scheduling(*parent.scheduling)
    speculation_control.inherit(parent, child)
    if flags & CLONE_CHILD_CLEARTID:
        child.clear_child_tid = child_tid
    if not flags & CLONE_VM or flags & CLONE_VFORK:
        child.alternate_stack = parent.alternate_stack
    child.registers.load(parent.registers.words())
    child.registers[regs.AX] = 0
    if stack:
        child.registers[regs.SP] = stack
    child.snapshot = _cpu_state(kernel, tls if flags & CLONE_SETTLS else None)
    if process is not parent.process:
        process.run_from(parent.process.exe_file)
    enrol(child)
    kernel.scheduler.add(child)
    for callback in kernel.events.fork:
        callback(parent, child)
    return child


def _memory(parent: Task, shared: bool) -> tuple[KernelStack, AddressSpace]:
    """A kernel stack and the address space, the parent's or a copy of it. Raises ENOMEM."""
    memory = parent.kernel.memory
    try:
        stack = memory.new_stack()
        try:
            mm = parent.mm if shared else parent.mm.fork()
        except OutOfFrames:
            memory.free_stack(stack)
            raise
    except OutOfFrames:
        raise SyscallError(Errno.ENOMEM) from None
    if shared:
        mm.users += 1
    else:
        parent.kernel.adopt(mm)
    return stack, mm


def inherited_scheduling(policy: int, priority: int) -> tuple[int, int]:
    """What a child gets of its parent's policy: with SCHED_RESET_ON_FORK no real-time one (``sched_fork``)."""
    if policy & SCHED_RESET_ON_FORK:
        return (0, 0) if priority else (policy & ~SCHED_RESET_ON_FORK, 0)
    return policy, priority


def _cpu_state(kernel: Kernel, tls: int | None) -> bytes:
    """The running task's CPU state, with another FS base."""
    state = kernel.cpu.window
    if kernel.current is not None:
        claim_floats(kernel, kernel.current)
    if tls is not None:
        state.q[window.FS.base] = tls
    return state.snapshot()


def _new_process(parent: Task, pid: int, flags: int, exit_signal: int) -> Process:
    old = parent.process
    above = old.parent if flags & CLONE_PARENT else old
    if flags & CLONE_PARENT:
        exit_signal = old.exit_signal
    process = Process(
        parent.kernel, pid, above, old.pgid, old.sid, old.exe, None, old.arguments, old.environment,
        old.auxv, old.entry, old.stack_arguments, dict(old.limits),
        actions=old.actions if flags & CLONE_SIGHAND else dict(old.actions), exit_signal=exit_signal,
        dumpable=old.dumpable, personality=old.personality, oom_score_adj=old.oom_score_adj, nice=old.nice,
    )  # fmt: skip
    if flags & CLONE_CLEAR_SIGHAND:
        process.actions = ignored_only(old.actions)
    return process


def ignored_only(actions: dict[int, bytes]) -> dict[int, bytes]:
    """What execve leaves of the dispositions: those that ignore (signal(7))."""
    return {number: action for number, action in actions.items() if int.from_bytes(action[:8], "little") == SIG_IGN}


def enrol(task: Task) -> None:
    """Make a new task known to its process and kernel."""
    process, kernel = task.process, task.kernel
    kernel.started += 1
    kernel.tasks[task.tid] = task
    process.threads[task.tid] = task
    if process.leader is None:
        process.leader = task
        process.start_time = kernel.clock.now()
        kernel.processes[process.pid] = process
        if process.parent is not None:
            process.parent.children[process.pid] = process


def exit_task(task: Task) -> None:
    """This thread ends; with the last one its process does (``do_exit``)."""
    if task.ended:
        return
    kernel, process = task.kernel, task.process
    task.ended = True
    if kernel.tracer is not None:
        kernel.tracer.ended(task)
    kernel.scheduler.remove(task)
    task.state = State.DEAD
    task.call_state = None
    kernel.attention = True
    kernel.release_thread(task)
    accounting.thread_left(task)
    process.threads.pop(task.tid, None)
    kernel.tasks.pop(task.tid, None)
    last = not process.threads
    if last:
        kernel.process_ending(process, task)
    elif process.signals.bits and not process.group_exit:
        retarget(process, process.signals.bits & ~task.signal_mask)
    task.files.release()
    release_memory(task)
    kernel.memory.free_stack(task.stack)
    if process.vfork_waiter is not None and last:
        vfork_done(process)
    if last:
        _end_process(process)


def release_memory(task: Task) -> None:
    """One user less of the address space; without any it goes (but one that people look at)."""
    mm = task.mm
    mm.users -= 1
    if mm.users == 0:
        accounting.memory_left(task.process, mm)
        statistics = task.kernel.statistics
        statistics.minor_faults += mm.minor_faults
        statistics.major_faults += mm.major_faults
        mm.write_back_all()
        if not task.process.watched or task.process.threads:
            mm.destroy()


def vfork_done(process: Process) -> None:
    """The parent that waits in vfork may go on: the child has a memory of its own, or none."""
    waiter, process.vfork_waiter = process.vfork_waiter, None
    if waiter is not None:
        waiter.wake()


def exit_group(process: Process, status: int | None = None, death: Death | None = None) -> None:
    """Every thread ends: by exit_group with ``status``, or killed."""
    if not process.group_exit:
        process.group_exit = True
        process.exit_status = status
        if death is not None and process.oom_reason:
            death = death._replace(reason=process.oom_reason)
        process.death = death
    for thread in list(process.threads.values()):
        exit_task(thread)


def _end_process(process: Process) -> None:
    """The last thread is gone: a zombie, whose parent is told; its own children are orphans now."""
    kernel = process.kernel
    if process.exit_status is None and process.death is None:
        process.exit_status = 0
    process.zombie = True
    process.run_from(None)
    process.end_events.wake()
    kernel.zombies += 1
    orphans = list(process.children.values())
    for child in orphans:
        child.parent = None
        if child.zombie:
            reap(child)
        else:
            parent_died(child)
    process.children.clear()
    jobs.orphan_groups(process, orphans)
    parent = process.parent
    if parent is None:
        reap(process)
        return
    action = parent.actions.get(process.exit_signal, bytes(32))
    handler, flags = int.from_bytes(action[:8], "little"), int.from_bytes(action[8:16], "little")
    unwanted = process.exit_signal == Signal.SIGCHLD and (handler == SIG_IGN or flags & SA_NOCLDWAIT)
    if 0 < process.exit_signal <= LAST_SIGNAL and not (unwanted and handler == SIG_IGN):
        kernel.send_signal(parent, child_info(process))
    if unwanted:
        reap(process)
    parent.child_events.wake()


def parent_died(child: Process) -> None:
    """Threads that asked for it get their signal (PR_SET_PDEATHSIG)."""
    for thread in child.threads.values():
        if thread.parent_death_signal:
            child.kernel.send_signal(child, by_process(thread.parent_death_signal, 0, 0))


def child_info(process: Process) -> SigInfo:
    """The siginfo of SIGCHLD (or what clone asked for) for a process that has ended (sigaction(2), si_code)."""
    death = process.death
    code = CLD_EXITED if death is None else CLD_DUMPED if process.dumped_core else CLD_KILLED
    status = process.exit_status or 0 if death is None else int(death.signal)
    return SigInfo(process.exit_signal or Signal.SIGCHLD, code, child_payload(process, status))


def child_payload(process: Process, status: int) -> bytes:
    """si_pid, si_uid, si_status, si_utime and si_stime (in ticks of 10 ms)."""
    uid = process.leader.uid if process.leader is not None else 0
    ticks = process.cpu_time // 10_000_000
    return (
        process.pid.to_bytes(4, "little")
        + uid.to_bytes(4, "little")
        + status.to_bytes(8, "little")
        + ticks.to_bytes(8, "little")
        + bytes(8)
    )


def reap(process: Process) -> None:
    """Forget a zombie."""
    process.kernel.zombies -= 1
    process.kernel.processes.pop(process.pid, None)
    if process.parent is not None:
        process.parent.children.pop(process.pid, None)
        accounting.reaped(process.parent, process)
