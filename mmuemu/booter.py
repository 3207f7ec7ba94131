"""``mmuemu boot``: from parsed options to a bare machine that runs a kernel, and from its end to a report."""

from __future__ import annotations

import json
import os
import select
import sys
from argparse import Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from mmuemu.board import BOOT_TABLES, TRACE_KINDS, Board, BoardEnd, BoardOptions
from mmuemu.cpu.cpuid import cpu_model
from mmuemu.cpu.decode import disassemble
from mmuemu.cpu.watchdog import Expired, Watchdog
from mmuemu.errors import BadImage, Exit, MmuemuError, UsageError
from mmuemu.loader.kernel_image import read_kernel
from mmuemu.loader.multiboot import Block, Module, place
from mmuemu.memory.ram import parse_size
from mmuemu.tracing import parse_kinds

if TYPE_CHECKING:
    from mmuemu.cpu.modelled import ModelledTlb

JSON_VERSION: Final = 1
_TIME_IS_UP: Final = "the time is up (--timeout)"
_INPUT_WAIT: Final = 0.005
_MOST_HELD: Final = 512


class KernelNotFound(MmuemuError):
    """The kernel file does not exist."""

    exit_code = Exit.NOT_FOUND


class _Stdout:
    """Serial output to standard output: at a line's end, when enough has come together, and when asked to."""

    def __init__(self) -> None:
        self.held = bytearray()

    def __call__(self, data: bytes) -> None:
        """Take output."""
        self.held += data
        if len(self.held) >= _MOST_HELD or data[-1:] == b"\n":
            self.flush()

    def flush(self) -> None:
        """Write what is held, all of it."""
        view = memoryview(bytes(self.held))
        self.held.clear()
        while view:
            view = view[os.write(1, view) :]


class _Stdin:
    """Host standard input as a serial line's source: what is there now, never waiting long."""

    def __init__(self, descriptor: int, output: _Stdout) -> None:
        self.descriptor = descriptor
        self.output = output
        self.ended = False

    def __call__(self, most: int) -> bytes | None:
        """Up to ``most`` bytes; ``b""`` when there are none yet, None at the end of input."""
        self.output.flush()
        if self.ended:
            return None
        try:
            ready, _, _ = select.select([self.descriptor], [], [], _INPUT_WAIT)
            if not ready:
                return b""
            data = os.read(self.descriptor, most)
        except (OSError, ValueError):
            data = b""
        self.ended = not data
        return data or None


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise KernelNotFound(f"{path}: no such {what}") from None
    except OSError as error:
        raise BadImage(path, f"cannot be read: {error.strerror}") from None


def boot(options: Namespace) -> int:
    """Boot the kernel that ``options`` (of the command line) name; the exit code."""
    traced = parse_kinds(options.trace, TRACE_KINDS)
    if options.gdb is not None and (options.timeout is not None or options.max_instructions is not None):
        raise UsageError("-g does not go with --timeout and --max-instructions")
    memory = parse_size(options.memory)
    image = read_kernel(_read(options.kernel, "kernel"), options.kernel, options.entry)
    modules = [Module(_read(path, "module"), path) for path in options.module]
    with ExitStack() as stack:
        report = None
        if options.json is not None:
            try:
                report = stack.enter_context(open(options.json, "w"))
            except OSError as error:
                raise UsageError(f"--json {options.json}: {error.strerror}") from None
        output = _Stdout()
        source = _Stdin(0, output)
        board = Board(
            BoardOptions(
                memory,
                options.mmu,
                serial_out=output,
                serial_in=source,
                debug_out=output,
                model=cpu_model(options.cpu),
                seed=options.seed,
            )
        )
        stack.callback(board.close)
        if traced:
            board.trace = lambda kind, text: _say(f"{kind}: {text}\n") if kind in traced else None
        model = _tlb_model(board, options)
        reserved = [Block(memory - BOOT_TABLES, memory)] if image.kind == "long" else []
        plan = place(image, memory, modules, options.append, reserved)
        for address, size in plan.zeros:
            board.ram.zero(address, size)
        for address, data in plan.writes:
            board.write(address, data)
        enter = board.enter_long if image.kind == "long" else board.enter_protected
        enter(plan.entry, plan.registers)
        end = None
        if options.gdb is not None:
            from mmuemu.gdbstub.door import debug_board

            try:
                end = debug_board(board, options.gdb, _say, image.bits)
            finally:
                output.flush()
        try:
            with Watchdog(board.cpu, options.timeout) as watchdog:
                end = end or board.run(max_instructions=options.max_instructions, expired=lambda: watchdog.expired)
        except Expired:
            end = BoardEnd("timeout", Exit.LIMIT, _TIME_IS_UP)
        finally:
            output.flush()
        if model is not None and options.tlb_stats:
            _say("".join(f"{name:<28}{count:>16}\n" for name, count in model.statistics().items()))
        if report is not None:
            json.dump(_facts(board, end, options), report, indent=2)
            report.write("\n")
        if end.reason:
            _say(_report(board, end, options.kernel))
    return end.exit_code


def _tlb_model(board: Board, options: Namespace) -> ModelledTlb | None:
    """The TLB model, when an option asks for it."""
    if not (options.tlb_stats or options.tlb_strict):
        return None
    from mmuemu.cpu.modelled import model_tlb

    stale = (lambda use: _say(f"stale TLB entry used: {use}\n")) if options.tlb_strict else None
    return model_tlb(board.cpu, on_stale=stale)


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _report(board: Board, end: BoardEnd, kernel: str) -> str:
    """Why the machine stopped, and the state it stopped in."""
    state = board.state()
    code = board.cpu.read_linear(state["rip"], 15)
    instruction = (disassemble(code, state["rip"]) if code else None) or "no instruction there"
    lines = [f"mmuemu: {kernel}: {end.reason} (ring {state['ring']}, {state['rip']:#x}: {instruction})"]
    names = [name for name in state if name not in ("ring", "idt_limit")]
    for start in range(0, len(names), 4):
        lines.append("  " + "  ".join(f"{name:>6} {state[name]:016x}" for name in names[start : start + 4]))
    return "\n".join(lines) + "\n"


def _facts(board: Board, end: BoardEnd, options: Namespace) -> dict[str, Any]:
    """How the machine ended, for scripts (the fields are documented in docs/reference-cli.md)."""
    shutdown = board.bare.shutdown
    return {
        "version": JSON_VERSION,
        "kernel": options.kernel,
        "end": end.kind,
        "exit_code": end.exit_code,
        "reason": end.reason or None,
        "mmu": board.cpu.engine.name,
        "instructions": board.cpu.instructions,
        "events": None if shutdown is None else [str(event) for event in shutdown.chain],
        "state": board.state(),
    }
