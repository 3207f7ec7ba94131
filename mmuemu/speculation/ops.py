"""Instructions as the timing model sees them: what each reads, writes and waits for. Decoded by capstone, once.

Registers are numbered as in the state window: 0 to 15 general, then FLAGS, XMM0 to XMM15, and one number for all of x87
and MMX. RSP is renamed without latency where PUSH, POP, CALL and RET move it (Intel's stack engine; Agner Fog, "The
microarchitecture of Intel, AMD and VIA CPUs").
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mmuemu.speculation.operands import RBP, RSP, Memory, operands_of

if TYPE_CHECKING:
    from capstone import Cs


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
STOPPED: Final = frozenset({Kind.FLUSH, Kind.PREFETCH, Kind.VERW})
"""Kinds that are stopped before: what they do depends on the state then."""
WATCHED: Final = STOPPED | {Kind.RDTSC, Kind.RDTSCP}
"""Those, and the ones that the engine asks about."""
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

_MOVES: Final = frozenset({"mov", "movaps", "movapd", "movups", "movupd", "movdqa", "movdqu"})
"""Between registers they are done by renaming (Intel's optimization manual, "move elimination")."""
_WIDE: Final = re.compile(r"(r[a-z]{2}|e[a-z]{2}|r\d+d?), (r[a-z]{2}|e[a-z]{2}|r\d+d?)")
"""Two general registers of 32 or 64 bits."""
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
    "divsd": 14, "divss": 11, "divps": 11, "divpd": 14, "sqrtsd": 18, "sqrtss": 13, "sqrtpd": 18, "cvtsi2sd": 6,
    "cvttsd2si": 6, "cvtsi2ss": 6, "comiss": 3, "comisd": 3, "ucomiss": 3, "ucomisd": 3,
    "movd": 2, "movq": 2, "pmuludq": 5, "pclmulqdq": 7, "aesenc": 4, "aesdec": 4,
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
        """Cycles."""
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
def _plain_decoder() -> Cs:
    import capstone

    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def outline(code: bytes, address: int) -> list[tuple[int, int, str, str]]:
    """(address, size, mnemonic, operands) of each instruction of ``code``, without the details that cost time."""
    return list(_plain_decoder().disasm_lite(code, address))


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


@lru_cache(1 << 15)
def described(code: bytes, address: int) -> list[Op]:
    """The instructions of ``code``, which lies at linear ``address``, up to one that is none (of an unknown kind)."""
    ops = []
    done = 0
    for at, size, mnemonic, operands in outline(code, address):
        ops.append(describe(code[done : done + size], at, mnemonic, operands))
        done += size
    if done < len(code):
        ops.append(Op(address + done, code[done : done + 1]))
    return ops


@lru_cache(1 << 17)
def describe(code: bytes, address: int, mnemonic: str, text: str) -> Op:
    """The instruction ``code`` at ``address``, whose text is known."""
    op = Op(address, code)
    op.mnemonic = mnemonic
    op.kind = kind = kind_of(mnemonic, text)
    name = mnemonic.rpartition(" ")[2]
    op.latency = _LOCKED if mnemonic.startswith("lock") else _LATENCY.get(name, 1)
    op.drains = name in DRAINS
    reads, writes, op.memory, op.loads, op.stores = operands_of(mnemonic, text, op.end)
    if kind in (Kind.FLUSH, Kind.PREFETCH):
        op.loads = op.stores = False
    elif kind == Kind.RETURN or name in ("pop", "popfq"):
        op.loads = op.pops = True
        op.memory = op.memory if op.stores else Memory(RSP, -1, 1, 0, "", 8)
    elif name == "leave":
        op.loads = True
        op.memory = Memory(RBP, -1, 1, 0, "", 8)
    elif kind in (Kind.CALL, Kind.INDIRECT_CALL) or name in ("push", "pushfq"):
        op.stores = op.pushes = True
        op.memory = op.memory or Memory(RSP, -1, 1, -8, "", 8)
    if name in _MOVES and op.memory is None and (name != "mov" or _WIDE.fullmatch(text)):
        op.latency = 0
    if op.pushes or op.pops:
        writes.discard(RSP)
        reads.discard(RSP)
    if name in _ZEROING and op.memory is None and text:
        first, _, second = text.partition(", ")
        if first == second:
            reads.clear()
    events = max(op.memory.size // 8, 1) if op.memory is not None else 1
    op.read_events = events * op.loads
    op.write_events = events * op.stores
    op.sources = tuple(sorted(reads))
    op.destinations = tuple(sorted(writes))
    if kind in (Kind.CONDITIONAL, Kind.JUMP, Kind.CALL):
        op.target = int(text.rpartition(" ")[2], 0)
        if kind != Kind.CONDITIONAL:
            op.sources = ()
    return op
