"""Steps of mmuemu's own that are measured: ``python -m mmuemu.bench.probes NAME ENGINE COUNT [PROGRAM]``.

A probe does a thing COUNT times and prints ``ok N``, where N is how many of it there were.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mmuemu.machine import Machine

_TABLES, _IDT, _TSS, _STACK, _HANDLERS = (0xFFFF_8000_0000_0000 + n * 0x1000 for n in range(5))
_CODE, _ABSENT = 0x40_0000, 0x90_0000
_EXCEPTIONS: Final = {
    # vector, the instruction raised by, what the handler does before IRETQ
    "pf": (14, b"\x48\x8b\x07", b"\x48\x83\xc4\x08\x48\x83\x04\x24\x03"),  # mov rax, [rdi]; add rsp, 8; +3
    "ud": (6, b"\x0f\x0b", b"\x48\x83\x04\x24\x02"),  # ud2; add qword ptr [rsp], 2
    "int": (0x80, b"\xcd\x80", b""),
}
_STEP: Final = 300
"""Guest instructions between two restores."""


def _gate(offset: int) -> bytes:
    from mmuemu.x86.segments import KERNEL_CS

    low = offset & 0xFFFF | KERNEL_CS << 16 | 0xEE << 40 | (offset >> 16 & 0xFFFF) << 48
    return (low | offset >> 32 << 64).to_bytes(16, "little")


def exception(kind: str, engine: str, count: int) -> int:
    """``count`` (not 0) exceptions of ring 3, delivered through the IDT of a bare machine and ended by IRETQ."""
    from mmuemu.cpu.attach import Attachment
    from mmuemu.cpu.bare import BareMetal
    from mmuemu.x86.segments import KERNEL_GDT

    vector, instruction, handler = _EXCEPTIONS[kind]
    mmu = Attachment(None, 32 << 20, engine)
    tss = 0x8900_0000_0067 | (_TSS & 0xFF_FFFF) << 16 | (_TSS >> 24 & 0xFF) << 56
    gdt = [*KERNEL_GDT, 0, tss, _TSS >> 32]
    idt = bytearray(4096)
    idt[vector * 16 : vector * 16 + 16] = _gate(_HANDLERS)
    back = 256 - len(instruction) - 5
    for linear, content, permissions, user in (
        (_TABLES, b"".join(entry.to_bytes(8, "little") for entry in gdt), "rw-", False),
        (_IDT, bytes(idt), "rw-", False),
        (_TSS, bytes(4) + (_STACK + 0x1000).to_bytes(8, "little") + bytes(92), "rw-", False),
        (_STACK, bytes(4096), "rw-", False),
        (_HANDLERS, (handler + b"\x48\xcf").ljust(4096, b"\xf4"), "r-x", False),
        (_CODE, instruction + b"\x48\xff\xc9\x75" + bytes([back]) + b"\xf4", "r-x", True),  # dec rcx; jnz; hlt
    ):
        mmu.map(linear, content, permissions, user=user)
    BareMetal(mmu.cpu)
    mmu.cpu.set_gdt(_TABLES, len(gdt) * 8 - 1)
    mmu.cpu.set_idt(_IDT, 0xFFF)
    mmu.cpu.set_tr(0x40, _TSS, 103)
    mmu.set_ring(3)
    mmu.cpu.set_registers(rip=_CODE, rcx=count, rdi=_ABSENT, rflags=0x202)
    mmu.run()
    left = mmu.cpu.registers()["rcx"]
    mmu.detach()
    return -1 if left else count


def _started(program: str, engine: str) -> Machine:
    """A machine 400 instructions behind the start of a program that goes on for long."""
    from mmuemu.machine import Machine

    machine = Machine(seed=1, mmu=engine, memory="64M")
    machine.spawn(program, [program, "100000000"], {})
    machine.run(max_instructions=400)
    return machine


def restore(engine: str, count: int, program: str) -> int:
    """``count`` times: run some instructions of ``program``, and restore the machine to a snapshot."""
    with _started(program, engine) as machine:
        here = machine.snapshot()
        for _ in range(count):
            machine.run(max_instructions=_STEP)
            machine.restore(here)
        return count


def snapshot(engine: str, count: int, program: str) -> int:
    """``count`` times: run some instructions of ``program``, and take a snapshot."""
    with _started(program, engine) as machine:
        for _ in range(count):
            machine.run(max_instructions=_STEP)
            machine.snapshot()
        return count


def windows(engine: str, count: int, program: str) -> int:
    """How many transient windows ``count`` unpredictable branches opened."""
    from mmuemu.machine import Machine

    with Machine(seed=1, mmu=engine, memory="64M", cpu="skylake") as machine:
        machine.spawn(program, [program, str(count)], {})
        outcome = machine.run()
        assert machine.speculation is not None
        return -1 if outcome.exit_code else machine.speculation.windows


def leak(attack: str, count: int) -> int:
    """``count`` bytes leaked by an attack; how many of them are right."""
    from mmuemu.demonstrator import Request, demonstrate

    return sum(demonstrate(Request(attack=attack, size=count, seed=1)).right)


def everything(arguments: list[str]) -> int:
    """The command line ``arguments``, with every module of mmuemu loaded that needs nothing but what is installed."""
    import mmuemu
    from mmuemu.cli import main

    for module in pkgutil.walk_packages(mmuemu.__path__, "mmuemu."):
        if module.name.split(".")[1] not in ("__main__", "bench", "labs", "pytest_plugin", "testing"):
            importlib.import_module(module.name)
    gc.collect()
    return main(arguments)


def probe(name: str, engine: str, count: int, program: str) -> int:
    """Run the probe called ``name``; how many there were. KeyError for a name that nobody has."""
    if name in _EXCEPTIONS:
        return exception(name, engine, count)
    if name in _ATTACKS:
        return leak(name, count)
    return _PROBES[name](engine, count, program)


_ATTACKS: Final = ("v1", "meltdown")
_PROBES: Final = {"restore": restore, "snapshot": snapshot, "windows": windows}


def _main(arguments: list[str]) -> int:
    name, *rest = arguments
    if name == "everything":
        return everything(rest)
    engine, count, *program = rest
    print(f"ok {probe(name, engine, int(count), ''.join(program))}")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
