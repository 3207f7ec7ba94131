"""CPUID shows what works: each feature a model shows is used, each hidden one is #UD or has its reason."""

from __future__ import annotations

import struct

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn import x86_const as ux

from mmuemu.cpu.attach import attach
from mmuemu.cpu.cpu import Cpu, Stop
from mmuemu.cpu.cpuid import BOARD_FEATURES, DEFAULT, HIDDEN, MODELS, cpu_model
from mmuemu.cpu.emulated import emulate
from mmuemu.cpu.model_rules import ModelRules
from mmuemu.cpu.privileged import Privileged
from mmuemu.cpu.traps import Trap
from mmuemu.devices.platform import Platform
from mmuemu.errors import UsageError
from mmuemu.mmu.state import PageFault, PagingState
from mmuemu.mmu.walk import walk
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.features import FEATURES, linux_names
from mmuemu.x86.paging import PS, P
from mmuemu.x86.registers import (
    CR4_FSGSBASE,
    CR4_LA57,
    CR4_PCIDE,
    CR4_PKE,
    CR4_SMAP,
    CR4_SMEP,
    CR4_UMIP,
    EFER_NXE,
    EFER_SCE,
)

CODE, DATA, USER = 0x40_0000, 0x60_0000, 0x70_0000
BOARD = DEFAULT.on_board(tsc_hz=2_100_000_000, crystal_hz=1_000_000_000)


class Machine:
    """Ring-0 code at CODE, 8 KiB of supervisor data, a user page of code and data; privileged checks on."""

    def __init__(self, engine: str) -> None:
        uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_cpu_model(ux.UC_CPU_X86_ICELAKE_SERVER)
        self.mmu = attach(uc, memory="32M", mmu=engine)
        self.cpu: Cpu = self.mmu.cpu
        self.cpu.tsc = lambda: 0x1_2345_6789
        self.cpu.set_model(BOARD)
        self.cpu.privileged = Privileged(self.cpu)
        self.mmu.map(CODE, 4096, "rwx", user=False)
        self.mmu.map(DATA, 8192, "rw-", user=False)
        self.mmu.map(USER, 4096, "rwx", user=True)

    def run(self, code: bytes, ring: int = 0, **registers: int) -> Trap | Stop:
        start = USER if ring else CODE
        frame = self.mmu.page_table.lookup(start).physical & ~0xFFF
        self.mmu.ram.write(frame, code + b"\xf4")
        self.cpu.engine.forget_code(frame)
        self.mmu.set_ring(ring)
        top = USER + 4096 if ring else DATA + 8192
        zero = dict.fromkeys(("rax", "rbx", "rcx", "rdx", "rsi"), 0)
        self.cpu.set_registers(**{**zero, "rdi": DATA + 64, "rsp": top, "rflags": 2, "rip": start, **registers})
        outcome = self.mmu.run(max_instructions=10_000)
        while isinstance(outcome, Trap) and outcome.vector == Vector.UD:
            left = emulate(self.cpu, outcome)
            if left is not None:
                return left
            outcome = self.mmu.run(max_instructions=10_000)
        return outcome

    def value(self, code: bytes, register: str = "rax", **registers: int) -> int:
        """A register after code that must not fault."""
        assert self.run(code, **registers) is Stop.HALTED
        return self.cpu.registers()[register]

    def cr4(self, bits: int) -> None:
        """Set CR4 bits as the guest does."""
        value = self.cpu.paging.cr4 | bits
        assert self.run(b"\x0f\x22\xe0", rax=value) is Stop.HALTED
        assert self.cpu.paging.cr4 == value

    def cpuid(self, leaf: int, subleaf: int = 0, ring: int = 0) -> tuple[int, ...]:
        self.run(b"\x0f\xa2", ring, rax=leaf, rcx=subleaf)
        found = self.cpu.registers()
        return tuple(found[name] for name in ("rax", "rbx", "rcx", "rdx"))

    def msr(self, number: int) -> int | Trap:
        outcome = self.run(b"\x0f\x32", rcx=number)
        found = self.cpu.registers()
        return found["rdx"] << 32 | found["rax"] if outcome is Stop.HALTED else outcome

    def sse(self, code: str, source: bytes, target: bytes = bytes(16)) -> bytes:
        """xmm0 after one instruction on xmm0 (``target``) and xmm1 (``source``)."""
        frame = self.mmu.page_table.lookup(DATA).physical & ~0xFFF
        self.mmu.ram.write(frame + 64, target + source)
        load, store = "0f10070f104f10", "0f1107"  # movups
        assert self.run(bytes.fromhex(load + code + store)) is Stop.HALTED
        return bytes(self.mmu.ram.read(frame + 64, 16))

    def memory(self, code: str, before: bytes, count: int, **registers: int) -> bytes:
        """``count`` bytes at RDI after code."""
        frame = self.mmu.page_table.lookup(DATA).physical & ~0xFFF
        self.mmu.ram.write(frame + 64, before)
        assert self.run(bytes.fromhex(code), **registers) is Stop.HALTED
        return bytes(self.mmu.ram.read(frame + 64, count))


@pytest.fixture(params=["python", "native"])
def machine(request):
    made = Machine(request.param)
    yield made
    made.mmu.detach()


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


# -- what is shown works -----------------------------------------------------------------------------------


def floats(*values: float) -> bytes:
    return struct.pack("<4f", *values)


def words32(*values: int) -> bytes:
    return struct.pack("<4I", *values)


def _debugging_extensions(m: Machine) -> bool:
    m.cr4(8)
    return m.run(hexed("0f21e0")).vector == Vector.UD  # mov rax, dr4


def _time_stamp_disable(m: Machine) -> bool:
    plain = m.value(hexed("0f31")) == 0x2345_6789 and m.cpu.registers()["rdx"] == 1
    m.cr4(4)
    return plain and all(m.run(hexed(code), ring=3).vector == Vector.GP for code in ("0f31", "0f01f9"))


def _smep(m: Machine) -> bool:
    assert m.run(hexed("90")) is Stop.HALTED
    jump = hexed("ffe0")  # jmp rax
    frame = m.mmu.page_table.lookup(USER).physical & ~0xFFF
    m.mmu.ram.write(frame, b"\xf4")
    assert m.run(jump, rax=USER) is Stop.HALTED
    m.cr4(CR4_SMEP)
    return m.run(jump, rax=USER) == Trap(Vector.PF, 0x11, USER, USER, 0)


def _smap(m: Machine) -> bool:
    load = hexed("488b00")
    assert m.run(load, rax=USER) is Stop.HALTED
    m.cr4(CR4_SMAP)
    refused = m.run(load, rax=USER) == Trap(Vector.PF, 1, CODE, USER, 0)
    return refused and m.run(hexed("0f01cb") + load + hexed("0f01ca"), rax=USER) is Stop.HALTED


def _protection_keys(m: Machine) -> bool:
    m.cr4(CR4_PKE)
    assert m.cpuid(7)[2] >> FEATURES["ospke"].bit & 1
    return m.value(hexed("0f01ef31c00f01ee"), rax=0xC) == 0xC  # wrpkru; xor eax, eax; rdpkru


def _five_levels(m: Machine) -> bool:
    root = m.mmu.page_table.root
    table = m.mmu.frames.allocate()
    m.mmu.ram.qwords[table >> 3] = m.mmu.ram.qwords[(table >> 3) + 4] = root | 7
    old = m.cpu.paging
    m.cpu.set_paging(PagingState(table, old.cr0, old.cr4 | CR4_LA57, old.efer))
    return m.run(hexed("488b00"), rax=DATA | 4 << 48) is Stop.HALTED


def _no_execute(m: Machine) -> bool:
    return m.run(hexed("ffe0"), rax=DATA) == Trap(Vector.PF, 0x11, DATA, DATA, 0)


def _one_gib_pages(m: Machine) -> bool:
    root = m.mmu.page_table.root
    table = m.mmu.frames.allocate()
    m.mmu.ram.qwords[(root >> 3) + 5] = table | 7
    m.mmu.ram.qwords[table >> 3] = 0 | PS | 3
    m.mmu.ram.qwords[0x1F_0000 >> 3] = 0xFEED
    return m.value(hexed("488b00"), rax=(5 << 39) + 0x1F_0000) == 0xFEED


def _four_mib_page(m: Machine, entry: int, linear: int) -> int | None:
    table = m.mmu.frames.allocate()
    ram = m.mmu.ram
    ram.write(table + (linear >> 22) * 4, entry.to_bytes(4, "little"))
    found = walk(ram, PagingState(table, cr0=0x8000_0001, cr4=0x10, efer=0), linear, user=False)
    return None if isinstance(found, PageFault) else found.physical


def _pae(m: Machine) -> bool:
    pdpt, directory = m.mmu.frames.allocate(), m.mmu.frames.allocate()
    m.mmu.ram.qwords[pdpt >> 3] = directory | P
    m.mmu.ram.qwords[directory >> 3] = 0x20_0000 | PS | 3
    state = PagingState(pdpt, cr0=0x8000_0001, cr4=0x20, efer=0)
    return walk(m.mmu.ram, state, 0x1234, user=False).physical == 0x20_1234


def _pcid(m: Machine) -> bool:
    m.cr4(CR4_PCIDE)
    root = m.mmu.page_table.root
    return m.value(hexed("0f22d80f20d8"), rax=root | 5 | 1 << 63) == root | 5


def _umip(m: Machine) -> bool:
    assert m.run(hexed("0f01e0 ebfe"), ring=3) is Stop.LIMIT
    m.cr4(CR4_UMIP)
    return m.run(hexed("0f01e0"), ring=3) == Trap(Vector.GP, 0, USER, 0, 3)  # smsw eax


def _xsave(m: Machine) -> bool:
    size = m.cpuid(0xD)[1]
    assert size == m.cpuid(0xD)[2] == 0xA88
    m.cr4(CR4_PKE)
    before = bytes(576) + b"\xee" * 2424
    area = m.memory("0f01ef b8ffffffff 89c2 0fae27", before, 3000, rax=0x30, rdx=0)
    assert area[size:] == b"\xee" * (3000 - size)
    offset = m.cpuid(0xD, 9)[1]
    saved = int.from_bytes(area[offset : offset + 8], "little") == 0x30
    assert m.run(hexed("31c0 31d2 0f01ef b8ffffffff 89c2 0fae2f")) is Stop.HALTED  # wrpkru 0; xrstor
    return saved and m.value(hexed("0f01ee")) == 0x30


def _xcr0(m: Machine) -> bool:
    return m.value(hexed("0f01d0"), rcx=1) & 3 != 0 and m.value(hexed("0f01d0")) == 0x203


def _fsgsbase(m: Machine) -> bool:
    m.cr4(CR4_FSGSBASE)
    return m.value(hexed("f3480faed0 31c0 f3480faec0"), rax=0x1234_5678_9ABC) == 0x1234_5678_9ABC


def _invpcid(m: Machine) -> bool:
    return m.run(hexed("660f388207"), rax=2) is Stop.HALTED


def _system_call_bit(m: Machine) -> bool:
    efer = m.cpu.paging.efer
    assert m.run(hexed("0f30"), rcx=0xC000_0080, rax=efer & ~EFER_SCE) is Stop.HALTED
    return not m.cpu.paging.efer & EFER_SCE


def _rdtscp(m: Machine) -> bool:
    m.cpu.uc.msr_write(0xC000_0103, 0x77)
    return m.value(hexed("0f01f9"), "rcx") == 0x77 and m.cpu.registers()["rax"] == 0x2345_6789


def _rdpid(m: Machine) -> bool:
    m.cpu.uc.msr_write(0xC000_0103, 0x1234)
    return m.value(hexed("f30fc7f8")) == 0x1234


ONES = 0xFFFF_FFFF_FFFF_FFFF
WORKS = {
    "fpu": lambda m: m.memory("d9e8 d8c0 d91f", b"", 4) == struct.pack("<f", 2.0),
    "de": _debugging_extensions,
    "pse": lambda m: _four_mib_page(m, 0x40_0000 | PS | 3, 0x12_3456) == 0x52_3456,
    "pse36": lambda m: _four_mib_page(m, 1 << 13 | PS | 3, 0x123) == 1 << 32 | 0x123,
    "tsc": _time_stamp_disable,
    "msr": lambda m: m.msr(0xC000_0080) == m.cpu.paging.efer,
    "pae": _pae,
    "mce": lambda m: m.cr4(1 << 6) is None,
    "mca": lambda m: m.msr(0x179) == 0,
    "cx8": lambda m: m.memory("0fc70f", words32(1, 2, 0, 0), 8, rax=1, rdx=2, rbx=3, rcx=4) == words32(3, 4, 0, 0)[:8],
    "sep": lambda m: m.run(hexed("0f30"), rcx=0x174, rax=8) is Stop.HALTED and m.msr(0x174) == 8,
    "mtrr": lambda m: m.msr(0xFE) & 0xFF == 8 and m.msr(0x20F) == m.msr(0x26F) == 0,
    "pge": lambda m: m.cr4(1 << 7) is None,
    "cmov": lambda m: m.value(hexed("39c0 0f44c3"), rbx=7) == 7,
    "pat": lambda m: m.msr(0x277) == 0x0007_0406_0007_0406,
    "clfsh": lambda m: m.run(hexed("0fae3f")) is Stop.HALTED and m.cpuid(1)[1] >> 8 & 0xFF == 8,
    "mmx": lambda m: m.value(hexed("480f6ec3 0ffcc0 480f7ec0 0f77"), rbx=0x0102) == 0x0204,
    "fxsr": lambda m: m.memory("0fae17 0fae07", b"\x81\x1f\0\0", 26)[24:] == b"\x81\x1f",
    "sse": lambda m: m.sse("0f58c1", floats(1, 2, 3, 4), floats(1, 1, 1, 1)) == floats(2, 3, 4, 5),
    "sse2": lambda m: m.sse("660ffec1", words32(1, 2, 3, 4), words32(1, 1, 1, 1)) == words32(2, 3, 4, 5),
    "syscall": _system_call_bit,
    "nx": _no_execute,
    "lm": lambda m: m.value(hexed("48b8") + b"\xff" * 8) == ONES,
    "sse3": lambda m: m.sse("f20f7cc1", floats(1, 2, 3, 4), floats(5, 6, 7, 8)) == floats(11, 15, 3, 7),
    "ssse3": lambda m: m.sse("660f381ec1", words32(ONES & 0xFFFF_FFFF, 2, 3, 4)) == words32(1, 2, 3, 4),
    "sse4_1": lambda m: m.sse("660f3840c1", words32(3, 2, 1, 1), words32(7, 5, 2, 3)) == words32(21, 10, 2, 3),
    "sse4_2": lambda m: m.value(hexed("f20f38f0c3"), rbx=0x31, rax=0xFFFF_FFFF) ^ 0xFFFF_FFFF == 0x90F599E3,
    "cx16": lambda m: m.memory("480fc70f", bytes(16), 16, rbx=5, rcx=6) == struct.pack("<QQ", 5, 6),
    "popcnt": lambda m: m.value(hexed("f3480fb8c3"), rbx=0xFF00FF) == 16,
    "lahf": lambda m: m.value(hexed("39c0 9f")) & 0x4000 != 0,
    "rdtscp": _rdtscp,
    "hypervisor": lambda m: struct.pack("<3I", *m.cpuid(0x4000_0000)[1:]) == b"mmuemummuemu",
    "pclmulqdq": lambda m: m.sse("660f3a44c100", words32(3, 0, 0, 0), words32(3, 0, 0, 0)) == words32(5, 0, 0, 0),
    "aes": lambda m: m.sse("660f38ddc1", bytes(16), bytes(16)) == b"\x63" * 16,
    "pcid": _pcid,
    "invpcid": _invpcid,
    "movbe": lambda m: m.memory("480f38f107", b"", 8, rax=0x0102) == b"\0" * 6 + b"\x01\x02",
    "xsave": _xsave,
    "xsaveopt": lambda m: m.memory("0fae17 0fae37", b"\x81\x1f\0\0" + bytes(572), 26, rax=2)[24:] == b"\x81\x1f",
    "xgetbv1": _xcr0,
    "fsgsbase": _fsgsbase,
    "bmi1": lambda m: m.value(hexed("c4e2e0f2c3"), rbx=0xF0) == 0 and m.value(hexed("c4e2f8f7c3"), rbx=9) == 0,
    "bmi2": lambda m: m.value(hexed("c4e2e2f5c1"), rbx=0xABCD, rcx=0xFF00) == 0xAB,
    "lzcnt": lambda m: m.value(hexed("f3480fbdc3"), rbx=1) == 63,
    "erms": lambda m: m.memory("f3a4", b"", 5, rsi=CODE, rcx=3)[:2] == hexed("f3a4"),
    "smep": _smep,
    "pdpe1gb": _one_gib_pages,
    "adx": lambda m: m.value(hexed("f9 66480f38f6c3"), rax=ONES, rbx=ONES) == ONES,
    "smap": _smap,
    "clflushopt": lambda m: m.run(hexed("660fae3f")) is Stop.HALTED,
    "clwb": lambda m: m.run(hexed("660fae37")) is Stop.HALTED,
    "wbnoinvd": lambda m: m.run(hexed("f30f09")) is Stop.HALTED and m.run(hexed("f30f09"), ring=3).vector == Vector.GP,
    "prefetchw": lambda m: m.run(hexed("0f0d0f")) is Stop.HALTED,
    "pku": _protection_keys,
    "umip": _umip,
    "la57": _five_levels,
    "rdpid": _rdpid,
}


def test_every_feature_shown_has_a_proof():
    shown = set().union(*(model.features for model in MODELS.values())) - {"pks"}
    assert shown == set(WORKS)
    assert frozenset().union(BOARD.features) - shown <= BOARD_FEATURES


@pytest.mark.parametrize("feature", WORKS)
def test_a_feature_shown_works(machine, feature):
    place = FEATURES[feature]
    assert machine.cpuid(place.leaf, place.subleaf)[place.register] >> place.bit & 1
    assert WORKS[feature](machine)


def test_a_board_has_what_its_model_adds():
    board = Platform(1 << 20, tsc_deadline=True, x2apic=True)
    for name, msr in (("apic", 0x1B), ("tsc_deadline", 0x6E0), ("x2apic", 0x802)):
        assert name in BOARD.features
        assert board.owns_msr(msr), name
    assert not (DEFAULT.features & BOARD_FEATURES)


# -- what is hidden does not -------------------------------------------------------------------------------

UNDEFINED = {
    "monitor": "0f01c8", "fma": "c4e27198c1", "avx": "c4e27d1807", "f16c": "c4e27913c0", "rtm": "0f01d6",
    "avx2": "c5f5fcc1", "avx512f": "62f1744858c1", "sha": "0f38c8c1", "xsavec": "0fc727", "xsaves": "0fc72f",
    "gfni": "660f38cfc1", "vaes": "c4e275dcc1", "movdiri": "0f38f907", "movdir64b": "660f38f83f",
    "serialize": "0f01e8", "hle": "0f01d6",
}  # fmt: skip
REASONS = {
    "rdrand": "its values would differ from run to run; the engine executes it",
    "rdseed": "its values would differ from run to run; the engine executes it",
    "vme": "virtual-8086 mode extensions; CR4.VME and PVI are refused",
    "mpx": "NOPs where it is missing, as here",
    "ibt": "ENDBR is a NOP where it is missing, as here",
    "cldemote": "a NOP where it is missing, as here",
    "waitpkg": "the engine takes TPAUSE for CLWB and UMONITOR for CLFLUSH",
}


def test_every_hidden_feature_is_accounted_for():
    assert set(UNDEFINED) | set(REASONS) == set(HIDDEN)


@pytest.mark.parametrize("feature", UNDEFINED)
def test_a_hidden_instruction_is_undefined(machine, feature):
    assert machine.run(hexed(UNDEFINED[feature])).vector == Vector.UD


@pytest.mark.parametrize("bit", [0, 1, 13, 14, 23, 24, 25, 30])
def test_control_bits_of_hidden_features_are_refused(machine, bit):
    value = machine.cpu.paging.cr4 | 1 << bit
    assert machine.run(b"\x0f\x22\xe0", rax=value) == Trap(Vector.GP, 0, CODE, 0, 0)


@pytest.mark.parametrize(
    ("feature", "bits"),
    [
        ("smep", CR4_SMEP),
        ("smap", CR4_SMAP),
        ("pku", CR4_PKE),
        ("umip", CR4_UMIP),
        ("la57", CR4_LA57),
        ("pcid", CR4_PCIDE),
        ("xsave", 1 << 18),
        ("fsgsbase", CR4_FSGSBASE),
        ("mce", 1 << 6),
        ("de", 8),
    ],
)
def test_a_feature_taken_away(machine, feature, bits):
    model = BOARD.without({feature})
    machine.cpu.set_model(model)
    place = FEATURES[feature]
    assert not machine.cpuid(place.leaf)[place.register] >> place.bit & 1
    base = machine.cpu.paging.cr4 & ModelRules(model).cr4 & ~bits
    assert machine.run(b"\x0f\x22\xe0", rax=base) is Stop.HALTED
    assert machine.run(b"\x0f\x22\xe0", rax=base | bits) == Trap(Vector.GP, 0, CODE, 0, 0)


def test_emulated_instructions_taken_away_are_undefined(machine):
    machine.cpu.set_model(BOARD.without({"rdpid", "invpcid"}))
    assert machine.run(hexed("f30fc7f8")).vector == Vector.UD
    assert machine.run(hexed("660f388207"), rax=2).vector == Vector.UD


@pytest.mark.parametrize(("feature", "bit"), [("nx", EFER_NXE), ("syscall", EFER_SCE)])
def test_efer_bits_taken_away(machine, feature, bit):
    machine.cpu.set_model(BOARD.without({feature}))
    assert machine.run(hexed("0f30"), rcx=0xC000_0080, rax=0xD01 & ~bit) is Stop.HALTED
    assert machine.run(hexed("0f30"), rcx=0xC000_0080, rax=0xD01).vector == Vector.GP


@pytest.mark.parametrize(("feature", "msr"), [({"rdtscp", "rdpid"}, 0xC000_0103), (set(), 0x3B), (set(), 0x6E1)])
def test_registers_of_hidden_features_do_not_exist(machine, feature, msr):
    machine.cpu.set_model(BOARD.without(feature))
    assert machine.run(hexed("0f32"), rcx=msr).vector == Vector.GP
    assert machine.run(hexed("0f30"), rcx=msr).vector == Vector.GP


def test_arch_capabilities_is_read_only_and_a_feature_of_its_own(machine):
    assert machine.run(hexed("0f32"), rcx=0x10A).vector == Vector.GP
    told = BOARD._replace(features=BOARD.features | {"arch_capabilities"}, arch_capabilities=1 << 40 | 0x2B)
    machine.cpu.set_model(told)
    assert machine.cpuid(7)[3] >> 29 & 1
    assert (machine.value(hexed("0f32"), rcx=0x10A), machine.cpu.registers()["rdx"]) == (0x2B, 1 << 8)
    assert machine.run(hexed("0f30"), rcx=0x10A, rax=0x2B).vector == Vector.GP


@pytest.mark.parametrize("value", [0, 2, 7, 0xE7, 0x2E7, 1 << 62])
def test_xcr0_takes_the_models_components_only(machine, value):
    low, high = value & 0xFFFF_FFFF, value >> 32
    assert machine.run(hexed("0f01d1"), rax=low, rdx=high).vector == Vector.GP


def test_xcr0_decides_the_size_in_use(machine):
    assert machine.run(hexed("0f01d1"), rax=3) is Stop.HALTED
    assert machine.cpuid(0xD)[1:3] == (576, 0xA88)
    assert machine.run(hexed("0f01d1"), rax=0x203) is Stop.HALTED
    assert machine.cpuid(0xD)[1:3] == (0xA88, 0xA88)


def test_without_protection_keys_xsave_leaves_them_out(machine):
    machine.cpu.set_model(BOARD.without({"pku"}))
    assert machine.value(hexed("0f01d0")) == 3
    assert machine.cpuid(0xD)[:3] == (3, 576, 576)
    assert machine.memory("b8ffffffff 89c2 0fae27", b"\xee" * 3000, 3000)[576:] == b"\xee" * 2424


def test_no_one_gib_pages_on_the_python_engine():
    machine = Machine("python")
    machine.cpu.set_model(BOARD.without({"pdpe1gb"}))
    with pytest.raises(AssertionError):
        _one_gib_pages(machine)
    assert machine.cpu.take_trap() is None
    machine.mmu.detach()


def test_the_native_engine_says_what_it_cannot_leave_out():
    machine = Machine("native")
    for model in (BOARD.without({"pdpe1gb"}), MODELS["max"]):
        with pytest.raises(UsageError, match="native MMU"):
            machine.cpu.set_model(model)
    machine.mmu.detach()


def test_supervisor_keys_on_the_python_engine():
    machine = Machine("python")
    machine.cpu.set_model(MODELS["max"])
    machine.cr4(1 << 24)
    load = hexed("488b07")
    assert machine.run(load) is Stop.HALTED
    assert machine.run(hexed("0f30"), rcx=0x6E1, rax=0x1) is Stop.HALTED  # key 0: no access
    machine.cpu.pkrs, rights = 0, machine.cpu.pkrs
    assert rights == 1
    assert machine.run(hexed("0f30"), rcx=0x6E1, rdx=1).vector == Vector.GP
    machine.mmu.detach()


# -- the leaves --------------------------------------------------------------------------------------------


def test_every_leaf_is_the_models_in_every_ring(machine):
    for leaf in (*range(0x18), *range(0x8000_0000, 0x8000_000A), 0x4000_0000, 0x4000_0001, 0x2000_0000, 0xFFFF_FFFF):
        for subleaf in (0, 1, 2, 3, 9):
            expected = BOARD.leaf(leaf, subleaf)
            found = machine.cpuid(leaf, subleaf, ring=3)
            if leaf == 1:
                expected = (*expected[:2], expected[2] | 1 << 27, expected[3])
            elif leaf == 0xD and subleaf == 0:
                expected = (expected[0], 0xA88, *expected[2:])
            assert found == expected, (hex(leaf), subleaf)


def test_the_upper_halves_are_cleared(machine):
    machine.run(b"\x0f\xa2", rax=ONES << 32 & ONES, rcx=ONES << 32 & ONES, rbx=ONES, rdx=ONES)
    assert machine.cpu.registers()["rbx"] == 0x756E_6547


def test_leaves_agree_with_each_other():
    model = BOARD
    assert model.leaf(0)[0] == 0x15
    assert struct.pack("<3I", *(model.leaf(0)[n] for n in (1, 3, 2))) == b"GenuineIntel"
    brand = b"".join(struct.pack("<4I", *model.leaf(0x8000_0002 + n)) for n in range(3))
    assert brand.rstrip(b"\0").decode() == model.brand
    signature = model.leaf(1)[0]
    assert (signature >> 8 & 15, signature >> 4 & 15 | signature >> 12 & 0xF0, signature & 15) == (6, 106, 6)
    denominator, numerator, crystal, _ = model.leaf(0x15)
    assert crystal * numerator // denominator == model.tsc_hz
    assert model.leaf(0x8000_0008)[0] == 40 | 57 << 8
    assert cpu_model(without=["la57"]).leaf(0x8000_0008)[0] == 40 | 48 << 8
    for subleaf in (0, 1, 2):
        assert model.leaf(0xB, subleaf)[3] == model.leaf(1)[1] >> 24 == model.apic_id
    assert [model.leaf(0xB, n)[2] >> 8 for n in range(3)] == [1, 2, 0]
    sizes = []
    for subleaf in range(4):
        a, b, sets, _ = model.leaf(4, subleaf)
        sizes.append((a >> 5 & 7, a & 31, ((b >> 22) + 1) * ((b & 0xFFF) + 1) * (sets + 1) >> 10))
    assert sizes == [(1, 1, 32), (1, 2, 32), (2, 3, 1280), (3, 3, 16384)]
    assert model.leaf(4, 4) == (0, 0, 0, 0)
    assert DEFAULT.leaf(0)[0] == 0xD
    assert DEFAULT.leaf(0x15) == DEFAULT.leaf(0xD)


def test_amd_shows_its_caches_in_leaves_of_its_own():
    model = DEFAULT._replace(vendor="AuthenticAMD", base_mhz=3000)
    assert model.leaf(2) == model.leaf(4) == model.leaf(0x14) == (0, 0, 0, 0)
    assert model.leaf(0x8000_0005) == (0, 0, 0x2008_0140, 0x2008_0140)
    assert model.leaf(0x8000_0006) == (0, 0, 1280 << 16 | 7 << 12 | 1 << 8 | 64, 32 << 18 | 8 << 12 | 1 << 8 | 64)
    assert DEFAULT.leaf(0x8000_0005) == (0, 0, 0, 0)


def test_frequencies_follow_the_crystal():
    model = DEFAULT._replace(tsc_hz=4_008_000_000, crystal_hz=24_000_000, base_mhz=4000)
    assert model.last_leaf == 0x16
    assert (model.leaf(0x15), model.leaf(0x16)) == ((1, 167, 24_000_000, 0), (4000, 4000, 100, 0))
    assert model.leaf(0x17) == model.leaf(0x16)


def test_the_local_apic_shows_only_while_it_is_on(machine):
    assert machine.cpuid(1)[3] >> 9 & 1
    machine.cpu.cpuid.apic_enabled = lambda: False
    assert not machine.cpuid(1)[3] >> 9 & 1


def test_a_foreign_engine_answers_itself_until_a_model_is_set(mmu):
    mmu.map(CODE, b"\x0f\xa2\xf4", "r-x", user=False)
    mmu.set_ring(0)
    mmu.cpu.set_registers(rip=CODE, rax=0x4000_0000)
    assert mmu.cpu.model is None
    mmu.run()
    assert struct.pack("<I", mmu.cpu.registers()["rbx"]) != b"mmue"


def test_features_depend_on_each_other():
    gone = cpu_model(without=["xsave", "sse3"]).features
    assert not gone & {"xsave", "xsaveopt", "pku", "xgetbv1", "sse3", "ssse3", "sse4_1", "sse4_2"}
    assert cpu_model(without=["xsave"]).leaf(0xD) == (0, 0, 0, 0)


@pytest.mark.parametrize("names", [["nonsense"], ["sse2"], ["pse36"]])
def test_what_cannot_be_taken_away_is_said(names):
    with pytest.raises(UsageError, match=names[0]):
        cpu_model(without=names)
    with pytest.raises(UsageError, match="no CPU model 'x'"):
        cpu_model("x")


def test_linux_names():
    assert linux_names({"sse3", "fpu", "osxsave", "lzcnt"}) == ("fpu", "pni", "abm")
    assert "syscall" in DEFAULT.flags
    told = {"lm", "fsgsbase", "spec_ctrl", "intel_stibp", "spec_ctrl_ssbd", "md_clear", "arch_capabilities"}
    assert linux_names(told, ("ibrs_enhanced", "pti")) == (
        "lm",
        "pti",
        "ssbd",
        "ibrs",
        "ibpb",
        "stibp",
        "ibrs_enhanced",
        "fsgsbase",
        "md_clear",
        "arch_capabilities",
    )
    assert linux_names({"amd_ibpb", "amd_ssb_no"}) == ("ibpb",)
    assert DEFAULT.hwcap == DEFAULT.leaf(1)[3]
