"""The board: what is where, the firmware's state, ends, and interrupts at the same counts in every run."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pc_board import Machine

from mmuemu.devices.platform import Ending, Platform


@pytest.mark.parametrize(("size", "write"), [(1, "outb"), (2, "outw"), (4, "outl")])
def test_debug_exit_ends_with_an_odd_status(pc, size, write):
    assert pc.ports.read(0xF4, size) == 0
    getattr(pc, write)(0xF4, 0x10)
    assert pc.ending == Ending("exit", 0x21)
    assert pc.woken
    pc.outb(0xF4, 0)
    assert pc.ending.status == 0x21  # the first end counts


def test_nothing_is_delivered_after_the_end(pc):
    pc.remap_pic(0)
    pc.irq(1, True)
    assert pc.pending_vector() == 0x21
    pc.outb(0xF4, 0)
    assert pc.ending.status == 1
    assert pc.pending_vector() is None


def test_debugcon(pc):
    assert pc.inb(0xE9) == 0xE9
    for byte in b"hi":
        pc.outb(0xE9, byte)
    assert pc.debug == b"hi"


@pytest.mark.parametrize("port", [0x604, 0xB004])
@pytest.mark.parametrize(
    ("value", "kind"), [(0x2000, "shutdown"), (0x2800, "shutdown"), (0x2400, None), (0x0000, None)]
)
def test_acpi_sleep(pc, port, value, kind):
    pc.outw(port, value)
    assert (pc.ending.kind if pc.ending else None) == kind


def test_pm1_registers_and_the_pm_timer(pc):
    assert pc.inw(0x604) == 1  # SCI_EN: ACPI mode is on
    pc.outw(0x602, 0x0120)
    assert (pc.inw(0x600), pc.inw(0x602), pc.inl(0x600)) == (0, 0x0120, 0x01200000)
    pc.outw(0x604, 0x1C01)
    assert pc.inw(0x604) == 0x1C01
    pc.outl(0x600, 0x00070000)
    assert pc.inw(0x602) == 7
    start = pc.inl(0x608)
    pc.run(1_000_000_000)
    assert pc.inl(0x608) - start == 3_579_545
    pc.run(4_000_000_000)
    assert pc.inl(0x608) == 5 * 3_579_545 & 0xFFFFFF


def test_every_way_to_reset():
    for story in (
        [(0x64, 0xFE)],
        [(0x64, 0xD1), (0x60, 0xDE)],
        [(0x92, 0x03)],
        [(0xCF9, 0x02), (0xCF9, 0x06)],
    ):
        pc = Machine()
        for port, value in story[:-1]:
            pc.outb(port, value)
            assert pc.ending is None
        pc.outb(*story[-1])
        assert pc.ending == Ending("reset", 0)


# fw_cfg.


def fw_cfg(pc, key, size):
    pc.outw(0x510, key)
    return bytes(pc.inb(0x511) for _ in range(size))


def test_fw_cfg_items(pc):
    assert fw_cfg(pc, 0x00, 6) == b"QEMU\0\0"
    assert fw_cfg(pc, 0x01, 4) == b"\1\0\0\0"  # no DMA
    assert int.from_bytes(fw_cfg(pc, 0x03, 8), "little") == 64 << 20
    assert fw_cfg(pc, 0x05, 2) == fw_cfg(pc, 0x0F, 2) == b"\1\0"
    assert fw_cfg(pc, 0x19, 4) == bytes(4)
    assert fw_cfg(pc, 0x02, 16) == bytes(16)
    assert fw_cfg(pc, 0x04, 2) == b"\1\0"  # no graphics
    assert fw_cfg(pc, 0x7777, 3) == bytes(3)


def test_fw_cfg_starts_again_only_by_selecting(pc):
    pc.outw(0x510, 0)
    assert pc.inb(0x511) == ord("Q")
    pc.outb(0x511, 0xFF)
    pc.outb(0x510, 1)  # eight bits select nothing
    assert pc.inb(0x511) == ord("E")


# The keyboard controller.


def test_8042_initialization_as_osdev_does_it(pc):
    pc.outb(0x64, 0xAD)
    pc.outb(0x64, 0xA7)
    while pc.inb(0x64) & 1:
        pc.inb(0x60)
    pc.outb(0x64, 0x20)
    config = pc.inb(0x60)
    pc.outb(0x64, 0x60)
    pc.outb(0x60, config & ~0x43)
    pc.outb(0x64, 0x20)
    assert pc.inb(0x60) == config & ~0x43
    for command, answer in ((0xAA, 0x55), (0xAB, 0x00)):
        pc.outb(0x64, command)
        assert pc.inb(0x64) & 1
        assert pc.inb(0x60) == answer
    pc.outb(0x64, 0xAE)
    for byte, answer in (
        (0xFF, [0xFA, 0xAA]),
        (0xF2, [0xFA, 0xAB, 0x83]),
        (0xED, [0xFA]),
        (0x07, [0xFA]),
        (0xEE, [0xEE]),
    ):
        pc.outb(0x60, byte)
        assert [pc.inb(0x60) for _ in answer] == answer
        assert not pc.inb(0x64) & 1


def test_8042_status_never_keeps_anyone_waiting(pc):
    assert pc.inb(0x64) & 0x03 == 0
    pc.outb(0x64, 0xD4)
    pc.outb(0x60, 0xF4)
    assert pc.inb(0x60) == 0xFE  # there is no mouse
    pc.outb(0x64, 0x11)
    assert pc.inb(0x64) & 0x09 == 0x08


def test_8042_auxiliary_port_and_commands_with_arguments(pc):
    def config():
        pc.outb(0x64, 0x20)
        return pc.inb(0x60)

    before = config()
    assert before & 0x20
    pc.outb(0x64, 0xA8)
    assert config() == before & ~0x20
    pc.outb(0x64, 0xA7)
    assert config() == before
    pc.outb(0x64, 0xA9)
    assert pc.inb(0x60) == 1  # no clock from a mouse
    for command in (0xED, 0xF0, 0xF3):
        for byte in (command, 0xFF):  # the argument is no reset
            pc.outb(0x60, byte)
            assert pc.inb(0x60) == 0xFA
            assert not pc.inb(0x64) & 1
    pc.outb(0x64, 0xD2)
    pc.outb(0x60, 0x1C)
    assert pc.inb(0x60) == 0x1C
    pc.outb(0x64, 0xC0)
    assert pc.inb(0x60) == 0x80


def test_key_presses_interrupt_one_by_one(pc):
    pc.remap_pic(0xFFFD)
    pc.keyboard.press(b"\x1e\x9e")
    got = []
    while pc.pending_vector() is not None:
        assert pc.acknowledge() == 0x21
        assert pc.inb(0x64) & 1
        got.append(pc.inb(0x60))
        pc.outb(0x20, 0x20)
    assert got == [0x1E, 0x9E]
    pc.outb(0x64, 0xAD)
    pc.keyboard.press(b"\x1e")
    assert not pc.inb(0x64) & 1


def test_a20_by_all_its_gates(pc):
    assert pc.keyboard.a20
    pc.outb(0x92, 0)
    assert not pc.keyboard.a20
    pc.outb(0x64, 0xDF)
    assert pc.inb(0x92) == 2
    pc.outb(0x64, 0xD0)
    assert pc.inb(0x60) & 3 == 3
    pc.outb(0x64, 0xD1)
    pc.outb(0x60, 0xDD)
    assert not pc.keyboard.a20
    assert pc.ending is None


# PCI.


def test_pci_is_there_and_empty(pc):
    pc.outl(0xCF8, 0x80000000)
    assert pc.inl(0xCF8) == 0x80000000
    for device in range(32):
        pc.outl(0xCF8, 0x80000000 | device << 11)
        pc.outl(0xCFC, 0)
        assert (pc.inl(0xCFC), pc.inw(0xCFC), pc.inw(0xCFE), pc.inb(0xCFD)) == (
            0xFFFFFFFF,
            0xFFFF,
            0xFFFF,
            0xFF,
        )
    pc.outl(0xCF8, 0xFFFFFFFF)
    assert pc.inl(0xCF8) == 0x80FFFFFC
    assert (pc.inb(0xCF8), pc.inw(0xCFA), pc.inb(0xCF9)) == (0xFF, 0xFFFF, 0)
    pc.outb(0xCF8, 0)
    pc.outb(0xCF9, 0x02)
    assert (pc.inb(0xCF9), pc.inl(0xCF8)) == (0x02, 0x80FFFFFC)
    assert pc.ending is None


# The whole.


def test_what_firmware_leaves(pc):
    assert (pc.inb(0x21), pc.inb(0xA1)) == (0xB8, 0x8E)
    assert pc.lapic_read(0xF0) == 0x1FF
    taken = pc.take_until(120_000_000)
    assert [vector for _, vector in taken] == [8, 8]  # the BIOS's tick, at 18.2 Hz


def test_at_power_up_nothing_comes(quiet):
    quiet.run(10**9)
    assert quiet.pending_vector() is None
    assert quiet.clock.next_event_in() is None


def test_where_everything_is(pc):
    assert {(r.name, r.first) for r in pc.mmio.ranges()} == {("ioapic", 0xFEC00000), ("lapic", 0xFEE00000)}
    assert [(r.first, r.size) for r in pc.ports.ranges()] == [
        *((0x20, 2), (0x40, 4), (0x60, 1), (0x61, 1), (0x64, 1), (0x70, 2), (0x92, 1), (0xA0, 2), (0xE9, 1)),
        *((0xF4, 4), (0x3F8, 8), (0x4D0, 2), (0x510, 2), (0x600, 12), (0xCF8, 4), (0xCFC, 4), (0xB000, 12)),
    ]
    assert pc.inb(0x80) == pc.inb(0x3D5) == 0xFF
    pc.outb(0x80, 0)


def test_the_cpu_is_woken_by_interrupts_and_by_nearer_events(quiet):
    quiet.remap_pic(0)
    quiet.lapic_write(0xF0, 0x1FF)
    before = quiet.woken
    quiet.irq(1, True)
    assert quiet.woken == before  # LINT0 is masked: nothing to take
    quiet.lapic_write(0x350, 0x700)
    assert quiet.woken > before
    quiet.acknowledge()
    before = quiet.woken
    quiet.lapic_write(0x320, 0x30)
    quiet.lapic_write(0x380, 1000)
    assert quiet.woken == before + 1


def story(seed, cut):
    """A busy guest: timers, serial, rtc, self-IPIs at random; returns every interrupt and the console."""
    rng = random.Random(seed)
    pc = Machine(epoch=1_700_000_000 + seed)
    pc.remap_pic(0)
    for port, value in ((0x43, 0x34), (0x40, 0x00), (0x40, 0x10), (0x70, 0x0B), (0x71, 0x42), (0x3F9, 3)):
        pc.outb(port, value)
    for register, value in ((0x3E0, 0xB), (0x320, 0x20040), (0x380, rng.randrange(50_000, 200_000))):
        pc.lapic_write(register, value)
    log = []
    for _ in range(30):
        action = rng.randrange(4)
        if action == 0:
            pc.outb(0x3F8, rng.randrange(256))
        elif action == 1:
            pc.lapic_write(0x300, 0x40000 | rng.randrange(48, 256))
        elif action == 2:
            pc.outb(0x70, 0x0C)
            log.append(pc.inb(0x71))
        left = rng.randrange(1, 300_000)
        while left:
            step = min(left, cut)
            log += pc.take_until(step)
            left -= step
    return log, bytes(pc.console)


@given(st.integers(0, 1000), st.integers(1000, 50_000))
def test_the_same_guest_gets_the_same_interrupts_however_the_run_is_cut(seed, cut):
    assert story(seed, cut) == story(seed, 10**9)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)), max_size=60))
def test_no_port_access_anywhere_raises(accesses):
    pc = Machine()
    for port, size, value in accesses:
        assert 0 <= pc.ports.read(port, size) < 1 << 8 * size
        pc.ports.write(port, size, value)
        pc.run(value & 0xFFFF)


def test_a_platform_needs_nothing_but_memory_size():
    pc = Platform(1 << 20)
    pc.ports.write(0x3F8, 1, 65)
    pc.ports.write(0xE9, 1, 65)
    assert pc.pending_vector() is None
    assert not pc.owns_msr(0xC0000080)
