"""The 8259 pair: initialization as kernels do it, priority, the kinds of EOI, reads, spurious interrupts, ELCR."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmuemu.devices.bus import PortBus
from mmuemu.devices.pic import PicPair

M, S = 0x20, 0xA0


class Pair(PicPair):
    """Two controllers on a bus, remapped to 0x20 and 0x28, nothing masked."""

    def __init__(self, icw4=1):
        self.levels = []
        super().__init__(self.levels.append)
        self.bus = PortBus()
        for claim in self.ports():
            self.bus.claim(claim)
        for port, value in ((M, 0x11), (S, 0x11), (M + 1, 0x20), (S + 1, 0x28)):
            self.out(port, value)
        for port, value in ((M + 1, 4), (S + 1, 2), (M + 1, icw4), (S + 1, icw4)):
            self.out(port, value)

    def out(self, port, value):
        self.bus.write(port, 1, value)

    def inp(self, port):
        return self.bus.read(port, 1)

    def pulse(self, line):
        self.set_line(line, True)
        self.set_line(line, False)

    def irr(self, port=M):
        self.out(port, 0x0A)
        return self.inp(port)

    def in_service(self, port=M):
        self.out(port, 0x0B)
        return self.inp(port)


def test_remap_as_osdev_does_it_keeps_masks_and_moves_vectors(quiet):
    quiet.remap_pic(0xFFFF)
    assert (quiet.inb(0x21), quiet.inb(0xA1)) == (0xFF, 0xFF)
    quiet.outb(0x21, 0xFE)
    quiet.irq(0, True)
    assert quiet.pic.peek() == 0x20


def test_the_four_initialization_words_end_where_they_should():
    pair = Pair()
    pair.out(M + 1, 0xA5)  # after ICW4 the odd port is the mask again
    assert pair.inp(M + 1) == 0xA5
    pair.out(M, 0x13)  # single, with ICW4: no ICW3
    pair.out(M + 1, 0x40)
    pair.out(M + 1, 0x01)
    pair.out(M + 1, 0x77)
    assert pair.inp(M + 1) == 0x77
    pair.out(M, 0x12)  # single, no ICW4
    pair.out(M + 1, 0x57)
    pair.out(M + 1, 0x3C)
    assert pair.inp(M + 1) == 0x3C
    assert pair.master.base == 0x50  # the low three bits come from the input


def test_initialization_forgets_everything_and_wants_new_edges():
    pair = Pair()
    pair.set_line(3, True)
    pair.out(M + 1, 0xF0)
    pair.acknowledge()
    pair.out(M, 0x11)
    for value in (0x20, 4, 1):
        pair.out(M + 1, value)
    assert (pair.inp(M + 1), pair.irr(), pair.in_service()) == (0, 0, 0)
    pair.set_line(3, True)  # was high all along: no edge
    assert pair.peek() is None
    pair.set_line(3, False)
    pair.set_line(3, True)
    assert pair.peek() == 0x23


def test_an_interrupt_goes_from_request_to_service_to_rest():
    pair = Pair()
    pair.set_line(1, True)
    assert (pair.intr, pair.irr(), pair.in_service()) == (True, 0x02, 0x00)
    assert pair.peek() == pair.acknowledge() == 0x21
    assert (pair.intr, pair.irr(), pair.in_service()) == (False, 0x00, 0x02)
    pair.out(M, 0x20)
    assert pair.in_service() == 0
    assert pair.levels == [True, False]


def test_the_slave_speaks_through_the_masters_line_2_and_needs_two_eois():
    pair = Pair()
    pair.set_line(10, True)
    assert (pair.irr(), pair.irr(S)) == (0x04, 0x04)
    assert pair.peek() == pair.acknowledge() == 0x2A
    assert (pair.in_service(), pair.in_service(S)) == (0x04, 0x04)
    pair.pulse(9)
    pair.out(S, 0x20)
    assert pair.peek() is None  # the master still serves line 2
    pair.out(M, 0x20)
    assert pair.acknowledge() == 0x29


def test_a_higher_line_interrupts_a_lower_one_and_not_the_other_way():
    pair = Pair()
    pair.pulse(5)
    assert pair.acknowledge() == 0x25
    pair.pulse(6)
    assert pair.peek() is None
    pair.pulse(3)
    assert pair.acknowledge() == 0x23
    pair.out(M, 0x20)  # ends 3
    assert pair.in_service() == 0x20
    assert pair.peek() is None
    pair.out(M, 0x20)
    assert pair.acknowledge() == 0x26


def test_specific_eoi_ends_the_line_it_names():
    pair = Pair()
    for line in (5, 3):
        pair.pulse(line)
        pair.acknowledge()
    pair.out(M, 0x65)
    assert pair.in_service() == 0x08


def test_rotation_makes_the_served_line_the_lowest():
    pair = Pair()
    pair.pulse(4)
    pair.acknowledge()
    pair.out(M, 0xA0)  # rotate on non-specific EOI: 5 is now the highest
    for line in (4, 6, 0):
        pair.pulse(line)
    order = []
    while pair.intr:
        order.append(pair.acknowledge())
        pair.out(M, 0x20)
    assert order == [0x26, 0x20, 0x24]


def test_set_priority_and_rotate_on_specific_eoi():
    pair = Pair()
    pair.out(M, 0xC3)  # 3 lowest, 4 highest
    pair.pulse(1)
    pair.pulse(7)
    assert pair.acknowledge() == 0x27
    pair.out(M, 0xE7)
    pair.pulse(0)
    assert pair.acknowledge() == 0x20


def test_automatic_eoi_leaves_nothing_in_service_and_can_rotate():
    pair = Pair(icw4=3)
    pair.pulse(2 + 1)
    assert pair.acknowledge() == 0x23
    assert pair.in_service() == 0
    pair.out(M, 0x80)  # rotate in automatic EOI mode
    pair.pulse(3)
    pair.acknowledge()
    pair.pulse(3)
    pair.pulse(5)
    assert pair.acknowledge() == 0x25
    pair.out(M, 0x00)
    pair.pulse(0)
    assert pair.acknowledge() == 0x20


def test_a_mask_holds_an_edge_back_without_losing_it():
    pair = Pair()
    pair.out(M + 1, 0x10)
    pair.pulse(4)
    assert (pair.intr, pair.irr()) == (False, 0x10)
    pair.out(M + 1, 0)
    assert pair.acknowledge() == 0x24


def test_special_mask_mode_lets_lower_lines_through_a_masked_one():
    pair = Pair()
    pair.pulse(3)
    pair.acknowledge()
    pair.pulse(6)
    assert pair.peek() is None
    pair.out(M + 1, 0x08)
    assert pair.peek() is None
    pair.out(M, 0x68)
    assert pair.acknowledge() == 0x26
    pair.out(M, 0x20)  # non-specific: not the masked one
    assert pair.in_service() == 0x08
    pair.out(M, 0x48)
    pair.pulse(6)
    assert pair.peek() is None


def test_special_fully_nested_mode_lets_the_slave_interrupt_itself():
    pair = Pair(icw4=0x11)
    pair.pulse(12)
    pair.acknowledge()
    pair.pulse(9)
    assert pair.acknowledge() == 0x29
    ordinary = Pair()
    ordinary.pulse(12)
    ordinary.acknowledge()
    ordinary.pulse(9)
    assert ordinary.peek() is None


def test_poll_acknowledges_by_reading():
    pair = Pair()
    pair.out(M, 0x0C)
    assert pair.inp(M) == 0
    pair.pulse(6)
    pair.out(M, 0x0C)
    assert pair.inp(M) == 0x86
    assert pair.in_service() == 0x40


def test_a_level_that_is_gone_is_a_spurious_irq_7_with_nothing_in_service():
    pair = Pair()
    pair.out(0x4D0, 0x08)
    pair.set_line(3, True)
    assert pair.intr
    pair.set_line(3, False)
    assert not pair.intr
    assert pair.acknowledge() == 0x27
    assert pair.in_service() == 0


def test_a_slave_that_changes_its_mind_during_the_cycle_gives_irq_15():
    pair = Pair()
    pair.set_line(12, True)
    pair.slave.imr = 0xFF  # between the master's decision and the slave's
    assert pair.acknowledge() == 0x2F
    assert (pair.in_service(), pair.in_service(S)) == (0x04, 0)


def test_level_lines_ask_again_until_they_fall():
    pair = Pair()
    pair.out(0x4D1, 0x02)
    pair.set_line(9, True)
    for _ in range(3):
        assert pair.acknowledge() == 0x29
        pair.out(S, 0x20)
        pair.out(M, 0x20)
    pair.set_line(9, False)
    assert not pair.intr


def test_elcr_keeps_only_the_lines_that_may_be_level():
    pair = Pair()
    pair.bus.write(0x4D0, 2, 0xFFFF)
    assert pair.bus.read(0x4D0, 2) == 0xDEF8
    pair.bus.write(0x4D0, 2, 0)
    assert pair.bus.read(0x4D0, 2) == 0
    pair.set_line(9, True)  # the cascade still works
    assert pair.peek() == 0x29


def test_a_line_that_is_high_asks_as_soon_as_it_becomes_level():
    pair = Pair()
    pair.set_line(5, True)
    pair.acknowledge()
    pair.out(M, 0x20)
    assert not pair.intr
    pair.out(0x4D0, 0x20)
    assert pair.acknowledge() == 0x25
    pair.out(M, 0x20)
    pair.set_line(5, False)
    pair.pulse(6)
    pair.out(0x4D0, 0x60)  # a latched edge means nothing to a level that is low
    assert not pair.intr


def test_line_2_is_the_cascade():
    pair = Pair()
    pair.set_line(2, True)
    assert not pair.intr


class PriorityMachine(RuleBasedStateMachine):
    """Against sets: who is requested, masked, in service, in fixed priority order with non-specific EOIs."""

    ORDER = (0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7)

    @initialize()
    def start(self):
        self.pair = Pair()
        self.requested, self.masked, self.stack = set(), set(), []

    def expected(self):
        for line in self.ORDER:
            if self.stack and self.blocks(self.stack[-1], line):
                return None
            if line in self.requested and line not in self.masked and not (line >= 8 and 2 in self.masked):
                return line
        return None

    def blocks(self, serving, line):
        """Whether ``line`` is not above ``serving``: the whole slave is one line to the master."""
        if serving >= 8 and line >= 8:
            return True
        return self.ORDER.index(line) >= self.ORDER.index(serving)

    @rule(line=st.sampled_from(ORDER))
    def edge(self, line):
        self.pair.pulse(line)
        self.requested.add(line)

    @rule(mask=st.integers(0, 0xFFFF))
    def mask(self, mask):
        self.pair.out(M + 1, mask & 0xFF)
        self.pair.out(S + 1, mask >> 8)
        self.masked = {line for line in range(16) if mask >> line & 1}

    @precondition(lambda self: self.pair.intr)
    @rule()
    def take(self):
        line = self.expected()
        assert self.pair.acknowledge() == 0x20 + line
        self.requested.discard(line)
        self.stack.append(line)

    @precondition(lambda self: self.stack)
    @rule()
    def end(self):
        if self.stack.pop() >= 8:
            self.pair.out(S, 0x20)
        self.pair.out(M, 0x20)

    @invariant()
    def the_highest_open_request_wins(self):
        line = self.expected()
        assert self.pair.intr == (line is not None)
        assert self.pair.peek() == (None if line is None else 0x20 + line)

    @invariant()
    def no_edge_is_lost(self):
        got = self.pair.master.irr & ~4 | self.pair.slave.irr << 8
        assert got == sum(1 << line for line in self.requested)


TestPriority = PriorityMachine.TestCase


@given(st.lists(st.tuples(st.sampled_from([0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1]), st.integers(0, 255)), max_size=40))
def test_no_sequence_of_writes_breaks_it(writes):
    pair = Pair()
    for n, (port, value) in enumerate(writes):
        pair.out(port, value)
        pair.set_line(n * 7 % 16, bool(value & 1))
        assert pair.intr == (pair.peek() is not None)
        if value & 2:
            assert 0 <= pair.acknowledge() < 256
        assert 0 <= pair.inp(port) < 256
