"""The state window says what the public interface says, and refuses a Unicorn it does not know."""

from __future__ import annotations

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn import x86_const as x86

from mmuemu.cpu import window
from mmuemu.cpu.window import REGISTERS, StateWindow
from mmuemu.errors import MmuemuError


@pytest.fixture
def pair():
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    made = StateWindow(uc)
    yield uc, made
    made.close()


@pytest.mark.parametrize("name", sorted(REGISTERS))
def test_every_register_is_where_the_interface_has_it(pair, name):
    uc, state = pair
    number = getattr(x86, f"UC_X86_REG_{name.upper()}")
    uc.reg_write(number, 0x1234_5678_9ABC)
    state.save()
    assert state.q[REGISTERS[name]] == 0x1234_5678_9ABC
    state.q[REGISTERS[name]] = 0x4321
    state.restore()
    assert uc.reg_read(number) == 0x4321


@pytest.mark.parametrize("flags", [0x2, 0x8D7, 0x246, 0x203, 0x402, 0xCD7])
def test_rflags_are_whole(pair, flags):
    uc, state = pair
    state.save()
    state.set_rflags(flags)
    state.restore()
    assert uc.reg_read(x86.UC_X86_REG_EFLAGS) == flags | 2


def test_a_moved_register_is_named(monkeypatch):
    monkeypatch.setattr(window, "_checked", False)
    monkeypatch.setattr(window, "Q_CR3", window.Q_CR3 + 1)
    with pytest.raises(MmuemuError, match=r"Unicorn 2\.\d+\.\d+ keeps CR3 elsewhere.*unicorn>=2\.1\.4"):
        window.check_layout()


def test_a_state_of_another_process_brings_its_registers_and_nothing_else(pair):
    own = bytes(len(pair[1].raw))
    with pytest.raises(ValueError, match="the CPU's state"):
        window.carried(own, own)  # a precision that there is none of
    other = bytearray(own)
    other[window.STATE_OFFSET + window.B_X87_PRECISION] = 80
    for word in (window.Q_RAX, window.Q_RIP, window.Q_CR3, window.Q_LSTAR, window.Q_PKRU, window.Q_DR0 + 7):
        other[window.STATE_OFFSET + 8 * word] = 7
    assert window.carried(own, bytes(other)) == other
    foreign = bytearray(other)
    foreign[:8] = b"\xff" * 8
    for word in (window.Q_DR0 + 8, window.Q_DR0 + 11, 620, 691, 695):
        foreign[window.STATE_OFFSET + 8 * word] = 7
    assert window.carried(own, bytes(foreign)) == other
    with pytest.raises(ValueError, match="the CPU's state"):
        window.carried(own, bytes(other[:-1]))
