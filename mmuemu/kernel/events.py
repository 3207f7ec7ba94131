"""What scripts are told of, and how they change a system call: the hooks of one kernel.

A list of callbacks each; an empty one costs a test for truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.registers import ORIG_AX
from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE, Syscall, forms
from mmuemu.kernel.task import State, Task
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.vma import Vma

_SCHED_YIELD: Final = 24
_HANDLED: Final = object()
"""In ``task.call_state``: the callbacks have been asked, and the delay they wanted is on."""


class FaultEvent(NamedTuple):
    """A page fault of a task, after the kernel has looked at it.

    ``address`` is exact for a refused access and the page's for one that was resolved by mapping the page.
    """

    task: Task
    address: int
    error_code: int
    """The bits of the SDM, volume 3, section 4.7."""
    resolved: bool
    """The access is repeated; otherwise the task gets a signal."""
    signal: int = 0
    """The signal, and its si_code; 0 of a fault that was resolved."""
    si_code: int = 0
    ip: int = 0
    """Where the instruction that was refused lies."""


class SignalEvent(NamedTuple):
    """What happens to a signal, in this order: ``sent`` or ``ignored``, ``delivered``, ``handler``, ``return``."""

    what: str
    task: Task
    """The thread it is for; of one that was sent to a process, its first."""
    info: SigInfo | None
    """None for ``return``."""
    sender: Task | None = None
    """Who was running when it was sent; of a signal with an exception behind it, its own victim."""
    to_process: bool = False
    handler: int = 0
    """The handler's address, SIG_DFL or SIG_IGN, where it is delivered; for ``return`` where the task goes on."""


class SwitchEvent(NamedTuple):
    """Another task is put on the CPU."""

    previous: Task | None
    """None: nobody was on it."""
    following: Task
    why: str
    """What the previous one did: ``start`` (there was none), ``exit``, ``sleep``, ``stop``, ``yield``, or ``slice``:
    its time was up."""


@dataclass(slots=True)
class SyscallEvent:
    """A system call that is about to be made; a callback may answer it (:meth:`replace`, :meth:`refuse`)."""

    task: Task
    number: int
    name: str
    arguments: tuple[int, ...]
    """As the call's own function gets them: signed where C is."""
    result: int | None = None
    delay_ns: int = 0

    def replace(self, result: int) -> None:
        """The call is not made; it returns ``result``."""
        self.result = result

    def refuse(self, errno: int | str) -> None:
        """The call is not made; it fails with this error (``"EACCES"`` or its number)."""
        number = Errno[errno] if isinstance(errno, str) else Errno(errno)
        self.result = -number

    def delay(self, seconds: float) -> None:
        """The call is made after that much of the guest's time."""
        self.delay_ns += int(seconds * 1e9)


@dataclass(slots=True)
class Events:
    """The callbacks of one machine."""

    fault: list[Callable[[FaultEvent], object]] = field(default_factory=list)
    fork: list[Callable[[Task, Task], object]] = field(default_factory=list)
    """Parent and child task, a new thread's too."""
    exit: list[Callable[[Process, Task], object]] = field(default_factory=list)
    """A process and its last thread, before its memory goes."""
    space: list[Callable[[AddressSpace], object]] = field(default_factory=list)
    """A new address space, before anything is mapped in it."""
    signal: list[Callable[[SignalEvent], object]] = field(default_factory=list)
    switch: list[Callable[[SwitchEvent], object]] = field(default_factory=list)
    slice: list[Callable[[Task, int | None], object]] = field(default_factory=list)
    """The running task and the instructions it may run (None: until the host's clock, or nobody, interrupts it)."""
    map: list[Callable[[Task, Vma], object]] = field(default_factory=list)
    """A task and the area it has got by mmap, brk or the like."""
    syscall: dict[int, list[Callable[[SyscallEvent], object]]] = field(default_factory=dict)
    """By number of the call."""


def tell_switch(events: Events, previous: Task | None, following: Task) -> None:
    """Tell of a switch; why is what the state of ``previous`` says."""
    if previous is None:
        why = "start"
    elif previous.ended:
        why = "exit"
    elif previous.state is not State.RUNNABLE:
        why = "stop" if previous.state is State.STOPPED else "sleep"
    else:
        why = "yield" if previous.registers[ORIG_AX] == _SCHED_YIELD else "slice"
    for callback in events.switch:
        callback(SwitchEvent(previous, following, why))


def tell_signal(
    what: str, target: Task | Process, info: SigInfo | None, *, sender: Task | None = None, handler: int = 0
) -> None:
    """Tell of a signal. The caller has looked whether anybody listens."""
    task = target if isinstance(target, Task) else next(iter(target.threads.values()), None)
    if task is not None:
        for callback in task.kernel.events.signal:
            callback(SignalEvent(what, task, info, sender, task is not target, handler))


def number_of(name: str | int) -> int:
    """The number of a system call by name. KeyError when no call here has the name."""
    if isinstance(name, int):
        return name
    load_all()
    for number, call in TABLE.items():
        if call.name == name:
            return number
    raise KeyError(name)


def watched(events: Events, number: int) -> Syscall:
    """The call ``number`` with the callbacks asked first; one that does not exist yet can only be answered."""
    load_all()
    plain = TABLE.get(number) or Syscall(number, f"syscall_{number}", ("ulong",) * 6, _missing, forms(*("ulong",) * 6))

    def function(task: Task, *arguments: int) -> int:
        if not task.in_call:
            answer = _ask(events.syscall[number], SyscallEvent(task, number, plain.name, arguments))
            if answer is not None:
                return answer
        elif isinstance(task.call_state, tuple) and task.call_state[0] is _HANDLED:
            deadline = task.call_state[1]
            if task.kernel.clock.now() < deadline:
                raise Blocked(deadline=deadline)
            task.call_state = None
        return plain.function(task, *arguments)

    return Syscall(number, plain.name, plain.kinds, function, plain.forms)


def _ask(callbacks: list[Callable[[SyscallEvent], object]], event: SyscallEvent) -> int | None:
    """The result the callbacks want, or None when the call is to be made; a delay sleeps first."""
    for callback in list(callbacks):
        answer = callback(event)
        if isinstance(answer, int) and not isinstance(answer, bool):
            event.result = answer
    if event.result is not None:
        if -4096 < event.result < 0:
            raise SyscallError(-event.result)
        return event.result
    if event.delay_ns:
        deadline = event.task.kernel.clock.now() + event.delay_ns
        event.task.call_state = (_HANDLED, deadline)
        raise Blocked(deadline=deadline)
    return None


def _missing(_task: Any, *_arguments: int) -> int:
    raise SyscallError(Errno.ENOSYS)
