"""The machine: memory, CPU, kernel and files put together, for the command line and for scripts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.watchdog import Expired, Watchdog
from mmuemu.errors import Exit, MmuemuError, UsageError
from mmuemu.kernel.exec import Loader, NotFound
from mmuemu.kernel.files.namespace import ViewOptions, build_namespace
from mmuemu.kernel.kernel import DEFAULT_MAX_PROCESSES, Kernel, Options
from mmuemu.kernel.maps import maps_text
from mmuemu.kernel.syscalls import load_all

if TYPE_CHECKING:
    from mmuemu.kernel.files.namespace import MountTree
    from mmuemu.kernel.task import Task


@dataclass(slots=True)
class Outcome:
    """How a run ended: the shell's exit code, the signal that killed the program (or None), and what stopped it."""

    exit_code: int
    signal: int | None = None
    limit: str | None = None
    """``"timeout"`` or ``"instructions"`` when a limit ended the run."""


@dataclass(slots=True)
class Files:
    """What of the host a guest sees (see ``mmuemu run --help``)."""

    root: str | None = None
    mounts: Sequence[str] = ()
    isolate: bool = False
    programs: Sequence[str] = field(default_factory=tuple)
    """Host files shown at their own absolute path whatever else is shown."""
    cwd: str | None = None


class Machine:
    """A machine that runs one Linux program.

    >>> machine = Machine(seed=1)
    >>> machine.load("/bin/true", ["true"])
    >>> machine.run().exit_code
    0
    """

    def __init__(
        self,
        *,
        memory: int = 1 << 30,
        mmu: str = "python",
        seed: int | None = None,
        aslr: bool = True,
        files: Files | None = None,
        virtual_time: bool | None = None,
        max_processes: int = DEFAULT_MAX_PROCESSES,
    ) -> None:
        load_all()
        self.kernel = Kernel(
            Options(
                memory=memory,
                mmu=mmu,
                seed=seed,
                aslr=aslr,
                virtual_time=virtual_time,
                max_processes=max_processes,
            )
        )
        self.files = files or Files()
        self.task: Task | None = None
        self.instructions: int | None = None

    @property
    def seed(self) -> int:
        """The seed that repeats this machine's random choices."""
        return self.kernel.seed

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
        kernel = self.kernel
        view = self._view(program)
        tree = build_namespace(view)
        kernel.attach_files(tree)
        if isinstance(program, bytes):
            name = os.path.basename(os.fsdecode(arguments[0])) if arguments else "program"
            path = b"/tmp/" + os.fsencode(name or "program")
            _put(tree, path, program)
        else:
            path = os.fsencode(program)
        cwd = os.fsencode(view.cwd if view.cwd is not None else os.getcwd())
        if isinstance(program, str) and not os.path.isabs(program):
            path = os.path.join(cwd, path)
        argv = [os.fsencode(value) for value in (arguments or [os.fsdecode(path)])]
        source = os.environ if environment is None else environment
        envp = [os.fsencode(f"{name}={value}") for name, value in source.items()]
        streams = tree.standard_streams(stdin, stdout, stderr)
        context = tree.context(cwd)
        context.sleep = lambda seconds: kernel.clock.sleep(int(seconds * 1e9))
        self.task = Loader(kernel).spawn(path, argv, envp, context, streams)
        return self.task

    def _view(self, program: str | bytes) -> ViewOptions:
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
            hostname=self.kernel.hostname,
            clock=self.kernel.clock.realtime,
            random=self.kernel.random.randbytes,
        )

    def run(self, *, timeout: float | None = None, max_instructions: int | None = None) -> Outcome:
        """Run the loaded program to its end, or to a limit (seconds of host time, guest instructions).

        Raises KeyboardInterrupt on Ctrl-C.
        """
        task = self.task
        if task is None:
            raise UsageError("no program is loaded: call Machine.load first")
        before = self.kernel.cpu.instructions
        with Watchdog(self.kernel.cpu, timeout) as watchdog:
            try:
                stop = self.kernel.run(max_instructions=max_instructions)
            except Expired:
                stop = Stop.INTERRUPTED
            finally:
                task.mm.write_back_all()
        if max_instructions is not None:
            self.instructions = self.kernel.cpu.instructions - before
        if task.death is not None:
            return Outcome(task.death.exit_code, signal=task.death.signal)
        if task.exit_status is not None:
            return Outcome(task.exit_status)
        if stop is Stop.LIMIT:
            return Outcome(Exit.LIMIT, limit="instructions")
        if watchdog.expired:
            return Outcome(Exit.LIMIT, limit="timeout")
        if stop is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        raise MmuemuError(f"the program stopped for no reason known here ({stop.value})")

    def maps(self) -> str:
        """The loaded program's memory map, as /proc/PID/maps shows it."""
        return "" if self.task is None else maps_text(self.task.mm)

    def close(self) -> None:
        """Free what the machine holds of the host."""
        self.kernel.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put(tree: MountTree, path: bytes, content: bytes) -> None:
    """An executable file of the guest's own."""
    inode = tree.make(path, directory=False)
    inode.write_at(0, content)
    inode.set_mode(0o755)


__all__ = ["Files", "Machine", "NotFound", "Outcome"]
