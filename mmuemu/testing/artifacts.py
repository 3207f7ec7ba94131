"""What a failing test leaves: its runs as text for people and as JSON for scripts, and the command that repeats it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mmuemu.errors import printable

if TYPE_CHECKING:
    from mmuemu.machine import Machine
    from mmuemu.testing.bare import BareResult
    from mmuemu.testing.results import Result
    from mmuemu.testing.session import Session
    from mmuemu.view.report.events import EventLog

JSON_VERSION: Final = 1
LAST_CALLS: Final = 50
_LONGEST_NAME: Final = 100
_MOST_PAGES: Final = 4
_MOST_OUTPUT: Final = 4096
"""Bytes of a program's output that are kept, the last ones."""


def file_name(node: str) -> str:
    """A file's name for a test, without an extension; two tests never have the same."""
    name = re.sub(r"[^\w.=-]+", "-", node).strip("-.")
    if name == node and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[-_LONGEST_NAME:]}-{hashlib.sha256(node.encode()).hexdigest()[:8]}"


def write(session: Session, folder: Path, node: str, command: str) -> tuple[list[Path], str]:
    """Write ``NAME.txt``, ``NAME.json`` and a page of each machine, ``NAME.html``, ``NAME-2.html`` ..., for a test that
    failed; that text, the pages, and an account. Raises OSError.
    """
    facts = {
        "version": JSON_VERSION,
        "test": node,
        "repeat": command,
        "options": {name: _plain(value) for name, value in session.options.items()},
        "runs": [_run_facts(result) for result in session.runs],
        "bare_runs": [_bare_facts(result) for result in session.bare_runs],
        "machines": [_machine_facts(machine) for machine in session.machines],
    }
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / file_name(node)
    text = [f"test: {node}", f"repeat: {command}", *(f"\n{_run_text(result)}" for result in session.runs)]
    text += [f"\n{_bare_text(result)}" for result in session.bare_runs]
    # Machines whose processes the test started by itself.
    ran = {id(result.machine) for result in session.runs}
    text += [f"\n{_machine_text(machine)}" for machine in session.machines if id(machine) not in ran]
    path = base.with_name(base.name + ".txt")
    path.write_text("\n".join(text) + "\n", encoding="utf-8", errors="backslashreplace")
    base.with_name(base.name + ".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return [path, *_write_pages(session, base, command)], "\n".join(
        repr(result) for result in (*session.runs, *session.bare_runs)
    )


def _write_pages(session: Session, base: Path, command: str) -> list[Path]:
    """The pages of the machines that still stand, the last run's first; their files."""
    from mmuemu.view.report.events import EventLog

    runs: dict[Machine, Result | None] = dict.fromkeys(reversed(session.machines))
    runs = {result.machine: result for result in reversed(session.runs)} | {
        machine: None
        for machine in runs
        if machine.task is not None and machine not in {r.machine for r in session.runs}
    }
    written: list[Path] = []
    for machine, result in list(runs.items())[:_MOST_PAGES]:
        if machine.closed:
            continue
        text = _page(machine, EventLog() if result is None else result.log(), result, command)
        number = f"-{len(written) + 1}" if written else ""
        path = base.with_name(f"{base.name}{number}.html")
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        written.append(path)
    return written


def _page(machine: Machine, log: EventLog, result: Result | None, command: str) -> str:
    from mmuemu.machine import Outcome
    from mmuemu.reporter import run_page
    from mmuemu.runner import facts
    from mmuemu.view.report.recording import Recording

    recording = Recording(machine.kernel, machine.speculation, None)
    recording.log = log
    recording.close()
    outcome = Outcome(0, limit="the test stopped it") if result is None else result.outcome
    return run_page(recording, machine, outcome, [], {**facts(machine, outcome, []), "repeat": command})


def _plain(value: Any) -> Any:
    """A value for JSON."""
    if isinstance(value, (str, int, float)) or value is None:
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    return str(getattr(value, "name", value))


def _output(data: bytes) -> str:
    return data[-_MOST_OUTPUT:].decode("utf-8", "backslashreplace")


def _machine_facts(machine: Machine) -> dict[str, Any]:
    kernel, settings = machine.kernel, machine.speculation_settings
    return {
        "seed": machine.seed,
        "mmu": kernel.cpu.engine.name,
        "layout": kernel.layout.name,
        "kpti": kernel.options.kpti,
        "cpu": None if settings is None else settings.spec.name,
        "mitigations": None if settings is None else str(settings.mitigations),
        "processes": [
            {**process.facts(), "maps": process.maps.splitlines()} for process in machine.processes if process.threads
        ],
    }


def _run_facts(result: Result) -> dict[str, Any]:
    fault = result.fault
    return {
        "program": result.program.name,
        "seed": result.machine.seed,
        "exit_code": result.exit_code,
        "signal": None if result.signal is None else result.signal.name,
        "limit": result.limit,
        "fault": None if fault is None else fault.facts(),
        "refused_faults": [each.facts() for each in result.faults[-10:]],
        "syscalls": [
            {"pid": call.pid, "name": call.name, "args": list(call.args), "result": call.result}
            for call in result.syscalls[-LAST_CALLS:]
        ],
        "leaked": {cause: len(fills) for cause, fills in result.leaked.items()},
        "maps": result.maps.splitlines(),
        "stdout": _output(result.stdout),
        "stderr": _output(result.stderr),
    }


def _run_text(result: Result) -> str:
    machine, fault = result.machine, result.fault
    parts = [_machine_line(machine), repr(result)]
    if fault is not None and fault.walk is not None:
        parts.append(fault.walk_text)
    calls = result.syscalls
    if calls:
        parts.append(f"last system calls ({len(calls[-LAST_CALLS:])} of {len(calls)}):")
        parts += [f"  {call}" for call in calls[-LAST_CALLS:]]
    parts += [f"fetched transiently by {cause}: {len(fills)} lines" for cause, fills in result.leaked.items()]
    parts += ["maps:", *(f"  {line}" for line in result.maps.splitlines())]
    for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
        if data:
            parts += [f"{name}:", *(f"  {printable(line)}" for line in _output(data).splitlines())]
    return "\n".join(parts)


def _bare_facts(result: BareResult) -> dict[str, Any]:
    return {
        "stop": result.stop,
        "fault": None if result.fault is None else result.fault.facts(),
        "registers": {name: f"{value:#x}" for name, value in result.registers.items()},
    }


def _bare_text(result: BareResult) -> str:
    registers = "  ".join(f"{name} {value:#x}" for name, value in result.registers.items())
    return "\n".join([repr(result), *([] if result.fault is None else [result.fault.walk_text]), registers])


def _machine_line(machine: Machine) -> str:
    facts = _machine_facts(machine)
    return "machine: " + ", ".join(f"{name} {value}" for name, value in facts.items() if name != "processes")


def _machine_text(machine: Machine) -> str:
    parts = [_machine_line(machine)]
    for process in machine.processes:
        if process.threads:
            parts += [f"process {process.pid} {printable(process.process.exe)}, maps:"]
            parts += [f"  {line}" for line in process.maps.splitlines()]
    return "\n".join(parts)


__all__ = ["JSON_VERSION", "file_name", "write"]
