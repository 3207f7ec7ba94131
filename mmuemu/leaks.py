"""What transient execution tells of a secret, without a clock: the same code runs with two secrets, and the cache lines
that it touched transiently are compared.

This is speculative noninterference (Guarnieri et al., "Spectector", IEEE S&P 2020): code whose architectural accesses
do not depend on the secret must not depend on it in its transient ones either. Which transient paths there are is said
by a contract ("Hardware-Software Contracts for Secure Speculation", IEEE S&P 2021; Revizor, ASPLOS 2022).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage, UsageError
from mmuemu.kernel import registers as regs
from mmuemu.kernel.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE
from mmuemu.kernel.vma import VM_ACCESS
from mmuemu.loader.elf import ElfType, read_image
from mmuemu.loader.symbols import all_symbols
from mmuemu.machine import Machine

if TYPE_CHECKING:
    from mmuemu.guestprocess import GuestProcess
    from mmuemu.speculation.core import Speculation
    from mmuemu.speculation.models import CpuSpec
    from mmuemu.speculation.trace import Window

CONTRACTS: Final = ("always-mispredict", "predictors")
LINE: Final = 64
Argument = int | str | bytes
"""A number, the name of a symbol whose address it is, or bytes that a pointer goes to."""
_BEGIN: Final = 4001
"""The system call, of ours alone, from which on is recorded; its end is the next."""
_END: Final = 4002
_REGISTERS: Final = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x48\xb9", b"\x49\xb8", b"\x49\xb9")
"""MOV RDI, RSI, RDX, RCX, R8, R9 of 64 bits."""
_DRIVER_BYTES: Final = 1 << 16
_MOST_POPULATED: Final = 16 << 20
"""Bytes of an area that is mapped as a whole before the run."""


@dataclass(frozen=True, slots=True, order=True)
class Touch:
    """A cache line that an instruction touched transiently."""

    line: int
    """Linear address of its first byte."""
    instruction: int
    causes: tuple[str, ...]
    """The chain of flaws that led there, the outermost first."""
    line_name: str = ""
    instruction_name: str = ""
    """The same as ``symbol+offset``."""

    def __str__(self) -> str:
        line = self.line_name or f"{self.line:#x}"
        where = self.instruction_name or f"{self.instruction:#x}"
        return f"{line} by {where} ({' > '.join(self.causes)})"


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Whether transient accesses tell two secrets apart; true when they do."""

    only_first: tuple[Touch, ...]
    """Lines touched transiently with the first secret only, and by no architectural access."""
    only_second: tuple[Touch, ...]
    transient: tuple[frozenset[int], frozenset[int]]
    """With each secret, all lines that only transient accesses touched."""
    architectural: tuple[int, ...]
    """Lines that architectural accesses touched with one of the secrets only: the code does not need a flaw to leak."""
    windows: tuple[int, int]
    """Transient windows there were."""
    signals: tuple[int | None, int | None] = (None, None)
    """What killed the program, if anything did."""

    def __bool__(self) -> bool:
        return bool(self.only_first or self.only_second)

    @property
    def causes(self) -> frozenset[tuple[str, ...]]:
        """The chains of flaws behind the lines that differ."""
        return frozenset(touch.causes for touch in (*self.only_first, *self.only_second))

    def __str__(self) -> str:
        if not self:
            text = f"no transient access depends on the secret ({self.windows[0]} and {self.windows[1]} windows)"
        else:
            lines = [
                f"  secret {name}: {touch}"
                for name, touches in (("A", self.only_first), ("B", self.only_second))
                for touch in touches
            ]
            text = "\n".join(["transient accesses depend on the secret:", *lines])
        if self.architectural:
            listed = ", ".join(f"{line:#x}" for line in self.architectural[:8])
            text += f"\narchitectural accesses depend on the secret, too: {listed}"
        return text


@dataclass(slots=True)
class _Recorder:
    """What one run touched, between begin and end."""

    core: Speculation
    contract: str
    on: bool = False
    touches: list[tuple[int, int, int, tuple[str, ...]]] = field(default_factory=list)
    """Physical line, linear line, instruction, causes."""
    lines: set[int] = field(default_factory=set)
    """Physical lines of architectural accesses."""
    windows: int = 0

    def begin(self, _event: object) -> int:
        """What the first system call of ours does."""
        self.on = True
        # Not before: a library's start would take long.
        self.core.contract, self.core.exhaustive = self.contract, True
        return 0

    def end(self, _event: object) -> int:
        """And the second."""
        self.on = False
        self.core.contract, self.core.exhaustive = "predictors", False
        return 0

    def window(self, window: Window) -> None:
        if self.on and window.ring == 3:
            self.windows += 1
            self.touches += [(fill.line, fill.linear, fill.address, fill.causes) for fill in window.fills]

    def access(self, reads: Iterable[int], writes: Iterable[int]) -> None:
        if self.on:
            self.lines.update(address & -LINE for address in reads)
            self.lines.update(address & -LINE for address in writes)


class Subject:
    """A program, or one function of it, whose leaks are asked for.

    ``program`` is an ELF file (a path, or its bytes), a C or assembly file, or assembly text; ``function`` the name of
    a function in it, called as ``calls`` say, one argument list after the other. Without a function all of the
    program runs. A function is called when the program would call ``main`` (or at its entry point, if it has none),
    so that its library is set up. Raises BadImage and UsageError.
    """

    def __init__(
        self, program: str | bytes, function: str | None = None, calls: Sequence[Sequence[Argument]] = ((),)
    ) -> None:
        self.image, self.symbols = _load(program)
        self.function = function
        self.calls = [tuple(arguments) for arguments in calls]
        if function is not None:
            self.address(function)
        for arguments in self.calls:
            if len(arguments) > len(_REGISTERS):
                raise UsageError(f"leaks: at most {len(_REGISTERS)} arguments, not {len(arguments)}")

    def address(self, name: str) -> int:
        """Where a symbol is. UsageError when there is none of the name."""
        try:
            return self.symbols[name]
        except KeyError:
            near = ", ".join(sorted(self.symbols)[:20])
            raise UsageError(f"leaks: the program has no symbol {name!r} (it has {near or 'none'})") from None

    def name(self, address: int) -> str:
        """``symbol+offset`` of an address within 64 KiB behind a symbol, else nothing."""
        found = max(((at, name) for name, at in self.symbols.items() if at <= address), default=(0, ""))
        offset = address - found[0]
        return "" if not found[1] or offset >= 1 << 16 else f"{found[1]}+{offset:#x}" if offset else found[1]

    def populate(self, process: GuestProcess) -> None:
        """Map every page: one that nobody has touched yet cannot be read transiently, but the next caller may have."""
        mm = process.process.leader.mm  # type: ignore[union-attr]
        for vma in list(mm.vmas):
            if vma.end - vma.start <= _MOST_POPULATED and vma.flags & VM_ACCESS:
                mm.populate(vma.start, vma.end)

    def install(self, process: GuestProcess, flush: Sequence[Argument]) -> None:
        """Have ``process``, which has not run yet, call the function when it would have begun its own work."""
        if self.function is None:
            return
        task = process.process.leader
        assert task is not None
        at = task.mm.mmap(0, _DRIVER_BYTES, 7, MAP_PRIVATE | MAP_ANONYMOUS)
        process.write(at, self._driver(at, flush))
        main = self.symbols.get("main")
        if main is None:
            task.registers[regs.IP] = at
        else:
            process.write(main, b"\x48\xb8" + at.to_bytes(8, "little") + b"\xff\xe0")  # mov rax, at; jmp rax

    def _driver(self, at: int, flush: Sequence[Argument]) -> bytes:
        """Code that makes the calls and ends the process; what pointers go to lies behind it."""
        code = bytearray(_system_call(_BEGIN))
        data = bytearray()
        begin = at + _DRIVER_BYTES // 2

        def value(argument: Argument) -> bytes:
            if isinstance(argument, bytes):
                where = begin + len(data)
                data.extend(argument.ljust(-(-len(argument) // LINE) * LINE or LINE, b"\0"))
                return where.to_bytes(8, "little")
            number = self.address(argument) if isinstance(argument, str) else argument
            return (number & (1 << 64) - 1).to_bytes(8, "little")

        code += b"\x48\x83\xe4\xf0"  # and rsp, -16
        for arguments in self.calls:
            for what in flush:
                code += b"\x48\xb8" + value(what) + b"\x0f\xae\x38"  # mov rax, address; clflush [rax]
            if flush:
                code += b"\x0f\xae\xf0"  # mfence
            for load, argument in zip(_REGISTERS, arguments, strict=False):
                code += load + value(argument)
            code += b"\x48\xb8" + value(str(self.function)) + b"\xff\xd0"  # mov rax, function; call rax
        code += _system_call(_END) + b"\x31\xff" + _system_call(231)
        if len(code) > _DRIVER_BYTES // 2 or len(data) > _DRIVER_BYTES // 2:
            raise UsageError("leaks: too many calls, or too many bytes of arguments")
        return bytes(code).ljust(_DRIVER_BYTES // 2, b"\xcc") + bytes(data)


def leaks(
    program: str | bytes | Subject,
    secret: str | int,
    first: bytes,
    second: bytes,
    *,
    function: str | None = None,
    calls: Sequence[Sequence[Argument]] = ((),),
    flush: Sequence[Argument] = (),
    flaw: str | Iterable[str] = "v1",
    cpu: str | CpuSpec = "skylake",
    contract: str = "always-mispredict",
    mitigations: str | Iterable[str] = "off",
    arguments: Sequence[str] = ("program",),
    seed: int = 1,
    timeout: float = 60.0,
) -> LeakReport:
    """Run ``program`` twice, with ``first`` and ``second`` stored at ``secret`` (a symbol or an address), and compare.

    ``function``, ``calls``: see :class:`Subject`; ``flush`` are lines that leave the caches before each call. ``flaw``
    names those that the CPU has (no others). With the contract ``always-mispredict`` every conditional branch also runs
    the way it does not go, up to a full reorder buffer, whatever was trained; ``predictors`` is the CPU as it is, and
    then ``calls`` must do the training. Raises UsageError and BadImage.
    """
    if contract not in CONTRACTS:
        raise UsageError(f"leaks: unknown contract {contract!r}: choose from {', '.join(CONTRACTS)}")
    if len(first) != len(second):
        raise UsageError(f"leaks: secrets of {len(first)} and {len(second)} bytes: give two of one length")
    subject = program if isinstance(program, Subject) else Subject(program, function, calls)
    where = subject.address(secret) if isinstance(secret, str) else secret
    flaws = flaw if isinstance(flaw, str) else ",".join(flaw)
    runs = []
    for content in (first, second):
        machine = Machine(
            seed=seed,
            aslr=False,
            memory="256M",
            cpu=cpu,
            vulnerable=flaws,
            not_vulnerable="all",
            mitigations=mitigations,
        )
        with machine:
            core = machine.speculation
            assert core is not None
            recorder = _Recorder(core, contract)
            if subject.function is None:
                recorder.begin(None)
            core.on_window, core.on_access = recorder.window, recorder.access
            machine.on_syscall(_BEGIN)(recorder.begin)
            machine.on_syscall(_END)(recorder.end)
            process = machine.spawn(subject.image, list(arguments), {})
            process.write(where, content)
            subject.install(process, flush)
            subject.populate(process)
            ending = process.wait(timeout)
            if ending.limit is not None:
                raise UsageError(f"leaks: the program did not end within {timeout:g} seconds")
            runs.append((recorder, ending.signal))
    return _compare(subject, *runs[0], *runs[1])


def _compare(
    subject: Subject, one: _Recorder, one_signal: int | None, other: _Recorder, other_signal: int | None
) -> LeakReport:
    transient = []
    for recorder in (one, other):
        transient.append({entry[1]: entry for entry in recorder.touches if entry[0] not in recorder.lines})

    def only(number: int) -> tuple[Touch, ...]:
        mine, yours = transient[number], transient[1 - number]
        return tuple(
            sorted(
                Touch(linear, instruction, causes, subject.name(linear), subject.name(instruction))
                for _, linear, instruction, causes in (mine[line] for line in mine.keys() - yours.keys())
            )
        )

    return LeakReport(
        only(0),
        only(1),
        (frozenset(transient[0]), frozenset(transient[1])),
        tuple(sorted(one.lines ^ other.lines)),
        (one.windows, other.windows),
        (one_signal, other_signal),
    )


def _system_call(number: int) -> bytes:
    return b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x05"


# -- programs ----------------------------------------------------------------------------------------------------------


def _load(program: str | bytes) -> tuple[bytes, dict[str, int]]:
    """A program's ELF image and the addresses of its symbols."""
    from mmuemu.sourcefile import is_source
    from mmuemu.sources import assemble, build, labels

    if isinstance(program, bytes):
        return program, _symbols(program, "program")
    if "\n" in program:
        return assemble(program, "text"), labels(program, "text")
    if not os.path.isfile(program):
        raise UsageError(f"{program}: no such file")
    if is_source(program):
        image = build(program)
        if not program.endswith(".c"):
            with open(program) as source:
                return image, labels(source.read(), program)
    else:
        with open(program, "rb") as file:
            image = file.read()
    return image, _symbols(image, program)


def _symbols(image: bytes, name: str) -> dict[str, int]:
    elf = read_image(image, name)
    if elf.type != ElfType.EXEC:
        raise BadImage(name, "is linked to no fixed addresses: leaks wants a program built with -static or -no-pie")
    return {symbol.name: symbol.value for symbol in all_symbols(elf)}


__all__ = ["CONTRACTS", "LeakReport", "Subject", "Touch", "leaks"]
