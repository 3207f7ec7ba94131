"""The local APIC: registers, priority, timer, IPIs, errors, LINT pins, x2APIC and IA32_APIC_BASE."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pc_board import LAPIC, Machine

from mmuemu.devices.apic import LocalApic, MsrRefused
from mmuemu.devices.apic_timer import divisor
from mmuemu.devices.clock import InstructionClock

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICRLO, ICRHI = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
TIMER, THERMAL, PERF, LINT0, LINT1, ERROR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
TICR, TCCR, TDCR = 0x380, 0x390, 0x3E0
MASKED, PERIODIC, DEADLINE = 0x10000, 0x20000, 0x40000
BASE = 0x1B


@pytest.fixture
def on(quiet):
    """Software-enabled, spurious vector 0xff, nothing else."""
    quiet.lapic_write(SVR, 0x1FF)
    return quiet


def self_ipi(pc, vector):
    pc.lapic_write(ICRHI, 0)
    pc.lapic_write(ICRLO, 0x40000 | vector)


def bits(pc, bank):
    return sum(pc.lapic_read(bank + 0x10 * n) << 32 * n for n in range(8))


def x2(pc):
    pc.write_msr(BASE, pc.read_msr(BASE) | 0xC00)


# Registers.


def test_power_up_state(quiet):
    assert quiet.read_msr(BASE) == 0xFEE00900
    read = quiet.lapic_read
    assert (read(ID), read(VERSION), read(SVR), read(DFR), read(LDR), read(TPR)) == (
        0,
        0x50014,
        0xFF,
        0xFFFFFFFF,
        0,
        0,
    )
    assert {read(entry) for entry in (TIMER, THERMAL, PERF, LINT0, LINT1, ERROR)} == {MASKED}
    quiet.lapic_write(TIMER, 0x20)  # software-disabled: the mask cannot be taken off
    assert read(TIMER) == MASKED | 0x20


def test_xv6_lapicinit(quiet):
    """The order of xv6's lapic.c, and its 10,000,000 count at divisor 1."""
    write = quiet.lapic_write
    for register, value in ((SVR, 0x100 | 63), (TDCR, 0xB), (TIMER, PERIODIC | 32), (TICR, 10_000_000)):
        write(register, value)
    write(LINT0, MASKED)
    write(LINT1, MASKED)
    if quiet.lapic_read(VERSION) >> 16 & 0xFF >= 4:
        write(PERF, MASKED)
    for register, value in (
        (ERROR, 51),
        (ESR, 0),
        (ESR, 0),
        (EOI, 0),
        (ICRHI, 0),
        (ICRLO, 0x80000 | 0x500 | 0x8000),
    ):
        write(register, value)
    assert not quiet.lapic_read(ICRLO) & 0x1000
    write(TPR, 0)
    assert quiet.ending is None  # INIT level de-assert resets nobody
    assert quiet.take_until(35_000_000) == [(10_000_000 * n, 32) for n in (1, 2, 3)]


def test_software_disable_masks_every_entry_and_takes_nothing_new(on):
    on.lapic_write(TIMER, 0x40)
    self_ipi(on, 0x50)
    on.lapic_write(SVR, 0xFF)
    assert on.lapic_read(TIMER) == MASKED | 0x40
    self_ipi(on, 0x60)
    assert on.acknowledge() == 0x50  # what was pending is still there
    assert on.pending_vector() is None


@pytest.mark.parametrize(
    ("register", "writable"),
    [
        *(
            (TIMER, 0x700FF),
            (THERMAL, 0x107FF),
            (PERF, 0x107FF),
            (LINT0, 0x1A7FF),
            (LINT1, 0x1A7FF),
            (ERROR, 0x100FF),
        ),
        *((TPR, 0xFF), (SVR, 0x1FF), (LDR, 0xFF000000), (TDCR, 0xB), (TICR, 0xFFFFFFFF), (ICRHI, 0xFF000000)),
    ],
)
def test_only_the_defined_bits_are_kept(on, register, writable):
    on.lapic_write(register, 0xFFFFFFFF)
    assert on.lapic_read(register) == writable


def test_dfr_keeps_the_model_and_the_identity_cannot_be_written(on):
    on.lapic_write(DFR, 0)
    assert on.lapic_read(DFR) == 0x0FFFFFFF
    for register in (ID, VERSION):
        before = on.lapic_read(register)
        on.lapic_write(register, 0x77777777)
        assert on.lapic_read(register) == before


def test_odd_accesses_are_harmless(on):
    assert on.mmio.read(LAPIC + VERSION, 1) == 0x14
    assert on.mmio.read(LAPIC + VERSION + 2, 2) == 0x5
    assert on.mmio.read(LAPIC + VERSION + 4, 4) == 0
    on.mmio.write(LAPIC + TPR, 1, 0x50)
    on.mmio.write(LAPIC + TPR + 4, 4, 0x50)
    assert on.lapic_read(TPR) == 0
    assert on.mmio.read(LAPIC + EOI, 4) == 0
    on.mmio.write(LAPIC + PPR, 4, 0xFF)
    assert on.lapic_read(PPR) == 0


# Priority.


def test_self_ipi_is_requested_served_and_ended(on):
    self_ipi(on, 0x41)
    assert bits(on, IRR) == 1 << 0x41
    assert on.pending_vector(False) is None
    assert on.pending_vector() == on.acknowledge() == 0x41
    assert (bits(on, IRR), bits(on, ISR), on.lapic_read(PPR)) == (0, 1 << 0x41, 0x40)
    on.lapic_write(EOI, 0)
    assert (bits(on, ISR), on.lapic_read(PPR)) == (0, 0)


def test_the_same_class_waits_and_a_higher_one_does_not(on):
    self_ipi(on, 0x41)
    on.acknowledge()
    self_ipi(on, 0x4F)
    assert on.pending_vector() is None
    self_ipi(on, 0x50)
    assert on.acknowledge() == 0x50
    on.lapic_write(EOI, 0)
    assert on.pending_vector() is None
    on.lapic_write(EOI, 0)
    assert on.acknowledge() == 0x4F


def test_tpr_and_cr8_hold_classes_back(on):
    self_ipi(on, 0x55)
    on.lapic_write(TPR, 0x50)
    assert on.pending_vector() is None
    assert on.lapic.cr8 == 5
    on.lapic.cr8 = 4
    assert on.lapic_read(TPR) == 0x40
    assert on.pending_vector() == 0x55


def test_ppr_takes_the_low_bits_of_tpr_only_if_tpr_decides(on):
    self_ipi(on, 0x41)
    on.acknowledge()
    on.lapic_write(TPR, 0x3C)
    assert on.lapic_read(PPR) == 0x40
    on.lapic_write(TPR, 0x6C)
    assert on.lapic_read(PPR) == 0x6C


def test_acknowledging_what_has_been_held_back_gives_the_spurious_vector(on):
    self_ipi(on, 0x41)
    on.lapic_write(TPR, 0xF0)
    assert on.acknowledge() == 0xFF
    assert bits(on, ISR) == 0


def test_one_is_kept_while_one_is_served_and_no_more(on):
    for _ in range(2):
        self_ipi(on, 0x41)
    on.acknowledge()
    for _ in range(2):
        self_ipi(on, 0x41)
    on.lapic_write(EOI, 0)
    assert on.acknowledge() == 0x41
    on.lapic_write(EOI, 0)
    assert on.pending_vector() is None


def test_eoi_with_nothing_in_service_is_harmless(on):
    on.lapic_write(EOI, 0)
    assert bits(on, ISR) == 0


class PriorityMachine(RuleBasedStateMachine):
    """Against sets of vectors and the rules of SDM 11.8."""

    def __init__(self):
        super().__init__()
        self.pc = Machine(firmware=False)
        self.pc.lapic_write(SVR, 0x1FF)
        self.requested, self.serving, self.tpr = set(), set(), 0

    def processor_priority(self):
        return max(self.tpr >> 4, max(self.serving, default=0) >> 4)

    @rule(vector=st.integers(16, 255))
    def request(self, vector):
        self_ipi(self.pc, vector)
        self.requested.add(vector)

    @rule(tpr=st.integers(0, 255))
    def set_tpr(self, tpr):
        self.pc.lapic_write(TPR, tpr)
        self.tpr = tpr

    @rule()
    def take(self):
        vector = max(self.requested, default=0)
        if vector >> 4 > self.processor_priority():
            assert self.pc.acknowledge() == vector
            self.requested.remove(vector)
            self.serving.add(vector)
        else:
            assert self.pc.acknowledge() == 0xFF

    @rule()
    def end(self):
        self.pc.lapic_write(EOI, 0)
        self.serving.discard(max(self.serving, default=None))

    @invariant()
    def the_highest_above_the_processor_priority_is_offered(self):
        vector = max(self.requested, default=0)
        offered = vector if vector >> 4 > self.processor_priority() else None
        assert self.pc.pending_vector() == offered
        assert self.pc.lapic_read(PPR) >> 4 == self.processor_priority()

    @invariant()
    def nothing_is_lost(self):
        assert bits(self.pc, IRR) == sum(1 << vector for vector in self.requested)
        assert bits(self.pc, ISR) == sum(1 << vector for vector in self.serving)


TestPriority = PriorityMachine.TestCase


# The timer.


@pytest.mark.parametrize(("register", "by"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (0xA, 128), (0xB, 1)])
def test_divide_configuration(on, register, by):
    assert divisor(register) == by
    on.lapic_write(TDCR, register)
    on.lapic_write(TIMER, 0x30)
    on.lapic_write(TICR, 1000)
    on.run(by * 400)
    assert on.lapic_read(TCCR) == 600
    assert on.take_until(by * 10_000) == [(by * 1000, 0x30)]
    assert on.lapic_read(TCCR) == 0
    assert on.lapic_read(TICR) == 1000


def test_calibration_against_the_pit(on):
    """OSDev's and Linux's way: let the masked timer run down during 10 ms of PIT channel 2."""
    on.lapic_write(TDCR, 3)
    on.lapic_write(TIMER, MASKED)
    on.lapic_write(TICR, 0xFFFFFFFF)
    on.outb(0x61, 1)
    on.outb(0x43, 0xB0)
    on.outb(0x42, 0x9C)
    on.outb(0x42, 0x2E)
    while not on.inb(0x61) & 0x20:
        on.run(100)
    counted = 0xFFFFFFFF - on.lapic_read(TCCR)
    assert abs(counted - 625_000) < 30  # 1 GHz / 16 for 10 ms


def test_periodic_goes_on_and_its_count_reloads(on):
    on.lapic_write(TDCR, 0xB)
    on.lapic_write(TIMER, PERIODIC | 0x30)
    on.lapic_write(TICR, 5000)
    assert [when for when, _ in on.take_until(17_000)] == [5000, 10_000, 15_000]
    assert on.lapic_read(TCCR) == 3000
    on.lapic_write(TICR, 0)
    assert on.take_until(20_000) == []
    assert on.lapic_read(TCCR) == 0


def test_a_masked_timer_makes_no_events_and_interrupts_again_when_unmasked(on):
    on.lapic_write(TDCR, 0xB)
    on.lapic_write(TIMER, PERIODIC | MASKED | 0x30)
    on.lapic_write(TICR, 5000)
    assert on.clock.next_event_in() is None
    on.run(7000)
    on.lapic_write(TIMER, PERIODIC | 0x30)
    assert on.take_until(4000) == [(10_000, 0x30)]


def test_a_divisor_changed_on_the_way_keeps_the_count(on):
    on.lapic_write(TDCR, 0xB)
    on.lapic_write(TIMER, 0x30)
    on.lapic_write(TICR, 1000)
    on.run(400)
    on.lapic_write(TDCR, 0)
    assert on.lapic_read(TCCR) == 600
    assert on.take_until(5000) == [(400 + 1200, 0x30)]


def test_periodic_that_becomes_one_shot_ends_with_its_period(on):
    on.lapic_write(TDCR, 0xB)
    on.lapic_write(TIMER, PERIODIC | 0x30)
    on.lapic_write(TICR, 1000)
    on.run(2500)
    on.acknowledge()
    on.lapic_write(EOI, 0)
    on.lapic_write(TIMER, 0x30)
    assert on.lapic_read(TCCR) == 500
    assert on.take_until(5000) == [(3000, 0x30)]


def test_a_period_of_one_nanosecond_does_not_stop_the_host(on):
    on.lapic_write(TDCR, 0xB)
    on.lapic_write(TIMER, PERIODIC | 0x30)
    on.lapic_write(TICR, 1)
    assert len(on.take_until(100_000)) == 99  # the hundredth is one nanosecond late
    assert on.lapic_read(TCCR) == 1


def test_tsc_deadline(on):
    on.lapic_write(TIMER, DEADLINE | 0x30)
    on.run(1000)
    on.write_msr(0x6E0, 5000)
    assert on.read_msr(0x6E0) == 5000
    assert on.lapic_read(TCCR) == 0
    on.lapic_write(TICR, 10)  # ignored in this mode
    assert on.take_until(10_000) == [(5000, 0x30)]
    assert on.read_msr(0x6E0) == 0
    on.write_msr(0x6E0, 7)  # long past: at once
    assert on.acknowledge() == 0x30
    on.lapic_write(EOI, 0)
    on.write_msr(0x6E0, 90_000)
    on.write_msr(0x6E0, 0)
    assert on.clock.next_event_in() is None


def test_leaving_deadline_mode_disarms_and_the_msr_is_dead_in_others(on):
    on.write_msr(0x6E0, 5000)
    assert on.read_msr(0x6E0) == 0
    on.lapic_write(TIMER, DEADLINE | 0x30)
    on.write_msr(0x6E0, 5000)
    on.lapic_write(TIMER, 0x30)
    assert on.take_until(10_000) == []
    assert on.read_msr(0x6E0) == 0


def test_a_deadline_follows_the_tsc_when_it_is_set(on):
    on.lapic_write(TIMER, DEADLINE | 0x30)
    on.write_msr(0x6E0, 1_000_000)
    on.clock.set_tsc(999_000)
    assert on.take_until(2000) == [(1000, 0x30)]


def test_a_cpu_without_deadline_mode_refuses_it():
    pc = Machine(firmware=False, tsc_deadline=False)
    pc.lapic_write(SVR, 0x1FF)
    pc.lapic_write(TIMER, 0x70030)
    assert pc.lapic_read(TIMER) == 0x30030
    for act in (lambda: pc.read_msr(0x6E0), lambda: pc.write_msr(0x6E0, 0)):
        with pytest.raises(MsrRefused):
            act()


@given(
    st.integers(1, 3000),
    st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11]),
    st.booleans(),
    st.lists(st.integers(1, 700_000), min_size=1, max_size=6),
)
def test_the_count_agrees_with_counting(initial, divide, periodic, steps):
    pc = Machine(firmware=False)
    pc.lapic_write(SVR, 0x1FF)
    pc.lapic_write(TDCR, divide)
    pc.lapic_write(TIMER, MASKED | 0x30 | (PERIODIC if periodic else 0))
    pc.lapic_write(TICR, initial)
    gone = 0
    for step in steps:
        pc.run(step)
        gone += step
        ticks = gone // divisor(divide)
        expected = initial - ticks % initial if periodic else max(initial - ticks, 0)
        assert pc.lapic_read(TCCR) == expected


# IPIs and errors.


@pytest.mark.parametrize(
    ("high", "low", "arrives"),
    [
        (0x00000000, 0x0004041, True),
        (0x01000000, 0x0004041, False),
        (0xFF000000, 0x0004041, True),
        (0x00000000, 0x0044041, True),  # self
        (0x00000000, 0x0084041, True),  # all
        (0x00000000, 0x00C4041, False),  # others
        (0x02000000, 0x0004841, True),  # logical, flat
        (0x01000000, 0x0004841, False),
        (0x00000000, 0x0004141, True),  # lowest priority
        (0x00000000, 0x0004241, False),  # SMI
    ],
)
def test_where_an_ipi_goes(on, high, low, arrives):
    on.lapic_write(LDR, 0x02000000)
    on.lapic_write(ICRHI, high)
    on.lapic_write(ICRLO, low)
    assert on.pending_vector() == (0x41 if arrives else None)
    assert on.lapic_read(ICRHI) == high


@pytest.mark.parametrize(("destination", "meant"), [(0x21, True), (0x22, False), (0x31, False), (0x23, True)])
def test_cluster_destinations(on, destination, meant):
    on.lapic_write(DFR, 0)
    on.lapic_write(LDR, 0x21000000)
    on.lapic_write(ICRHI, destination << 24)
    on.lapic_write(ICRLO, 0x4841)
    assert (on.pending_vector() is not None) == meant


def test_nmi_to_itself_and_init_and_sipi_to_nobody(on):
    on.lapic_write(ICRHI, 0)
    on.lapic_write(ICRLO, 0x4400)
    assert on.nmi_pending
    assert on.acknowledge_nmi()
    assert not on.acknowledge_nmi()
    for low in (0xC4500, 0xC4608, 0xC4400, 0x84500):
        on.lapic_write(ICRLO, low)
    on.lapic_write(ICRHI, 1 << 24)
    for low in (0xC500, 0x8500, 0x4608):
        on.lapic_write(ICRLO, low)
    assert not on.nmi_pending
    assert on.ending is None
    on.lapic_write(ICRHI, 0)
    on.lapic_write(ICRLO, 0x4500)
    assert on.ending.kind == "reset"


def test_errors_are_collected_shown_by_a_write_and_interrupt(on):
    on.lapic_write(ERROR, 0xE0)
    self_ipi(on, 5)
    assert on.lapic_read(ESR) == 0
    assert on.acknowledge() == 0xE0
    on.lapic_write(EOI, 0)
    on.lapic_read(0x2E0)
    on.lapic_write(ESR, 0)
    assert on.lapic_read(ESR) == 0xA0
    on.lapic_write(ESR, 0)
    assert on.lapic_read(ESR) == 0


def test_a_local_interrupt_with_an_illegal_vector_is_an_error(on):
    on.lapic_write(ERROR, 0x03)
    on.lapic_write(TDCR, 0xB)
    on.lapic_write(TIMER, 0x0F)
    on.lapic_write(TICR, 10)
    on.run(10)
    on.lapic_write(ESR, 0)
    assert on.lapic_read(ESR) == 0x40
    assert bits(on, IRR) == 0


# LINT pins and the 8259s.


def test_extint_passes_the_8259s_through_whatever_the_tpr(on):
    on.remap_pic(0)
    on.irq(4, True)
    assert on.pending_vector() is None
    on.lapic_write(LINT0, 0x700)
    on.lapic_write(TPR, 0xFF)
    assert on.pending_vector() == on.acknowledge() == 0x24
    assert bits(on, ISR) == 0
    on.lapic_write(LINT0, 0x10700)
    on.irq(1, True)
    assert on.pending_vector() is None


def test_a_disabled_apic_leaves_the_cpu_its_pins(quiet):
    quiet.remap_pic(0)
    quiet.write_msr(BASE, 0xFEE00100)
    quiet.irq(1, True)
    assert quiet.pending_vector() == 0x21
    assert not quiet.nmi_pending
    quiet.nmi()
    assert quiet.nmi_pending
    assert quiet.mmio.read(LAPIC + VERSION, 4) == 0xFFFFFFFF


def test_lint0_fixed_edge_and_level(on):
    on.remap_pic(0)
    on.lapic_write(LINT0, 0x45)
    on.irq(1, True)
    assert on.acknowledge() == 0x45
    on.lapic_write(EOI, 0)
    assert on.pending_vector() is None
    on.lapic_write(LINT0, 0x8045)  # INT is still high
    assert on.lapic_read(LINT0) & 0x4000
    assert on.acknowledge() == 0x45
    on.lapic_write(EOI, 0)
    assert on.pending_vector() == 0x45  # and still


def test_lint1_is_the_nmi_pin(pc):
    pc.nmi()
    assert pc.nmi_pending
    pc.acknowledge_nmi()
    pc.lapic_write(LINT1, 0x10400)
    pc.nmi()
    assert not pc.nmi_pending


# IA32_APIC_BASE and x2APIC.

DISABLED, XAPIC, X2APIC, INVALID = 0x000, 0x800, 0xC00, 0x400


@pytest.mark.parametrize("before", [DISABLED, XAPIC, X2APIC])
@pytest.mark.parametrize("after", [DISABLED, XAPIC, X2APIC, INVALID])
def test_the_states_of_figure_11_27(quiet, before, after):
    """The legal moves: to itself, xAPIC to x2APIC, both to disabled, disabled to xAPIC."""
    path = {DISABLED: [DISABLED], XAPIC: [XAPIC], X2APIC: [X2APIC]}[before]
    for state in path:
        quiet.write_msr(BASE, 0xFEE00100 | state)
    legal = {(DISABLED, XAPIC), (XAPIC, X2APIC), (XAPIC, DISABLED), (X2APIC, DISABLED)}
    if before == after or (before, after) in legal:
        quiet.write_msr(BASE, 0xFEE00100 | after)
        assert quiet.read_msr(BASE) == 0xFEE00100 | after
    else:
        with pytest.raises(MsrRefused):
            quiet.write_msr(BASE, 0xFEE00100 | after)
        assert quiet.read_msr(BASE) == 0xFEE00100 | before


@pytest.mark.parametrize("bit", [*range(8), 9, 40, 63])
def test_reserved_bits_of_apic_base(quiet, bit):
    with pytest.raises(MsrRefused):
        quiet.write_msr(BASE, 0xFEE00900 | 1 << bit)


def test_without_x2apic_in_the_cpu_extd_is_reserved():
    pc = Machine(x2apic=False)
    with pytest.raises(MsrRefused):
        pc.write_msr(BASE, 0xFEE00D00)


def test_the_registers_move_with_the_base(quiet):
    quiet.write_msr(BASE, 0xD0000900)
    assert quiet.mmio.read(LAPIC + VERSION, 4) == 0xFFFFFFFF
    assert quiet.mmio.read(0xD0000000 + VERSION, 4) == 0x50014
    assert [r.first for r in quiet.mmio.ranges()] == [0xD0000000, 0xFEC00000]


def test_disabling_forgets_everything(on):
    on.lapic_write(LDR, 0x55000000)
    self_ipi(on, 0x44)
    on.lapic_write(TIMER, 0x30)
    on.lapic_write(TICR, 1000)
    on.write_msr(BASE, 0xFEE00100)
    assert on.clock.next_event_in() is None
    on.write_msr(BASE, 0xFEE00900)
    assert (on.lapic_read(SVR), on.lapic_read(LDR), bits(on, IRR)) == (0xFF, 0, 0)


def test_x2apic_registers_by_msr_and_none_in_memory(on):
    with pytest.raises(MsrRefused):
        on.read_msr(0x802)
    self_ipi(on, 0x51)
    on.lapic_write(ICRHI, 0x7F000000)
    x2(on)
    assert on.read_msr(0x830) == 0x40051
    assert on.mmio.read(LAPIC + VERSION, 4) == 0xFFFFFFFF
    assert on.read_msr(0x802) == 0
    assert on.read_msr(0x803) == 0x50014
    assert on.read_msr(0x80D) == 1
    assert on.read_msr(0x822) == 1 << 0x11  # IRR survives the switch
    assert on.read_msr(0x80F) == 0x1FF
    assert on.acknowledge() == 0x51
    on.write_msr(0x80B, 0)
    assert on.pending_vector() is None


def test_x2apic_ipis(on):
    x2(on)
    on.write_msr(0x83F, 0x61)
    assert on.acknowledge() == 0x61
    on.write_msr(0x80B, 0)
    on.write_msr(0x830, 0xFFFFFFFF << 32 | 0x62)
    assert on.read_msr(0x830) == 0xFFFFFFFF << 32 | 0x62
    assert on.acknowledge() == 0x62
    on.write_msr(0x80B, 0)
    on.write_msr(0x830, 7 << 32 | 0x63)
    on.write_msr(0x830, 0xFF << 32 | 0x63)  # no broadcast here
    assert on.pending_vector() is None
    on.write_msr(0x830, 1 << 32 | 0x864)  # logical: cluster 0, member 0
    assert on.acknowledge() == 0x64


@pytest.mark.parametrize(
    "msr", [0x800, 0x801, 0x804, 0x809, 0x80B, 0x80C, 0x80E, 0x829, 0x82E, 0x831, 0x83A, 0x83F, 0x840, 0xBFF]
)
def test_x2apic_reads_that_fault(on, msr):
    x2(on)
    with pytest.raises(MsrRefused):
        on.read_msr(msr)


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        *(
            (0x802, 0),
            (0x803, 0),
            (0x80A, 0),
            (0x80D, 0),
            (0x80E, 0),
            (0x810, 0),
            (0x820, 0),
            (0x831, 0),
            (0x839, 0),
        ),
        *(
            (0x808, 0x100),
            (0x80B, 1),
            (0x80F, 0x1000),
            (0x828, 1),
            (0x830, 1 << 20),
            (0x832, 1 << 20),
            (0x83F, 0x100),
        ),
        *((0x838, 1 << 32), (0x83E, 4), (0x900, 0)),
    ],
)
def test_x2apic_writes_that_fault(on, msr, value):
    x2(on)
    with pytest.raises(MsrRefused):
        on.write_msr(msr, value)


@pytest.mark.parametrize(("msr", "bits"), [(0x832, 0x1000), (0x835, 0x5000), (0x836, 0x5000), (0x830, 0x1000)])
def test_x2apic_read_only_bits_are_not_reserved(on, msr, bits):
    x2(on)
    on.write_msr(msr, MASKED * (msr != 0x830) | 0x40 | bits)
    assert on.read_msr(msr) & 0x5000 == 0


def test_x2apic_timer_by_msr(on):
    x2(on)
    on.write_msr(0x83E, 0xB)
    on.write_msr(0x832, 0x30)
    on.write_msr(0x838, 100)
    on.run(40)
    assert on.read_msr(0x839) == 60
    on.run(60)
    assert on.acknowledge() == 0x30


@pytest.mark.parametrize(
    ("destination", "meant"),
    [(0x20020, True), (0x30020, False), (0x20040, False), (0x2FFFF, True), (0x20000, False)],
)
def test_another_apic_id(destination, meant):
    apic = LocalApic(InstructionClock(), Machine().pic, apic_id=0x25)
    assert apic.read_msr(BASE) == 0xFEE00800  # no bootstrap processor
    (page,) = apic.ranges()
    assert page.read(ID, 4) == 0x25000000
    page.write(SVR, 4, 0x1FF)
    apic.write_msr(BASE, 0xFEE00C00)
    assert (apic.read_msr(0x802), apic.read_msr(0x80D)) == (0x25, 0x20020)
    apic.write_msr(0x830, destination << 32 | 0x841)
    assert apic.pending_vector() == (0x41 if meant else None)


def test_an_edge_on_lint0_that_is_high_is_not_repeated_by_writing_its_entry(on):
    on.remap_pic(0)
    on.irq(1, True)
    for mode in (0x000, 0x400):
        on.lapic_write(LINT0, mode | 0x45)
        assert on.pending_vector() is None
        assert not on.nmi_pending


def test_which_msrs_are_its_own():
    apic = LocalApic(InstructionClock(), Machine().pic)
    assert [msr for msr in (0x10, 0x1B, 0x6E0, 0x7FF, 0x800, 0xBFF, 0xC00) if apic.owns_msr(msr)] == [
        *(0x1B, 0x6E0, 0x800, 0xBFF)
    ]


@given(st.lists(st.tuples(st.integers(0, 0x3F), st.integers(0, 0xFFFFFFFF)), max_size=40))
def test_no_sequence_of_writes_breaks_it(writes):
    pc = Machine()
    for register, value in writes:
        pc.lapic_write(register << 4, value)
        pc.run(value % 5000)
        vector = pc.pending_vector()
        if vector is not None:
            assert pc.acknowledge() == vector
        for n in range(0x40):
            assert 0 <= pc.lapic_read(n << 4) < 1 << 32
