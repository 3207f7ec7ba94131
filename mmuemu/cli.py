"""The ``mmuemu`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from mmuemu import __version__
from mmuemu.bencher import bench_options
from mmuemu.doctor import doctor_options
from mmuemu.errors import Exit, MmuemuError
from mmuemu.inspect_options import INSPECTING, inspect_options
from mmuemu.lab import lab_options
from mmuemu.reporter import page_options
from mmuemu.resumer import resume_options, save_options
from mmuemu.sweep.door import sweep_options

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


class _Parser(argparse.ArgumentParser):
    """argparse with our exit code for wrong options."""

    def error(self, message: str) -> NoReturn:
        self.exit(Exit.OURS, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mmuemu",
        description="An x86-64 memory-management unit on Unicorn: run programs on page tables you can look at.",
    )
    parser.add_argument("--version", action="version", version=f"mmuemu {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    run = commands.add_parser(
        "run",
        help="run a Linux x86-64 program",
        usage="mmuemu run [options] PROGRAM [ARGS...]",
        description="Run PROGRAM in user mode on guest page tables. PROGRAM is a Linux x86-64 ELF file, an assembly "
        "source (.s) or a C source (.c). Options stop at PROGRAM; the rest is the program's.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _machine_options(run)
    _speculation_options(run)
    _view_options(run)
    _report_options(run)
    save_options(run)
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGS...]", help=argparse.SUPPRESS)
    _boot_options(commands)
    _layouts_options(commands)
    _cpus_options(commands)
    _explain_options(commands)
    inspect_options(commands, (_machine_options, _speculation_options, _view_options), _count)
    _demo_options(commands)
    resume_options(commands, _seconds, _count)
    lab_options(commands, _seconds)
    doctor_options(commands)
    sweep_options(commands, _count)
    bench_options(commands, _seconds, _count)
    return parser


def _cpus_options(commands: argparse._SubParsersAction[_Parser]) -> None:
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


def _speculation_options(
    run: argparse.ArgumentParser, cpu: str = "none; see mmuemu cpus", mitigations: str | None = "off"
) -> None:
    """``cpu`` tells the default in words; ``mitigations`` None: the caller's."""
    group = run.add_argument_group("speculation")
    group.add_argument(
        "--cpu",
        metavar="NAME|FILE.json",
        help=f"model the transient execution of this CPU (default: {cpu})",
    )
    group.add_argument(
        "--mitigations",
        metavar="off|auto|LIST",
        default=mitigations,
        help="what the kernel does against it: nothing, what Linux picks for that CPU, or names separated by commas "
        "(default: off)",
    )
    group.add_argument(
        "--vulnerable", metavar="LIST", default="", help="flaws the CPU has besides its own (or all it can have)"
    )
    group.add_argument("--not-vulnerable", metavar="LIST", default="", help="flaws it does not have (or all)")
    group.add_argument("--noise", type=int, metavar="SEED", help="disturb clock and caches, repeatably (default: not)")


def _explain_options(commands: argparse._SubParsersAction[_Parser]) -> None:
    explain = commands.add_parser(
        "explain",
        help="show a transient window of a saved trace as a picture",
        usage="mmuemu explain [options] TRACE",
        description="Show one transient window of TRACE, which mmuemu run --trace-file wrote: its instructions against "
        "cycles, what waited for what, which lines it filled, and what happened in words.",
    )
    explain.add_argument("--window", type=_count, metavar="N", help="window N (default: the one with the most to see)")
    explain.add_argument("--list", action="store_true", help="list the windows, a line each")
    explain.add_argument("--all", action="store_true", help="show every instruction of a long window")
    explain.add_argument("--svg", metavar="FILE", help="write the picture to FILE as SVG, too")
    explain.add_argument("--width", type=_count, metavar="N", help="columns (default: the terminal's)")
    explain.add_argument("trace", metavar="TRACE")


def _demo_options(commands: argparse._SubParsersAction[_Parser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="show an attack on a CPU's transient execution",
        usage="mmuemu demo [options] [NAME]\n       mmuemu demo --matrix [options]",
        description="Run the attack called NAME: what is secret, what leaked, how fast, and because of what. Without "
        "NAME, list the attacks. With --matrix, run them on every CPU and under every mitigation that concerns them.",
        epilog=_DEMO_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _speculation_options(demo, "the first that has the flaw; see mmuemu cpus", None)
    group = demo.add_argument_group("the attack")
    group.add_argument("--bytes", type=_count, metavar="N", help="bytes of the secret to leak (default: 4)")
    group.add_argument("--tries", type=_count, metavar="N", help="attempts for a byte (default: 10; --matrix: 3)")
    group.add_argument("--budget", type=_count, metavar="N", help="guest instructions at most (default: ample)")
    group.add_argument("--seed", type=int, metavar="N", help="repeat a run bit for bit (default: a fresh seed)")
    group = demo.add_argument_group("many attacks")
    group.add_argument("--matrix", action="store_true", help="attacks by CPUs and by mitigations, on all cores")
    group.add_argument("--attacks", metavar="LIST", help="these attacks only")
    group.add_argument("--cpus", metavar="LIST", help="these CPUs only")
    group.add_argument("--jobs", type=_count, metavar="N", help="processes at once (default: as many as cores)")
    group = demo.add_argument_group("reports")
    group.add_argument("--json", metavar="FILE", help="write the result to FILE")
    group.add_argument("--report", metavar="FILE", help="write the result to FILE as one HTML page")
    _trace_options(group)
    demo.add_argument("name", nargs="?", metavar="NAME", help=argparse.SUPPRESS)


def _layouts_options(commands: argparse._SubParsersAction[_Parser]) -> None:
    layouts = commands.add_parser(
        "layouts",
        help="show the address-space layouts there are",
        usage="mmuemu layouts [--json] [NAME|FILE.json...]",
        description="Show address-space layouts, all there are or those named: where user and kernel meet, what lies "
        "where, and how far each moves at random. With --json in the form that --layout FILE.json reads.",
    )
    layouts.add_argument("--json", action="store_true", help="print a layout file")
    layouts.add_argument("names", nargs="*", metavar="NAME|FILE.json")


def _boot_options(commands: argparse._SubParsersAction[_Parser]) -> None:
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
    boot.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="stop after this much time (exit code 124)")
    boot.add_argument("--max-instructions", type=_count, metavar="N", help="stop after N instructions (exit code 124)")
    boot.add_argument("--trace", metavar="LIST", help="print exceptions, cr, tlb (separated by commas) as they happen")
    boot.add_argument("--tlb-stats", action="store_true", help="model the TLB; print hits, misses, flushes by cause")
    boot.add_argument(
        "--tlb-strict", action="store_true", help="model the TLB; report every use of a translation gone stale"
    )
    boot.add_argument("--json", metavar="FILE", help="write how the machine ended to FILE")
    save_options(boot)
    page_options(boot, "exceptions, interrupts, address spaces, devices")
    _debug_option(boot)
    boot.add_argument("kernel", metavar="KERNEL")


def _machine_options(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("machine")
    group.add_argument(
        "--mmu",
        choices=("python", "native"),
        default="python",
        help="who walks the page tables on a TLB miss: our walk, or the engine's own (default: python)",
    )
    group.add_argument("--memory", metavar="SIZE", default="1G", help="guest physical memory, like 64M (default: 1G)")
    group.add_argument(
        "--max-processes",
        type=_count,
        metavar="N",
        default=4096,
        help="processes, threads and zombies there may be at once (default: 4096)",
    )
    group.add_argument(
        "--max-files",
        type=_count,
        metavar="N",
        default=65536,
        help="files that may be open at once, of all processes together (default: 65536)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="repeat a run bit for bit (default: a fresh seed)")
    group.add_argument(
        "--schedule",
        type=_schedule,
        metavar="SEED|coop",
        help="who runs when: time slices of instruction counts drawn from SEED, or coop: nobody is interrupted "
        "(default: --seed's, or the host's clock without one)",
    )
    group.add_argument("--no-aslr", action="store_true", help="the layout's fixed addresses, for program and kernel")
    group.add_argument(
        "--layout",
        metavar="NAME|FILE.json",
        default="linux",
        help="where user and kernel meet and what lies where (default: linux; see mmuemu layouts)",
    )
    group.add_argument(
        "--kpti", action="store_true", help="page-table isolation: ring 3 runs on tables without the kernel"
    )
    group.add_argument(
        "--user",
        type=_user,
        metavar="UID[:GID]",
        default=(1000, 1000),
        help="who the program runs as; 0 is root, in the guest only (default: 1000)",
    )
    group.add_argument(
        "--show-secret",
        action="store_true",
        help="for labs: /proc/mmuemu tells where the kernel's secret lies, and system call 1000 can be attacked",
    )
    group.add_argument(
        "--clock",
        choices=("host", "virtual"),
        help="the guest's time: the host's, or one that only moves when it is read or slept through "
        "(default: virtual with --seed, else host)",
    )
    group.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="stop after this much time (exit code 124)")
    group.add_argument(
        "--max-instructions", type=_count, metavar="N", help="stop after N guest instructions (exit code 124)"
    )


def _view_options(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("files the guest sees")
    group.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="SRC:DST[:rw]",
        help="show host file or directory SRC as DST; with :rw the guest's changes reach the host",
    )
    group.add_argument("--root", metavar="DIR", help="show DIR as / in place of the host's system directories")
    group.add_argument(
        "--isolate", action="store_true", help="show nothing of the host but the program and what it links to"
    )
    group.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable of the guest's environment"
    )
    group.add_argument("--clear-env", action="store_true", help="do not pass the host's environment on")


def _report_options(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("reports, on standard error")
    group.add_argument("--strace", action="store_true", help="print every system call, as strace -f does")
    group.add_argument(
        "--strace-filter",
        metavar="LIST",
        help="print only these system calls: names, or %%file, %%process, %%signal, %%memory, %%network, %%desc or "
        "%%ipc; after a !, all others (implies --strace)",
    )
    group.add_argument("--strace-file", metavar="FILE", help="write them to FILE, as strace -f -o (implies --strace)")
    group.add_argument(
        "--strace-limit", type=_count, metavar="N", default=32, help="bytes of a string that are shown (default: 32)"
    )
    group.add_argument("--maps", action="store_true", help="print the memory map at the end or the fault")
    group.add_argument("--stats", action="store_true", help="print counts: system calls, faults, TLB fills, memory")
    _trace_options(group)
    group.add_argument("-v", "--verbose", action="store_true", help="print the seed and where things were put")
    group.add_argument("--json", metavar="FILE", help="write how the run ended to FILE")
    page_options(group, "faults, calls, switches, flushes")
    _debug_option(group)


def _trace_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--trace",
        metavar="LIST",
        help="print events as they happen: faults, tlb, sched, signals, and spec, what ran transiently (of a CPU that "
        "speculates); separated by commas",
    )
    group.add_argument(
        "--trace-file", metavar="FILE", help="write them to FILE as JSON lines (without --trace: those of spec)"
    )


def _debug_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "-g",
        "--gdb",
        metavar="[HOST:]PORT",
        help="wait for gdb (target remote) before the first instruction; on 127.0.0.1, at any port for 0",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"not a positive number of seconds: {text}")
    return value


def _schedule(text: str) -> str | int:
    if text == "coop":
        return text
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor coop") from None


def _count(text: str) -> int:
    value = int(text, 0)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


def _user(text: str) -> tuple[int, int]:
    """UID or UID:GID; the group is the user's number when it is not given."""
    uid, colon, gid = text.partition(":")
    try:
        found = int(uid), int(gid if colon else uid)
    except ValueError:
        found = -1, -1
    if not all(0 <= number < 0xFFFF_FFFF for number in found):
        raise argparse.ArgumentTypeError(f"not a user number, or two with a colon: {text}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the process's exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return Exit.OURS
    try:
        if options.command == "layouts":
            from mmuemu.loader.layout_file import show

            show(options.names, options.json)
            return 0
        if options.command == "cpus":
            from mmuemu.speculation.listing import show_cpus

            show_cpus(options.names, options.json)
            return 0
        if options.command == "explain":
            from mmuemu.explainer import explain

            return explain(options)
        if options.command in INSPECTING:
            from mmuemu.inspector import COMMANDS

            return COMMANDS[options.command](options)
        if options.command == "demo":
            from mmuemu.demo import demo

            return demo(options)
        if options.command == "resume":
            from mmuemu.resumer import resume

            return resume(options)
        if options.command == "lab":
            from mmuemu.lab import lab

            return lab(options)
        if options.command == "doctor":
            from mmuemu.doctor import doctor

            return doctor(options)
        if options.command == "sweep":
            from mmuemu.sweep.door import sweep

            return sweep(options)
        if options.command == "bench":
            from mmuemu.bencher import bench

            return bench(options)
        if options.command == "boot":
            from mmuemu.booter import boot

            return boot(options)
        from mmuemu.runner import run

        return run(options)
    except MmuemuError as error:
        print(f"mmuemu: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("mmuemu: the host gives no more memory", file=sys.stderr)
        return Exit.OURS
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.OURS
    except Exception as error:
        if os.environ.get("MMUEMU_DEBUG"):
            raise
        kind = type(error).__name__
        if isinstance(error, ImportError) and not (error.name or "").startswith("mmuemu"):
            print(f"mmuemu: a package is missing or broken: {error} (mmuemu doctor tells more)", file=sys.stderr)
            return Exit.OURS
        print(f"mmuemu: this is a defect of mmuemu: {kind}: {error} (MMUEMU_DEBUG=1 shows where)", file=sys.stderr)
        return Exit.OURS
