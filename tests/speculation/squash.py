"""Squash is invisible: random programs leave the same state whether transient execution is on or off.

One machine runs many programs: a process asks Python for the next one, forks, and the child runs it. When the child
has ended, however it did, its whole address space is looked at, page-table entries included, and when the machine is
done all of its memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from mmuemu.kernel.process import Process
from mmuemu.kernel.task import Task
from mmuemu.machine import Machine
from mmuemu.sources import assemble
from mmuemu.speculation.catalogue import find_cpu
from mmuemu.speculation.core import Speculation
from mmuemu.x86.paging import ADDRESS_MASK, PAGE_SIZE, PS, P
from tests.speculation import places
from tests.speculation.encode import NAMES
from tests.speculation.programs import Compiled, Program, generate

NEXT: Final = 4000
"""The system call, of our own, that asks for a program: 0 when there is none."""
MEMORY: Final = 48 << 20
PATIENCE: Final = 20.0
"""Seconds that a program gets; it is done in milliseconds, unless a torn address made it jump into an instruction."""
EVERY_FLAG, OTHER_FLAGS = (1 << 64) - 1 & ~0x100, (1 << 64) - 1 & ~0x9D5
"""What handlers keep of RFLAGS: all but TF, or no arithmetic flags either. These are wrong in Unicorn itself for some
instructions that fault (SETcc and RCL of memory), and for others when it calls a code hook."""
_MARK: Final = bytes.fromhex("0f1f805e77577e")
_LINES: Final = {n: f"[r15 + {places.S_REGISTERS + 8 * n}]" for n in range(16)}


def _call(number: int, *arguments: int | str) -> str:
    """Assembly of one system call."""
    registers = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
    lines = [f"movabs {register}, {value}" if isinstance(value, int) else f"mov {register}, {value}"
             for register, value in zip(registers, arguments, strict=False)]  # fmt: skip
    return "\n".join([*lines, f"mov eax, {number}", "syscall"])


def _areas() -> str:
    fixed, shared = 0x32, 0x11
    areas = [(places.DATA + page * places.PAGE, count, rights) for page, count, rights in places.RIGHTS]
    areas += [(places.CODE, places.CODE_PAGES, 7), (places.STACK, places.STACK_PAGES, 3), (places.STATE, 2, 3)]
    areas += [(places.ALT, places.ALT_PAGES, 3), (places.MAP, 2 * places.CODE_PAGES, 3), (places.LOG, 2, 3)]
    lines = [_call(9, at, count * places.PAGE, rights, fixed, -1, 0) for at, count, rights in areas]
    lines += ["lea rdi, [rip + name]", "xor esi, esi", "mov eax, 319", "syscall", "mov r12, rax"]
    lines.append(_call(77, "r12", places.ALIAS_PAGES * places.PAGE))
    for at in (places.ALIAS_A, places.ALIAS_B):
        lines.append(_call(9, at, places.ALIAS_PAGES * places.PAGE, 3, shared, "r12", 0))
    lines += ["xor edi, edi", "xor esi, esi", "mov eax, 330", "syscall", "mov r8, rax", "test rax, rax", "js nokeys"]
    lines.append("mov dword ptr [rip + keys], 1")
    lines += [f"mov edi, {places.KEYED}", "mov esi, 4096", "mov edx, 3", "mov r10, r8", "mov eax, 329", "syscall"]
    lines.append("nokeys:")
    for number in (4, 5, 7, 8, 11):
        lines += [
            f"mov edi, {number}",
            "lea rsi, [rip + action]",
            "xor edx, edx",
            "mov r10d, 8",
            "mov eax, 13",
            "syscall",
        ]
    lines += ["lea rdi, [rip + altstack]", "xor esi, esi", "mov eax, 131", "syscall"]
    # The handler's address and the restorer's, which Keystone cannot put into data.
    start = [
        "lea rax, [rip + handler]",
        "mov [rip + action], rax",
        "lea rax, [rip + restorer]",
        "mov [rip + action + 16], rax",
    ]
    return "\n".join([*start, *lines])


def _handler() -> str:
    """Log the fault, then go on behind it; every fourth refused access is first allowed and made again."""
    context = 40  # of gregs in ucontext_t
    rip, flags, err, trapno, cr2 = (context + 8 * n for n in (16, 17, 19, 20, 22))
    return f"""
handler:
    mov r8d, {places.LOG}
    mov rcx, [r8]
    inc qword ptr [r8]
    mov r9, rcx
    shl r9, 6
    lea r9, [r8 + r9 + 64]
    mov eax, [rsi]
    mov [r9], rax
    mov eax, [rsi + 8]
    mov [r9 + 8], rax
    mov rax, [rsi + 16]
    mov [r9 + 16], rax
    mov rax, [rdx + {rip}]
    mov [r9 + 24], rax
    mov rax, [rdx + {err}]
    mov [r9 + 32], rax
    mov rax, [rdx + {trapno}]
    mov [r9 + 40], rax
    mov rax, [rdx + {cr2}]
    mov [r9 + 48], rax
    mov eax, {places.STATE}
    mov rax, [rax + {places.S_MASK}]
    and rax, [rdx + {flags}]
    mov [rdx + {flags}], rax
    mov [r9 + 56], rax
    lea rax, [rip + end]
    cmp rcx, {places.FAULTS - 2}
    jae resume
    mov r10, [rdx + {rip}]
    mov r11, r10
    sub r11, {places.CODE}
    cmp r11, {places.CODE_BYTES}
    jb inside
    mov r8d, {places.STATE}
    and ecx, 15
    mov rax, [r8 + 8*rcx + {places.S_RECOVERY}]
    jmp resume
inside:
    cmp dword ptr [rsi + 8], 2
    jne skip
    mov eax, ecx
    and eax, 3
    cmp eax, 1
    jne skip
    mov rdi, [rsi + 16]
    mov rax, rdi
    shr rax, 24
    cmp rax, {places.DATA >> 24}
    jne skip
    and rdi, -4096
    mov esi, 4096
    mov edx, 3
    mov eax, 10
    syscall
    ret
skip:
    mov r8d, {places.MAP}
    movzx eax, word ptr [r8 + 2*r11]
    add rax, {places.CODE}
resume:
    mov [rdx + {rip}], rax
    ret
restorer:
    mov eax, 15
    syscall
"""


def _begin_and_end() -> str:
    load = "\n".join(f"mov {NAMES[n]}, {_LINES[n]}" for n in range(15) if n != 4)
    final = places.FINAL + places.F_REGISTERS
    # The python engine goes on with the old bytes of a block that changes itself when that is the page's first store.
    own = "\n".join(f"mov eax, {places.CODE + n * places.PAGE}\nor byte ptr [rax], 0" for n in range(places.CODE_PAGES))
    keep = "\n".join(f"mov [rcx + {8 * n}], {NAMES[n]}" for n in range(16) if n not in (0, 1, 4))
    return f"""
child:
    {own}
    mov r15d, {places.STATE}
    mov r14d, {places.FINAL}
    fxrstor64 [r15]
    xor ecx, ecx
    xor edx, edx
    mov eax, [r15 + {places.S_PKRU}]
    cmp dword ptr [rip + keys], 0
    je plain
    .byte 0x0f, 0x01, 0xef
plain:
    lea rsp, [r15 + {places.S_FLAGS}]
    popfq
    {load}
    mov rsp, {_LINES[4]}
    mov r15, {_LINES[15]}
    jmp {places.CODE}
    .byte {", ".join(map(str, _MARK))}
end:
    xchg rcx, [rip + place]
    mov [rcx], rax
    {keep}
    mov [rcx + 32], rsp
    mov rax, [rip + place]
    mov [rcx + 8], rax
    lea rsp, [rcx + 136]
    pushfq
    mov rbx, rcx
    fxsave64 [rbx - {places.F_REGISTERS - places.F_FXSAVE}]
    cmp dword ptr [rip + keys], 0
    je ended
    xor ecx, ecx
    .byte 0x0f, 0x01, 0xee
    mov [rbx + {places.F_PKRU - places.F_REGISTERS}], rax
ended:
    xor edi, edi
    mov eax, 231
    syscall
.data
    .balign 16
action: .quad 0, 0x44000004 + 0x08000000, 0, 0
altstack: .quad {places.ALT}, 0, {places.ALT_PAGES * places.PAGE}
place: .quad {final}
keys: .quad 0
name: .asciz "alias"
"""


@cache
def image() -> tuple[bytes, int]:
    """The runner's ELF file, and the address that programs jump to at their end."""
    source = f"""
    {_areas()}
again:
    {_call(NEXT)}
    test eax, eax
    jz over
    mov eax, 57
    syscall
    test eax, eax
    jz child
    {_call(61, -1, 0, 0, 0)}
    jmp again
over:
    {_call(60, 0)}
{_handler()}
{_begin_and_end()}
"""
    made = assemble(source, "runner.s")
    at = made.index(_MARK)
    return made, 0x40_0000 + at + len(_MARK)


@dataclass
class Outcome:
    """What a program left: everything that the outside of the processor may see."""

    exit_code: int | None = None
    """None when it did not end within :data:`PATIENCE`."""
    signal: int = 0
    output: bytes = b""
    pages: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By linear address of each present user page: its page-table entry, and a checksum of what it holds."""
    absent: dict[int, int] = field(default_factory=dict)
    """Entries of the last level that are not present and not zero."""
    kernel: dict[int, int] = field(default_factory=dict)
    """By physical address of each table of the kernel's half: a checksum."""
    log: bytes = b""
    final: bytes = b""

    @property
    def faults(self) -> list[tuple[int, ...]]:
        """Signal, code, address, RIP, error code, vector, CR2 and flags of each."""
        if not self.log:
            return []
        count = min(struct.unpack_from("<Q", self.log)[0], places.FAULTS)
        return [struct.unpack_from("<8Q", self.log, 64 + places.ENTRY_BYTES * n) for n in range(count)]

    @property
    def registers(self) -> dict[str, int]:
        """What the program's end stored; empty when it did not get there."""
        if not self.final:
            return {}
        values = struct.unpack_from("<16Q", self.final, places.F_REGISTERS)
        flags, rights = struct.unpack_from("<QQ", self.final, places.F_FLAGS)
        found = dict(zip(NAMES, values, strict=True)) | {"rflags": flags, "pkru": rights}
        for number in range(16):
            found[f"xmm{number}"] = int.from_bytes(self.final[160 + 16 * number : 176 + 16 * number], "little")
        for number in range(8):
            found[f"st{number}"] = int.from_bytes(self.final[32 + 16 * number : 42 + 16 * number], "little")
        control, status, tags, _, opcode = struct.unpack_from("<HHBBH", self.final)
        return found | {"fcw": control, "fsw": status, "ftw": tags, "fop": opcode,
                        "mxcsr": struct.unpack_from("<I", self.final, 24)[0]}  # fmt: skip


def _leaves(machine: Machine, root: int, outcome: Outcome) -> None:
    """All of the user half into ``outcome``."""
    qwords, content = machine.kernel.ram.qwords, machine.kernel.ram.bytes
    todo = [(root, 39, 0, 256)]
    while todo:
        table, shift, base, entries = todo.pop()
        first = table >> 3
        for index, entry in enumerate(qwords[first : first + entries].tolist()):
            if not entry:
                continue
            linear = base | index << shift
            frame = entry & ADDRESS_MASK
            if shift > 12:
                outcome.absent[linear | shift] = entry
                todo.append((frame, shift - 9, linear, 512))
            elif entry & P:
                outcome.pages[linear] = entry, zlib.crc32(content[frame : frame + PAGE_SIZE])
            else:
                outcome.absent[linear] = entry


def _kernel_tables(machine: Machine) -> dict[int, int]:
    qwords, content = machine.kernel.ram.qwords, machine.kernel.ram.bytes
    todo = [(machine.kernel.memory.half.table.root, 39)]
    found: dict[int, int] = {}
    while todo:
        table, shift = todo.pop()
        if table in found:
            continue
        found[table] = zlib.crc32(content[table : table + PAGE_SIZE])
        if shift > 12:
            entries = qwords[table >> 3 : (table >> 3) + 512].tolist()
            todo += [(entry & ADDRESS_MASK, shift - 9) for entry in entries if entry & (P | PS) == P]
    return found


class Plain(Machine):
    """A machine with a CPU model and its kernel's mitigations, where nothing runs transiently all the same."""

    def _speculate(self) -> None:
        return None


class Still(Machine):
    """The same, followed as closely by a processor that does not speculate: the engine translates alike."""

    def _speculate(self) -> Speculation | None:
        settings = self.speculation_settings
        assert settings is not None
        still = replace(settings.spec, speculates=False)
        self.speculation_settings = settings._replace(spec=still, flaws=frozenset())
        return super()._speculate()


MACHINES: Final = {"": Machine, "plain": Plain, "still": Still}


class Bench:
    """One machine that runs programs one after the other, each in a process of its own."""

    def __init__(self, **options: Any) -> None:
        threshold = options.pop("threshold", None)
        if threshold is not None:
            options["cpu"] = replace(find_cpu(options["cpu"]), disambiguation_threshold=threshold)
        made = MACHINES[options.pop("machine", "")]
        self._mask = EVERY_FLAG if options.pop("strict", False) else OTHER_FLAGS
        self.machine = made(seed=1, memory=MEMORY, aslr=False, schedule="coop", **options)
        runner, self.end = image()
        self._programs: Iterator[Compiled] = iter(())
        self.outcomes: list[Outcome] = []
        self._told = 0
        self._longest = 0
        self.machine.on_syscall(NEXT)(self._next)
        self.machine.kernel.events.exit.append(self._ended)
        self.process = self.machine.spawn(runner, ["runner"], {})

    def run(self, programs: Sequence[Program], look: Callable[[Outcome, Machine], None] | None = None) -> list[Outcome]:
        """Run ``programs`` and end; what each left. ``look`` is called while the memory of a program is still there."""
        self._look = look
        self._programs = iter([generate(program, self.end) for program in programs])
        ending = self.process.wait(timeout=PATIENCE + len(programs))
        if ending.limit is not None:
            return [*self.outcomes, Outcome()]
        assert ending.exit_code == 0, f"the runner ended with {ending}"
        return self.outcomes

    def memory(self) -> list[int]:
        """A checksum for each page of RAM."""
        content = self.machine.kernel.ram.bytes
        return [zlib.crc32(content[at : at + PAGE_SIZE]) for at in range(0, MEMORY, PAGE_SIZE)]

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()

    def _next(self, event: Any) -> int:
        compiled = next(self._programs, None)
        if compiled is None:
            return 0
        length = len(compiled.code)
        self._longest = max(length, self._longest)
        write = event.task.memory.poke
        write(places.CODE, compiled.code.ljust(self._longest, b"\xcc"))
        write(places.MAP, compiled.resume.ljust(2 * self._longest, b"\0"))
        write(places.STATE, compiled.state)
        write(places.STATE + places.S_MASK, self._mask.to_bytes(8, "little"))
        for at, content in compiled.data:
            write(at, content)
        self._longest = length
        return 1

    def _ended(self, process: Process, task: Task) -> None:
        if process is self.process.process:
            return
        out = self.process.stdout
        status = process.death.exit_code if process.death else process.exit_status
        outcome = Outcome(status, int(process.death.signal) if process.death else 0, out[self._told :])
        self._told = len(out)
        _leaves(self.machine, task.mm.page_table.root, outcome)
        outcome.kernel = _kernel_tables(self.machine)
        for name, at in (("log", places.LOG), ("final", places.FINAL)):
            if at in outcome.pages:
                frame = outcome.pages[at][0] & ADDRESS_MASK
                setattr(outcome, name, bytes(self.machine.kernel.ram.bytes[frame : frame + PAGE_SIZE]))
        if self._look is not None:
            self._look(outcome, self.machine)
        self.outcomes.append(outcome)


def differences(one: Outcome, other: Outcome) -> list[str]:
    """Where two runs of a program differ, in words; the first of everything."""
    if one == other:
        return []
    found = [
        f"{name}: {getattr(one, name)!r}, {getattr(other, name)!r}"
        for name in ("exit_code", "signal")
        if getattr(one, name) != getattr(other, name)
    ]
    if one.output != other.output:
        found.append(f"output: {len(one.output)} bytes, {len(other.output)} bytes, or others")
    for number, (left, right) in enumerate(zip(one.faults, other.faults, strict=False)):
        if left != right:
            found.append(f"fault {number}: {[*map(hex, left)]}, {[*map(hex, right)]}")
            break
    if len(one.faults) != len(other.faults):
        found.append(f"faults: {len(one.faults)}, {len(other.faults)}")
    left, right = one.registers, other.registers
    found += [
        f"{name}: {left[name]:#x}, {right[name]:#x}" for name in left.keys() & right.keys() if left[name] != right[name]
    ]
    for what in ("pages", "absent", "kernel"):
        mine, yours = getattr(one, what), getattr(other, what)
        for key in sorted(mine.keys() | yours.keys()):
            if mine.get(key) != yours.get(key):
                found.append(f"{what} {key:#x}: {_hex(mine.get(key))}, {_hex(yours.get(key))}")
    return found or ["something that has no name here"]


def _hex(value: int | tuple[int, int] | None) -> str:
    if isinstance(value, tuple):
        return f"entry {value[0]:#x} content {value[1]:08x}"
    return "nothing" if value is None else hex(value)


@dataclass(frozen=True)
class Difference:
    """A program that does not end alike: its number in the batch (-1: only the machine's memory differs)."""

    number: int
    words: tuple[str, ...]


def compare(programs: Sequence[Program], left: dict[str, Any], right: dict[str, Any]) -> Difference | None:
    """Run ``programs`` on a machine with each of two sets of options; the first difference."""
    benches = (Bench(**left), Bench(**right))
    results: list[list[Outcome]] = []
    try:
        for bench in benches:
            try:
                results.append(bench.run(programs))
            except Exception as error:
                return Difference(len(bench.outcomes), (f"{type(error).__name__}: {error}",))
        ones, others = results
        for number, (one, other) in enumerate(zip(ones, others, strict=False)):
            if one.exit_code is None and other.exit_code is None:
                return None
            words = differences(one, other)
            if words:
                return Difference(number, tuple(words))
        pages = [
            number for number, (one, other) in enumerate(zip(benches[0].memory(), benches[1].memory(), strict=True))
            if one != other
        ]  # fmt: skip
        if pages:
            return Difference(-1, tuple(f"physical page {page << 12:#x}" for page in pages[:20]))
        return None
    finally:
        for bench in benches:
            bench.close()
