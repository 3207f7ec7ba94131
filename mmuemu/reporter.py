"""``--report`` and ``--svg`` of ``mmuemu run`` and ``boot``: what is recorded of a run, and written in its end."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, Final

from mmuemu import __version__
from mmuemu.errors import UsageError

if TYPE_CHECKING:
    from mmuemu.board import Board, BoardEnd
    from mmuemu.loader.kernel_image import KernelImage
    from mmuemu.loader.multiboot import BootPlan
    from mmuemu.machine import Machine, Outcome
    from mmuemu.view.report.board_maps import Place
    from mmuemu.view.report.board_recording import BoardRecording
    from mmuemu.view.report.events import EventLog
    from mmuemu.view.report.recording import Recording


def page_options(group: argparse._ActionsContainer, what: str) -> None:
    """``--report`` and ``--svg``; ``what`` a timeline shows."""
    group.add_argument(
        "--report",
        metavar="FILE.html",
        help=f"write one page to FILE: memory map, page tables, timeline of {what}",
    )
    group.add_argument("--svg", metavar="FILE", help="write the memory map at the end to FILE as a figure")


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


_HEXADECIMAL: Final = frozenset({"rip", "address", "error_code"})
"""Facts of a fault that are no counts."""


class _Outputs:
    """The files that ``options`` ask for, open. To be closed."""

    def __init__(self, options: Namespace) -> None:
        self._stack = ExitStack()
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

    def _log(self) -> EventLog | None:
        """Where events go, when a page is asked for."""
        from mmuemu.view.report.events import EventLog

        return None if self._page is None else EventLog()

    @property
    def _wanted(self) -> bool:
        return self._page is not None or self._svg is not None

    def close(self) -> None:
        """Close the files."""
        self._stack.close()


class Reporter(_Outputs):
    """The reports of a machine with a kernel; without the options it does nothing."""

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._recording: Recording | None = None

    def begin(self, machine: Machine) -> None:
        """Record from now on, after every other trace has begun. The program is loaded."""
        if not self._wanted:
            return
        from mmuemu.view.report.recording import Recording

        self._recording = Recording(machine.kernel, machine.speculation, self._log())

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
            _write(self._page, run_page(recording, machine, outcome, arguments, facts()), "--report")
        if self._svg is not None:
            self._draw(machine, recording, self._svg)

    def close(self) -> None:
        """Close the files."""
        self.end()
        super().close()

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


class BoardReporter(_Outputs):
    """The reports of a bare machine; without the options it does nothing."""

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._recording: BoardRecording | None = None

    def begin(self, board: Board, image: KernelImage, plan: BootPlan) -> None:
        """Record from now on. The kernel is loaded."""
        if not self._wanted:
            return
        from mmuemu.view.report.board_recording import BoardRecording

        self._recording = BoardRecording(board.bare, board.pc, lambda: board.now, _places(image, plan), self._log())

    def end(self) -> None:
        """Record no more."""
        if self._recording is not None:
            self._recording.close()

    def write(self, kernel: str, end: BoardEnd, facts: Callable[[], dict[str, Any]]) -> None:
        """Write the files; ``facts`` give what --json says. UsageError when the disk takes no more."""
        recording = self._recording
        if recording is None:
            return
        self.end()
        if self._page is not None:
            from mmuemu.view.report.page import page

            shown = {"program": kernel, **_board_facts(recording, end, facts())}
            _write(self._page, page(recording, shown, space="address space"), "--report")
        if self._svg is not None:
            from mmuemu.view.report.svg import draw

            note = f"{recording.last_program}, at the end of the run"
            _write(self._svg, draw(recording.regions, kernel, note), "--svg")


def _board_facts(recording: BoardRecording, end: BoardEnd, facts: dict[str, Any]) -> dict[str, Any]:
    """What the page of a bare machine says of the run."""
    spaces = len(recording.programs)
    ports = [f"{one.name} {one.first:#x}-{one.first + one.size - 1:#x}" for one in recording.ports]
    how = end.reason or f"ended by {end.kind}"
    return {
        "summary": f"{how}; exit code {end.exit_code}, {spaces} address space{'' if spaces == 1 else 's'}",
        "mmuemu": __version__,
        "clock": "virtual",
        **{name: value for name, value in facts.items() if name not in ("kernel", "state")},
        "registers": [f"{name} {value:#x}" for name, value in facts["state"].items()],
        "I/O ports": ", ".join(ports),
    }


def _places(image: KernelImage, plan: BootPlan) -> list[Place]:
    """What was loaded where."""
    from mmuemu.view.report.board_maps import Place

    found = [Place(one.address, one.end, "image", "the kernel's file") for one in image.segments]
    taken = {place.start for place in found}
    return found + [
        Place(one.start, one.end, "module", "boot modules and information")
        for one in plan.occupied
        if one.start not in taken
    ]


def run_page(
    recording: Recording, machine: Machine, outcome: Outcome, arguments: Sequence[str], facts: dict[str, Any]
) -> str:
    """The page of a run; ``facts`` are what --json says."""
    from mmuemu.view.report.page import page

    kernel = machine.kernel
    count = len(recording.processes) + recording.left_out
    more = {"outcome": _words(outcome), "mmuemu": __version__, "aslr": kernel.aslr is not None}
    more["clock"] = "virtual" if kernel.clock.virtual else "host"
    more["summary"] = (
        f"{more['outcome']}; seed {machine.seed}, layout {kernel.layout.name}, ASLR {'on' if kernel.aslr else 'off'}, "
        f"{count} process{'' if count == 1 else 'es'}"
    )
    said = {name: value for name, value in facts.items() if name not in ("maps", "arguments")}
    if said.get("fault"):
        said["fault"] = {name: hex(one) if name in _HEXADECIMAL else one for name, one in said["fault"].items()}
    return page(recording, {**said, **more, "arguments": list(arguments)})


def _words(outcome: Outcome) -> str:
    """How a run ended."""
    if outcome.limit is not None:
        return f"stopped by a limit ({outcome.limit})"
    if outcome.signal is not None:
        from mmuemu.kernel.abi.signals import signal_name

        return f"killed by {signal_name(int(outcome.signal))}"
    return f"exit code {outcome.exit_code}"
