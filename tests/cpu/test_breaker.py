"""A run that is ended from another thread ends exactly between two instructions, by both means there are."""

from __future__ import annotations

import os
import random
import threading
import time
from types import SimpleNamespace

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, unicorn_const
from unicorn import x86_const as x86

from mmuemu.cpu import internals, library
from mmuemu.cpu.breaker import ENDED, ExitRequest, HookedStop, new_breaker
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


@pytest.fixture(params=[ExitRequest, HookedStop])
def means(request: pytest.FixtureRequest) -> type[ExitRequest] | type[HookedStop]:
    """Both means of ending a run."""
    return request.param


class Looping:
    """An engine with the loop, and what ends its runs."""

    def __init__(self, means: type[ExitRequest] | type[HookedStop], source: str = LOOP) -> None:
        self.uc = uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.mem_map(CODE, 0x1000)
        uc.mem_map(DATA, 0x2000)
        uc.mem_write(CODE, assemble(source, "loop.s")[ELF_HEADERS:])
        uc.reg_write(x86.UC_X86_REG_R8, DATA)
        uc.reg_write(x86.UC_X86_REG_RSP, STACK)
        self.breaker = new_breaker(uc, hooked=means is HookedStop)
        if not isinstance(self.breaker, means):
            pytest.skip("this is not Linux on x86-64")

    def run(self, rip: int) -> int:
        """Run from ``rip`` until something ends it; where it is then."""
        status = library.emu_start(library.handle(self.uc), rip, 0, 0, 0)
        assert status == (ENDED if isinstance(self.breaker, ExitRequest) else 0)
        assert self.breaker.armed
        return self.uc.reg_read(x86.UC_X86_REG_RIP)


def test_no_instruction_is_executed_twice(means: type[ExitRequest] | type[HookedStop]) -> None:
    looping = Looping(means)
    uc, breaker = looping.uc, looping.breaker
    ended, done = threading.Event(), threading.Event()
    draw = random.Random(1)

    def interrupt() -> None:
        while not done.is_set():
            time.sleep(draw.random() * 0.0004)
            breaker.arm()
            while not ended.wait(0.02):
                breaker.arm()  # a request before the run began is lost
            ended.clear()

    thread = threading.Thread(target=interrupt)
    thread.start()
    places = set()
    rip = CODE
    try:
        for _ in range(1500):
            rip = looping.run(rip)
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


def test_from_a_hook_it_ends_before_the_next_block(means: type[ExitRequest] | type[HookedStop]) -> None:
    looping = Looping(means, "inc rax\n mov ecx, 1\n cpuid\n push rbx\n jmp next\nnext: push rcx\n again: jmp again\n")

    def on_cpuid() -> bool:
        looping.breaker.arm()
        return True

    hooks = library.Hooks(looping.uc)
    hooks.add(unicorn_const.UC_HOOK_INSN, library.BOOL, on_cpuid, x86.UC_X86_INS_CPUID)
    rip = looping.run(CODE)
    assert looping.uc.mem_read(rip, 1) == b"\x51"
    assert looping.uc.reg_read(x86.UC_X86_REG_RSP) == STACK - 8
    assert looping.uc.reg_read(x86.UC_X86_REG_RAX) == 1
    hooks.close()


def test_a_counted_run_ends_behind_any_instruction(means: type[ExitRequest] | type[HookedStop]) -> None:
    """What was asked of the run before is none of its business."""
    looping = Looping(means, "again: push rax\n push rax\n inc rax\n push rax\n jmp again\n")
    looping.breaker.count(True)
    rip, where, pushes = CODE, (0, 1, 2, 5, 6), 0
    for step in range(1, 11):
        looping.breaker.arm()
        looping.breaker.disarm()
        looping.uc.emu_start(rip, 0, count=1)
        rip = looping.uc.reg_read(x86.UC_X86_REG_RIP)
        pushes += step % 5 in (1, 2, 4)
        assert rip == CODE + where[step % 5]
        assert looping.uc.reg_read(x86.UC_X86_REG_RSP) == STACK - 8 * pushes


def test_other_engines_are_given_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no CPU yet, or keeps something else where the fields are, or is for another host."""
    assert isinstance(new_breaker(Uc(UC_ARCH_X86, UC_MODE_64)), HookedStop)
    for name in ("_EXIT_REQUEST", "_DECREMENTER", "_CONTEXT_SIZE", "_CFLAGS_NEXT_TB", "_STOP_REQUEST"):
        with monkeypatch.context() as changed:
            changed.setattr(internals, name, getattr(internals, name) + 4)
            uc = Uc(UC_ARCH_X86, UC_MODE_64)
            uc.reg_read(x86.UC_X86_REG_RIP)
            assert isinstance(new_breaker(uc), HookedStop), name
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.reg_read(x86.UC_X86_REG_RIP)
    assert isinstance(new_breaker(uc), HookedStop)
