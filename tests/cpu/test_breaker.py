"""A run that is ended from another thread ends exactly between two instructions, by both means there are."""

from __future__ import annotations

import random
import threading
import time

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn import x86_const as x86

from mmuemu.cpu import breaker as breakers
from mmuemu.cpu.breaker import Breaker
from mmuemu.sources import assemble

CODE, DATA, STACK, ELF_HEADERS = 0x1000, 0x8000, 0x9800, 0x1000
# Each instruction that stores is followed by one that counts it in a register.
LOOP = """
again: add qword ptr [r8], 1
    inc rax
    push rbx
    pop rcx
    inc rbx
    xchg qword ptr [r8 + 8], rdx
    call one
    jmp again
one: inc rdi
    add qword ptr [r8 + 16], 1
    ret
"""


@pytest.mark.parametrize("means", ["machine code", "two hooks"])
def test_no_instruction_is_executed_twice(means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if means == "two hooks":
        monkeypatch.setattr(breakers, "_stub", lambda: 0)
    elif not breakers._stub():
        pytest.skip("no machine code of ours can be executed here")
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(CODE, 0x1000)
    uc.mem_map(DATA, 0x2000)
    code = assemble(LOOP, "loop.s")[ELF_HEADERS:]
    uc.mem_write(CODE, code)
    uc.reg_write(x86.UC_X86_REG_R8, DATA)
    uc.reg_write(x86.UC_X86_REG_RSP, STACK)
    breaker = Breaker(uc)
    ended, done = threading.Event(), threading.Event()
    draw = random.Random(1)

    def interrupt() -> None:
        while not done.is_set():
            time.sleep(draw.random() * 0.0004)
            breaker.arm()
            ended.wait(1)
            ended.clear()

    thread = threading.Thread(target=interrupt)
    thread.start()
    places = set()
    rip = CODE
    try:
        for _ in range(1500):
            uc.emu_start(rip, 0)
            assert breaker.armed
            rip = uc.reg_read(x86.UC_X86_REG_RIP)
            places.add(rip)
            breaker.disarm()
            adds, _, calls = (int.from_bytes(uc.mem_read(DATA + 8 * word, 8), "little") for word in range(3))
            rax, rbx, rdi = (uc.reg_read(getattr(x86, f"UC_X86_REG_{name}")) for name in ("RAX", "RBX", "RDI"))
            # At the start of a block: the loop, behind the call, the function.
            assert adds == rax == rbx
            assert calls == rdi
            assert rax - rdi in (0, 1)
            ended.set()
    finally:
        done.set()
        ended.set()
        thread.join()
    assert len(places) > 1
