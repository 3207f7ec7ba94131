"""The commands there are: where the parser of each is made, and what runs it.

Both are imported when they are asked for, so that a run does not wait for the options of all the others.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

from mmuemu.options import (
    count,
    debug_option,
    machine_options,
    report_options,
    seconds,
    speculation_options,
    trace_options,
    view_options,
)
from mmuemu.reporter import page_options
from mmuemu.resumer import save_options


class Command(NamedTuple):
    """A command, by ``module:function`` of what adds its parser and of what runs it."""

    parser: str
    main: str

    def add(self, commands: Any) -> None:
        """Add the parser, and those that come with it, to argparse's sub-parsers."""
        _function(self.parser)(commands)

    def run(self, options: argparse.Namespace) -> int:
        """Do what the options say; the exit code."""
        # What an import makes lives to the end: the collector need not look at it, again and again.
        gc.disable()
        try:
            main = _function(self.main)
        finally:
            gc.freeze()
            gc.enable()
        code: int = main(options)
        return code


def _function(place: str) -> Callable[[Any], Any]:
    module, _, name = place.partition(":")
    found: Callable[[Any], Any] = getattr(import_module(module), name)
    return found


COMMANDS: Final = {
    "run": Command("mmuemu.commands:run_options", "mmuemu.runner:run"),
    "boot": Command("mmuemu.commands:boot_options", "mmuemu.booter:boot"),
    "layouts": Command("mmuemu.commands:layouts_options", "mmuemu.commands:layouts"),
    "cpus": Command("mmuemu.commands:cpus_options", "mmuemu.commands:cpus"),
    "explain": Command("mmuemu.commands:explain_options", "mmuemu.explainer:explain"),
    "maps": Command("mmuemu.inspect_options:maps_options", "mmuemu.inspector:show_maps"),
    "translate": Command("mmuemu.inspect_options:translate_options", "mmuemu.inspector:show_translation"),
    "pagetable": Command("mmuemu.inspect_options:pagetable_options", "mmuemu.inspector:show_tables"),
    "demo": Command("mmuemu.commands:demo_options", "mmuemu.demo:demo"),
    "resume": Command("mmuemu.resumer:resume_options", "mmuemu.resumer:resume"),
    "lab": Command("mmuemu.lab:lab_options", "mmuemu.lab:lab"),
    "doctor": Command("mmuemu.doctor:doctor_options", "mmuemu.doctor:doctor"),
    "sweep": Command("mmuemu.sweep.door:sweep_options", "mmuemu.sweep.door:sweep"),
    "bench": Command("mmuemu.bencher:bench_options", "mmuemu.bencher:bench"),
}
"""By name, in the order of ``--help``."""

_EPILOG: Final = """\
exit codes of `mmuemu run`:
  0-123        the program's own
  124          a limit was reached (--timeout, --max-instructions)
  125          mmuemu failed, or its options are wrong
  126          PROGRAM cannot be loaded
  127          PROGRAM was not found
  128+N        the program died of signal N
"""


_BOOT_EPILOG: Final = """\
exit codes of `mmuemu boot`:
  odd          (code << 1) | 1, from the kernel's write of code to port 0xf4
  0            the kernel switched the machine off, or reset it
  120          triple fault
  122          halted for ever
  124          a limit was reached (--timeout, --max-instructions)
  125          mmuemu failed, or its options are wrong
  126          KERNEL cannot be loaded
  127          KERNEL was not found
"""


_DEMO_EPILOG: Final = """\
exit codes of `mmuemu demo NAME`:
  0            all bytes leaked
  1            not all of them did
  125          mmuemu failed, or its options are wrong
"""


def run_options(commands: Any) -> None:
    """The parser of ``run``."""
    run = commands.add_parser(
        "run",
        help="run a Linux x86-64 program",
        usage="mmuemu run [options] PROGRAM [ARGS...]",
        description="Run PROGRAM in user mode on guest page tables. PROGRAM is a Linux x86-64 ELF file, an assembly "
        "source (.s) or a C source (.c). Options stop at PROGRAM; the rest is the program's.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    machine_options(run)
    speculation_options(run)
    view_options(run)
    report_options(run)
    save_options(run)
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGS...]", help=argparse.SUPPRESS)


def boot_options(commands: Any) -> None:
    """The parser of ``boot``."""
    boot = commands.add_parser(
        "boot",
        help="boot a bare-metal x86-64 kernel",
        usage="mmuemu boot [options] KERNEL",
        description="Boot KERNEL, a multiboot 1 image (entered in 32-bit protected mode) or a 64-bit ELF file "
        "(entered in long mode on an identity map), on a PC with one CPU. COM1 is standard input and output.",
        epilog=_BOOT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    boot.add_argument("--mmu", choices=("python", "native"), default="python", help="who walks the page tables")
    boot.add_argument("--cpu", metavar="NAME", default="default", help="CPU model, which CPUID shows (see the docs)")
    boot.add_argument(
        "--seed", type=int, metavar="N", help="delay interrupts a little: they fall on other instructions, repeatably"
    )
    boot.add_argument("--memory", metavar="SIZE", default="128M", help="physical memory (default: 128M)")
    boot.add_argument(
        "--entry",
        choices=("auto", "multiboot", "long"),
        default="auto",
        help="how KERNEL is entered (default: multiboot if it has such a header, else long)",
    )
    boot.add_argument("--append", metavar="TEXT", default="", help="the kernel's command line")
    boot.add_argument("--module", metavar="FILE", action="append", default=[], help="pass FILE as a boot module")
    boot.add_argument("--timeout", type=seconds, metavar="SECONDS", help="stop after this much time (exit code 124)")
    boot.add_argument("--max-instructions", type=count, metavar="N", help="stop after N instructions (exit code 124)")
    boot.add_argument("--trace", metavar="LIST", help="print exceptions, cr, tlb (separated by commas) as they happen")
    boot.add_argument("--tlb-stats", action="store_true", help="model the TLB; print hits, misses, flushes by cause")
    boot.add_argument(
        "--tlb-strict", action="store_true", help="model the TLB; report every use of a translation gone stale"
    )
    boot.add_argument("--json", metavar="FILE", help="write how the machine ended to FILE")
    save_options(boot)
    page_options(boot, "exceptions, interrupts, address spaces, devices")
    debug_option(boot)
    boot.add_argument("kernel", metavar="KERNEL")


def layouts_options(commands: Any) -> None:
    """The parser of ``layouts``."""
    layouts = commands.add_parser(
        "layouts",
        help="show the address-space layouts there are",
        usage="mmuemu layouts [--json] [NAME|FILE.json...]",
        description="Show address-space layouts, all there are or those named: where user and kernel meet, what lies "
        "where, and how far each moves at random. With --json in the form that --layout FILE.json reads.",
    )
    layouts.add_argument("--json", action="store_true", help="print a layout file")
    layouts.add_argument("names", nargs="*", metavar="NAME|FILE.json")


def cpus_options(commands: Any) -> None:
    """The parser of ``cpus``."""
    cpus = commands.add_parser(
        "cpus",
        help="show the CPU models there are",
        usage="mmuemu cpus [--json] [NAME|FILE.json...]",
        description="Show the CPU models whose transient execution can be modelled, all there are or those named: "
        "their flaws, what Linux mitigates on them by itself, their caches. With --json in the form that --cpu "
        "FILE.json reads.",
    )
    cpus.add_argument("--json", action="store_true", help="print a CPU file, with the source of each number")
    cpus.add_argument("names", nargs="*", metavar="NAME|FILE.json")


def explain_options(commands: Any) -> None:
    """The parser of ``explain``."""
    explain = commands.add_parser(
        "explain",
        help="show a transient window of a saved trace as a picture",
        usage="mmuemu explain [options] TRACE",
        description="Show one transient window of TRACE, which mmuemu run --trace-file wrote: its instructions against "
        "cycles, what waited for what, which lines it filled, and what happened in words.",
    )
    explain.add_argument("--window", type=count, metavar="N", help="window N (default: the one with the most to see)")
    explain.add_argument("--list", action="store_true", help="list the windows, a line each")
    explain.add_argument("--all", action="store_true", help="show every instruction of a long window")
    explain.add_argument("--svg", metavar="FILE", help="write the picture to FILE as SVG, too")
    explain.add_argument("--width", type=count, metavar="N", help="columns (default: the terminal's)")
    explain.add_argument("trace", metavar="TRACE")


def demo_options(commands: Any) -> None:
    """The parser of ``demo``."""
    demo = commands.add_parser(
        "demo",
        help="show an attack on a CPU's transient execution",
        usage="mmuemu demo [options] [NAME]\n       mmuemu demo --matrix [options]",
        description="Run the attack called NAME: what is secret, what leaked, how fast, and because of what. Without "
        "NAME, list the attacks. With --matrix, run them on every CPU and under every mitigation that concerns them.",
        epilog=_DEMO_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    speculation_options(demo, "the first that has the flaw; see mmuemu cpus", None)
    group = demo.add_argument_group("the attack")
    group.add_argument("--bytes", type=count, metavar="N", help="bytes of the secret to leak (default: 4)")
    group.add_argument("--tries", type=count, metavar="N", help="attempts for a byte (default: 10; --matrix: 3)")
    group.add_argument("--budget", type=count, metavar="N", help="guest instructions at most (default: ample)")
    group.add_argument("--seed", type=int, metavar="N", help="repeat a run bit for bit (default: a fresh seed)")
    group = demo.add_argument_group("many attacks")
    group.add_argument("--matrix", action="store_true", help="attacks by CPUs and by mitigations, on all cores")
    group.add_argument("--attacks", metavar="LIST", help="these attacks only")
    group.add_argument("--cpus", metavar="LIST", help="these CPUs only")
    group.add_argument("--jobs", type=count, metavar="N", help="processes at once (default: as many as cores)")
    group = demo.add_argument_group("reports")
    group.add_argument("--json", metavar="FILE", help="write the result to FILE")
    group.add_argument("--report", metavar="FILE", help="write the result to FILE as one HTML page")
    trace_options(group)
    demo.add_argument("name", nargs="?", metavar="NAME", help=argparse.SUPPRESS)


def layouts(options: argparse.Namespace) -> int:
    """Show layouts."""
    from mmuemu.loader.layout_file import show

    show(options.names, options.json)
    return 0


def cpus(options: argparse.Namespace) -> int:
    """Show CPU models."""
    from mmuemu.speculation.listing import show_cpus

    show_cpus(options.names, options.json)
    return 0
