"""Options that several commands have, and how their values are read. Readers raise ArgumentTypeError."""

from __future__ import annotations

import argparse

from mmuemu.reporter import page_options


def machine_options(run: argparse.ArgumentParser) -> None:
    """What the machine is made of, and when it stops."""
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
        type=count,
        metavar="N",
        default=4096,
        help="processes, threads and zombies there may be at once (default: 4096)",
    )
    group.add_argument(
        "--max-files",
        type=count,
        metavar="N",
        default=65536,
        help="files that may be open at once, of all processes together (default: 65536)",
    )
    group.add_argument(
        "--thp",
        choices=("always", "madvise", "never"),
        default="always",
        help="transparent huge pages: where one fault maps 2 MiB of private anonymous memory (default: always)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="repeat a run bit for bit (default: a fresh seed)")
    group.add_argument(
        "--schedule",
        type=schedule,
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
        type=user,
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
    group.add_argument("--timeout", type=seconds, metavar="SECONDS", help="stop after this much time (exit code 124)")
    group.add_argument(
        "--max-instructions", type=count, metavar="N", help="stop after N guest instructions (exit code 124)"
    )


def speculation_options(
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


def view_options(run: argparse.ArgumentParser) -> None:
    """What of the host the guest sees."""
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


def report_options(run: argparse.ArgumentParser) -> None:
    """What ``mmuemu run`` tells."""
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
        "--strace-limit", type=count, metavar="N", default=32, help="bytes of a string that are shown (default: 32)"
    )
    group.add_argument("--maps", action="store_true", help="print the memory map at the end or the fault")
    group.add_argument("--stats", action="store_true", help="print counts: system calls, faults, TLB fills, memory")
    trace_options(group)
    group.add_argument("-v", "--verbose", action="store_true", help="print the seed and where things were put")
    group.add_argument("--json", metavar="FILE", help="write how the run ended to FILE")
    page_options(group, "faults, calls, switches, flushes")
    debug_option(group)


def trace_options(group: argparse._ArgumentGroup) -> None:
    """``--trace`` and ``--trace-file``."""
    group.add_argument(
        "--trace",
        metavar="LIST",
        help="print events as they happen: faults, tlb, sched, signals, and spec, what ran transiently (of a CPU that "
        "speculates); separated by commas",
    )
    group.add_argument(
        "--trace-file", metavar="FILE", help="write them to FILE as JSON lines (without --trace: those of spec)"
    )


def debug_option(parser: argparse._ActionsContainer) -> None:
    """``-g``."""
    parser.add_argument(
        "-g",
        "--gdb",
        metavar="[HOST:]PORT",
        help="wait for gdb (target remote) before the first instruction; on 127.0.0.1, at any port for 0",
    )


def seconds(text: str) -> float:
    """A positive time."""
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"not a positive number of seconds: {text}")
    return value


def schedule(text: str) -> str | int:
    """``coop``, or a seed."""
    if text == "coop":
        return text
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor coop") from None


def count(text: str) -> int:
    """A positive number."""
    value = int(text, 0)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


def user(text: str) -> tuple[int, int]:
    """UID or UID:GID; the group is the user's number when it is not given."""
    uid, colon, gid = text.partition(":")
    try:
        found = int(uid), int(gid if colon else uid)
    except ValueError:
        found = -1, -1
    if not all(0 <= number < 0xFFFF_FFFF for number in found):
        raise argparse.ArgumentTypeError(f"not a user number, or two with a colon: {text}")
    return found
