"""What an instruction reads and writes, from its text.

Capstone's details of an instruction take fifty times as long as its text. What is found here is for times alone, and
for the addresses of memory operands; a test compares it with the details on real programs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from mmuemu.cpu.window import REGISTERS

FLAGS: Final = 16
XMM: Final = 17
X87: Final = 33
REGISTER_COUNT: Final = 34
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = (
    REGISTERS[name] for name in ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
)
_MASK: Final = (1 << 64) - 1
_SIZES: Final = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "tbyte": 10, "xword": 10, "xmmword": 16, "ymmword": 32}
_MEMORY: Final = re.compile(r"(?:(\w+) )?(?:ptr )?(?:([a-z]s):)?\[([^]]*)\]")
_TERM: Final = re.compile(r"([+-]?) ?(\w+)(?:\*(\d))?")
_READ_ONLY: Final = frozenset(
    [
        "cmp",
        "test",
        "push",
        "jmp",
        "call",
        "bt",
        "comiss",
        "comisd",
        "ucomiss",
        "ucomisd",
        "ptest",
        "mul",
        "div",
        "idiv",
        "prefetcht0",
        "prefetcht1",
        "prefetcht2",
        "prefetchnta",
        "prefetchw",
        "prefetch",
        "clflush",
        "clflushopt",
        "clwb",
        "verw",
        "verr",
        "ldmxcsr",
        "fxrstor",
        "fxrstor64",
        "nop",
        "fld",
        "fild",
        "fadd",
        "fmul",
        "fsub",
        "fdiv",
        "fsubr",
        "fdivr",
        "fcom",
        "fcomp",
        "fldcw",
        "fldenv",
        "frstor",
        "fiadd",
        "fimul",
        "fisub",
        "fidiv",
        "ficom",
        "ficomp",
        "fisubr",
        "fidivr",
        "fbld",
        "pcmpistri",
        "pcmpestri",
        "pcmpistrm",
        "pcmpestrm",
    ]
)
"""First operand read only."""
_WRITE_ONLY: Final = frozenset(
    [
        "lea",
        "pop",
        "popcnt",
        "lzcnt",
        "tzcnt",
        "bsf",
        "bsr",
        "pshufd",
        "pshuflw",
        "pshufhw",
        "lddqu",
        "stmxcsr",
        "fst",
        "fstp",
        "fist",
        "fistp",
        "fisttp",
        "fnstcw",
        "fnstsw",
        "fstcw",
        "fstsw",
        "fnstenv",
        "fnsave",
        "fxsave",
        "fxsave64",
        "fbstp",
        "rdfsbase",
        "rdgsbase",
        "pmovmskb",
        "movmskps",
        "movmskpd",
        "cvttsd2si",
        "cvtsd2si",
        "cvttss2si",
        "cvtss2si",
        "cvtps2pd",
        "cvtpd2ps",
        "cvtdq2ps",
        "cvtdq2pd",
        "cvtps2dq",
        "cvttps2dq",
        "cvttpd2dq",
        "cvtpd2dq",
        "sqrtps",
        "sqrtpd",
        "rcpps",
        "rsqrtps",
        "pabsb",
        "pabsw",
        "pabsd",
        "extractps",
        "pextrb",
        "pextrw",
        "pextrd",
        "pextrq",
        "rorx",
        "sarx",
        "shlx",
        "shrx",
        "andn",
        "bextr",
        "blsi",
        "blsr",
        "blsmsk",
        "pdep",
        "pext",
        "bzhi",
        "roundps",
        "roundpd",
        "aesimc",
        "aeskeygenassist",
        "phminposuw",
        "sldt",
        "str",
        "sidt",
        "sgdt",
        "smsw",
    ]
)
"""First operand written, not read; so are those of the MOV and SET families."""
_SETS_FLAGS: Final = frozenset(
    [
        "add",
        "sub",
        "adc",
        "sbb",
        "and",
        "or",
        "xor",
        "cmp",
        "test",
        "inc",
        "dec",
        "neg",
        "shl",
        "sal",
        "shr",
        "sar",
        "rol",
        "ror",
        "rcl",
        "rcr",
        "shld",
        "shrd",
        "mul",
        "imul",
        "bt",
        "bts",
        "btr",
        "btc",
        "bsf",
        "bsr",
        "popcnt",
        "lzcnt",
        "tzcnt",
        "comiss",
        "comisd",
        "ucomiss",
        "ucomisd",
        "ptest",
        "cmpxchg",
        "cmpxchg8b",
        "cmpxchg16b",
        "xadd",
        "sahf",
        "popf",
        "popfq",
        "andn",
        "bextr",
        "blsi",
        "blsr",
        "blsmsk",
        "bzhi",
        "fcomi",
        "fcomip",
        "fucomi",
        "fucomip",
        "adcx",
        "adox",
        "clc",
        "stc",
        "cmc",
        "cld",
        "std",
        "rdrand",
        "rdseed",
        "verw",
        "verr",
        "pcmpistri",
        "pcmpestri",
        "pcmpistrm",
        "pcmpestrm",
        "daa",
        "das",
        "aaa",
        "aas",
        "aam",
        "aad",
    ]
)
_READS_FLAGS: Final = frozenset(
    ["adc", "sbb", "rcl", "rcr", "lahf", "pushf", "pushfq", "cmc", "adcx", "adox", "loope", "loopne"]
)
_CONDITIONS: Final = ("set", "cmov", "fcmov")
_IMPLICIT: Final[dict[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "mul": ((RAX,), (RAX, RDX)), "div": ((RAX, RDX), (RAX, RDX)), "idiv": ((RAX, RDX), (RAX, RDX)),
    "cdq": ((RAX,), (RDX,)), "cqo": ((RAX,), (RDX,)), "cwd": ((RAX,), (RDX,)), "cbw": ((RAX,), (RAX,)),
    "cwde": ((RAX,), (RAX,)), "cdqe": ((RAX,), (RAX,)), "rdtsc": ((), (RAX, RDX)), "rdtscp": ((), (RAX, RCX, RDX)),
    "cpuid": ((RAX, RCX), (RAX, RBX, RCX, RDX)), "leave": ((RBP,), (RSP, RBP)), "lahf": ((), (RAX,)),
    "sahf": ((RAX,), ()), "xgetbv": ((RCX,), (RAX, RDX)), "rdpkru": ((RCX,), (RAX, RDX)), "cmpxchg": ((RAX,), (RAX,)),
    "cmpxchg8b": ((RAX, RBX, RCX, RDX), (RAX, RDX)), "cmpxchg16b": ((RAX, RBX, RCX, RDX), (RAX, RDX)),
    "xlatb": ((RAX, RBX), (RAX,)), "pcmpistri": ((), (RCX,)), "pcmpestri": ((RAX, RDX), (RCX,)), "mulx": ((RDX,), ()),
    "pcmpistrm": ((), (XMM,)), "pcmpestrm": ((RAX, RDX), (XMM,)), "loop": ((RCX,), (RCX,)), "jrcxz": ((RCX,), ()),
    "jecxz": ((RCX,), ()), "loope": ((RCX,), (RCX,)), "loopne": ((RCX,), (RCX,)), "syscall": ((), (RCX, 11)),
    "blendvps": ((XMM,), ()), "blendvpd": ((XMM,), ()), "pblendvb": ((XMM,), ()), "rdmsr": ((RCX,), (RAX, RDX)),
}  # fmt: skip
_STRING_REGISTERS: Final[dict[str, tuple[int, ...]]] = {
    "movs": (RSI, RDI), "stos": (RDI,), "lods": (RSI,), "cmps": (RSI, RDI), "scas": (RDI,),
}  # fmt: skip
_BOTH: Final = frozenset({"xchg", "xadd"})


class Memory:
    """A memory operand: linear address = segment base + base + index * scale + displacement."""

    __slots__ = ("base", "displacement", "index", "mask", "registers", "scale", "segment", "size")

    def __init__(
        self, base: int, index: int, scale: int, displacement: int, segment: str, size: int, mask: int = _MASK
    ) -> None:
        self.base = base
        self.index = index
        self.scale = scale
        self.displacement = displacement
        self.segment = segment
        self.size = size
        self.mask = mask
        self.registers = tuple(register for register in (base, index) if register >= 0)


class Operands(NamedTuple):
    """Registers read (but those of the address alone) and written, the memory operand, whether it is read, written."""

    sources: set[int]
    destinations: set[int]
    memory: Memory | None
    loads: bool
    stores: bool


@lru_cache(512)
def register(name: str) -> int:
    """The number of the whole register that ``name`` is (a part of), or -1."""
    if name in REGISTERS:
        return REGISTERS[name] if name != "rip" else -1
    if name.startswith(("xmm", "ymm")):
        digits = name[3:]
        return XMM + int(digits) if digits.isdigit() and int(digits) < 16 else -1
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


def _memory(match: re.Match[str], end: int) -> Memory:
    word, segment, inside = match.groups()
    base = index = -1
    scale, displacement, mask = 1, 0, _MASK
    for sign, term, factor in _TERM.findall(inside):
        if term[0].isdigit():
            displacement += -int(term, 0) if sign == "-" else int(term, 0)
        elif term in ("rip", "eip"):
            displacement += end
        elif term not in ("riz", "eiz"):
            if term[0] == "e" or term[-1] == "d":
                mask = 0xFFFF_FFFF
            if factor or base >= 0:
                index, scale = register(term), int(factor or 1)
            else:
                base = register(term)
    return Memory(
        base, index, scale, displacement, segment if segment in ("fs", "gs") else "", _SIZES.get(word, 8), mask
    )


def operands_of(mnemonic: str, text: str, end: int) -> Operands:
    """What ``mnemonic text``, in Capstone's Intel syntax, reads and writes; the next instruction is at ``end``."""
    name = mnemonic.rpartition(" ")[2]
    match = _MEMORY.search(text)
    memory = None if match is None else _memory(match, end)
    named = [] if not text else (text if match is None else text.replace(match.group(0), "[")).split(", ")
    sources, destinations = (set(part) for part in _IMPLICIT.get(name, ((), ())))
    loads = stores = False
    written, read = _first(name, len(named))
    for number, operand in enumerate(named):
        to, of = (written, read) if number == 0 else (name in _BOTH, True)
        if operand == "[":
            loads, stores = loads or of, stores or to
        elif operand[0].isalpha():
            found = register(operand)
            if found >= 0:
                if of:
                    sources.add(found)
                if to:
                    destinations.add(found)
    if name == "lea" or name == "nop":
        if memory is not None and name == "lea":
            sources.update(memory.registers)
        memory, loads, stores = None, False, False
    _special(name, mnemonic, named, sources, destinations)
    return Operands(sources, destinations, memory, loads, stores)


def _first(name: str, count: int) -> tuple[bool, bool]:
    """Whether the first operand is written and read."""
    if name in _READ_ONLY:
        return False, True
    if name in _WRITE_ONLY or name.startswith("set"):
        return True, False
    if name.startswith(("mov", "cvt", "pmov", "vmov", "bnd")):
        return True, False
    if name == "imul":
        return count > 1, count < 3
    if name[0] == "j" or name.startswith("loop"):
        return False, True
    return True, True


def _special(name: str, mnemonic: str, named: list[str], sources: set[int], destinations: set[int]) -> None:
    """Flags, strings, x87, and what is read without counting."""
    if name in _SETS_FLAGS:
        destinations.add(FLAGS)
    if (
        name in _READS_FLAGS
        or (name[0] == "j" and name != "jmp" and name[1:] not in ("rcxz", "ecxz"))
        or name.startswith(_CONDITIONS)
    ):
        sources.add(FLAGS)
    if name == "imul" and len(named) == 1:
        sources.add(RAX)
        destinations.update((RAX, RDX))
    strings = _STRING_REGISTERS.get(name[:4]) if name[-1:] in "bwdq" and len(name) == 5 else None
    if strings is not None and not any(operand.startswith("xmm") for operand in named):
        moved = set(strings) | ({RCX} if mnemonic != name else set())
        sources |= moved
        destinations |= moved
        if name[:4] in ("cmps", "scas"):
            destinations.add(FLAGS)
    if name[0] == "f" and name not in ("fxsave", "fxrstor", "fxsave64", "fxrstor64"):
        sources.add(X87)
        destinations.add(X87)
