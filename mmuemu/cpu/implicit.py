"""Accesses that an instruction in ring 3 makes with other rights than the engine thinks.

Reading a descriptor (a segment load, a far transfer, LAR...) and the task state behind a call gate are supervisor
accesses at any CPL (SDM volume 3, section 4.6.1); the fill hook of the ``python`` engine sees CPL 3 and refuses: the
page is permitted once, to the supervisor's TLB. IRET and far RET read their frame with the rights of the CPL; the
engine reads it as a supervisor, and SMAP refuses the ``native`` engine the user's own stack: they are executed here.
Both are settled once the access has been refused and RIP is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.cpu.engines import PythonEngine
from mmuemu.cpu.traps import Trap
from mmuemu.mmu.state import Access
from mmuemu.mmu.walk import page_walker
from mmuemu.x86.paging import PAGE_MASK, FaultBits
from mmuemu.x86.registers import CR4_SMAP

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu
    from mmuemu.cpu.linear import LinearMemory

_PREFIXES: Final = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3})
IRET: Final = 0xCF
RETF: Final = 0xCB
RETF_IMMEDIATE: Final = 0xCA
FAR_RETURNS: Final = frozenset({IRET, RETF, RETF_IMMEDIATE})
_POPS: Final = frozenset({0x07, 0x17, 0x1F, 0x0FA1, 0x0FA9})
_PLAIN: Final = _POPS | {0x8E, 0x9A, 0xEA, 0xC4, 0xC5, 0x0F02, 0x0F03, 0x0FB2, 0x0FB4, 0x0FB5}
"""Opcodes that read descriptors; 0xff /3 and /5 (far call and jump) and 0f 00 /4 and /5 (VERR, VERW) do too."""
_FRAME: Final = 40
_WRITE: Final = int(FaultBits.W)
_USER: Final = int(FaultBits.U)
_FETCH: Final = int(FaultBits.I)
_GATE_FRAME: Final = 0x20 + 31 * 8
"""Most bytes a call gate pushes on the inner stack."""
_MOST_ATTEMPTS: Final = 3
_TABLES: Final = (window.GDT, window.LDT, window.TR)


class Instruction:
    """Opcode (0x0f before two-byte ones), ModRM.reg, and operand size of the instruction at RIP."""

    def __init__(self, code: bytes, wide: bool) -> None:
        position, size, rex = 0, 4, 0
        while position < len(code) and code[position] in _PREFIXES:
            size = 2 if code[position] == 0x66 else size
            position += 1
        if wide and position < len(code) and code[position] & 0xF0 == 0x40:
            rex = code[position]
            position += 1
        rest = code[position:].ljust(3, b"\0")
        self.wide = wide
        self.code = code
        self.size = 8 if rex & 8 else size
        two = rest[0] == 0x0F
        self.opcode = 0x0F00 | rest[1] if two else rest[0]
        self.reg = rest[2 if two else 1] >> 3 & 7
        self.immediate = int.from_bytes(rest[1:3], "little") if self.opcode == RETF_IMMEDIATE else 0

    @property
    def reads_descriptors(self) -> bool:
        return (
            self.opcode in _PLAIN
            or (self.opcode == 0xFF and self.reg in (3, 5))
            or (self.opcode == 0x0F00 and self.reg in (4, 5))
        )

    @property
    def is_far_call(self) -> bool:
        return self.opcode == 0x9A or (self.opcode == 0xFF and self.reg == 3)


def look(cpu: Cpu, address: int, access: Access) -> int:
    """What the walk says of an implicit supervisor access to ``address``; nothing changes."""
    state = cpu.paging
    walker = page_walker(cpu.ram.qwords, state) if cpu.tlb is None else cpu.tlb.looker(state)
    return walker(state.cr3, address, access, False, False, [], None)


def _is_system(address: int, write: int, q: memoryview, d: memoryview, memory: LinearMemory) -> bool:
    """Whether ``address`` is in the GDT, the LDT, the TSS or, for a write, where a stack of the TSS goes."""
    for _, base, limit, _ in _TABLES:
        if 0 <= address - q[base] <= d[limit]:
            return True
    return bool(write) and _is_inner_stack(address, q, d, memory)


def _is_inner_stack(address: int, q: memoryview, d: memoryview, memory: LinearMemory) -> bool:
    if d[window.TR.limit] < 27 or not d[window.D_HFLAGS] & window.HFLAG_LMA:
        return False
    raw = memory.available(q[window.TR.base] + 4, 24)
    tops = [int.from_bytes(raw[n : n + 8], "little") for n in range(0, len(raw) - 7, 8)]
    return any(0 < top - address <= _GATE_FRAME for top in tops)


class RingThree:
    """Judges the page faults of ring 3 on one CPU before they are delivered."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.emulated = False
        """Whether the last judgement was to execute the instruction here."""
        self._attempt: tuple[int, int, int] | None = None
        self._attempts = 0

    def is_plain(self, address: int, error_code: int, memory: LinearMemory) -> bool:
        """From a hook: whether :meth:`resolve` would give the fault back unread; ``memory`` is as the engine is now."""
        state = self.cpu.window
        q, d = state.live_q, state.live_d
        if not isinstance(self.cpu.engine, PythonEngine):
            return bool(error_code & (_USER | _FETCH)) or not q[window.Q_CR4] & CR4_SMAP
        if error_code & _FETCH:
            return True
        return not _is_system(address, error_code & _WRITE, q, d, memory)

    def resolve(self, trap: Trap) -> Trap | None:
        """None: run again, the access is allowed now; else the fault to deliver, ``trap`` or what it should be."""
        cpu = self.cpu
        engine = cpu.engine
        state = cpu.window
        state.save()
        self.emulated = False
        if isinstance(engine, PythonEngine):
            if trap.error_code & _FETCH or not _is_system(
                trap.address, trap.error_code & _WRITE, state.q, state.d, cpu.peek.sync()
            ):
                return trap
            return self._descriptor(engine, trap)
        if trap.error_code & (_USER | _FETCH) or not state.q[window.Q_CR4] & CR4_SMAP:
            return trap
        return self._far_return(trap, self._instruction(self._linear(trap)))

    # -- descriptors -----------------------------------------------------------------------------------

    def _is_inner_stack(self, address: int) -> bool:
        state = self.cpu.window
        return _is_inner_stack(address, state.q, state.d, self.cpu.peek.sync())

    def _linear(self, trap: Trap) -> int:
        return (trap.rip + self.cpu.window.q[window.CS.base]) & (1 << 64) - 1

    def _instruction(self, address: int) -> Instruction:
        state = self.cpu.window
        code = self.cpu.read_linear(address, 15)
        state.save()
        return Instruction(code, bool(state.d[window.D_HFLAGS] & window.HFLAG_CS64))

    def _descriptor(self, engine: PythonEngine, trap: Trap) -> Trap | None:
        instruction = self._instruction(self._linear(trap))
        if instruction.opcode in FAR_RETURNS:
            return self._far_return(trap, instruction)
        if not instruction.reads_descriptors or self._is_operand(instruction, trap.address):
            return trap
        if self._is_inner_stack(trap.address) and not instruction.is_far_call:
            return trap
        access = Access.WRITE if trap.error_code & _WRITE else Access.READ
        page = trap.address & ~PAGE_MASK
        attempt = (trap.rip, page, int(access))
        unused = engine.permitted is not None and attempt == self._attempt
        self._attempts = self._attempts + 1 if unused else 1
        self._attempt = attempt
        engine.permitted = None
        if self._attempts > _MOST_ATTEMPTS:
            return trap
        found = look(self.cpu, trap.address, access)
        if found < 0:
            return trap._replace(error_code=-1 - found)
        engine.permitted = (page, int(access))
        return None

    def _is_operand(self, instruction: Instruction, address: int) -> bool:
        """Whether ``address`` is in the instruction's own operand or stack frame, which it reads as the user."""
        from mmuemu.cpu.decode import memory_operand

        state = self.cpu.window
        if instruction.opcode in _POPS:
            operand: int | None = self._stack()
            size = _FRAME
        else:
            operand = memory_operand(instruction.code, state)
            size = 2 if instruction.opcode in (0x8E, 0x0F00, 0x0F02, 0x0F03) else instruction.size + 2
        return operand is not None and 0 <= address - operand < size

    def _stack(self) -> int:
        """The linear address of the top of the stack."""
        state = self.cpu.window
        if state.d[window.D_HFLAGS] & window.HFLAG_CS64:
            return state.q[window.Q_RSP]
        return (state.q[window.Q_RSP] + state.q[window.SS.base]) & 0xFFFF_FFFF

    # -- far returns -----------------------------------------------------------------------------------

    def _far_return(self, trap: Trap, instruction: Instruction) -> Trap | None:
        if instruction.opcode not in FAR_RETURNS:
            return trap
        from mmuemu.cpu.farreturn import far_return

        after = far_return(self.cpu, trap.rip, instruction.opcode, instruction.size, instruction.immediate)
        self.emulated = after is None
        return after

    def far_return(self, address: int) -> Trap | None:
        """Execute the far return at linear ``address`` in a code hook: None, or the exception it raises."""
        from mmuemu.cpu.farreturn import far_return

        instruction = self._instruction(address)
        rip = self.cpu.window.q[window.Q_RIP]
        return far_return(self.cpu, rip, instruction.opcode, instruction.size, instruction.immediate)

    def settle(self) -> None:
        """After a stretch: a permission that was not used is void."""
        engine = self.cpu.engine
        if isinstance(engine, PythonEngine):
            engine.permitted = None
