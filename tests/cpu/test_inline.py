"""Exceptions delivered in hooks: as without, whatever the guest does to what a delivery reads meanwhile.

Each test does the same on two machines, one of which delivers nothing in hooks, and compares all that they have.
"""

from __future__ import annotations

import hashlib

import pytest

from mmuemu.cpu.attach import Attachment
from mmuemu.cpu.bare import BareMetal
from mmuemu.cpu.cpu import Stop
from mmuemu.cpu.raising import works
from mmuemu.cpu.window import D_HFLAGS, D_OLD_EXCEPTION, Q_CR4, Q_PKRU
from mmuemu.mmu.state import Access, PagingState
from mmuemu.mmu.walk import walk
from mmuemu.x86.paging import KEY_SHIFT, NX, RW, US, A, D, P
from mmuemu.x86.registers import CR0_WP, CR4_PKE, CR4_SMAP
from mmuemu.x86.segments import KERNEL_CS, KERNEL_GDT, USER_SS

GDT, IDT, TSS, STACK, IST, HANDLERS, KCODE, GDT2, IDT2, TSS2, STACK2 = (
    0xFFFF_8000_0000_0000 + n * 0x1_0000 for n in range(11)
)
"""Each in a page of its own; the TSS has the top of its stack's page."""
CODE, USTACK, ABSENT = 0x40_0000, 0x70_0000, 0x90_0000
CR4_PKS = 1 << 24
SOURCES = {
    "int": b"\xcd\x80\xf4",
    "ud": b"\x0f\x0b\xf4",
    "read": b"\x48\x8b\x07\xf4",
    "write": b"\x48\x89\x07\xf4",
    "divide": b"\xf7\xf1\xf4",
}
"""INT 0x80; UD2; MOV RAX, [RDI]; MOV [RDI], RAX; DIV ECX: each at a place of its own in CODE and KCODE."""
VECTORS = {"int": 0x80, "ud": 6, "read": 14, "write": 14, "divide": 0}


def gate(handler, *, dpl=3, kind=0xE, ist=0, present=True, selector=KERNEL_CS):
    low = handler & 0xFFFF | selector << 16 | ist << 32 | kind << 40 | dpl << 45 | present << 47
    return (low | (handler >> 16 & 0xFFFF) << 48 | handler >> 32 << 64).to_bytes(16, "little")


def task(stack, ist):
    state = bytearray(104)
    state[4:12], state[36:44] = stack.to_bytes(8, "little"), ist.to_bytes(8, "little")
    return bytes(state)


class Machine:
    """A bare machine whose handlers are HLT, at 16 bytes for each vector."""

    def __init__(self, engine, inline):
        self.mmu = Attachment(None, 4 << 20, engine)
        self.cpu = self.mmu.cpu
        gdt = [*KERNEL_GDT, 0, 0x8900_0000_0067 | (TSS & 0xFF_FFFF) << 16 | (TSS >> 24 & 0xFF) << 56, TSS >> 32]
        self.tables = len(gdt) * 8 - 1
        code = b"".join(source.ljust(16, b"\xf4") for source in SOURCES.values())
        for linear, content, permissions, user in (
            (GDT, b"".join(entry.to_bytes(8, "little") for entry in gdt), "rw-", False),
            (GDT2, b"".join(entry.to_bytes(8, "little") for entry in gdt), "rw-", False),
            (IDT, b"".join(gate(HANDLERS + 16 * n) for n in range(256)), "rw-", False),
            (IDT2, b"".join(gate(HANDLERS + 16 * n + 8) for n in range(256)), "rw-", False),
            (TSS, task(STACK + 0x1000, IST + 0x1000), "rw-", False),
            (TSS2, task(STACK2 + 0x800, IST + 0x800), "rw-", False),
            (HANDLERS, b"\xf4" * 4096, "r-x", False),
            (CODE, code, "r-x", True),
            (KCODE, code, "r-x", False),
            *((page, 4096, "rw-", False) for page in (STACK, IST, STACK2)),
            (USTACK, 4096, "rw-", True),
        ):
            self.mmu.map(linear, content, permissions, user=user)
        self.bare = BareMetal(self.cpu)
        self.used, self.events = 0, []
        self.bare.on_event = self.events.extend
        if inline:
            plain = self.cpu.inline._deliver

            def deliver(*arguments):
                done = plain(*arguments)
                self.used += done
                return done

            self.cpu.inline._deliver = deliver
        else:
            self.cpu.inline = None
        self.cpu.set_gdt(GDT, self.tables)
        self.cpu.set_idt(IDT, 0xFFF)
        self.cpu.set_tr(0x40, TSS, 103)

    def entry(self, linear):
        return self.mmu.page_table.entry_address(linear) >> 3

    def poke(self, linear, data):
        self.mmu.ram.write(self.mmu.page_table.lookup(linear & -4096).physical + (linear & 0xFFF), data)

    def edit(self, linear, set=0, clear=0):
        """Change the entry of a page; flush, as its owner must."""
        self.mmu.ram.qwords[self.entry(linear)] = self.mmu.ram.qwords[self.entry(linear)] & ~clear | set
        self.cpu.flush_tlb()

    def remap(self, linear, other):
        """Let ``linear`` lead to the frame of ``other``."""
        self.edit(linear, self.mmu.page_table.lookup(other).physical, 0xF_FFFF_F000)

    def set_paging(self, **changes):
        now = self.cpu.paging
        self.cpu.set_paging(
            PagingState(now.cr3, changes.get("cr0", now.cr0), changes.get("cr4", now.cr4), now.efer, now.pkru, now.pkrs)
        )

    def run(self, kind, ring=3, limit=1000, **registers):
        """Raise an exception and run until something stops; all there is afterwards."""
        start = (CODE if ring else KCODE) + 16 * list(SOURCES).index(kind)
        self.mmu.set_ring(ring)
        known = dict.fromkeys(("rax", "rcx", "rdx", "rsi"), 0x11) | {"rcx": 0, "rdi": ABSENT, "rflags": 0x2D7}
        stack = USTACK + 0x808 if ring else STACK2 + 0x808
        self.cpu.set_registers(**known | {"rip": start, "rsp": stack} | registers)
        before = self.cpu.instructions
        stop = self.cpu.run(max_instructions=limit)
        return stop, self.cpu.instructions - before, self.state()

    def state(self):
        self.cpu.window.save()
        q, d = self.cpu.window.q, self.cpu.window.d
        # `start` is for faults during delivery, and nobody looks where there are none.
        events, self.events[:] = [event._replace(start=None) for event in self.events], []
        shutdown, self.bare.shutdown = self.bare.shutdown, None
        registers = self.cpu.registers()
        self.cpu.window.save()
        memory = hashlib.sha1(self.cpu.ram_bytes).hexdigest()
        return registers, [*q[17:58]], d[D_HFLAGS], d[D_OLD_EXCEPTION], events, shutdown and shutdown.chain, memory


@pytest.fixture(params=["python", "native"])
def both(request):
    machines = Machine(request.param, True), Machine(request.param, False)
    yield machines
    for machine in machines:
        machine.mmu.detach()


def agree(both, kind, ring=3, **registers):
    """The state of both after the exception, which is the same."""
    found, expected = (machine.run(kind, ring, **registers) for machine in both)
    assert found == expected
    return found


def warm(both, kind, ring=3, **registers):
    """Raise it until it is delivered in a hook."""
    for _ in range(4):
        agree(both, kind, ring, **registers)
    used = both[0].used
    agree(both, kind, ring, **registers)
    assert both[0].used == used + 1, "delivered in a hook"


def test_this_unicorn_reports_what_is_raised():
    assert works()


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("kind", list(SOURCES))
def test_every_kind_is_delivered_in_a_hook(both, kind, ring):
    warm(both, kind, ring)
    stop, count, (registers, *_) = agree(both, kind, ring)
    assert stop is Stop.HALTED
    assert registers["rip"] == HANDLERS + 16 * VECTORS[kind] + 1
    assert count == (2 if kind == "int" else 1)


def other_root(machine):
    """Another address space, where the IDT is another."""
    twin = machine.mmu.page_table.clone(share_upper=False)
    twin.map_page(IDT, machine.mmu.page_table.lookup(IDT2).physical | P | RW | A | D | NX)
    machine.cpu.set_root(twin.root)


def paged_out(page):
    return lambda machine: machine.edit(page, clear=P)


def poked(linear, data):
    return lambda machine: machine.poke(linear, data)


UD = 6 * 16
UNDONE = ("A and D bits cleared",)
"""Delivery does again what the change has undone."""
CHANGES = {
    "another handler": poked(IDT + UD, gate(HANDLERS + 0x108)),
    "a gate that is not present": poked(IDT + UD, gate(HANDLERS + UD, present=False)),
    "a trap gate": poked(IDT + UD, gate(HANDLERS + UD, kind=0xF)),
    "an interrupt stack": poked(IDT + UD, gate(HANDLERS + UD, ist=1)),
    "the high half of a gate": poked(IDT + UD + 8, b"\0\0\1\0"),
    "another code segment": poked(GDT + KERNEL_CS, (KERNEL_GDT[KERNEL_CS >> 3] ^ 1 << 41).to_bytes(8, "little")),
    "a code segment that is not present": poked(GDT + KERNEL_CS + 5, b"\x1b"),
    "another stack": poked(TSS + 4, (STACK2 + 0x400).to_bytes(8, "little")),
    "the high half of RSP0": poked(TSS + 8, b"\0\0\0\0"),
    "LIDT": lambda machine: machine.cpu.set_idt(IDT2, 0xFFF),
    "LIDT, shorter": lambda machine: machine.cpu.set_idt(IDT, UD + 14),
    "LGDT": lambda machine: (machine.poke(GDT2 + KERNEL_CS + 5, b"\x1b"), machine.cpu.set_gdt(GDT2, machine.tables)),
    "LGDT, shorter": lambda machine: machine.cpu.set_gdt(GDT, KERNEL_CS + 6),
    "LTR": lambda machine: machine.cpu.set_tr(0x40, TSS2, 103),
    "LTR, shorter": lambda machine: machine.cpu.set_tr(0x40, TSS, 8),
    "CR3": other_root,
    "the IDT elsewhere": lambda machine: machine.remap(IDT, IDT2),
    "the TSS elsewhere": lambda machine: machine.remap(TSS, TSS2),
    "the stack elsewhere": lambda machine: machine.remap(STACK, IST),
    "the handlers elsewhere": lambda machine: machine.remap(HANDLERS, CODE),
    "no IDT": paged_out(IDT),
    "no GDT": paged_out(GDT),
    "no TSS": paged_out(TSS),
    "no stack": paged_out(STACK),
    "no handlers": paged_out(HANDLERS),
    "a stack that is read-only": lambda machine: machine.edit(STACK, clear=RW),
    "an IDT that is read-only": lambda machine: machine.edit(IDT, clear=RW),
    "A and D bits cleared": lambda machine: [machine.edit(page, clear=A | D) for page in (IDT, GDT, TSS, STACK)],
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_counts(both, change):
    warm(both, "ud")
    was = agree(both, "ud")
    for machine in both:
        CHANGES[change](machine)
    now = agree(both, "ud")
    assert now != was or change in UNDONE
    agree(both, "ud")


def test_the_paging_state_counts(both):
    """A stack that is read-only, with and without CR0.WP; tables of the user's, with and without CR4.SMAP and PKRU."""
    for machine in both:
        machine.edit(STACK, clear=RW)
        for step in walk(machine.mmu.ram, machine.cpu.paging, TSS, Access.READ).steps:
            machine.mmu.ram.qwords[step.entry_address >> 3] |= US
        machine.edit(TSS, set=2 << KEY_SHIFT)
        machine.set_paging(cr0=machine.cpu.paging.cr0 & ~CR0_WP, cr4=machine.cpu.paging.cr4 | CR4_PKE)
    warm(both, "ud")
    for machine in both:
        machine.cpu.window.save()
        machine.cpu.window.q[Q_PKRU] = 1 << 4
        machine.cpu.window.restore()
    assert agree(both, "ud")[2][4][-1].vector == 14, "the TSS cannot be read"
    for machine in both:
        machine.cpu.window.save()
        machine.cpu.window.q[Q_PKRU] = 0
        machine.cpu.window.restore()
    warm(both, "ud")
    for machine in both:
        machine.set_paging(cr4=machine.cpu.paging.cr4 | CR4_SMAP)
    assert agree(both, "ud")[2][4][-1].vector == 14
    for machine in both:
        assert machine.cpu.paging.cr4 & CR4_SMAP
        machine.set_paging(cr4=machine.cpu.paging.cr4 & ~CR4_SMAP)
    warm(both, "ud")
    for machine in both:
        machine.set_paging(cr0=machine.cpu.paging.cr0 | CR0_WP)
    assert agree(both, "ud")[2][5] is not None, "no stack can be written to"


def test_the_supervisors_keys_count():
    machine = Machine("python", True)
    machine.edit(STACK, set=1 << KEY_SHIFT)
    machine.cpu.window.save()
    machine.set_paging(cr4=machine.cpu.window.q[Q_CR4] | CR4_PKS)
    for _ in range(4):
        machine.run("ud")
    used = machine.used
    assert machine.run("ud")[2][5] is None
    assert machine.used == used + 1
    machine.cpu.pkrs = 2 << 2
    machine.cpu.flush_tlb()
    assert machine.run("ud")[2][5] is not None, "no stack can be written to"
    machine.mmu.detach()


def test_rings_and_stacks_have_plans_of_their_own(both):
    warm(both, "ud", 0)
    warm(both, "ud", 3)
    for rsp in (STACK2 + 0x808, STACK2 + 0x1000, STACK2 + 0x20, STACK2 + 0x33, STACK + 0x500, STACK2 + 0xFFF):
        for _ in range(2):
            agree(both, "ud", 0, rsp=rsp)
            agree(both, "read", 0, rsp=rsp)
    agree(both, "ud", 0, rsp=ABSENT)


def test_dpl_is_checked_for_int(both):
    warm(both, "int")
    for machine in both:
        machine.poke(IDT + 0x800, gate(HANDLERS + 0x800, dpl=0))
    assert agree(both, "int")[2][4][-1].vector == 13
    warm(both, "int", 0)


def test_int_0_is_judged_otherwise_than_a_divide_error(both):
    for machine in both:
        machine.poke(IDT, gate(HANDLERS, dpl=0))
        machine.poke(CODE, b"\xcd\0\xf4")
    warm(both, "divide")
    assert agree(both, "int")[2][4][-1].vector == 13


def test_a_segment_load_of_ring_3_reads_the_gdt_with_other_rights(both):
    """What looks like a page fault of ring 3 is none."""
    warm(both, "read")
    for machine in both:
        machine.poke(CODE, b"\x8e\xe0\xcd\x80\xf4")  # mov fs, eax; int 0x80
    for _ in range(2):
        _, _, state = agree(both, "int", rax=USER_SS)
        assert [event.vector for event in state[4]] == [0x80]
        for machine in both:
            machine.cpu.flush_tlb()


def test_a_user_access_to_what_the_processor_reads(both):
    for address in (IDT, GDT, TSS, STACK + 0xFF0, HANDLERS):
        for kind in ("read", "write"):
            for _ in range(3):
                _stop, _, state = agree(both, kind, rdi=address)
                assert state[4][-1].address == address


def test_flags_are_those_of_the_instruction_before(both):
    """The engine evaluates flags late: ADD, then the exception."""
    for machine in both:
        machine.poke(CODE, b"\x48\x01\xc8\xcd\x80\xf4" + b"\x48\x01\xc8\xfd\x0f\x0b")  # add rax, rcx; (std)
    for rax, rcx in ((1, 2), (1, (1 << 64) - 1), (1 << 63, 1 << 63)):
        for start in (CODE, CODE + 6):
            for _ in range(3):
                _, _, (registers, *_) = agree(both, "int", rip=start, rax=rax, rcx=rcx)
                total = rax + rcx
                assert registers["rflags"] & 0x41 == (total >> 64) | (not total & (1 << 64) - 1) << 6
                assert registers["rflags"] >> 10 & 1 == (start != CODE)


@pytest.mark.parametrize("kind", ["int", "ud", "read"])
def test_a_limit_falls_on_the_same_instruction(both, kind):
    """A loop of exceptions whose handler returns, cut after each number of instructions."""
    skip = {"int": b"", "ud": b"\x48\x83\x04\x24\x02", "read": b"\x48\x83\xc4\x08\x48\x83\x04\x24\x03"}[kind]
    code = SOURCES[kind][:-1]
    for machine in both:
        machine.poke(HANDLERS + 16 * VECTORS[kind], skip + b"\x48\xcf")
        machine.poke(CODE, code + b"\x48\xff\xce\x75" + bytes([256 - len(code) - 5]) + b"\xf4")  # dec rsi; jnz
    for limit in range(1, 24):
        agree(both, "int", rip=CODE, rsi=3, limit=limit)
    assert both[0].used > 30


def test_the_handlers_code_is_looked_at_when_it_changes(both):
    """MOV to CR4 of a value that no processor takes, in a handler that was plain."""
    warm(both, "int")
    for machine in both:
        machine.poke(HANDLERS + 0x800, b"\x48\x83\xc8\xff\x0f\x22\xe0\xf4")  # or rax, -1; mov cr4, rax
        machine.mmu.cpu.engine.forget_code(machine.mmu.page_table.lookup(HANDLERS).physical)
    for _ in range(3):
        assert agree(both, "int")[2][4][-1].vector == 13


def test_a_handler_across_two_pages(both):
    for machine in both:
        machine.mmu.map(HANDLERS + 0x1000, b"\xf4" * 4096, "r-x", user=False)
        machine.poke(IDT + UD, gate(HANDLERS + 0xFF0))
    warm(both, "ud")
    for machine in both:
        machine.poke(HANDLERS + 0x1000, b"\x0f\x22\xe0" * 8)
    agree(both, "ud")
    for machine in both:
        machine.edit(HANDLERS + 0x1000, clear=P)
    agree(both, "ud")


def test_who_asks_to_stop_is_heard(both):
    warm(both, "ud")
    for machine in both:
        machine.bare.on_event = lambda chain, machine=machine: machine.cpu.stop()
    stop, *_ = agree(both, "ud")
    assert stop is Stop.REQUESTED
    for machine in both:
        machine.bare.on_event = None
        machine.asked = []
        machine.bare.before_trap = lambda trap, machine=machine: machine.asked.append(trap)
    agree(both, "ud")
    agree(both, "read")
    assert both[0].asked == both[1].asked != []


def test_a_run_may_end_at_the_handler(both):
    warm(both, "ud")
    for machine in both:
        machine.mmu.set_ring(3)
        machine.cpu.set_registers(rip=CODE + 16, rsp=USTACK + 0x800, rflags=2)
        assert machine.cpu.run(max_instructions=100, until=HANDLERS + UD) is Stop.UNTIL
    assert both[0].state() == both[1].state()


@pytest.mark.parametrize("kind", ["int", "ud", "read"])
def test_an_error_in_a_callback_comes_out(both, kind):
    warm(both, kind)

    def failing(chain):
        raise ZeroDivisionError

    for machine in both:
        machine.bare.on_event = failing
        with pytest.raises(ZeroDivisionError):
            machine.run(kind)
        machine.bare.on_event = None
        assert machine.cpu.run(max_instructions=10) is Stop.HALTED
    assert both[0].state() == both[1].state()


def test_int_14_is_no_page_fault_and_a_page_fault_behind_it_no_int(both):
    for machine in both:
        machine.poke(HANDLERS + 14 * 16, b"\x48\xcf")
        machine.poke(CODE, b"\xcd\x0e\xb8\x01\0\0\0\x48\x8b\x07\xf4")  # int 14; mov eax, 1; mov rax, [rdi]
        machine.poke(IDT + 14 * 16, gate(HANDLERS + 14 * 16))
    for _ in range(4):
        agree(both, "int", rip=CODE, limit=12)
        agree(both, "int", rip=CODE, limit=1)  # CR2 stays
