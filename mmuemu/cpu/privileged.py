"""Privileged instructions checked as hardware checks them.

The engine executes MOV to control registers, WRMSR, LGDT and friends with any value. There is no hook for them,
so every block of code is looked at once, when the engine has just translated it and not yet run it: where it may
hold such an instruction, the run is stopped, a code hook is put on that address and the block is translated
again. The hook refuses (an exception), emulates, or lets the engine go on.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from unicorn import unicorn_const

from mmuemu.cpu import library, window
from mmuemu.cpu.breakpoints import DataBreakpoints
from mmuemu.cpu.implicit import FAR_RETURNS
from mmuemu.cpu.model_rules import ModelRules
from mmuemu.cpu.traps import Trap
from mmuemu.x86 import controls, msrs
from mmuemu.x86.descriptors import descriptor
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import is_canonical
from mmuemu.x86.registers import CR0_PG, CR4_LA57, CR4_OSXSAVE, CR4_PCIDE, CR4_UMIP, EFER_LMA, MSR_EFER

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.cpu.cpuid import CpuModel

_OPCODES: Final = rb"\x0f(?:[\x00\x07\x21-\x23\x30\x32\x35]|\x01(?![\xca\xcb\xd0\xee\xef\xf8\xf9])|\x20(?![\xc8-\xff]))"
"""Opcodes that may need a look: groups 6 and 7 (LTR, LGDT, LIDT, SMSW, INVLPG...), MOV CR and DR, WRMSR, RDMSR,
SYSRET, SYSEXIT.

Not CLAC, STAC, XGETBV, RDPKRU, WRPKRU, SWAPGS and RDTSCP of group 7; of MOV from CR, CR0 and CR8.
"""
_CANDIDATE: Final = re.compile(_OPCODES, re.DOTALL)
_CANDIDATE_OR_IRET: Final = re.compile(_OPCODES + rb"|\xcf", re.DOTALL)
_IRET: Final = 0xCF
_FAR_RETURN: Final = re.compile(rb"\x48[\xca\xcb\xcf]")
"""REX.W far returns, which ring 3 does not leave to the engine."""
_PREFIXES: Final = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)})
_LONGEST: Final = 15
_SYSRET: Final = 0x07
_SYSEXIT: Final = 0x35
_LLDT: Final = 2
_LTR: Final = 3
_XSETBV: Final = 0xD1
_HALF: Final = 1 << 47
_MASK_64: Final = (1 << 64) - 1
_WITHOUT_MODRM: Final = (0x30, 0x32)
"""WRMSR and RDMSR."""
_MOST_INSTRUCTIONS: Final = 4096
FIRST_LOOK: Final = 512
"""Bytes looked at where a stretch begins; a block is hardly ever longer, and too much does no harm."""


class _Block(ctypes.Structure):
    """``struct uc_tb``."""

    _fields_ = (("pc", ctypes.c_uint64), ("icount", ctypes.c_uint16), ("size", ctypes.c_uint16))


EDGE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_Block), ctypes.c_void_p)
CODE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32)


class Verdict(Enum):
    """What becomes of an instruction that was looked at."""

    EXECUTE = "execute"
    """The engine executes it."""
    DONE = "done"
    """It has been emulated: go on after it."""
    REFUSE = "refuse"
    """#GP(0)."""


class Instruction:
    """An instruction at a code hook: its bytes taken apart as far as the checks need it."""

    def __init__(self, raw: bytes, wide: bool) -> None:
        self.raw = raw
        position = 0
        self.rex = 0
        while position < len(raw) and raw[position] in _PREFIXES and (wide or not 0x40 <= raw[position] < 0x50):
            self.rex = raw[position] if 0x40 <= raw[position] < 0x50 else 0
            position += 1
        self.is_iret = raw[position : position + 1] == bytes((_IRET,))
        self.opcode = raw[position + 1] if raw[position : position + 1] == b"\x0f" else -1
        modrm = raw[position + 2] if position + 2 < len(raw) else 0
        self.mod = modrm >> 6
        self.reg = modrm >> 3 & 7
        self.rm = modrm & 7
        self.length = position + (2 if self.opcode in _WITHOUT_MODRM else 3)

    @property
    def control(self) -> int:
        """The control or debug register of a MOV."""
        return self.reg | (self.rex & 4) << 1

    @property
    def general(self) -> int:
        """The general register of a MOV to or from one, as its index in the window."""
        return self.rm | (self.rex & 1) << 3


Observer = Callable[[str, int, int], None]
"""Told of accepted writes: ("cr3", old, new), ("msr 0xc0000080", old, new), ("invlpg", address, 0)."""


class Privileged:
    """Watches one CPU's code for privileged instructions.

    ``owns_msr`` says which further registers exist; ``read_msr`` and ``write_msr`` answer those the engine does not
    keep (None: it does; a negative value or False: #GP). ``observers`` are told of every change that was let through.
    """

    def __init__(self, cpu: Cpu, cr4_allowed: int = controls.CR4_ALL, maxphyaddr: int = 40) -> None:
        self.cpu = cpu
        self.cr4_allowed = cr4_allowed
        self.maxphyaddr = maxphyaddr
        self.efer_allowed = msrs.EFER_WRITABLE | EFER_LMA
        self.missing_msrs: frozenset[int] = frozenset()
        self.fixed_msrs: dict[int, int] = {}
        self.observers: list[Observer] = []
        self.read_msr: Callable[[int], int | None] = lambda _msr: None
        self.write_msr: Callable[[int, int], bool | None] = lambda _msr, _value: None
        self.owns_msr: Callable[[int], bool] = lambda _msr: False
        self.read_cr8: Callable[[], int] | None = None
        self._hooked: set[tuple[int, int]] = set()
        self._looked: dict[int, bytes] = {}
        self._instructions: dict[tuple[bytes, bool], Instruction] = {}
        self.breakpoints = DataBreakpoints(cpu)
        self._on_iret: Callable[[], None] | None = None
        self.rescan = False
        self._special: dict[int, Callable[[int, int, int], None]] = {
            _SYSRET: self._returning,
            _SYSEXIT: self._returning,
            **dict.fromkeys(FAR_RETURNS, self._far_return),
        }
        self._tables: dict[int, Callable[[Instruction], Verdict]] = {
            0x00: self._group6,
            0x01: self._group7,
            0x20: self._mov_from_cr,
            0x21: lambda _i: Verdict.EXECUTE,
            0x22: self._mov_to_cr,
            0x23: self._mov_to_dr,
            0x30: self._wrmsr,
            0x32: self._rdmsr,
        }
        if cpu.model is not None:
            self.set_model(cpu.model)
        cpu.hooks.add(unicorn_const.UC_HOOK_EDGE_GENERATED, EDGE, self._translated)

    def set_model(self, model: CpuModel) -> None:
        """Refuse what this model does not have."""
        rules = ModelRules(model)
        self.cr4_allowed = rules.cr4
        self.efer_allowed = rules.efer
        self.maxphyaddr = model.maxphyaddr
        self.missing_msrs = rules.missing_msrs
        self.fixed_msrs = rules.fixed_msrs

    # -- finding ---------------------------------------------------------------------------------------

    def _translated(self, _uc: int, block: ctypes._Pointer[_Block], _previous: int) -> None:
        try:
            made = block[0]
            if self.cpu.engine.name == "native":
                # A store through another address into this block would go unnoticed; a fresh TLB entry reports it.
                self.cpu.engine.flush()
            if self.look(made.pc, made.size):
                self.rescan = True
                library.emu_stop(self.cpu.handle)
        except BaseException as error:
            self.cpu.fail(error)

    def _kind(self, candidate: bytes) -> int:
        """The opcode, for those with a callback of their own; else 0."""
        return candidate[1] if len(candidate) == 2 and candidate[1] in self._special else 0

    def look(self, address: int, size: int) -> bool:
        """Hook what may be privileged in ``size`` bytes of code at linear ``address``; whether a hook is new.

        New hooks count once the code there is translated again.
        """
        code = self.cpu.read_linear(address, size)
        if self._looked.get(address) == code:
            return False
        if len(self._looked) >= _MOST_INSTRUCTIONS:
            self._looked.clear()
        self._looked[address] = code
        new = False
        pattern = _CANDIDATE if self._on_iret is None else _CANDIDATE_OR_IRET
        candidates = list(pattern.finditer(code))
        self.cpu.window.save()
        if self._cpl == 3:
            candidates += _FAR_RETURN.finditer(code)
        for found in candidates:
            start = found.start()
            kind = self._kind(found.group())
            reached = self._special.get(kind, self._reached)
            while True:
                key = (address + start, kind)
                if key not in self._hooked:
                    self._hooked.add(key)
                    self.cpu.hooks.add_at(unicorn_const.UC_HOOK_CODE, CODE, reached, address + start)
                    new = True
                if not start or code[start - 1] not in _PREFIXES:
                    break
                start -= 1
        return new

    def at_next_iret(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` when the next IRET is about to be executed (to be asked between two runs)."""
        self._on_iret = tell
        self._looked.clear()
        self.cpu.uc.ctl_flush_tb()

    def prepare(self, rip: int) -> None:
        """Before a stretch of emulation from ``rip``, on a saved window: its first block is reported to nobody, and
        what the last stretch found must be translated again.
        """
        if self.breakpoints.changed:
            self.breakpoints.refresh()
        if not self.rescan and self._looked.get(rip) == self.cpu.peek.sync().available(rip, FIRST_LOOK):
            return
        if self.look(rip, FIRST_LOOK) or self.rescan:
            self.rescan = False
            page = rip & ~0xFFF
            self.cpu.uc.ctl_remove_cache(page, page + 0x2000)

    def known(self, rip: int) -> bytes | None:
        """From a hook: the code at ``rip`` that :meth:`prepare` would find nothing to do for; None when it would."""
        return None if self.rescan or self.breakpoints.changed else self._looked.get(rip)

    # -- judging ---------------------------------------------------------------------------------------

    def _reached(self, _uc: int, address: int, _size: int) -> None:
        try:
            state = self.cpu.window
            state.save()
            wide = bool(state.d[window.D_HFLAGS] & window.HFLAG_CS64)
            raw = self.cpu.read_linear(address, _LONGEST)
            instruction = self._instructions.get((raw, wide)) or self._decode(raw, wide)
            if instruction.is_iret and self._on_iret is not None:
                told, self._on_iret = self._on_iret, None
                told()
                return
            judge = self._tables.get(instruction.opcode)
            if judge is None:
                return
            verdict = judge(instruction)
            if verdict is Verdict.REFUSE:
                cpl = state.d[window.D_HFLAGS] & 3
                self.cpu.raise_trap(Trap(Vector.GP, 0, address, 0, cpl))
            elif verdict is Verdict.DONE:
                state.restore()
                self.cpu.jump((address + instruction.length) & (1 << 64) - 1)
        except BaseException as error:
            self.cpu.fail(error)

    def _returning(self, _uc: int, address: int, _size: int) -> None:
        """SYSRET and SYSEXIT: frequent, so that only what may be refused is looked at."""
        try:
            state = self.cpu.window
            state.save()
            q, d = state.q, state.d
            rcx, rdx = q[window.Q_RCX], q[window.Q_RDX]
            if d[window.D_HFLAGS] & window.HFLAG_CS64 and (rcx + _HALF | rdx + _HALF) & _MASK_64 < 2 * _HALF:
                return
            cpl, wide = d[window.D_HFLAGS] & 3, bool(d[window.D_HFLAGS] & window.HFLAG_CS64)
            bits = 57 if q[window.Q_CR4] & CR4_LA57 else 48
            instruction = Instruction(self.cpu.read_linear(address, _LONGEST), wide)
            if instruction.opcode == _SYSRET and not wide:
                self.cpu.raise_trap(Trap(Vector.UD, 0, address, 0, cpl))
            elif instruction.opcode in (_SYSRET, _SYSEXIT) and instruction.rex & 8:
                targets = (rcx,) if instruction.opcode == _SYSRET else (rcx, rdx)
                if not all(is_canonical(target, bits) for target in targets):
                    self.cpu.raise_trap(Trap(Vector.GP, 0, address, 0, cpl))
        except BaseException as error:
            self.cpu.fail(error)

    def _far_return(self, _uc: int, address: int, _size: int) -> None:
        """IRET and far RET of ring 3."""
        try:
            state = self.cpu.window
            state.save()
            if self._cpl != 3 or not state.q[window.Q_EFER] & EFER_LMA:
                return
            if not _FAR_RETURN.search(self.cpu.read_linear(address, _LONGEST).lstrip(bytes(_PREFIXES - {0x48}))[:2]):
                return
            if self._on_iret is not None:
                self._reached(_uc, address, _size)
                state.save()
            trap = self.cpu.ring_three.far_return(address)
            if trap is not None:
                self.cpu.raise_trap(trap)
            else:
                self.cpu.jump(state.q[window.Q_RIP])
        except BaseException as error:
            self.cpu.fail(error)

    def _decode(self, raw: bytes, wide: bool) -> Instruction:
        if len(self._instructions) >= _MOST_INSTRUCTIONS:
            self._instructions.clear()
        instruction = self._instructions[raw, wide] = Instruction(raw, wide)
        return instruction

    def _state(self) -> controls.State:
        q = self.cpu.window.q
        wide = bool(self.cpu.window.d[window.D_HFLAGS] & window.HFLAG_CS64)
        return controls.State(
            q[window.Q_CR0], q[window.Q_CR3], q[window.Q_CR4], q[window.Q_EFER], wide, self.maxphyaddr, self.cr4_allowed
        )

    @property
    def _cpl(self) -> int:
        return self.cpu.window.d[window.D_HFLAGS] & 3

    def _tell(self, what: str, old: int, new: int) -> None:
        if self.breakpoints.active and what in ("cr3", "invlpg", "cr0", "cr4"):
            self.breakpoints.changed = True
            self.cpu.pause()
        for observer in self.observers:
            observer(what, old, new)

    def _operand(self, instruction: Instruction) -> int:
        value = self.cpu.window.q[instruction.general]
        return value if self.cpu.window.d[window.D_HFLAGS] & window.HFLAG_CS64 else value & 0xFFFF_FFFF

    def _mov_from_cr(self, instruction: Instruction) -> Verdict:
        """CR8 is the local APIC's task priority where there is one."""
        if self._cpl or instruction.control != 8 or self.read_cr8 is None:
            return Verdict.EXECUTE
        self.cpu.window.q[instruction.general] = self.read_cr8()
        return Verdict.DONE

    def _mov_to_cr(self, instruction: Instruction) -> Verdict:
        if self._cpl:
            return Verdict.EXECUTE
        value, state, number = self._operand(instruction), self._state(), instruction.control
        if number == 0 and controls.refuses_cr0(value, state):
            return Verdict.REFUSE
        if number == 3:
            return self._mov_to_cr3(value, state)
        if number == 4 and controls.refuses_cr4(value, state):
            return Verdict.REFUSE
        if number == 8 and controls.refuses_cr8(value):
            return Verdict.REFUSE
        old = {0: state.cr0, 4: state.cr4}.get(number, 0)
        self._tell(f"cr{number}", old, value)
        if number == 4 and value != old:
            self.cpu.engine.flush()
        return Verdict.EXECUTE

    def _mov_to_cr3(self, value: int, state: controls.State) -> Verdict:
        if controls.refuses_cr3(value, state):
            return Verdict.REFUSE
        self._tell("cr3", state.cr3, value)
        self.cpu.fast_calls.places.clear()
        if not (state.cr4 & CR4_PCIDE and value & controls.CR3_NO_FLUSH):
            return Verdict.EXECUTE
        # The engine would keep bit 63 as part of the address.
        self.cpu.window.q[window.Q_CR3] = value & ~controls.CR3_NO_FLUSH
        self.cpu.engine.flush()
        return Verdict.DONE

    def _mov_to_dr(self, instruction: Instruction) -> Verdict:
        if self._cpl:
            return Verdict.EXECUTE
        if controls.refuses_debug(instruction.control, self._operand(instruction)):
            return Verdict.REFUSE
        self.breakpoints.changed = True
        self.cpu.pause()
        return Verdict.EXECUTE

    def _msr(self) -> tuple[int, int]:
        q = self.cpu.window.q
        value = (q[window.Q_RDX] & 0xFFFF_FFFF) << 32 | q[window.Q_RAX] & 0xFFFF_FFFF
        return q[window.Q_RCX] & 0xFFFF_FFFF, value

    def _exists(self, number: int) -> bool:
        if number == msrs.MSR_PKRS:
            return bool(self.cr4_allowed & controls.CR4_PKS) and number not in self.missing_msrs
        return self.owns_msr(number) or (number in msrs.KNOWN and number not in self.missing_msrs)

    def _wrmsr(self, instruction: Instruction) -> Verdict:
        if self._cpl:
            return Verdict.EXECUTE
        number, value = self._msr()
        q = self.cpu.window.q
        bits = 57 if q[window.Q_CR4] & CR4_LA57 else 48
        paging = bool(q[window.Q_CR0] & CR0_PG)
        if not self._exists(number) or number in self.fixed_msrs:
            return Verdict.REFUSE
        if number == MSR_EFER and value & ~self.efer_allowed:
            return Verdict.REFUSE
        if msrs.refuses(number, value, efer=q[window.Q_EFER], paging=paging, linear_bits=bits):
            return Verdict.REFUSE
        if number == msrs.MSR_PKRS:
            self.cpu.pkrs = value
            self.cpu.engine.flush()
            return Verdict.DONE
        answered = self.write_msr(number, value)
        if answered is not None:
            return Verdict.DONE if answered else Verdict.REFUSE
        self._tell(f"msr {number:#x}", q[window.Q_EFER] if number == MSR_EFER else 0, value)
        if number == MSR_EFER:
            self.cpu.engine.flush()
        return Verdict.EXECUTE

    def _rdmsr(self, instruction: Instruction) -> Verdict:
        if self._cpl:
            return Verdict.EXECUTE
        number, _ = self._msr()
        if not self._exists(number):
            return Verdict.REFUSE
        value = self.fixed_msrs.get(number)
        if value is None:
            value = self.cpu.pkrs if number == msrs.MSR_PKRS else self.read_msr(number)
        if value is None:
            return Verdict.EXECUTE
        if value < 0:
            return Verdict.REFUSE
        q = self.cpu.window.q
        q[window.Q_RAX], q[window.Q_RDX] = value & 0xFFFF_FFFF, value >> 32
        return Verdict.DONE

    def _umip(self) -> Verdict:
        """SGDT, SIDT, SLDT, STR and SMSW outside ring 0 under CR4.UMIP."""
        refused = self._cpl and self.cpu.window.q[window.Q_CR4] & CR4_UMIP
        return Verdict.REFUSE if refused else Verdict.EXECUTE

    def _group6(self, instruction: Instruction) -> Verdict:
        if instruction.reg in (0, 1):
            return self._umip()
        loads = instruction.reg in (_LLDT, _LTR) and not self._cpl
        return self._load_system_segment(instruction) if loads else Verdict.EXECUTE

    def _load_system_segment(self, instruction: Instruction) -> Verdict:
        """LLDT and LTR in 64-bit mode: a base that is not canonical is #GP(0); the engine checks the rest."""
        q, d = self.cpu.window.q, self.cpu.window.d
        if not d[window.D_HFLAGS] & window.HFLAG_CS64:
            return Verdict.EXECUTE
        selector = q[instruction.general] & 0xFFFF
        if instruction.mod != 3:
            address = self._effective_address(instruction)
            selector = int.from_bytes(self.cpu.read_linear(address or 0, 2), "little")
        raw = self.cpu.read_linear(q[window.GDT.base] + (selector & 0xFFF8), 16)
        within = (selector & 0xFFF8) + 15 <= d[window.GDT.limit] and len(raw) == 16 and not selector & 4
        base = descriptor(int.from_bytes(raw[:8], "little")).base | int.from_bytes(raw[8:12], "little") << 32
        return Verdict.REFUSE if within and selector & 0xFFFC and not is_canonical(base) else Verdict.EXECUTE

    def _group7(self, instruction: Instruction) -> Verdict:
        memory = instruction.mod != 3
        if instruction.reg == 4 or (memory and instruction.reg in (0, 1)):
            return self._umip()
        if instruction.raw[instruction.length - 1 : instruction.length] == bytes((_XSETBV,)):
            return self._xsetbv()
        if self._cpl or not memory:
            return Verdict.EXECUTE
        if instruction.reg in (2, 3):
            return self._load_table(instruction)
        if instruction.reg == 7 and self.observers:
            address = self._effective_address(instruction)
            self.cpu.fast_calls.places.clear()
            if address is not None:
                self._tell("invlpg", address, 0)
        return Verdict.EXECUTE

    def _xsetbv(self) -> Verdict:
        """XCR0 takes the components of the model, x87 always among them; SSE stands alone."""
        number, value = self._msr()
        if self._cpl or number or not self.cpu.window.q[window.Q_CR4] & CR4_OSXSAVE:
            return Verdict.EXECUTE
        model = self.cpu.model
        if not value & 1 or (model is not None and value & ~model.xcr0):
            return Verdict.REFUSE
        return Verdict.EXECUTE

    def _load_table(self, instruction: Instruction) -> Verdict:
        """LGDT and LIDT: a base that is not canonical is #GP(0)."""
        if not self.cpu.window.d[window.D_HFLAGS] & window.HFLAG_CS64:
            return Verdict.EXECUTE
        address = self._effective_address(instruction)
        if address is None:
            return Verdict.EXECUTE
        raw = self.cpu.read_linear(address, 10)
        if len(raw) == 10 and not is_canonical(int.from_bytes(raw[2:], "little")):
            return Verdict.REFUSE
        return Verdict.EXECUTE

    def _effective_address(self, instruction: Instruction) -> int | None:
        from mmuemu.cpu.decode import memory_operand

        self.cpu.window.save()
        return memory_operand(instruction.raw, self.cpu.window)
