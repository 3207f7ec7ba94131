"""``mmuemu boot``: from parsed options to a bare machine that runs a kernel, and from its end to a report."""

from __future__ import annotations

import json
import os
import select
import sys
from argparse import Namespace
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, Final

from mmuemu.board import TRACE_KINDS, Board, BoardEnd, BoardOptions
from mmuemu.cpu.cpuid import cpu_model
from mmuemu.cpu.decode import disassemble
from mmuemu.cpu.watchdog import Expired, Watchdog
from mmuemu.errors import BadImage, Exit, MmuemuError, UsageError
from mmuemu.loader.kernel_image import read_kernel
from mmuemu.loader.multiboot import Module
from mmuemu.memory.ram import parse_size
from mmuemu.reporter import BoardReporter, open_output
from mmuemu.resumer import check, save
from mmuemu.tracing import parse_kinds

if TYPE_CHECKING:
    from mmuemu.cpu.modelled import ModelledTlb
    from mmuemu.saving.file import Content

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
    _check_saving(options)
    if options.gdb is not None and (options.timeout is not None or options.max_instructions is not None):
        raise UsageError("-g does not go with --timeout and --max-instructions")
    memory = parse_size(options.memory)
    image = read_kernel(_read(options.kernel, "kernel"), options.kernel, options.entry)
    modules = [Module(_read(path, "module"), path) for path in options.module]
    with ExitStack() as stack:
        facts = None if options.json is None else stack.enter_context(open_output(options.json, "--json"))
        reporter = BoardReporter(options)
        stack.callback(reporter.close)
        output = _Stdout()
        board = Board(
            BoardOptions(
                memory,
                options.mmu,
                serial_out=output,
                serial_in=_Stdin(0, output),
                debug_out=output,
                model=cpu_model(options.cpu),
                seed=options.seed,
            )
        )
        stack.callback(board.close)
        if traced:
            board.trace = lambda kind, text: _say(f"{kind}: {text}\n") if kind in traced else None
        model = _tlb_model(board, options)
        plan = board.load(image, modules, options.append)
        reporter.begin(board, image, plan)
        end = _run(board, options, output, image.bits)
        if model is not None and options.tlb_stats:
            _say("".join(f"{name:<28}{count:>16}\n" for name, count in model.statistics().items()))
        if facts is not None:
            _write_facts(facts, _facts(board, end, options.kernel))
        reporter.write(options.kernel, end, lambda: _facts(board, end, options.kernel))
        if end.reason:
            _say(_report(board, end, options.kernel))
    return end.exit_code


def resume(options: Namespace, content: Content) -> int:
    """Go on with the bare machine in the file that ``options`` name, whose ``content`` is known; the exit code."""
    from mmuemu.saving import board_file

    for name in ("strace", "maps", "stats"):
        if getattr(options, name):
            raise UsageError(f"--{name}: the file holds a bare machine, which knows no processes")
    _check_saving(options)
    with ExitStack() as stack:
        facts = None if options.json is None else stack.enter_context(open_output(options.json, "--json"))
        output = _Stdout()
        serial = BoardOptions(serial_out=output, serial_in=_Stdin(0, output), debug_out=output)
        board = board_file.resume(options.file, serial, content)
        stack.callback(board.close)
        end = _run(board, options, output)
        if facts is not None:
            _write_facts(facts, _facts(board, end, options.file))
        if end.reason:
            _say(_report(board, end, options.file))
    return end.exit_code


def _check_saving(options: Namespace) -> None:
    """Refuse what cannot be meant before anything runs. Raises UsageError."""
    check(options)
    if isinstance(options.at, str):
        raise UsageError(f"--at {options.at}: a bare machine is stopped after a number of instructions")
    if options.save is not None and options.at is None and options.max_instructions is None:
        raise UsageError("--save: say where to stop a bare machine, with --at or --max-instructions")


def _run(board: Board, options: Namespace, output: _Stdout, bits: int = 64) -> BoardEnd:
    """Run to the end, or to where ``options`` say, and save the machine there if they say so; ``bits`` of the kernel's
    symbols are for a debugger.
    """
    end = None
    limit = min((count for count in (options.max_instructions, options.at) if count is not None), default=None)
    try:
        if getattr(options, "gdb", None) is not None:
            from mmuemu.gdbstub.door import debug_board

            end = debug_board(board, options.gdb, _say, bits)
        with Watchdog(board.cpu, options.timeout) as watchdog:
            end = end or board.run(max_instructions=limit, expired=lambda: watchdog.expired)
    except Expired:
        end = BoardEnd("timeout", Exit.LIMIT, _TIME_IS_UP)
    finally:
        output.flush()
    if options.save is None:
        return end
    if end.kind != "instructions":
        _say(f"mmuemu: the machine ended before it was saved: there is no {options.save}\n")
        return end
    save(board, options.save)
    return BoardEnd("saved", 0) if limit == options.at else end


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


def _write_facts(file: IO[str], facts: dict[str, Any]) -> None:
    json.dump(facts, file, indent=2)
    file.write("\n")


def _facts(board: Board, end: BoardEnd, kernel: str) -> dict[str, Any]:
    """How the machine ended, for scripts (the fields are documented in docs/reference-cli.md)."""
    shutdown = board.bare.shutdown
    return {
        "version": JSON_VERSION,
        "kernel": kernel,
        "end": end.kind,
        "exit_code": end.exit_code,
        "reason": end.reason or None,
        "mmu": board.cpu.engine.name,
        "instructions": board.cpu.instructions,
        "events": None if shutdown is None else [str(event) for event in shutdown.chain],
        "state": board.state(),
    }
