"""The registers gdb sees, in the order of its packets, and the XML that says so (gdb manual, appendix G)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple


class Register(NamedTuple):
    """One register: name, bits, gdb's type of it, and its group if it is not gdb's own choice."""

    name: str
    bits: int
    type: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """A group of registers under a name that gdb knows, or that is ours."""

    name: str
    types: str
    registers: tuple[Register, ...]


GENERAL: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
GENERAL_32: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
"""The registers of 32-bit programs, in gdb's order."""
X87_CONTROL: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer")
_POINTERS: Final = {"rbp", "rsp", "ebp", "esp"}

_FLAGS: Final = (
    '<flags id="i386_eflags" size="4">'
    + "".join(
        f'<field name="{name}" start="{bit}" end="{bit}"/>'
        for name, bit in (
            ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10),
            ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
        )
    )
    + "</flags>"
)  # fmt: skip


def _core(general: tuple[str, ...], pointer: str, bits: int) -> Feature:
    return Feature(
        "org.gnu.gdb.i386.core",
        _FLAGS,
        (
            *(Register(name, bits, "data_ptr" if name in _POINTERS else f"int{bits}") for name in general),
            Register(pointer, bits, "code_ptr"),
            Register("eflags", 32, "i386_eflags"),
            *(Register(name, 32, "int32") for name in SEGMENTS),
            *(Register(f"st{index}", 80, "i387_ext") for index in range(8)),
            *(Register(name, 32, "int", "float") for name in X87_CONTROL),
        ),
    )


_VECTORS: Final = (("v4f", "ieee_single", 4), ("v2d", "ieee_double", 2), ("v16i8", "int8", 16), ("v8i16", "int16", 8),
                   ("v4i32", "int32", 4), ("v2i64", "int64", 2))  # fmt: skip
_VECTOR_FIELDS: Final = (
    ("v4_float", "v4f"), ("v2_double", "v2d"), ("v16_int8", "v16i8"), ("v8_int16", "v8i16"), ("v4_int32", "v4i32"),
    ("v2_int64", "v2i64"), ("uint128", "uint128"),
)  # fmt: skip
_MXCSR: Final = ("IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM")

_SSE_TYPES: Final = (
    "".join(f'<vector id="{name}" type="{kind}" count="{count}"/>' for name, kind, count in _VECTORS)
    + '<union id="vec128">'
    + "".join(f'<field name="{name}" type="{kind}"/>' for name, kind in _VECTOR_FIELDS)
    + '</union><flags id="i386_mxcsr" size="4">'
    + "".join(f'<field name="{name}" start="{bit}" end="{bit}"/>' for bit, name in enumerate(_MXCSR))
    + '<field name="FZ" start="15" end="15"/></flags>'
)


def _sse(count: int) -> Feature:
    return Feature(
        "org.gnu.gdb.i386.sse",
        _SSE_TYPES,
        (
            *(Register(f"xmm{index}", 128, "vec128") for index in range(count)),
            Register("mxcsr", 32, "i386_mxcsr", "vector"),
        ),
    )


LINUX: Final = Feature("org.gnu.gdb.i386.linux", "", (Register("orig_rax", 64, "int"),))
BASES: Final = Feature(
    "org.gnu.gdb.i386.segments", "", (Register("fs_base", 64, "int"), Register("gs_base", 64, "int"))
)
SYSTEM: Final = Feature(
    "org.mmuemu.system", "", tuple(Register(name, 64, "int64", "system") for name in CONTROL)
)  # fmt: skip


class Layout:
    """Where each register of some features lies in the ``g`` packet."""

    def __init__(self, architecture: str, features: tuple[Feature, ...], osabi: str = "") -> None:
        self.registers = tuple(register for feature in features for register in feature.registers)
        self.offsets: list[int] = []
        at = 0
        for register in self.registers:
            self.offsets.append(at)
            at += register.bits // 8
        self.size = at
        self.numbers = {register.name: index for index, register in enumerate(self.registers)}
        self.expedited = tuple(
            (self.numbers[name], self.place(self.numbers[name]))
            for name in ("rbp", "rsp", "rip", "ebp", "esp", "eip")
            if name in self.numbers
        )
        """What gdb wants to know of every stop: numbers and places."""
        self.xml = _xml(architecture, features, osabi)
        """The text of ``target.xml``."""

    def place(self, index: int) -> slice:
        """The bytes of register number ``index`` in the packet."""
        at = self.offsets[index]
        return slice(at, at + self.registers[index].bits // 8)


def _xml(architecture: str, features: tuple[Feature, ...], osabi: str) -> str:
    parts = [
        '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>'
        f"<architecture>{architecture}</architecture>"
    ]
    if osabi:
        parts.append(f"<osabi>{osabi}</osabi>")
    for feature in features:
        parts.append(f'<feature name="{feature.name}">{feature.types}')
        for name, bits, kind, group in feature.registers:
            group_text = f' group="{group}"' if group else ""
            if name in CONTROL:
                group_text += ' save-restore="no"'  # gdb puts registers back after it has called a function
            parts.append(f'<reg name="{name}" bitsize="{bits}" type="{kind}"{group_text}/>')
        parts.append("</feature>")
    return "".join(parts) + "</target>"


_CORE_64: Final = _core(GENERAL, "rip", 64)
PROCESS: Final = Layout("i386:x86-64", (_CORE_64, _sse(16), LINUX, BASES, SYSTEM), "GNU/Linux")
BOARD_64: Final = Layout("i386:x86-64", (_CORE_64, _sse(16), BASES, SYSTEM))
BOARD_32: Final = Layout("i386", (_core(GENERAL_32, "eip", 32), _sse(8), SYSTEM))
