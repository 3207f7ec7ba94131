"""Instructions as the timing model sees them: what each reads, writes and waits for. Decoded by capstone, once.

Registers are numbered as in the state window: 0 to 15 general, then FLAGS, XMM0 to XMM15, and one number for all of x87
and MMX. RSP is renamed without latency where PUSH, POP, CALL and RET move it (Intel's stack engine; Agner Fog, "The
microarchitecture of Intel, AMD and VIA CPUs").
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from mmuemu.cpu.window import REGISTERS

if TYPE_CHECKING:
    from capstone import Cs, CsInsn

FLAGS: Final = 16
XMM: Final = 17
X87: Final = 33
REGISTER_COUNT: Final = 34
RSP: Final = REGISTERS["rsp"]
RBP: Final = REGISTERS["rbp"]


class Kind(IntEnum):
    """What an instruction does to the flow of execution or to hidden state."""

    PLAIN = 0
    CONDITIONAL = 1
    JUMP = 2
    CALL = 3
    INDIRECT_JUMP = 4
    INDIRECT_CALL = 5
    RETURN = 6
    LFENCE = 7
    MFENCE = 8
    SFENCE = 9
    SERIALIZE = 10
    """CPUID and what else drains the pipeline and ends a window (IRET, SYSCALL, INT, moves to control registers)."""
    RDTSC = 11
    RDTSCP = 12
    FLUSH = 13
    PREFETCH = 14
    VERW = 15
    PAUSE = 16
    STRING = 17
    """A repeated string instruction."""
    UNKNOWN = 18
    """What capstone does not decode; it ends a window."""


BRANCHES: Final = frozenset(
    {Kind.CONDITIONAL, Kind.JUMP, Kind.CALL, Kind.INDIRECT_JUMP, Kind.INDIRECT_CALL, Kind.RETURN}
)
WATCHED: Final = frozenset({Kind.RDTSC, Kind.RDTSCP, Kind.FLUSH, Kind.PREFETCH, Kind.VERW})
"""Kinds that are stopped before: what they do depends on the state then."""
ENDS_WINDOW: Final[dict[int, str]] = {
    Kind.LFENCE: "lfence",
    Kind.MFENCE: "mfence",
    Kind.SERIALIZE: "serializing instruction",
    Kind.RDTSC: "rdtsc",
    Kind.RDTSCP: "rdtscp",
    Kind.VERW: "verw",
    Kind.UNKNOWN: "an instruction that the model does not know",
}
"""Why a window ends at an instruction of that kind."""

_SERIAL: Final = frozenset(
    {
        "cpuid", "iretq", "iretd", "iret", "syscall", "sysret", "sysretq", "sysenter", "sysexit", "int", "int3",
        "int1", "hlt", "rsm", "lgdt", "lidt", "lldt", "ltr", "invlpg", "invpcid", "invd", "wbinvd", "wrmsr",
        "rdmsr", "in", "out", "insb", "insd", "insw", "outsb", "outsd", "outsw", "rdpmc", "xsetbv", "ud0", "ud1",
        "ud2", "ud2b", "retf", "retfq", "lcall", "ljmp", "swapgs", "cli", "sti", "clts", "lmsw", "into", "bound",
        "wrpkru", "xrstor", "xrstor64", "xsave", "xsave64", "xsaveopt", "xsaveopt64", "rdpkru", "xgetbv",
        "serialize", "monitor", "mwait", "vmcall", "vmmcall", "rdrand", "rdseed", "popfq", "popf", "stac", "clac",
        "wbnoinvd", "clzero", "enter",
    }
)  # fmt: skip
DRAINS: Final = frozenset({"cpuid", "iretq", "iret", "wrmsr", "invlpg", "serialize", "invd", "wbinvd", "rsm"})
"""Those that wait for everything before them (SDM volume 3, section 9.3)."""
_NAMES: Final[dict[str, int]] = {
    "lfence": Kind.LFENCE, "mfence": Kind.MFENCE, "sfence": Kind.SFENCE, "rdtsc": Kind.RDTSC, "rdtscp": Kind.RDTSCP,
    "clflush": Kind.FLUSH, "clflushopt": Kind.FLUSH, "clwb": Kind.PLAIN, "verw": Kind.VERW, "pause": Kind.PAUSE,
    "prefetcht0": Kind.PREFETCH, "prefetcht1": Kind.PREFETCH, "prefetcht2": Kind.PREFETCH, "prefetchnta": Kind.PREFETCH,
    "prefetchw": Kind.PREFETCH, "prefetch": Kind.PREFETCH, "prefetchwt1": Kind.PREFETCH, "ret": Kind.RETURN,
}  # fmt: skip
_LATENCY: Final[dict[str, int]] = {
    "imul": 3, "mul": 3, "div": 26, "idiv": 26, "popcnt": 3, "lzcnt": 3, "tzcnt": 3, "bsf": 3, "bsr": 3, "crc32": 3,
    "mulsd": 4, "mulss": 4, "mulps": 4, "mulpd": 4, "addsd": 4, "addss": 4, "addps": 4, "addpd": 4, "subsd": 4,
    "divsd": 14, "divss": 11, "divps": 11, "divpd": 14, "sqrtsd": 18, "sqrtss": 13, "sqrtpd": 18, "cvtsi2sd": 5,
    "cvttsd2si": 6, "cvtsi2ss": 5, "movd": 2, "movq": 2, "pmuludq": 5, "pclmulqdq": 7, "aesenc": 4, "aesdec": 4,
    "pause": 44, "xchg": 2, "bswap": 2, "fadd": 3, "fmul": 5, "fdiv": 15, "fsqrt": 18, "rdtsc": 20, "rdtscp": 20,
    "cpuid": 100, "lfence": 4, "mfence": 33, "sfence": 2, "clflush": 2, "clflushopt": 2,
}  # fmt: skip
"""Cycles; 1 where none is named. Skylake's of Agner Fog's instruction tables, RDTSC and fences rounded."""
SLOW: Final = DRAINS | {"pause", "lfence"} | {name for name, latency in _LATENCY.items() if latency > 10}
"""Mnemonics that are worth a look at what waits for them."""
_LOCKED: Final = 18
"""Cycles of a locked read-modify-write (the same tables)."""
_ZEROING: Final = frozenset({"xor", "sub", "pxor", "xorps", "xorpd", "psubb", "psubd", "psubq"})
_REPEATED: Final = ("rep ", "repe ", "repne ", "repz ", "repnz ")
_STRINGS: Final = ("movs", "stos", "lods", "cmps", "scas", "ins", "outs")
_SUPERVISOR_ACCESS: Final = frozenset({"fs", "gs"})


class Memory:
    """A memory operand: linear address = segment base + base + index * scale + displacement."""

    __slots__ = ("base", "displacement", "index", "mask", "registers", "scale", "segment", "size")

    def __init__(
        self, base: int, index: int, scale: int, displacement: int, segment: str, size: int, mask: int = (1 << 64) - 1
    ) -> None:
        self.base = base
        self.index = index
        self.scale = scale
        self.displacement = displacement
        self.segment = segment
        self.size = size
        self.mask = mask
        self.registers = tuple(register for register in (base, index) if register >= 0)


class Op:
    """One decoded instruction. ``sources`` leaves out what only forms the address (``memory.registers``)."""

    __slots__ = (
        "address",
        "code",
        "destinations",
        "drains",
        "end",
        "kind",
        "latency",
        "loads",
        "memory",
        "mnemonic",
        "pops",
        "pushes",
        "read_events",
        "sources",
        "stores",
        "target",
        "write_events",
    )

    def __init__(self, address: int, code: bytes) -> None:
        self.address = address
        self.code = code
        self.end = address + len(code)
        self.kind: int = Kind.UNKNOWN
        self.mnemonic = ""
        self.sources: tuple[int, ...] = ()
        self.destinations: tuple[int, ...] = ()
        self.latency = 1
        self.memory: Memory | None = None
        self.loads = False
        self.stores = False
        self.pushes = False
        self.pops = False
        self.drains = False
        self.target = 0
        self.read_events = 0
        """Accesses that the engine reports."""
        self.write_events = 0


@lru_cache(1)
def _decoder() -> Cs:
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    return engine


@lru_cache(1)
def _plain_decoder() -> Cs:
    import capstone

    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def outline(code: bytes, address: int) -> list[tuple[int, int, str, str]]:
    """(address, size, mnemonic, operands) of each instruction of ``code``, without the details that cost time."""
    return list(_plain_decoder().disasm_lite(code, address))


@lru_cache(512)
def _register(name: str) -> int:
    """The number of the whole register that ``name`` is (a part of), or -1."""
    if name in REGISTERS:
        return REGISTERS[name] if name != "rip" else -1
    if name.startswith(("xmm", "ymm")):
        number = int(name[3:])
        return XMM + number if number < 16 else -1
    if name in ("rflags", "eflags"):
        return FLAGS
    if name.startswith(("st", "mm", "fp")):
        return X87
    if name[0] == "r" and name[1:].rstrip("dwb").isdigit():
        return int(name[1:].rstrip("dwb"))
    for whole in ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di"):
        if name in (whole, "e" + whole, whole + "l", whole[0] + "l", whole[0] + "h"):
            return REGISTERS["r" + whole]
    return -1


def kind_of(mnemonic: str, operands: str) -> int:
    """The :class:`Kind` of an instruction by its text."""
    found = _NAMES.get(mnemonic)
    if found is not None:
        return found
    if mnemonic in _SERIAL:
        return Kind.SERIALIZE
    if mnemonic[0] == "j" or mnemonic.startswith("loop"):
        if mnemonic != "jmp":
            return Kind.CONDITIONAL
        return Kind.JUMP if operands.startswith("0x") or operands.isdigit() else Kind.INDIRECT_JUMP
    if mnemonic in ("call", "bnd call"):
        return Kind.CALL if operands.startswith("0x") or operands.isdigit() else Kind.INDIRECT_CALL
    if mnemonic in ("bnd ret", "repz ret", "rep ret", "notrack ret"):
        return Kind.RETURN
    if mnemonic.startswith("bnd j") or mnemonic in ("notrack jmp", "bnd jmp"):
        return kind_of(mnemonic.split()[1], operands)
    if mnemonic == "notrack call":
        return kind_of("call", operands)
    if mnemonic.startswith(_REPEATED):
        rest = mnemonic.split()[1]
        return Kind.STRING if rest.startswith(_STRINGS) else kind_of(rest, operands)
    if mnemonic.startswith("lock "):
        return Kind.PLAIN
    if operands[:2] == "cr" or ", cr" in operands or operands[:2] == "dr" or ", dr" in operands:
        return Kind.SERIALIZE
    if mnemonic == "mov" and operands[:3] in ("ds,", "es,", "fs,", "gs,", "ss,"):
        return Kind.SERIALIZE
    return Kind.PLAIN


@lru_cache(65536)
def decode(code: bytes, address: int) -> Op:
    """The first instruction of ``code``, which lies at linear ``address``."""
    op = None
    for found in _decoder().disasm(code, address, 1):
        op = _describe(found, address)
    return op or Op(address, code[:1])


def _describe(found: CsInsn, address: int) -> Op:
    op = Op(address, bytes(found.bytes))
    mnemonic = found.mnemonic
    op.mnemonic = mnemonic
    op.kind = kind_of(mnemonic, found.op_str)
    name = mnemonic.split()[-1]
    op.latency = _LATENCY.get(name, 1)
    if mnemonic.startswith("lock"):
        op.latency = _LOCKED
    op.drains = name in DRAINS
    read, written = found.regs_access()
    reads = {_register(found.reg_name(number)) for number in read}
    writes = {_register(found.reg_name(number)) for number in written}
    _operands(op, found, reads, name)
    if op.kind == Kind.RETURN or name == "pop" or name == "popfq":
        op.loads = op.pops = True
        size = 8
        op.memory = op.memory if op.stores else Memory(RSP, -1, 1, 0, "", size)
    elif name == "leave":
        op.loads = True
        op.memory = Memory(RBP, -1, 1, 0, "", 8)
    elif op.kind in (Kind.CALL, Kind.INDIRECT_CALL) or name in ("push", "pushfq"):
        op.stores = op.pushes = True
        op.memory = op.memory or Memory(RSP, -1, 1, -8, "", 8)
    if op.pushes or op.pops:
        writes.discard(RSP)
        reads.discard(RSP)
    events = max(op.memory.size // 8, 1) if op.memory is not None else 1
    op.read_events = events * op.loads
    op.write_events = events * op.stores
    op.sources = tuple(sorted(register for register in reads if register >= 0))
    op.destinations = tuple(sorted(register for register in writes if register >= 0))
    if op.kind in (Kind.CONDITIONAL, Kind.JUMP, Kind.CALL):
        op.target = found.operands[0].imm & (1 << 64) - 1
        if op.kind != Kind.CONDITIONAL:
            op.sources = ()
    return op


def _operands(op: Op, found: CsInsn, reads: set[int], name: str) -> None:
    """The memory operand, and which registers are read for more than its address."""
    explicit: set[int] = set()
    registers: list[int] = []
    operand: Any
    for operand in found.operands:
        if operand.type == 1:
            registers.append(operand.reg)
            if operand.access != 2:
                explicit.add(_register(found.reg_name(operand.reg)))
        elif operand.type == 3:
            memory = operand.mem
            base = _register(found.reg_name(memory.base)) if memory.base else -1
            displacement = memory.disp
            if memory.base and found.reg_name(memory.base) in ("rip", "eip"):
                displacement += op.end
            index = _register(found.reg_name(memory.index)) if memory.index else -1
            segment = found.reg_name(memory.segment) if memory.segment else ""
            op.memory = Memory(
                base, index, memory.scale, displacement, segment if segment in _SUPERVISOR_ACCESS else "",
                operand.size, 0xFFFF_FFFF if found.addr_size == 4 else (1 << 64) - 1,
            )  # fmt: skip
            if name == "lea" or name == "nop":
                reads.update(op.memory.registers)
                op.memory = None
            elif op.kind not in (Kind.FLUSH, Kind.PREFETCH):
                op.loads = bool(operand.access & 1) or not operand.access
                op.stores = bool(operand.access & 2) or name in ("cmpxchg", "xadd", "xchg", "cmpxchg16b", "cmpxchg8b")
    if op.memory is not None:
        implicit = reads - set(op.memory.registers)
        kept = implicit | (explicit & reads)
        reads.clear()
        reads.update(kept)
    if name in _ZEROING and len(registers) == 2 and registers[0] == registers[1] and op.memory is None:
        reads.clear()
