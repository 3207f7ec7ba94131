"""Short proofs that mmuemu works where it is installed, for ``mmuemu doctor``.

Each may crash or hang, so they are run in a process of their own.

``run(names)`` prints a line of JSON for each: ``name``, ``state`` (as view.checkup has it) and ``found``.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from typing import Final

from mmuemu.errors import MmuemuError
from mmuemu.view.checkup import BROKEN, MISSING, OK

_GUEST: Final = """
    mov eax, 1
    mov edi, 1
    lea rsi, [rip + text]
    mov edx, 5
    syscall
    mov eax, 60
    mov edi, 7
    syscall
    .data
    text: .ascii "hello"
"""
_C_GUEST: Final = '#include <stdio.h>\nint main(void)\n{\n    printf("%s", "hello");\n    return 7;\n}\n'
_PATIENCE: Final = 20
"""Seconds for a guest."""


def _layout() -> tuple[str, str]:
    from mmuemu.cpu.window import check_layout

    check_layout()
    return OK, "registers and hidden state lie where mmuemu expects them"


def _assembler() -> tuple[str, str]:
    from mmuemu.sources import assemble

    assemble("ret", "a program")
    return OK, "assembles"


def _disassembler() -> tuple[str, str]:
    from mmuemu.cpu.decode import disassemble

    text = disassemble(b"\xc3", 0x1000)
    return (OK, "disassembles") if text == "ret" else (BROKEN, f"reads RET as {text}")


def _said(program: bytes, mmu: str) -> tuple[str, str]:
    """Whether ``program`` says hello and ends with 7."""
    from mmuemu.machine import Files, Machine

    out = io.BytesIO()
    with Machine(mmu=mmu, seed=1, files=Files(isolate=True)) as machine:
        machine.load(program, ["hello"], {}, stdout=out)
        outcome = machine.run(timeout=_PATIENCE)
    if (outcome.exit_code, out.getvalue()) == (7, b"hello"):
        return OK, "runs a program"
    return BROKEN, f"a program ends with {outcome.exit_code} and says {out.getvalue()!r}"


def _engine(mmu: str) -> tuple[str, str]:
    from mmuemu.sources import assemble

    return _said(assemble(_GUEST, "a program"), mmu)


def _c_compiler() -> tuple[str, str]:
    from mmuemu.sources import build, compiler

    command = compiler()
    if command is None:
        return MISSING, ""
    complaint = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="mmuemu-") as folder:
        source = os.path.join(folder, "hello.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write(_C_GUEST)
        try:
            with redirect_stderr(complaint):
                program = build(source)
        except MmuemuError as error:
            return BROKEN, f"{command[0]}: {complaint.getvalue().partition(chr(10))[0] or error}"
    state, found = _said(program, "python")
    return state, f"{' '.join(command)}: {'makes programs that run' if state == OK else found}"


TESTS: Final[dict[str, Callable[[], tuple[str, str]]]] = {
    "unicorn's layout": _layout,
    "assembler": _assembler,
    "disassembler": _disassembler,
    "engine python": lambda: _engine("python"),
    "engine native": lambda: _engine("native"),
    "C compiler": _c_compiler,
}
"""Name -> (state, what was found). An exception is a failure."""


def run(names: Iterable[str]) -> None:
    """Run these in order, print what came out."""
    for name in names:
        try:
            state, found = TESTS[name]()
        except Exception as error:
            state, found = BROKEN, f"{type(error).__name__}: {error}"
        print(json.dumps({"name": name, "state": state, "found": found}), flush=True)


__all__ = ["TESTS", "run"]
