"""The bare machine that the exhaustive guest runs on, and what the guest reports."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn.x86_const import UC_CPU_X86_ICELAKE_SERVER

from mmuemu.cpu.attach import Attachment, attach
from mmuemu.cpu.bare import BareMetal
from mmuemu.x86.paging import PAGE_SIZE, RW, P

SOURCES = Path(__file__).parent / "guest"
# The numbers of guest/layout.h.
RESULTS, IMAGE, WINDOW, USER_PAGE = 0xFFFF_FFFF_9000_0000, 0xFFFF_FFFF_8004_0000, 0xFFFF_FFFF_9001_0000, 0x42_0000
PD, PT, PDPT, FRAME = 0x4000_0000, 0x6000_0000, 0x7000_0000, 0x7000_1000
IN_2M = 0x60 << 12
IN_1G = 5 << 21 | IN_2M
MEMORY = 2 << 30
_FLAGS = [
    *("-std=gnu11", "-O2", "-ffreestanding", "-mno-red-zone", "-mcmodel=kernel", "-mgeneral-regs-only"),
    *("-fno-pic", "-fno-pie", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-nostdlib", "-static", "-Wl,--oformat=binary", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
]
_HEAD = ("part", "parts", "total", "position", "checks", "faults", "mismatches", "deviations", "finished")
_FATAL = ("fatal", "fatal_at", "fatal_first", "fatal_second", "fatal_cr2")
_ENTRY_NAMES = ("PML4E", "PDPTE", "PDE", "PTE")


@cache
def build() -> bytes:
    """The guest's image. Raises FileNotFoundError without gcc."""
    if shutil.which("gcc") is None:
        raise FileNotFoundError("no gcc to build the guest with")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "guest.bin"
        sources = [str(SOURCES / name) for name in ("entry.S", "main.c", "rules.c", "cases.c")]
        subprocess.run(["gcc", *_FLAGS, f"-Wl,-T,{SOURCES / 'guest.ld'}", "-o", str(out), *sources], check=True)
        return out.read_bytes()


@dataclass
class Report:
    """What the guest counted; ``deviations`` are accessed bits that the engine set in refused 1 GiB entries."""

    engine: str
    total: int
    checks: int
    faults: int
    mismatches: int
    deviations: int
    finished: bool
    seconds: float
    fatal: dict[str, int] = field(default_factory=dict)
    list: list[dict[str, object]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Checks a second."""
        return self.checks / self.seconds if self.seconds else 0.0

    def json(self) -> dict[str, object]:
        """The report with its rate, for ``--json``."""
        return {**asdict(self), "checks_per_second": round(self.rate)}


class _Ports:
    """The guest's port for telling how far it has come."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell

    def read(self, port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def write(self, port: int, size: int, value: int) -> None:
        self.tell()


def _map(mmu: Attachment, image: bytes) -> int:
    """The guest's image, results, ring-3 page and window; the physical address of the results."""
    mmu.map(IMAGE, image, "rwx", user=False)
    mmu.map(USER_PAGE, PAGE_SIZE, "rwx")
    mmu.map(RESULTS, 2 * PAGE_SIZE, "rwx", user=False)
    user, found = mmu.page_table.lookup(USER_PAGE), mmu.page_table.lookup(RESULTS)
    assert user is not None
    assert found is not None
    window = (mmu.page_table.root, PDPT, PD, PT, FRAME, PT + IN_2M, PD + IN_1G, user.physical)
    for number, frame in enumerate(window):
        mmu.page_table.map(WINDOW + number * PAGE_SIZE, frame, P | RW)
    return found.physical


def _mismatch(words: list[int]) -> dict[str, object]:
    number, set_, state, kind = words[:4]
    before, expected, after = words[4:8], words[8:12], words[12:16]
    fault, code, got, got_code, address = words[16:]
    access = ("read", "write", "fetch")[kind % 3]
    return {
        "number": number,
        "set": set_,
        "state": state,
        "access": f"{'user' if kind >= 3 else 'supervisor'} {access}",
        "entries": dict(zip(_ENTRY_NAMES, map(hex, before), strict=True)),
        "expected": {"fault": bool(fault), "code": hex(code), "entries": [hex(entry) for entry in expected]},
        "got": {"fault": bool(got), "code": hex(got_code), "cr2": hex(address), "entries": [hex(e) for e in after]},
    }


def run(engine: str, part: int = 0, parts: int = 1, progress: Callable[[int, int, int], None] | None = None) -> Report:
    """Run checks ``part``, ``part + parts``, ... on ``engine``; ``progress`` gets (position, total, checks)."""
    image = build()
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.ctl_set_cpu_model(UC_CPU_X86_ICELAKE_SERVER)
    mmu = attach(uc, memory=MEMORY, mmu=engine)
    try:
        results = _map(mmu, image) >> 3
        words = mmu.ram.qwords
        words[results], words[results + 1] = part, parts

        def tell() -> None:
            if progress is not None:
                progress(words[results + 3], words[results + 2], words[results + 4])

        bare = BareMetal(mmu.cpu, _Ports(tell))
        mmu.set_ring(0)
        mmu.cpu.set_registers(rip=IMAGE, rflags=2)
        began = time.perf_counter()
        mmu.cpu.run()
        seconds = time.perf_counter() - began
        tell()
        head = dict(zip(_HEAD, words[results : results + 9], strict=True))
        fatal = dict(zip(_FATAL, words[results + 9 : results + 14], strict=True)) if words[results + 9] else {}
        if bare.shutdown is not None:
            fatal["triple_fault"] = 1
        first = results + 14
        listed = [list(words[first + 21 * n : first + 21 * n + 21]) for n in range(min(head["mismatches"], 16))]
        del head["part"], head["parts"], head["position"]
        finished = bool(head.pop("finished"))
        return Report(engine, **head, finished=finished, seconds=seconds, fatal=fatal, list=[*map(_mismatch, listed)])
    finally:
        mmu.detach()
