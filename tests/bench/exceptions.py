"""What an exception costs a bare machine: raised, delivered through the guest's IDT, returned from by IRETQ."""

from __future__ import annotations

import time

from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

from mmuemu.cpu.attach import attach
from mmuemu.cpu.bare import BareMetal
from mmuemu.cpu.cpu import Stop
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.segments import KERNEL_CS, KERNEL_GDT

TABLES, IDT, TSS, STACK, HANDLERS = (0xFFFF_8000_0000_0000 + n * 0x1000 for n in range(5))
CODE, ABSENT = 0x40_0000, 0x90_0000
KINDS = {
    # name: (vector, the instruction raised by, what the handler does before IRETQ)
    "#PF": (Vector.PF, b"\x48\x8b\x07", b"\x48\x83\xc4\x08\x48\x83\x04\x24\x03"),  # mov rax, [rdi]; add rsp, 8; +3
    "#UD": (Vector.UD, b"\x0f\x0b", b"\x48\x83\x04\x24\x02"),  # ud2; add qword ptr [rsp], 2
    "int n": (0x80, b"\xcd\x80", b""),
}


def _gate(offset: int) -> bytes:
    low = offset & 0xFFFF | KERNEL_CS << 16 | 0xEE << 40 | (offset >> 16 & 0xFFFF) << 48
    return (low | offset >> 32 << 64).to_bytes(16, "little")


def round_trip(engine: str, kind: str, count: int = 5000) -> float:
    """CPU microseconds of one exception from ring 3, the loop around it included."""
    vector, instruction, handler = KINDS[kind]
    mmu = attach(Uc(UC_ARCH_X86, UC_MODE_64), memory="32M", mmu=engine)
    tss = 0x8900_0000_0067 | (TSS & 0xFF_FFFF) << 16 | (TSS >> 24 & 0xFF) << 56
    gdt = [*KERNEL_GDT, 0, tss, TSS >> 32]
    idt = bytearray(4096)
    idt[vector * 16 : vector * 16 + 16] = _gate(HANDLERS)
    idt[Vector.GP * 16 : Vector.GP * 16 + 16] = _gate(HANDLERS + 0x800)
    mmu.map(TABLES, b"".join(entry.to_bytes(8, "little") for entry in gdt), "rw-", user=False)
    mmu.map(IDT, bytes(idt), "rw-", user=False)
    mmu.map(TSS, bytes(4) + (STACK + 0x1000).to_bytes(8, "little") + bytes(92), "rw-", user=False)
    mmu.map(STACK, 4096, "rw-", user=False)
    mmu.map(HANDLERS, (handler + b"\x48\xcf").ljust(4096, b"\xf4"), "r-x", user=False)
    back = 256 - len(instruction) - 5
    mmu.map(CODE, instruction + b"\x48\xff\xc9\x75" + bytes([back]) + b"\xf4", "r-x")  # dec rcx; jnz; hlt
    BareMetal(mmu.cpu)
    mmu.cpu.set_gdt(TABLES, len(gdt) * 8 - 1)
    mmu.cpu.set_idt(IDT, 0xFFF)
    mmu.cpu.set_tr(0x40, TSS, 103)
    mmu.set_ring(3)
    mmu.cpu.set_registers(rip=CODE, rcx=count, rdi=ABSENT, rflags=0x202)
    began = time.process_time()
    stop = mmu.cpu.run()
    spent = time.process_time() - began
    assert stop is Stop.HALTED
    assert mmu.cpu.registers()["rcx"] == 0
    mmu.detach()
    return spent / count * 1e6


def lines(rounds: int) -> list[str]:
    """The best of ``rounds`` for each kind of exception, and the rate of the exhaustive guest, on both engines."""
    out = []
    for kind in KINDS:
        best = {who: min(round_trip(who, kind) for _ in range(rounds)) for who in ("python", "native")}
        each = "  ".join(f"{who} {value:.1f}" for who, value in best.items())
        out.append(f"{kind + ' and iretq':<16} us, best of {rounds}:  {each}")
    from tests.exhaustive.machine import run

    try:
        rates = "  ".join(f"{who} {run(who, 0, 301).rate:,.0f}" for who in ("python", "native"))
        out.append(f"exhaustive guest checks/s:  {rates}")
    except FileNotFoundError as error:
        out.append(f"exhaustive guest: {error}")
    return out
