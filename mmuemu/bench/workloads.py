"""The table of what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmuemu.errors import UsageError

ENGINES: Final = ("python", "native")


@dataclass(frozen=True, slots=True)
class Workload:
    """One row. The cost of a unit is (CPU of the run with ``count`` - CPU of the one with ``base``) / units between."""

    name: str
    title: str
    """What one unit is."""
    source: str
    """The guest's file in ``guests`` without the suffix; empty for a probe that needs none."""
    count: int = 0
    """What a program is asked for; 0: the run as a whole is what is measured."""
    base: int = 0
    per: int = 1
    """Units for each of ``count``; a probe says itself how many there were."""
    quick: int = 0
    """``count`` with --quick (0: a tenth)."""
    arguments: tuple[str, ...] = ("{count}",)
    """Of the guest; ``{self}`` is the program's own path as the guest sees it."""
    bare: str = ""
    """Whether the bare Unicorn script can do it: as ``program``, or ``exceptions``."""
    others: bool = True
    """Whether emulators of Linux programs can."""
    threads: bool = False
    """The guest needs a C library with threads."""
    probe: str = ""
    """The name of a step of mmuemu's own (:mod:`mmuemu.bench.probes`) in place of a guest."""
    engines: tuple[str, ...] = ENGINES
    options: tuple[str, ...] = ()
    """Of ``mmuemu run``, measured against the same run without; ``{scratch}`` is a directory."""
    loaded: bool = False
    """Measured with every module of mmuemu loaded against the plain run."""

    @property
    def against(self) -> bool:
        """Whether the plain run is measured, too."""
        return bool(self.options) or self.loaded

    def counts(self, quick: bool) -> tuple[int, int]:
        """(count, base) of this measurement."""
        return (self.quick or max(self.count // 10, self.base + 1)) if quick and self.count else self.count, self.base


def _flat(name: str, title: str, source: str, count: int, base: int = 0, per: int = 1) -> Workload:
    """A guest that the bare script can run, too."""
    return Workload(name, title, source, count, base, per, bare="program")


def _bare_metal(name: str, title: str, probe: str) -> Workload:
    return Workload(name, title, "", 100_000, base=1, bare="exceptions", others=False, probe=probe)


def _own(name: str, title: str, source: str, count: int) -> Workload:
    """A step that only mmuemu knows, on the program ``source``."""
    return Workload(name, title, source, count, others=False, probe=name)


def _leak(title: str, attack: str) -> Workload:
    return Workload(
        f"leak-{attack}", f"a byte leaked by {title}", "", 12, base=2, quick=4, others=False, probe=attack,
        engines=("python",),
    )  # fmt: skip


def _thread(name: str, title: str, kind: str, count: int) -> Workload:
    return Workload(name, title, "threads", count, quick=200, arguments=(kind, "{count}"), threads=True)


def _cost(name: str, title: str, options: tuple[str, ...], loaded: bool = False) -> Workload:
    """What something costs a run that does nothing but system calls."""
    return Workload(name, title, "syscalls", 150_000, others=False, options=options, loaded=loaded)


WORKLOADS: Final = (
    Workload("start-up", "a program that says hello, as a whole", "hello", bare="program"),
    _flat("sha256", "SHA-256 of a MiB", "sha256", 16),
    _flat("mandelbrot", "a row of 512 points, in doubles", "mandelbrot", 800),
    _flat("selfmod", "a function written again and called", "selfmod", 250_000),
    _flat("syscalls", "getpid", "syscalls", 100_000),
    _flat("write", "a write to /dev/null", "write", 50_000),
    _flat("touch", "the first touch of a page", "touch", 32_768),
    _flat("sparse", "a page alone in its 2 MiB, touched and given back", "sparse", 8, per=500),
    _flat("retouch", "a page in memory among 16,384, touched again", "retouch", 1_001, base=1, per=16_384),
    Workload("fork", "fork, exit and wait", "fork", 500),
    Workload("cow", "a copy-on-write break, its part of a fork included", "cow", 80, per=500),
    Workload("execve", "vfork, execve, exit and wait", "exec", 300, arguments=("{count}", "{self}")),
    Workload("switches", "sched_yield to another process", "switches", 20_000, others=False),
    Workload("pipes", "a byte to another process and back", "pipes", 4_000),
    _thread("threads", "pthread_create and join", "threads", 1_000),
    Workload(
        "thread-switches", "sched_yield to another thread", "threads", 60_000, arguments=("switches", "{count}"),
        threads=True, others=False,
    ),
    _thread("handoffs", "a handoff by a condition variable", "handoffs", 10_000),
    Workload("signals", "a signal to oneself, handled and returned from", "signals", 10_000),
    Workload("protect", "mprotect, the fault handled, mprotect", "protect", 5_000),
    _bare_metal("page-fault", "#PF on a bare machine, handled and returned from", "pf"),
    _bare_metal("invalid-opcode", "#UD on a bare machine, handled and returned from", "ud"),
    _bare_metal("int", "INT 0x80 on a bare machine, handled and returned from", "int"),
    Workload(
        "windows", "a transient window", "windows", 20_000, others=False, probe="windows", engines=("python",)
    ),
    _leak("Spectre v1", "v1"),
    _leak("Meltdown", "meltdown"),
    _own("restore", "300 instructions, and back to a snapshot", "mandelbrot", 4_000),
    _own("snapshot", "300 instructions, and a snapshot", "mandelbrot", 1_500),
    _cost("strace", "getpid with --strace-file", ("--strace-file", "{scratch}/strace")),
    _cost("report", "getpid with --report", ("--report", "{scratch}/report.html")),
    _cost("off", "getpid with all of mmuemu loaded and none in use", (), loaded=True),
)  # fmt: skip
"""In the order in which they are run and shown."""


def chosen(names: list[str]) -> list[Workload]:
    """The rows called ``names``, in the table's order; all for none. Raises UsageError."""
    known = {workload.name for workload in WORKLOADS}
    for name in names:
        if name not in known:
            raise UsageError(f"bench: unknown workload {name!r}: choose from {', '.join(w.name for w in WORKLOADS)}")
    return [workload for workload in WORKLOADS if not names or workload.name in names]
