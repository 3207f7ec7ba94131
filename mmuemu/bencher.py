"""``mmuemu bench``: measure workloads on both engines and on the emulators that are here."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from mmuemu.errors import UsageError
from mmuemu.options import count, seconds
from mmuemu.reporter import open_output

if TYPE_CHECKING:
    from mmuemu.bench.contestants import Contestant
    from mmuemu.bench.figures import Measurement, Row
    from mmuemu.bench.measuring import Plan
    from mmuemu.bench.workloads import Workload

_ROUNDS: Final = 5
_LIMIT: Final = 60.0
_EPILOG: Final = """\
exit codes of `mmuemu bench`:
  0            measured
  1            an engine of mmuemu gave a wrong output, or did not finish
  125          mmuemu failed, or its options are wrong
  130          stopped by Ctrl-C; what was complete is shown
"""


def bench_options(commands: Any) -> None:
    """The parser of ``bench`` among ``commands``."""
    bench = commands.add_parser(
        "bench",
        help="measure both engines and other emulators",
        usage="mmuemu bench [options] [WORKLOAD...]",
        description="Measure WORKLOADs (all) on both engines, on bare Unicorn, and on qemu-user, Qiling and blink "
        "where they are found: CPU time of whole processes, in interleaved rounds, each output compared with the "
        "host's.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("--list", action="store_true", help="list the workloads and what one unit of each is")
    bench.add_argument(
        "--rounds", type=count, metavar="N", help=f"rounds that count, after one ({_ROUNDS}; --quick: 1)"
    )
    bench.add_argument("--limit", type=seconds, metavar="SECONDS", default=_LIMIT, help=f"for one run ({_LIMIT:g})")
    bench.add_argument("--quick", action="store_true", help="a tenth of the work, one round: to see that all works")
    bench.add_argument("--engines", metavar="LIST", default="python,native", help="these only (python,native)")
    peers = bench.add_mutually_exclusive_group()
    peers.add_argument("--peers", metavar="LIST", help="these only, of bare, qemu, qiling, blink and your own")
    peers.add_argument("--no-peers", action="store_true", help="none of them")
    bench.add_argument(
        "--peer",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="where a peer is (bare and qiling: the Python that has it), or an emulator of your own that is started "
        "as PATH PROGRAM ARGS",
    )
    bench.add_argument("--from", dest="source", metavar="FILE", help="measure nothing: show what --json wrote")
    bench.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    bench.add_argument("--plot", metavar="FILE.svg", help="draw the figures")
    bench.add_argument("--page", metavar="FILE.md", help="write a page with tables, and its figure beside it")
    bench.add_argument("workloads", nargs="*", metavar="WORKLOAD")


def bench(options: argparse.Namespace) -> int:
    """What ``options`` (of the command line) ask; the exit code. Raises UsageError and MmuemuError."""
    from mmuemu.bench.workloads import chosen

    workloads = chosen(options.workloads)
    if options.list:
        return _list(workloads)
    outputs = list(_outputs(options))
    # Read before anything is opened to be written: it may be the same file.
    found = None if options.source is None else _read(options)
    with ExitStack() as stack:
        files = {name: stack.enter_context(open_output(path, option)) for name, option, path in outputs}
        found = found or _measured(options, workloads)
        _write(found, files)
    from mmuemu.bench.table import parts
    from mmuemu.view.sheet import show

    show(parts(found))
    return 130 if found.interrupted else int(found.failed())


def _list(workloads: list[Workload]) -> int:
    from mmuemu.view.sheet import Sheet, show

    sheet = Sheet(["workload", "one unit is"])
    for workload in workloads:
        sheet.add(workload.name, workload.title)
    show([sheet])
    return 0


def _outputs(options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """(what, option, path) of each file to be written."""
    for name in ("json", "plot", "page"):
        if getattr(options, name) is not None:
            yield name, f"--{name}", getattr(options, name)
    if options.page is not None:
        yield "figure", "--page", str(_figure(Path(options.page)))


def _figure(page: Path) -> Path:
    """Where the figure of a page goes. UsageError when that is the page itself."""
    if page.suffix == ".svg":
        raise UsageError(f"--page {page}: write a name for Markdown, like benchmarks.md")
    return page.with_suffix(".svg")


def _write(found: Measurement, files: dict[str, IO[str]]) -> None:
    from mmuemu.bench.page import page
    from mmuemu.bench.plot import draw

    texts: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(found.as_json(), indent=2) + "\n",
        "plot": lambda: draw(found),
        "figure": lambda: draw(found),
        "page": lambda: page(found, Path(files["figure"].name).name),
    }
    for name, file in files.items():
        try:
            file.write(texts[name]())
            file.flush()
        except OSError as error:
            raise UsageError(f"{file.name}: {error.strerror}") from None


def _read(options: argparse.Namespace) -> Measurement:
    from mmuemu.bench.figures import read

    found = read(options.source)
    if options.workloads:
        found.rows = [row for row in found.rows if row.name in options.workloads]
    return found


def _measured(options: argparse.Namespace, workloads: list[Workload]) -> Measurement:
    from mmuemu.bench.building import build
    from mmuemu.bench.contestants import engines, given, peers
    from mmuemu.bench.figures import Measurement
    from mmuemu.bench.measuring import Plan, check_host, machine
    from mmuemu.bench.running import stoppable
    from mmuemu.speculation.settings import words

    check_host()
    told = given(options.peer)
    who = engines(words(options.engines))
    wanted = [] if options.no_peers else None if options.peers is None else words(options.peers)
    others, absent = peers(told, wanted)
    rounds = options.rounds or (1 if options.quick else _ROUNDS)
    with tempfile.TemporaryDirectory(prefix="mmuemu-bench-") as folder:
        built = build(workloads, Path(folder))
        versions = {each.name: each.version for each in [*who, *others]}
        found = Measurement(machine(built.compiler), versions, absent, rounds, options.quick)
        found.left_out = {each.name: built.refused[each.source] for each in workloads if each.source in built.refused}
        workloads = [each for each in workloads if each.name not in found.left_out]
        plan = Plan(Path(folder), rounds, options.limit, options.quick)
        try:
            with stoppable():
                for row in _rows(plan, workloads, [*who, *others]):
                    found.rows.append(row)
        except KeyboardInterrupt:
            found.interrupted = True
    return found


def _rows(plan: Plan, workloads: list[Workload], contestants: list[Contestant]) -> Iterator[Row]:
    """As they come, with a progress bar where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from mmuemu.bench.measuring import measure

    with Progress(
        console=Console(stderr=True), transient=True, refresh_per_second=2, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("bench", total=len(workloads))
        for workload in workloads:

            def told(name: str, workload: str = workload.name) -> None:
                progress.update(task, description=f"{workload}, {name}")

            yield measure(plan, workload, contestants, told)
            progress.advance(task)
