"""The 16550A as drivers find it: probes, loopback, FIFOs, interrupts, input that never blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pc_board import Machine

from mmuemu.devices.serial import POLL_NS, source_of

COM1 = 0x3F8
RBR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 2, 3, 4, 5, 6, 7


def out(pc, register, value):
    pc.outb(COM1 + register, value)


def inp(pc, register):
    return pc.inb(COM1 + register)


def open_irq4(pc):
    pc.remap_pic(0xFFEF)


def with_input(data, **options):
    pc = Machine(firmware=True, serial_in=source_of(data), **options)
    open_irq4(pc)
    return pc


def test_xv6_uartinit_and_a_polled_line(pc):
    for register, value in ((FCR, 0), (LCR, 0x80), (0, 115200 // 9600), (1, 0), (LCR, 3), (MCR, 0), (IER, 1)):
        out(pc, register, value)
    assert inp(pc, LSR) != 0xFF
    inp(pc, IIR)
    inp(pc, RBR)
    for byte in b"xv6...\n":
        assert inp(pc, LSR) & 0x20
        out(pc, 0, byte)
    assert pc.console == b"xv6...\n"


def test_osdev_self_test_in_loopback_with_0xae(pc):
    for register, value in (
        (IER, 0),
        (LCR, 0x80),
        (0, 3),
        (1, 0),
        (LCR, 3),
        (FCR, 0xC7),
        (MCR, 0x0B),
        (MCR, 0x1E),
    ):
        out(pc, register, value)
    out(pc, 0, 0xAE)
    assert inp(pc, RBR) == 0xAE
    out(pc, MCR, 0x0F)
    out(pc, 0, ord("k"))
    assert pc.console == b"k"  # what was looped never left


def test_linux_autoconfig_finds_a_16550a(pc):
    """drivers/tty/serial/8250/8250_port.c, autoconfig(): the IER, loopback, FIFO and scratch probes."""
    out(pc, IER, 0)
    assert inp(pc, IER) & 0x0F == 0
    out(pc, IER, 0xFF)
    assert inp(pc, IER) == 0x0F
    out(pc, IER, 0)
    out(pc, MCR, 0x10 | 0x0A)
    assert inp(pc, MSR) & 0xF0 == 0x90
    out(pc, MCR, 0)
    out(pc, LCR, 0xBF)
    assert inp(pc, 2) != 0  # no EFR
    out(pc, LCR, 0)
    out(pc, FCR, 1)
    assert inp(pc, IIR) >> 6 == 3
    out(pc, FCR, 0)
    assert inp(pc, IIR) >> 6 == 0
    for value in (0xA5, 0x5A):
        out(pc, SCR, value)
        assert inp(pc, SCR) == value


def test_the_divisor_hides_behind_dlab(pc):
    out(pc, IER, 5)
    out(pc, LCR, 0x83)
    out(pc, 0, 0x34)
    out(pc, 1, 0x12)
    assert (inp(pc, 0), inp(pc, 1)) == (0x34, 0x12)
    assert pc.com1.divisor == 0x1234
    out(pc, LCR, 3)
    assert inp(pc, IER) == 5
    assert inp(pc, LCR) == 3
    assert pc.console == b""


@pytest.mark.parametrize(("mcr", "msr"), [(0x10, 0), (0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80)])
def test_loopback_turns_the_outputs_into_the_inputs(pc, mcr, msr):
    out(pc, MCR, mcr)
    assert inp(pc, MSR) & 0xF0 == msr
    out(pc, MCR, 0)
    assert inp(pc, MSR) & 0xF0 == 0xB0


def test_modem_deltas_are_reported_once_and_interrupt(pc):
    open_irq4(pc)
    out(pc, MCR, 0x14)  # loop, RI set
    inp(pc, MSR)
    out(pc, IER, 8)
    out(pc, MCR, 0x10)  # RI falls: the trailing edge
    assert pc.pending_vector() == 0x24
    assert inp(pc, IIR) == 0x00
    assert inp(pc, MSR) == 0x04
    assert inp(pc, MSR) == 0x00
    out(pc, MCR, 0x14)  # the rise is no TERI
    assert inp(pc, MSR) == 0x40
    assert inp(pc, IIR) == 0x01


def test_the_transmit_interrupt_comes_when_enabled_and_again_after_every_byte(pc):
    open_irq4(pc)
    out(pc, IER, 2)
    text = bytearray(b"interrupts")
    rounds = 0
    while pc.pending_vector() is not None:
        assert pc.acknowledge() == 0x24
        assert inp(pc, IIR) & 0x0F == 0x02
        if text:
            out(pc, 0, text.pop(0))
        pc.outb(0x20, 0x20)
        rounds += 1
    assert pc.console == b"interrupts"
    assert rounds == 11  # one to begin with, one after each byte
    assert inp(pc, IIR) & 0x0F == 1


def test_the_transmit_interrupt_comes_again_only_by_a_new_enable(pc):
    out(pc, IER, 2)
    assert inp(pc, IIR) & 0x0F == 0x02
    out(pc, IER, 3)
    assert inp(pc, IIR) & 0x0F == 0x01
    out(pc, IER, 0)
    out(pc, IER, 2)
    assert inp(pc, IIR) & 0x0F == 0x02


def test_reading_iir_clears_only_the_transmit_interrupt_it_reports():
    pc = with_input(b"a")
    out(pc, IER, 3)
    assert inp(pc, IIR) & 0x0F == 0x04  # receive goes first
    assert inp(pc, RBR) == ord("a")
    assert inp(pc, IIR) & 0x0F == 0x02
    assert inp(pc, IIR) & 0x0F == 0x01


def test_input_polled_by_lsr_and_its_end():
    pc = with_input(b"hello")
    got = bytearray()
    while inp(pc, LSR) & 1:
        got.append(inp(pc, RBR))
    assert got == b"hello"
    assert inp(pc, RBR) == 0


def test_input_interrupts_without_anyone_polling():
    pc = with_input(b"hi")
    out(pc, IER, 1)
    assert pc.pending_vector() is None
    assert pc.clock.next_event_in() <= POLL_NS
    pc.run(POLL_NS)
    assert pc.pending_vector() == 0x24
    assert inp(pc, RBR) == ord("h")
    assert inp(pc, LSR) & 1
    assert inp(pc, RBR) == ord("i")


def test_input_that_is_not_there_yet_is_asked_for_again_and_its_end_ends_the_asking():
    answers = [b"", b"", b"x", None]
    asked = []

    def source(most):
        asked.append(most)
        return answers.pop(0)

    pc = Machine(serial_in=source)
    pc.outb(0x21, 0xFF)
    pc.outb(0x43, 0x30)  # the PIT out of the way
    out(pc, IER, 1)
    assert asked == []
    pc.run(3 * POLL_NS)
    assert asked == [1, 1, 1]
    pc.run(3 * POLL_NS)
    assert len(asked) == 3  # there is a byte: nobody asks for more
    assert inp(pc, RBR) == ord("x")
    pc.run(3 * POLL_NS)
    assert len(asked) == 4
    assert pc.clock.next_event_in() is None


def test_the_fifo_trigger_level_tells_data_from_timeout():
    pc = with_input(b"0123456789")
    out(pc, FCR, 0x81)  # trigger at 8
    out(pc, IER, 1)
    pc.run(POLL_NS)
    causes = []
    for _ in range(10):
        causes.append(inp(pc, IIR) & 0x0F)
        inp(pc, RBR)
    assert causes == [0x04] * 3 + [0x0C] * 7


def test_resetting_the_fifo_drops_what_it_held(pc):
    out(pc, FCR, 1)
    out(pc, MCR, 0x10)
    out(pc, 0, 1)
    out(pc, FCR, 3)
    assert inp(pc, LSR) & 1 == 0
    out(pc, 0, 1)
    out(pc, FCR, 0)  # switching FIFOs off drops it too
    assert inp(pc, LSR) & 1 == 0


def test_overrun_is_reported_once_and_interrupts(pc):
    open_irq4(pc)
    out(pc, MCR, 0x10)
    out(pc, IER, 4)
    out(pc, 0, 1)
    out(pc, 0, 2)
    assert pc.pending_vector() == 0x24
    assert inp(pc, IIR) == 0x06
    assert inp(pc, LSR) == 0x63
    assert inp(pc, LSR) == 0x61
    assert inp(pc, RBR) == 2  # without FIFOs the new byte overwrote the old one
    out(pc, FCR, 1)
    for byte in range(20):
        out(pc, 0, byte)
    assert inp(pc, LSR) & 2
    assert [inp(pc, RBR) for _ in range(17)] == [*range(16), 0]


def test_a_flood_of_output_costs_no_memory_and_no_events(pc):
    before = pc.clock.next_event_in()
    for n in range(5000):
        out(pc, 0, n & 0xFF)
    assert len(pc.console) == 5000
    assert pc.clock.next_event_in() == before


def test_com2_is_absent_unless_it_has_an_output():
    assert Machine().inb(0x2F8 + LSR) == 0xFF
    got = bytearray()
    pc = Machine(com2_out=got.extend)
    pc.remap_pic(0xFFF7)
    pc.outb(0x2F8, 65)
    pc.outb(0x2F8 + IER, 2)
    assert got == b"A"
    assert pc.pending_vector() == 0x23


@given(
    st.binary(max_size=100),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255), st.booleans()), max_size=60),
)
def test_no_sequence_of_accesses_breaks_it_and_the_line_follows_iir(data, accesses):
    pc = with_input(data)
    levels = []
    original = pc.com1._irq
    pc.com1._irq = lambda level: (levels.append(level), original(level))
    for register, value, write in accesses:
        if write:
            out(pc, register, value)
        else:
            assert 0 <= inp(pc, register) < 256
        pc.run(value * 1000)
        assert (levels[-1] if levels else False) == (pc.com1._cause() != 1)
    assert levels == [n % 2 == 0 for n in range(len(levels))]


@given(st.binary(max_size=200), st.sampled_from([0x00, 0x01, 0x41, 0x81, 0xC1]))
def test_every_byte_of_input_arrives_once_and_in_order(data, fcr):
    pc = with_input(data)
    out(pc, FCR, fcr)
    out(pc, IER, 1)
    got = bytearray()
    for _ in range(len(data) + 2):
        pc.run(POLL_NS)
        while pc.pending_vector() == 0x24:
            pc.acknowledge()
            while inp(pc, LSR) & 1:
                got.append(inp(pc, RBR))
            pc.outb(0x20, 0x20)
    assert got == data
