"""The engine's TLB grows and shrinks by what the guest does, never by the host's clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

from mmuemu.cpu import library
from mmuemu.cpu.tlbsize import WINDOW, TlbSize
from mmuemu.guest.attacks import program
from mmuemu.x86.exceptions import Vector
from tests.determinism.proof import host_clock

CODE, DATA = 0x40_0000, 0x1000_0000
USER = 1
FIRST = 256
LEAST = 64
"""CPU_TLB_DYN_DEFAULT_BITS and CPU_TLB_DYN_MIN_BITS of QEMU."""


def touch(mmu, asm, pages):
    """Have the guest store to so many pages."""
    if mmu.page_table.lookup(CODE) is None:
        mmu.map(DATA, 2048 * 4096, "rw-")
        mmu.map(CODE, asm("l: mov byte ptr [rdi], 1; add rdi, 4096; dec rcx; jnz l; .byte 0x0f, 0x0b"), "r-x")
        mmu.set_ring(3)
    mmu.cpu.set_registers(rip=CODE, rdi=DATA, rcx=pages)
    assert mmu.run().vector == Vector.UD


def test_it_grows_when_it_is_used_and_shrinks_after_a_number_of_flushes(mmu, asm):
    engine = mmu.cpu.engine
    assert engine.size.entries == [FIRST, FIRST, FIRST]
    touch(mmu, asm, 4 * FIRST)
    engine.flush()
    largest = engine.size.entries[USER]
    assert largest > FIRST
    sizes = {}
    while engine.flushes < 2 * WINDOW:
        touch(mmu, asm, 2)
        engine.flush()
        sizes[engine.flushes] = engine.size.entries[USER]
    changes = [flush for flush in sizes if sizes[flush] != sizes.get(flush - 1, largest)]
    assert changes
    assert all(flush % WINDOW == 0 for flush in changes)
    assert sizes[2 * WINDOW] == LEAST
    assert engine._tlb_size == FIRST, "the other modes' have not been used"


def test_the_hosts_time_shrinks_nothing(mmu, asm):
    engine = mmu.cpu.engine
    touch(mmu, asm, 2)
    time.sleep(0.15)
    engine.flush()
    assert engine.size.entries[USER] == FIRST
    touch(mmu, asm, 2)
    engine.size.expire()
    library.ctl(mmu.cpu.handle, engine._flush_code)
    assert engine.size.entries[USER] == LEAST, "without the rule, 100 ms would have"


@pytest.mark.parametrize("began", [0, 1 << 62])
def test_an_engine_that_keeps_it_elsewhere_is_found_out(began):
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, 4096)
    size = TlbSize(library.handle(uc))
    now = time.time_ns()
    assert size.plausible(now)
    assert not size.plausible(now - 2 * 86_400_000_000_000)
    size._words[2] = began
    assert not size.plausible(now)
    size.hold()
    assert not size.plausible(now)
    size.close()


def test_transient_runs_are_the_same_whatever_the_hosts_clock_does(tmp_path):
    clock = host_clock(tmp_path)
    if clock is None:
        pytest.skip("no gcc")
    traces = []
    for speed in ("0000", "1000"):
        command = [sys.executable, "-m", "mmuemu", "run", "--cpu", "skylake", "--mitigations", "off", "--seed", "7"]
        environment = {**os.environ, "LD_PRELOAD": str(clock), "HOST_CLOCK": speed}
        out = tmp_path / speed
        subprocess.run(
            [*command, "--trace-file", out, program("v1"), "2"], env=environment, check=True, timeout=60,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        traces.append(out.read_bytes())
    assert traces[0] == traces[1]
