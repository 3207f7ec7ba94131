"""The machine: memory, CPU, kernel and files put together, for the command line and for scripts."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.watchdog import Expired, Keyboard, Watchdog
from mmuemu.errors import Exit, MmuemuError, UsageError
from mmuemu.guestprocess import GuestProcess
from mmuemu.kernel.abi.signals import SI_KERNEL, Signal
from mmuemu.kernel.events import FaultEvent, SyscallEvent, number_of
from mmuemu.kernel.exec import Loader, NotFound
from mmuemu.kernel.files.inode import MAX_FILES
from mmuemu.kernel.files.namespace import ViewOptions, build_namespace
from mmuemu.kernel.huge import known_policy
from mmuemu.kernel.kernel import Kernel
from mmuemu.kernel.maps import maps_text
from mmuemu.kernel.options import DEFAULT_MAX_PROCESSES, DEFAULT_USER, Options
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import to_group
from mmuemu.kernel.syscalls import load_usual
from mmuemu.loader.layout_file import check, find_layout
from mmuemu.loader.layouts import Layout
from mmuemu.memory.ram import parse_size
from mmuemu.processor import kernel_options
from mmuemu.speculation.settings import resolve
from mmuemu.standard import Capture, put_program

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Quota
    from mmuemu.kernel.files.namespace import MountTree
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.saving.snapshots import Snapshot, Snapshots
    from mmuemu.speculation.core import Speculation
    from mmuemu.speculation.models import CpuSpec
    from mmuemu.view.mappers import FrameFacts

_GUEST_SIGNALS: Final[dict[int, Signal]] = {
    int(getattr(signal, name)): Signal[name] for name in Keyboard.SIGNALS if hasattr(signal, name)
}
"""The host's number of a terminal's signal -> the guest's."""

_SHORT_RUN: Final = 100_000
"""Instructions of a run that ends by itself before anybody would interrupt it: it needs no thread that listens."""

Callback = TypeVar("Callback", bound=Callable[..., Any])


@dataclass(slots=True)
class Outcome:
    """How a run ended: the shell's exit code, the signal that killed the program (or None), and what stopped it."""

    exit_code: int
    signal: int | None = None
    limit: str | None = None
    """``"timeout"`` or ``"instructions"`` when a limit ended the run, ``"address"`` when it got where it was to go,
    ``"pause"`` when :meth:`Machine.pause` did."""


@dataclass(slots=True)
class Files:
    """What of the host a guest sees (see ``mmuemu run --help``)."""

    root: str | None = None
    mounts: Sequence[str] = ()
    isolate: bool = False
    programs: Sequence[str] = field(default_factory=tuple)
    """Host files shown at their own absolute path whatever else is shown."""
    cwd: str | None = None
    max_files: int = MAX_FILES
    """Open files of all processes together; more is ENFILE."""


class Machine:
    """A machine that runs Linux programs, any number at once; two machines in one interpreter share nothing.

    >>> with Machine(seed=1) as machine:
    ...     machine.spawn("/bin/echo", ["echo", "hello"]).wait().exit_code
    0
    """

    def __init__(
        self,
        *,
        memory: int | str = 1 << 30,
        mmu: str = "python",
        seed: int | None = None,
        aslr: bool = True,
        files: Files | None = None,
        virtual_time: bool | None = None,
        max_processes: int = DEFAULT_MAX_PROCESSES,
        thp: str = "always",
        schedule: str | int | None = None,
        layout: str | Layout = "linux",
        kpti: bool = False,
        user: tuple[int, int] = DEFAULT_USER,
        cpu: str | CpuSpec | None = None,
        mitigations: str | Iterable[str] = "off",
        vulnerable: str | Iterable[str] = (),
        not_vulnerable: str | Iterable[str] = (),
        noise: int | None = None,
        show_secret: bool = False,
    ) -> None:
        """``memory`` is in bytes, or text like ``"64M"``; ``schedule`` is ``"coop"`` or a seed for the time slices
        (None: the machine's seed, if it was given).

        ``thp``: huge pages ``"always"``, by ``"madvise"`` or ``"never"``. ``layout`` is a name, a JSON file or a
        description; ``kpti`` gives ring 3 page tables without the kernel. ``user`` is the user and group number of what
        is started; (0, 0) is root, which in the guest may all.
        ``cpu`` is a CPU model's name, file or description: its transient execution is modelled, with the flaws of the
        model and of ``vulnerable``, less those of ``not_vulnerable``, under ``mitigations`` (``"off"``, ``"auto"``, or
        names; the command line's text with commas will do for each). ``noise`` seeds disturbances; None: none.
        With ``show_secret`` labs find the kernel's secret and the vulnerable system call (docs/reference-guest.md).
        """
        load_usual()
        self.made: dict[str, Any] = {
            "memory": memory, "mmu": mmu, "aslr": aslr, "max_processes": max_processes, "thp": thp,
            "schedule": schedule, "layout": layout, "kpti": kpti, "user": user, "cpu": cpu, "mitigations": mitigations,
            "vulnerable": vulnerable, "not_vulnerable": not_vulnerable, "noise": noise, "show_secret": show_secret,
        }  # fmt: skip
        """What it was made with, for one that is made of its file."""
        size = parse_size(memory) if isinstance(memory, str) else memory
        shape = find_layout(layout) if isinstance(layout, str) else check(layout)
        self.speculation_settings = resolve(
            cpu, mitigations=mitigations, vulnerable=vulnerable, not_vulnerable=not_vulnerable, noise=noise, mmu=mmu,
            kpti=kpti,
        )  # fmt: skip
        """CPU model, flaws and mitigations in force; None: nothing runs transiently."""
        # What leaks is decided by time, which must not be the host's.
        virtual = True if virtual_time is None and self.speculation_settings is not None else virtual_time
        self.kernel = Kernel(
            Options(
                memory=size, mmu=mmu, seed=seed, aslr=aslr, virtual_time=virtual, schedule=schedule,
                layout=shape, max_processes=max_processes, thp=known_policy(thp), show_secret=show_secret, user=user,
                **kernel_options(self.speculation_settings, shape, kpti),
            )
        )  # fmt: skip
        self.speculation = self._speculate()
        """The model of transient execution, None without a CPU model."""
        self.files = files or Files()
        self.task: Task | None = None
        """The main thread of the program that :meth:`load` loaded."""
        self.instructions: int | None = None
        self.program: str | None = None
        """The host file that was loaded first."""
        self._tree: MountTree | None = None
        self._captures: dict[int, tuple[bytearray, bytearray]] = {}
        """What processes that were spawned have written, by their number."""
        self._paused = self.closed = False
        self.snapshots: Snapshots | None = None
        """Who takes snapshots, once there is one."""

    def _speculate(self) -> Speculation | None:
        settings = self.speculation_settings
        if settings is None:
            return None
        from mmuemu.speculation.core import Speculation

        core = Speculation(
            self.kernel.cpu, settings.spec, settings.flaws, frozenset(settings.mitigations.names), noise=settings.noise
        )
        self.kernel.hidden = core
        return core

    @property
    def seed(self) -> int:
        """The seed that repeats this machine's random choices."""
        return self.kernel.seed

    # -- programs ------------------------------------------------------------------------------------------------

    def load(
        self,
        program: str | bytes,
        arguments: Sequence[str | bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        stdin: int | IO[bytes] = 0,
        stdout: int | IO[bytes] = 1,
        stderr: int | IO[bytes] = 2,
    ) -> Task:
        """Load ``program`` (a host path in the guest's view, or the bytes of an ELF file) and make it ready to run.

        ``arguments`` include the program's name. Raises NotFound, BadImage and UsageError.
        """
        self.task = self._start(program, arguments, environment, (stdin, stdout, stderr))
        return self.task

    def spawn(
        self,
        program: str | bytes,
        arguments: Sequence[str | bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        stdin: int | IO[bytes] | bytes = b"",
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> GuestProcess:
        """Start a process, which runs when the machine does (:meth:`GuestProcess.wait`, :meth:`run`).

        As :meth:`load`, but ``stdin`` may be bytes, and output that is given no place is captured for
        :attr:`GuestProcess.stdout` and ``stderr``.
        """
        captured = (bytearray(), bytearray())
        streams: tuple[Any, Any, Any] = (
            io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin,
            Capture(captured[0]) if stdout is None else stdout,
            Capture(captured[1]) if stderr is None else stderr,
        )
        task = self._start(program, arguments, environment, streams)
        if self.task is None:
            self.task = task
        self._captures[task.process.pid] = captured
        return GuestProcess(self, task.process, *captured)

    def _start(
        self,
        program: str | bytes,
        arguments: Sequence[str | bytes] | None,
        environment: Mapping[str, str] | None,
        streams: tuple[int | IO[bytes], int | IO[bytes], int | IO[bytes]],
    ) -> Task:
        kernel = self.kernel
        if self._tree is None and isinstance(program, str):
            self.program = program
        tree = self.open_files(program)
        if isinstance(program, bytes):
            name = os.path.basename(os.fsdecode(arguments[0])) if arguments else "program"
            path = b"/tmp/" + os.fsencode(name or "program")
            put_program(tree, path, program)
        else:
            path = os.fsencode(program)
        cwd = os.fsencode(self.files.cwd if self.files.cwd is not None else os.getcwd())
        if isinstance(program, str) and not os.path.isabs(program):
            path = os.path.join(cwd, path)
        argv = [os.fsencode(value) for value in (arguments or [os.fsdecode(path)])]
        source = os.environ if environment is None else environment
        envp = [os.fsencode(f"{name}={value}") for name, value in source.items()]
        context = tree.context(cwd)
        task = Loader(kernel).spawn(path, argv, envp, context, tree.standard_streams(*streams))
        task.process.watched = True
        return task

    def open_files(self, program: str | bytes | None) -> MountTree:
        """The guests' files, made on first use so that ``program`` is among them."""
        if self._tree is None:
            self._tree = build_namespace(self._view(program))
            self.kernel.attach_files(self._tree)
        return self._tree

    def _view(self, program: str | bytes | None) -> ViewOptions:
        shown = list(self.files.programs)
        if isinstance(program, str) and self.files.root is None and os.path.isfile(program):
            shown.append(os.path.abspath(program))
            if self.files.isolate:
                from mmuemu.linked import linked_files

                shown += linked_files(os.path.abspath(program))
        return ViewOptions(
            root=self.files.root,
            mounts=self.files.mounts,
            isolate=self.files.isolate,
            files=shown,
            cwd=self.files.cwd,
            max_files=self.files.max_files,
            uid=self.kernel.options.user[0],
            gid=self.kernel.options.user[1],
            hostname=self.kernel.hostname,
            clock=self.kernel.clock.realtime,
            random=self.kernel.random.randbytes,
        )

    @property
    def tree(self) -> MountTree | None:
        """What the guests see of files; None before there is a program."""
        return self._tree

    @property
    def quota(self) -> Quota | None:
        """What in-memory files take; None before there are files."""
        return None if self._tree is None else self._tree.quota

    @property
    def processes(self) -> list[GuestProcess]:
        """Every process there is, zombies included, in the order of their numbers."""
        found = sorted(self.kernel.processes.items())
        return [GuestProcess(self, process, *self._captures.get(pid, ())) for pid, process in found]

    # -- running -------------------------------------------------------------------------------------------------

    def run(
        self, *, timeout: float | None = None, max_instructions: int | None = None, keyboard: bool = False
    ) -> Outcome:
        """Run until every process has ended, or to a limit (seconds of host time, guest instructions).

        The outcome is that of the program that was loaded first. Ctrl-C raises KeyboardInterrupt; with ``keyboard``
        it is the guest's, as the terminal's other signals are: they go to the foreground process group, and only a
        third Ctrl-C within two seconds is KeyboardInterrupt. A program that stops then stops this process.
        """
        if self.task is None:
            raise UsageError("no program is loaded: call Machine.load or Machine.spawn first")
        process = self.task.process
        if not keyboard:
            return self._run(process, None, timeout, max_instructions)
        deadline = None if timeout is None else time.monotonic() + timeout
        self.kernel.on_stopped = self._stop_too
        with Keyboard() as keys:
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
                try:
                    return self._run(process, None, left, max_instructions, ending=_GUEST_SIGNALS)
                except KeyboardInterrupt:
                    pressed = keys.take()
                    if not pressed:
                        raise
                    for number in pressed:
                        self._signal_foreground(process, _GUEST_SIGNALS[number])

    def pause(self) -> None:
        """From a callback: let the run end as soon as the instruction or system call at hand is done.

        :meth:`run` then returns an outcome with the limit ``"pause"``; run again to go on.
        """
        self._paused = True
        self.kernel.cpu.stop()

    def _signal_foreground(self, process: Process, number: int) -> None:
        """A terminal's signal for its foreground group, else for the program's own."""
        group = (0 if self._tree is None else self._tree.terminal.foreground) or process.pgid
        if not to_group(self.kernel, group, SigInfo(number, SI_KERNEL)) and number == Signal.SIGINT:
            raise KeyboardInterrupt

    def _stop_too(self) -> None:
        """The first process has stopped and nobody else runs: stop as it did, and continue it when continued."""
        kernel = self.kernel
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSTOP)
        if kernel.main is not None:
            to_group(kernel, kernel.main.pgid, SigInfo(Signal.SIGCONT))

    def run_until(
        self,
        process: Process,
        *,
        timeout: float | None = None,
        max_instructions: int | None = None,
        address: int | None = None,
    ) -> Outcome:
        """Run until ``process`` has ended, or to a limit; how it ended.

        With ``address`` the run also stops before the instruction there, whichever process comes to it first (its
        thread is ``kernel.current``); the outcome's limit is ``"address"`` then.
        """
        return self._run(process, process, timeout, max_instructions, address)

    def _run(
        self,
        process: Process,
        until: Process | None,
        timeout: float | None,
        max_instructions: int | None,
        address: int | None = None,
        ending: Collection[int] = (int(signal.SIGINT),),
    ) -> Outcome:
        kernel = self.kernel
        before = kernel.cpu.instructions
        stop = Stop.REQUESTED
        self._paused = False
        short = timeout is None and max_instructions is not None and max_instructions <= _SHORT_RUN
        watchdog = None if short else Watchdog(kernel.cpu, timeout, ending)
        with watchdog or nullcontext():
            try:
                if until is None or not until.zombie:
                    stop = kernel.run(max_instructions=max_instructions, until=until, address=address)
            except Expired:
                stop = Stop.INTERRUPTED
            finally:
                kernel.write_back()
        if max_instructions is not None:
            self.instructions = kernel.cpu.instructions - before
        if stop is Stop.UNTIL:
            return Outcome(0, limit="address")
        if stop is Stop.LIMIT:
            return Outcome(Exit.LIMIT, limit="instructions")
        if watchdog is not None and watchdog.expired and stop is Stop.INTERRUPTED:
            return Outcome(Exit.LIMIT, limit="timeout")
        if stop is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        if process.death is not None:
            return Outcome(process.death.exit_code, signal=process.death.signal)
        if process.exit_status is not None:
            return Outcome(process.exit_status)
        if self._paused:
            return Outcome(Exit.LIMIT, limit="pause")
        raise MmuemuError(f"the program stopped for no reason known here ({stop.value})")

    # -- events --------------------------------------------------------------------------------------------------

    def on_fault(self, callback: Callback) -> Callback:
        """Decorator: call with a :class:`FaultEvent` after each page fault of a program."""
        self.kernel.events.fault.append(callback)
        return callback

    def on_syscall(self, *names: str | int) -> Callable[[Callback], Callback]:
        """Decorator: call with a :class:`SyscallEvent` before each of the named system calls is made.

        The callback may ``replace`` the call, ``refuse`` it, ``delay`` it, or return the result in its place.
        A number may stand for a call that does not exist here. UsageError for a name nobody knows.
        """
        try:
            numbers = [number_of(name) for name in names]
        except KeyError as unknown:
            raise UsageError(f"on_syscall: there is no system call {unknown.args[0]!r} here") from None
        if not numbers:
            raise UsageError('on_syscall: name the calls: @machine.on_syscall("open", "openat")')

        def register(callback: Callback) -> Callback:
            for number in numbers:
                self.kernel.watch_syscall(number, callback)
            return callback

        return register

    def on_fork(self, callback: Callback) -> Callback:
        """Decorator: call with parent and child :class:`Task` after each fork and thread start."""
        self.kernel.events.fork.append(callback)
        return callback

    def on_exit(self, callback: Callback) -> Callback:
        """Decorator: call with each process (:class:`GuestProcess`) that ends, while its memory is there."""
        self.kernel.events.exit.append(lambda process, _task: callback(GuestProcess(self, process)))
        return callback

    def on_map(self, callback: Callback) -> Callback:
        """Decorator: call with task and area (:class:`Vma`) after each mmap, brk and program start."""
        self.kernel.events.map.append(callback)
        return callback

    # -- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The whole machine as it is now, between two runs (docs/howto-snapshots.md).

        Raises UsageError while it runs, and for something that no snapshot can hold.
        """
        if self.snapshots is None:
            from mmuemu.saving.snapshots import Snapshots

            self.snapshots = Snapshots(self)
        return self.snapshots.take()

    def restore(self, snapshot: Snapshot) -> None:
        """Be again what this machine was at ``snapshot``, as often as wanted; then it goes on as it did.

        What went out to the host stays: output, and what was written to host files. Raises UsageError while the
        machine runs, and for another machine's snapshot.
        """
        if self.snapshots is None:
            raise UsageError("this snapshot is another machine's")
        self.snapshots.restore(snapshot)

    def save(self, path: str) -> None:
        """Write the whole machine to a file, which :meth:`resume` makes a machine of, in another process, too.

        Raises UsageError while it runs, for what a file cannot hold, and for a path that cannot be written.
        """
        from mmuemu.saving.file import save

        save(self, path)

    @classmethod
    def resume(cls, path: str) -> Machine:
        """The machine of a file that :meth:`save` wrote: :meth:`run` it on. Standard streams that were the host's
        are this process's. Raises UsageError for a file that is damaged, of another version or not of mmuemu.
        """
        from mmuemu.saving.file import resume

        return resume(cls, path)

    # -- looking -------------------------------------------------------------------------------------------------

    def maps(self) -> str:
        """The loaded program's memory map, as /proc/PID/maps shows it."""
        return "" if self.task is None else maps_text(self.task.mm)

    def who_maps(self, frame: int) -> FrameFacts:
        """Everyone who has the frame that physical address ``frame`` lies in: processes, the kernel half, the page
        cache, and whose page table it is. UsageError beyond the memory there is."""
        from mmuemu.view.mappers import who_maps

        return who_maps(self.kernel, frame)

    def close(self) -> None:
        """Free what the machine holds of the host, and give a terminal back as it was."""
        self.closed = True
        if self.snapshots is not None:
            self.snapshots.close()
        if self._tree is not None:
            self._tree.close()
        self.kernel.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["FaultEvent", "Files", "GuestProcess", "Machine", "NotFound", "Outcome", "SyscallEvent"]
