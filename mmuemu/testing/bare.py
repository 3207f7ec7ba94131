"""The ``bare`` fixture: a CPU, memory and page tables, and no kernel that would resolve anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mmuemu.board import Board, BoardEnd, BoardOptions
from mmuemu.cpu.attach import Attachment
from mmuemu.cpu.traps import Trap
from mmuemu.cpu.watchdog import Expired, Watchdog
from mmuemu.errors import Exit
from mmuemu.loader.elf import read_image
from mmuemu.loader.kernel_image import read_kernel
from mmuemu.memory.ram import parse_size
from mmuemu.mmu.state import Access, PageFault, Translation
from mmuemu.testing.faults import Fault, of_trap
from mmuemu.testing.options import DEFAULT_TIMEOUT
from mmuemu.testing.programs import Program, from_assembly
from mmuemu.testing.space import Space, space_of
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.testing.session import Session

_MEMORY: Final = "64M"
_INSTRUCTIONS: Final = 1_000_000
_STACK: Final = 0x7FFF_0000_0000
_STACK_SIZE: Final = 4 * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class BareResult:
    """How code on a bare machine stopped: ``stop`` is ``"fault"``, ``"until"``, ``"halted"`` or ``"limit"``."""

    fault: Fault | None
    stop: str
    registers: Mapping[str, int]
    space: Space

    def __repr__(self) -> str:
        return f"<BareResult: {self.stop if self.fault is None else self.fault}>"


@dataclass(frozen=True, slots=True)
class BootResult:
    """How a kernel ended (the fields of :class:`mmuemu.board.BoardEnd`), its serial output and last state."""

    kind: str
    exit_code: int
    reason: str
    serial: bytes
    state: Mapping[str, int] = field(default_factory=dict)


class Bare:
    """A machine without a kernel. What is mapped is there, what is not faults, and the first exception ends a run."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def attachment(self) -> Attachment:
        """The MMU behind it, with ``cpu``, ``ram``, ``frames`` and ``page_table``."""
        options = self._session.options
        memory = options.get("memory", _MEMORY)
        size = parse_size(memory) if isinstance(memory, str) else memory
        made = Attachment(None, size, options.get("mmu", "python"))
        self._session.closers.append(made.detach)
        return made

    @property
    def space(self) -> Space:
        """Its address space."""
        return space_of(self.attachment)

    def map(self, linear: int, content: bytes | int, permissions: str = "rwx", *, user: bool = True) -> None:
        """Map fresh frames: :meth:`mmuemu.cpu.attach.Attachment.map`."""
        self.attachment.map(linear, content, permissions, user=user)

    def unmap(self, linear: int, size: int = PAGE_SIZE) -> None:
        """Unmap them."""
        self.attachment.unmap(linear, size)

    def translate(self, linear: int, access: Access = Access.READ, *, user: bool = True) -> Translation | PageFault:
        """What the walk says of one access."""
        return self.attachment.translate(linear, access, user=user)

    def load(self, program: Program | str, *, user: bool = True) -> Program:
        """Map a static program, or one of assembly text, where it is linked to, with its own permissions.

        What another program has left there goes.
        """
        chosen = from_assembly(program, "bare") if isinstance(program, str) else program
        data = chosen.image if isinstance(chosen.image, bytes) else Path(chosen.image).read_bytes()
        for segment in read_image(data, chosen.name).segments:
            before = segment.vaddr & PAGE_MASK
            content = bytes(before) + data[segment.offset : segment.offset + segment.filesz]
            letters = "".join(letter for bit, letter in ((1, "r"), (2, "w"), (4, "x")) if segment.prot & bit)
            content = content.ljust(before + segment.memsz, b"\0")
            if self.attachment.page_table.lookup(segment.vaddr) is not None:
                self.unmap(segment.vaddr - before, -(-len(content) // PAGE_SIZE) * PAGE_SIZE)
            self.map(segment.vaddr - before, content, letters, user=user)
        return chosen

    def run(
        self,
        program: Program | str,
        *,
        ring: int = 3,
        registers: Mapping[str, int] | None = None,
        max_instructions: int = _INSTRUCTIONS,
    ) -> BareResult:
        """Map ``program`` and run it in ``ring`` (3 or 0) until an exception, or its ``end:`` label if it has one.

        ``rsp`` points to a small stack. In ring 0 the program's pages are the supervisor's.
        """
        user = ring == 3
        chosen = self.load(program, user=user)
        if self.attachment.page_table.lookup(_STACK) is None:
            self.map(_STACK, _STACK_SIZE, "rw", user=user)
        data = chosen.image if isinstance(chosen.image, bytes) else Path(chosen.image).read_bytes()
        labels = chosen.symbols if chosen.source else {}
        entry = read_image(data, chosen.name).entry
        self.attachment.set_ring(ring)
        cpu = self.attachment.cpu
        cpu.set_registers(**{"rip": entry, "rsp": _STACK + _STACK_SIZE, **(registers or {})})
        stop = self.attachment.run(until=labels.get("end"), max_instructions=max_instructions)
        space = self.space
        fault = of_trap(stop, space) if isinstance(stop, Trap) else None
        result = BareResult(fault, "fault" if isinstance(stop, Trap) else stop.value, cpu.registers(), space)
        self._session.bare_runs.append(result)
        return result

    def boot(
        self,
        kernel: str | os.PathLike[str] | bytes,
        *,
        command_line: str = "",
        serial: bytes = b"",
        timeout: float = DEFAULT_TIMEOUT,
        max_instructions: int | None = None,
    ) -> BootResult:
        """Boot a multiboot or 64-bit ELF kernel on a small PC, as ``mmuemu boot`` does; ``serial`` is its input.

        Raises BadImage and UsageError.
        """
        name = "kernel" if isinstance(kernel, bytes) else os.fspath(kernel)
        image = read_kernel(kernel if isinstance(kernel, bytes) else Path(kernel).read_bytes(), name)
        output = bytearray()
        options = self._session.options
        memory = options.get("memory", "128M")
        size = parse_size(memory) if isinstance(memory, str) else memory
        board = Board(
            BoardOptions(
                size, options.get("mmu", "python"), serial_out=output.extend, serial_in=_source(serial),
                debug_out=output.extend, seed=options.get("seed"),
            )
        )  # fmt: skip
        self._session.closers.append(board.close)
        board.load(image, [], command_line)
        try:
            with Watchdog(board.cpu, timeout) as watchdog:
                end = board.run(max_instructions=max_instructions, expired=lambda: watchdog.expired)
        except Expired:
            end = BoardEnd("timeout", Exit.LIMIT, "the time is up")
        return BootResult(end.kind, int(end.exit_code), end.reason, bytes(output), board.state())


def _source(data: bytes) -> Any:
    """A serial line's input that has an end."""
    left = bytearray(data)

    def read(most: int) -> bytes | None:
        if not left:
            return None
        taken = bytes(left[:most])
        del left[:most]
        return taken

    return read


__all__ = ["Bare", "BareResult", "BootResult"]
