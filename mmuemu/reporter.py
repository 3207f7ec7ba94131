"""``--report`` and ``--svg`` of ``mmuemu run``: what is recorded while a machine runs, and written in the end."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

from mmuemu import __version__
from mmuemu.errors import UsageError

if TYPE_CHECKING:
    from mmuemu.machine import Machine, Outcome
    from mmuemu.view.report.recording import Recording


def open_output(path: str, option: str) -> IO[str]:
    """A file that is written in the end, opened before the run, so that a bad path costs no run. UsageError."""
    try:
        return open(path, "w", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None


def _write(file: IO[str], text: str, option: str) -> None:
    try:
        with file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{option} {file.name}: {error.strerror}") from None


class Reporter:
    """The files that ``options`` ask for, open; with none of them it does nothing. To be closed."""

    def __init__(self, options: Namespace) -> None:
        self._stack = ExitStack()
        self._recording: Recording | None = None
        self._page: IO[str] | None = None
        self._svg: IO[str] | None = None
        try:
            if options.report is not None:
                self._page = self._stack.enter_context(open_output(options.report, "--report"))
            if options.svg is not None:
                self._svg = self._stack.enter_context(open_output(options.svg, "--svg"))
        except UsageError:
            self._stack.close()
            raise

    def begin(self, machine: Machine) -> None:
        """Record from now on, after every other trace has begun. The program is loaded."""
        if self._page is None and self._svg is None:
            return
        from mmuemu.view.report.events import EventLog
        from mmuemu.view.report.recording import Recording

        log = EventLog() if self._page is not None else None
        self._recording = Recording(machine.kernel, machine.speculation, log)

    def end(self) -> None:
        """Record no more, before other traces end."""
        if self._recording is not None:
            self._recording.close()

    def write(
        self, machine: Machine, outcome: Outcome, arguments: Sequence[str], facts: Callable[[], dict[str, Any]]
    ) -> None:
        """Write the files; ``facts`` give what --json says. UsageError when the disk takes no more."""
        recording = self._recording
        if recording is None:
            return
        if self._page is not None:
            from mmuemu.view.report.page import page

            more = {"outcome": _words(outcome), "mmuemu": __version__, "aslr": machine.kernel.aslr is not None}
            more["clock"] = "virtual" if machine.kernel.clock.virtual else "host"
            said = {name: value for name, value in facts().items() if name not in ("maps", "arguments")}
            _write(self._page, page(recording, {**said, **more, "arguments": list(arguments)}), "--report")
        if self._svg is not None:
            self._draw(machine, recording, self._svg)

    @staticmethod
    def _draw(machine: Machine, recording: Recording, file: IO[str]) -> None:
        from mmuemu.view.report.svg import draw

        assert machine.task is not None
        process = machine.task.process
        kernel = machine.kernel
        when = recording.processes.get(process.pid, {}).get("when", "gone")
        note = (
            f"process {process.pid} {when}, layout {kernel.layout.name}, ASLR {'on' if kernel.aslr else 'off'}, "
            f"seed {machine.seed}"
        )
        _write(file, draw(recording.regions.get(process.pid, []), process.exe, note), "--svg")

    def close(self) -> None:
        """Close the files."""
        self.end()
        self._stack.close()


def _words(outcome: Outcome) -> str:
    """How a run ended."""
    if outcome.limit is not None:
        return f"stopped by a limit ({outcome.limit})"
    if outcome.signal is not None:
        from mmuemu.kernel.abi.signals import signal_name

        return f"killed by {signal_name(int(outcome.signal))}"
    return f"exit code {outcome.exit_code}"
