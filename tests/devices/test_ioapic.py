"""The I/O APIC: its registers, edges and levels, remote IRR, EOI, destinations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pc_board import IOAPIC, Machine

LEVEL, REMOTE, MASK = 0x8000, 0x4000, 0x10000


@pytest.fixture
def on(quiet):
    quiet.lapic_write(0xF0, 0x1FF)
    return quiet


def route(pc, pin, low, destination=0):
    pc.ioapic_write(0x10 + 2 * pin + 1, destination << 24)
    pc.ioapic_write(0x10 + 2 * pin, low)


def end(pc):
    pc.lapic_write(0xB0, 0)


def test_xv6_ioapicinit(on):
    """Read the version, check the ID, mask everything edge-triggered, then route the console."""
    highest = on.ioapic_read(1) >> 16 & 0xFF
    assert highest == 23
    assert on.ioapic_read(0) >> 24 == 0
    for pin in range(highest + 1):
        on.ioapic_write(0x10 + 2 * pin, MASK | 32 + pin)
        on.ioapic_write(0x10 + 2 * pin + 1, 0)
    on.irq(4, True)
    on.irq(4, False)
    on.ioapic_write(0x10 + 8, 32 + 4)
    assert on.pending_vector() is None  # an edge on a masked input is gone
    on.irq(4, True)
    assert on.acknowledge() == 36


def test_power_up_and_writable_bits(on):
    assert on.ioapic_read(0x10) == MASK
    on.ioapic_write(0x10, 0xFFFFFFFF)
    on.ioapic_write(0x11, 0xFFFFFFFF)
    assert on.ioapic_read(0x10) == 0x1AFFF
    assert on.ioapic_read(0x11) == 0xFF000000
    on.ioapic_write(0, 0xFFFFFFFF)
    assert on.ioapic_read(0) == on.ioapic_read(2) == 0x0F000000
    on.ioapic_write(1, 0)
    assert on.ioapic_read(1) == 0x170020


@pytest.mark.parametrize("register", [3, 0xF, 0x40, 0xFF])
def test_registers_that_are_not_there(on, register):
    on.ioapic_write(register, 0xFFFFFFFF)
    assert on.ioapic_read(register) == 0
    assert on.mmio.read(IOAPIC + 0x20, 4) == 0


def test_irq_0_is_input_2(on):
    route(on, 0, 0x30)
    route(on, 2, 0x32)
    on.irq(0, True)
    assert on.acknowledge() == 0x32


def test_an_edge_interrupts_once(on):
    route(on, 4, 0x34)
    on.irq(4, True)
    on.irq(4, True)
    on.acknowledge()
    end(on)
    assert on.pending_vector() is None
    on.irq(4, False)
    on.irq(4, True)
    assert on.pending_vector() == 0x34


def test_a_level_interrupts_until_it_falls_with_remote_irr_between(on):
    route(on, 20, LEVEL | 0x74)
    on.gsi(20, True)
    for _ in range(3):
        assert on.ioapic_read(0x10 + 40) == LEVEL | REMOTE | 0x74
        assert on.acknowledge() == 0x74
        assert on.lapic_read(0x180 + 0x30) == 1 << 0x14  # TMR
        assert on.pending_vector() is None
        end(on)
    on.gsi(20, False)
    assert on.acknowledge() == 0x74
    end(on)
    assert on.ioapic_read(0x10 + 40) == LEVEL | 0x74
    assert on.pending_vector() is None


def test_a_masked_level_waits_and_comes_when_unmasked(on):
    route(on, 20, MASK | LEVEL | 0x74)
    on.gsi(20, True)
    assert on.pending_vector() is None
    route(on, 20, LEVEL | 0x74)
    assert on.pending_vector() == 0x74


def test_writing_an_edge_entry_whose_line_is_high_is_no_edge(on):
    route(on, 4, MASK | 0x34)
    on.irq(4, True)
    route(on, 4, 0x34)
    assert on.pending_vector() is None


def test_unmasking_a_level_in_service_does_not_send_it_twice(on):
    route(on, 20, LEVEL | 0x74)
    on.gsi(20, True)
    on.acknowledge()
    route(on, 20, MASK | LEVEL | 0x74)
    route(on, 20, LEVEL | 0x74)
    assert on.pending_vector() is None


def test_switching_to_edge_clears_remote_irr(on):
    route(on, 20, LEVEL | 0x74)
    on.gsi(20, True)
    route(on, 20, MASK | 0x74)
    assert not on.ioapic_read(0x10 + 40) & REMOTE


def test_the_eoi_register_of_version_20h(on):
    route(on, 20, LEVEL | 0x74)
    on.gsi(20, True)
    on.gsi(20, False)
    on.mmio.write(IOAPIC + 0x40, 4, 0x75)
    assert on.ioapic_read(0x10 + 40) & REMOTE
    on.mmio.write(IOAPIC + 0x40, 4, 0x74)
    assert not on.ioapic_read(0x10 + 40) & REMOTE


def test_a_level_refused_by_a_disabled_apic_comes_when_it_is_enabled(quiet):
    route(quiet, 20, LEVEL | 0x74)
    quiet.gsi(20, True)
    assert not quiet.ioapic_read(0x10 + 40) & REMOTE
    quiet.lapic_write(0xF0, 0x1FF)
    assert quiet.pending_vector() == 0x74


@pytest.mark.parametrize(
    ("low", "destination", "arrives"),
    [
        (0x34, 0, True),
        (0x34, 1, False),
        (0x34, 0xFF, True),
        (0x834, 4, True),
        (0x834, 8, False),
        (0x134, 0, True),
    ],
)
def test_destinations(on, low, destination, arrives):
    on.lapic_write(0xD0, 0x04000000)
    route(on, 4, low, destination)
    on.irq(4, True)
    assert (on.pending_vector() == 0x34) == arrives


def test_nmi_delivery(on):
    route(on, 4, 0x400)
    on.irq(4, True)
    assert on.nmi_pending


@given(
    st.lists(st.sampled_from(["raise", "lower", "mask", "unmask", "take", "end"]), max_size=40),
    st.booleans(),
)
def test_no_open_interrupt_is_lost(steps, level):
    """After any story, what is still asserted (level) or rose while open (edge) is delivered in the end."""
    pc = Machine(firmware=False)
    pc.lapic_write(0xF0, 0x1FF)
    kind = LEVEL if level else 0
    route(pc, 9, kind | 0x49)
    line = masked = owed = False
    for step in steps:
        if step in ("raise", "lower"):
            if step == "raise" and not line and not masked:
                owed = True
            line = step == "raise"
            pc.irq(9, line)
        elif step in ("mask", "unmask"):
            masked = step == "mask"
            route(pc, 9, kind | 0x49 | (MASK if masked else 0))
        elif step == "take" and pc.pending_vector() is not None:
            assert pc.acknowledge() == 0x49
            owed = False
        elif step == "end":
            end(pc)
    end(pc)
    if level:
        assert not (line and not masked) or pc.pending_vector() == 0x49
    else:
        assert (pc.pending_vector() == 0x49) == owed
