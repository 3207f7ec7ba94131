"""``mmuemu run``: from parsed options to a machine, and from its end to reports and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mmuemu.errors import BadImage, Exit, MmuemuError, UsageError
from mmuemu.kernel.registers import IP, ORIG_AX
from mmuemu.kernel.task import State
from mmuemu.machine import Files, Machine, NotFound, Outcome
from mmuemu.memory.ram import parse_size
from mmuemu.reporter import Reporter, open_output
from mmuemu.resumer import check, go
from mmuemu.sourcefile import is_source
from mmuemu.speculation.flaws import FLAWS
from mmuemu.tracing import CallTrace, call_trace, machine_trace

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task

JSON_VERSION = 1
LEAST_MEMORY = 1 << 20
"""``--memory``, in bytes: enough for the kernel's own tables and a small program."""
MOST_MEMORY = 1 << 40


def run(options: Namespace) -> int:
    """Run the program that ``options`` (of the command line) name; the exit code."""
    if options.program and options.program[0] == "--":
        options.program = options.program[1:]
    if not options.program:
        raise UsageError("run: which PROGRAM? (see mmuemu run --help)")
    check(options)
    _check_debugging(options)
    program, arguments = find_program(options.program, options)
    machine = machine_of(options)
    try:
        return _run(machine, program, arguments, options)
    finally:
        machine.close()


def machine_of(options: Namespace, seed: int | None = None) -> Machine:
    """The machine that ``options`` (of the command line) describe, with another seed if one is given."""
    files = Files(root=options.root, mounts=options.mount, isolate=options.isolate, max_files=options.max_files)
    return Machine(
        memory=_memory(options.memory),
        mmu=options.mmu,
        seed=options.seed if seed is None else seed,
        aslr=not options.no_aslr,
        layout=options.layout,
        kpti=options.kpti,
        cpu=options.cpu,
        mitigations=options.mitigations,
        vulnerable=options.vulnerable,
        not_vulnerable=options.not_vulnerable,
        noise=options.noise,
        show_secret=options.show_secret,
        files=files,
        schedule=options.schedule,
        max_processes=options.max_processes,
        thp=options.thp,
        user=options.user,
        virtual_time=None if options.clock is None else options.clock == "virtual",
    )


def _check_debugging(options: Namespace) -> None:
    """What cannot be had together with gdb."""
    if options.gdb is None:
        return
    for name, value in (("--cpu", options.cpu), ("--timeout", options.timeout),
                        ("--max-instructions", options.max_instructions)):  # fmt: skip
        if value is not None:
            raise UsageError(f"-g does not go with {name}")


def _memory(text: str) -> int:
    """The bytes that ``--memory`` asks for."""
    try:
        size = parse_size(text)
    except UsageError as error:
        raise UsageError(f"--memory: {error}") from None
    if not LEAST_MEMORY <= size <= MOST_MEMORY:
        raise UsageError(f"--memory {text}: give at least {LEAST_MEMORY >> 20}M and at most {MOST_MEMORY >> 40}T")
    return size


def find_program(command: list[str], options: Namespace) -> tuple[str | bytes, list[str]]:
    """What to load, and the guest's argv."""
    name, *rest = command
    if options.root is None and os.path.isdir(name):
        raise BadImage(name, "is a directory")
    if is_source(name):
        if not os.path.exists(name):
            raise NotFound(f"{name}: no such file")
        from mmuemu.sources import build

        stem = os.path.splitext(os.path.basename(name))[0]
        return build(name), [stem, *rest]
    if os.sep in name or options.root is not None:
        if options.root is None and not os.path.exists(name):
            raise NotFound(f"{name}: no such file")
        return name, command
    if os.path.isfile(name) and not _on_path(name):
        raise NotFound(f"{name}: not found on PATH (did you mean ./{name}?)")
    found = _on_path(name)
    if found is None:
        raise NotFound(f"{name}: not found on PATH")
    return found, command


def _on_path(name: str) -> str | None:
    from shutil import which

    return which(name) if name else None


def environment_of(options: Namespace) -> dict[str, str]:
    environment = {} if options.clear_env else dict(os.environ)
    for setting in options.env:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {setting}: write NAME=VALUE")
        environment[name] = value
    return environment


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _run(machine: Machine, program: str | bytes, arguments: list[str], options: Namespace) -> int:
    report = None if options.json is None else open_output(options.json, "--json")
    reporter = Reporter(options)
    try:
        with call_trace(machine, options, _say) as trace:
            outcome = _traced(machine, program, arguments, options, trace, reporter)
        after(machine, outcome, options)
        if report is not None:
            with report:
                import json

                json.dump(facts(machine, outcome, arguments), report, indent=2)
                report.write("\n")
        reporter.write(machine, outcome, arguments, lambda: facts(machine, outcome, arguments))
    finally:
        reporter.close()
    return outcome.exit_code


def _traced(
    machine: Machine,
    program: str | bytes,
    arguments: list[str],
    options: Namespace,
    trace: CallTrace,
    reporter: Reporter,
) -> Outcome:
    """Load the program and run it to its end, under the traces that ``options`` ask for."""
    say = trace.say
    listen(machine, say)
    task = machine.load(program, arguments, environment_of(options))
    trace.started(task)
    if options.verbose:
        say(_placement(machine))
    # What start-up made lives to the end: the collector need not look at it again and again.
    gc.freeze()
    with machine_trace(machine, options, task.exe, arguments, say):
        reporter.begin(machine)
        try:
            if options.gdb is not None:
                from mmuemu.gdbstub.door import debug_machine

                debug_machine(machine, options.gdb, say)
            return go(machine, options)
        except UsageError:
            raise
        except MmuemuError as error:
            say(f"mmuemu: {error}\n")
            return Outcome(error.exit_code)
        finally:
            reporter.end()


def listen(machine: Machine, say: Callable[[str], object]) -> None:
    """Have said what goes wrong while the machine runs."""
    kernel = machine.kernel
    kernel.on_unknown_syscall = lambda number: say(f"mmuemu: system call {number} is not implemented (ENOSYS)\n")
    kernel.on_oom_kill = lambda process, pages: say(
        f"mmuemu: out of memory ({kernel.ram.size >> 20} MiB, --memory): killed process {process.pid} ({process.exe}), "
        f"{pages} pages\n"
    )


def _placement(machine: Machine) -> str:
    task = machine.task
    assert task is not None
    layout = machine.kernel.memory.layout
    return (
        f"mmuemu: seed {machine.seed} (repeat with --seed {machine.seed})\n"
        f"mmuemu: entry {task.entry:#x}, brk {task.mm.start_brk:#x}, mmap base {task.mm.mmap_base:#x}, "
        f"stack {task.mm.start_stack:#x}\n"
        f"mmuemu: layout {machine.kernel.layout.name}\n"
        f"mmuemu: kernel text {layout.text:#x}, direct map {layout.direct_map:#x}, stacks {layout.vmalloc:#x}\n"
    )


def after(machine: Machine, outcome: Outcome, options: Namespace) -> None:
    """What people want to know about the end."""
    kernel, task = machine.kernel, machine.task
    assert task is not None
    if task.death is not None:
        from mmuemu.view.fault import explain

        _say(f"mmuemu: {task.exe}: {explain(kernel, task)}\n")
    elif outcome.limit == "timeout":
        _say(f"mmuemu: {task.exe}: stopped after {options.timeout:g} s (--timeout) {_where(kernel, task)}\n")
    elif outcome.limit == "instructions":
        _say(
            f"mmuemu: {task.exe}: stopped after {options.max_instructions} instructions (--max-instructions) "
            f"{_where(kernel, task)}\n"
        )
    if options.maps:
        _say(machine.maps())
    if options.stats:
        _say("".join(f"{name:<28}{value:>16}\n" for name, value in statistics(kernel).items()))


def _where(kernel: Kernel, task: Task) -> str:
    """What the first process was doing."""
    if task.state is State.SLEEPING or task.in_call:
        call = kernel.table.get(task.registers[ORIG_AX])
        return f"while asleep in {'a system call' if call is None else call.name}"
    if task.state is State.STOPPED:
        return "while it was stopped by a signal"
    return f"at {kernel.cpu.rip if task is kernel.current and kernel.cpu.cpl == 3 else task.registers[IP]:#x}"


def statistics(kernel: Kernel) -> dict[str, int]:
    """Counts of a run by name."""
    engine, frames, counts = kernel.cpu.engine, kernel.frames, kernel.statistics
    return {
        "system calls": counts.syscalls,
        "unknown system calls": sum(counts.unknown.values()),
        "processes and threads": kernel.started,
        "context switches": kernel.scheduler.switches,
        "page faults": kernel.page_faults,
        "TLB fills" if engine.name == "python" else "TLB fills by fault": engine.fills,
        "TLB flushes": engine.flushes,
        "TLB growths": engine.growths,
        "frames in use": frames.used,
        "frames at peak": frames.peak,
        "resident guest memory (KiB)": kernel.ram.resident() >> 10,
    }


def facts(machine: Machine, outcome: Outcome, arguments: list[str]) -> dict[str, Any]:
    """How a run ended, for scripts (the fields are documented in docs/reference/cli.md)."""
    kernel, task, settings = machine.kernel, machine.task, machine.speculation_settings
    assert task is not None
    out: dict[str, Any] = {
        "version": JSON_VERSION,
        "program": task.exe,
        "arguments": arguments,
        "exit_code": int(outcome.exit_code),
        "signal": None if outcome.signal is None else int(outcome.signal),
        "limit": outcome.limit,
        "seed": machine.seed,
        "mmu": kernel.cpu.engine.name,
        "layout": kernel.layout.name,
        "kpti": kernel.options.kpti,
        "cpu": None if settings is None else settings.spec.name,
        "flaws": [] if settings is None else [name for name in FLAWS if name in settings.flaws],
        "mitigations": None if settings is None else str(settings.mitigations),
        "instructions": machine.instructions,
        "statistics": statistics(kernel),
        "unknown_syscalls": {str(number): count for number, count in kernel.statistics.unknown.items()},
        "fault": None,
        "maps": machine.maps().splitlines(),
    }
    if task.death is not None:
        from mmuemu.view.fault import describe

        out["fault"] = describe(kernel, task)
    return out


__all__ = ["Exit", "facts", "run", "statistics"]
