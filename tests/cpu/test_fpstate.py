"""FpState agrees with the guest's own FXSAVE64, FXRSTOR64 and arithmetic."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.cpu import window
from mmuemu.cpu.fpstate import FXSAVE_BYTES, PKRU, FpState, xsave_size
from mmuemu.cpu.setup import new_uc
from mmuemu.cpu.window import StateWindow, check_layout
from mmuemu.errors import MmuemuError

CODE, DATA = 0x1000, 0x8000
FXSAVE64 = bytes.fromhex("480fae00")  # fxsave64 [rax]
FXRSTOR64 = bytes.fromhex("480fae08")


class Machine:
    """An engine without paging, its window, and one page for images."""

    def __init__(self) -> None:
        check_layout()
        self.uc = new_uc()
        self.uc.mem_map(0, 0x10000)
        self.window = StateWindow(self.uc)
        self.fp = FpState(self.window)

    def execute(self, code: bytes) -> None:
        from unicorn import x86_const as x86

        self.uc.mem_write(CODE, code + b"\xf4")
        self.uc.ctl_flush_tb()
        self.uc.reg_write(x86.UC_X86_REG_RAX, DATA)
        self.uc.emu_start(CODE, 0)
        self.window.save()

    def guest_image(self) -> bytes:
        self.execute(FXSAVE64)
        return bytes(self.uc.mem_read(DATA, FXSAVE_BYTES))


@pytest.fixture(scope="module")
def machine():
    return Machine()


def known(image: bytes) -> bytes:
    """What both sides store: the engine's FXSAVE leaves out FOP, FIP and FDP, and the upper part of each ST slot."""
    slots = b"".join(image[at : at + 10] + bytes(6) for at in range(32, 160, 16))
    return image[:6] + bytes(18) + image[24:28] + bytes(4) + slots + image[160:416]


images = st.builds(
    lambda control, status, tags, mxcsr, registers, xmm: b"".join(
        [
            struct.pack("<HHBBHQQII", control | 0x40, status & 0x7F7F, tags, 0, 0, 0, 0, mxcsr, 0xFFFF),
            *[low + bytes(6) for low in registers],
            xmm,
            bytes(96),
        ]
    ),
    st.integers(0, 0x1F3F),
    st.integers(0, 0xFFFF),
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.lists(st.binary(min_size=10, max_size=10), min_size=8, max_size=8),
    st.binary(min_size=256, max_size=256),
)


@given(image=images)
@settings(max_examples=60, deadline=None)
def test_what_is_loaded_is_what_the_guest_saves(machine, image):
    machine.window.save()
    machine.fp.fxrstor(image)
    assert known(machine.fp.fxsave())[4:] == known(image)[4:]
    machine.window.restore()
    saved = machine.guest_image()
    assert known(saved) == known(machine.fp.fxsave())


@given(image=images)
@settings(max_examples=60, deadline=None)
def test_what_the_guest_loads_is_what_is_saved(machine, image):
    machine.uc.mem_write(DATA, image)
    machine.execute(FXRSTOR64)
    saved = machine.fp.fxsave()
    assert known(saved)[4:] == known(image)[4:]
    assert saved[0:2] == image[0:2]
    assert saved[416:] == bytes(96)


@pytest.mark.parametrize("rounding", range(4))
def test_rounding_modes_take_effect(machine, rounding):
    """1/3 and -1/3 by SSE and x87, with the modes loaded by the guest and by us."""
    arithmetic = bytes.fromhex(
        "f20f1000"  # movsd xmm0, [rax]
        "f20f5e4008"  # divsd xmm0, [rax+8]
        "f20f114010"  # movsd [rax+16], xmm0
        "dd00"  # fld qword [rax]
        "dc7008"  # fdiv qword [rax+8]
        "db7818"  # fstp tbyte [rax+24]
    )
    results = []
    for ours in (True, False):
        machine.window.save()
        machine.fp.reset()
        image = bytearray(machine.fp.fxsave())
        image[0:2] = struct.pack("<H", 0x037F | rounding << 10)
        image[24:28] = struct.pack("<I", 0x1F80 | rounding << 13)
        if ours:
            machine.fp.fxrstor(bytes(image))
            machine.window.restore()
        else:
            machine.window.restore()
            machine.uc.mem_write(DATA, bytes(image))
            machine.execute(FXRSTOR64)
        for numerator in (1.0, -1.0):
            machine.uc.mem_write(DATA, struct.pack("<dd", numerator, 3.0))
            machine.execute(arithmetic)
            results.append(bytes(machine.uc.mem_read(DATA + 16, 18)))
    assert results[:2] == results[2:]
    exact = struct.unpack("<d", results[0][:8])[0]
    assert (exact > 1 / 3) == (rounding == 2)


def test_an_unmasked_exception_sets_the_summary(machine):
    machine.window.save()
    machine.fp.reset()
    image = bytearray(machine.fp.fxsave())
    image[0:4] = struct.pack("<HH", 0x037B, 0x0004)  # ZE happened, and is not masked
    machine.fp.fxrstor(bytes(image))
    assert machine.fp.x87_exceptions == 4
    assert struct.unpack_from("<H", machine.fp.fxsave(), 2)[0] & 0x8080 == 0x8080
    image[24:28] = struct.pack("<I", 0x1D84)
    machine.fp.fxrstor(bytes(image))
    assert machine.fp.sse_exceptions == 4
    machine.fp.reset()
    assert machine.fp.x87_exceptions == machine.fp.sse_exceptions == 0
    machine.window.restore()


def test_sizes():
    assert xsave_size(3) == 576
    assert xsave_size(3 | PKRU) == 0xA88


@pytest.mark.parametrize("name", ["D_FPUS", "B_FPREGS", "D_MXCSR", "B_SSE_ROUNDING", "D_FPTAGS", "Q_FPIP"])
def test_a_moved_floating_point_register_is_noticed(monkeypatch, name):
    monkeypatch.setattr(window, "_checked", False)
    monkeypatch.setattr(window, name, getattr(window, name) + (16 if name == "B_FPREGS" else 2))
    with pytest.raises(MmuemuError, match=r"keeps .* elsewhere"):
        window.check_layout()
