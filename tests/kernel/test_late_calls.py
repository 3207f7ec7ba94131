"""Calls that few programs make are imported when the first one is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from mmuemu import Machine
from mmuemu.sources import assemble
zeros = "xor edi, edi; xor esi, esi; xor edx, edx; "
code = "_start: mov eax, {number}; " + zeros + "syscall; mov edi, eax; mov eax, 231; syscall"
with Machine(seed=1, **{options}) as machine:
    {before}
    machine.load(assemble(".globl _start\\n" + code.replace("; ", "\\n"), "call"))
    there = "mmuemu.kernel.syscalls.sockets" in sys.modules
    print(there, machine.run().exit_code, "mmuemu.kernel.syscalls.sockets" in sys.modules)
"""


@pytest.mark.parametrize(
    ("number", "before", "options", "expected"),
    [
        (39, "", {}, "False 232 False"),
        (41, "", {}, "False 159 True"),  # socket(AF_UNSPEC): -EAFNOSUPPORT
        (999, "", {}, "False 218 True"),  # -ENOSYS
        (41, "machine.on_syscall('getpid')(lambda _: None)", {}, "True 159 True"),
        (41, "", {"cpu": "skylake", "show_secret": True}, "True 159 True"),
    ],
)
def test_a_call_is_there_when_it_is_made(number: int, before: str, options: dict[str, object], expected: str) -> None:
    source = PROGRAM.format(number=number, before=before or "pass", options=options)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == expected, done.stderr


def test_a_saved_machine_finds_them_too(tmp_path: Path) -> None:
    """Saved before any was imported, resumed where none is."""
    saved = tmp_path / "saved"
    before = PROGRAM.format(number=41, before="pass", options={}).replace(
        "print(there, machine.run().exit_code,",
        f"print(machine.run(max_instructions=1).limit, machine.save({str(saved)!r}),",
    )
    after = f"from mmuemu import Machine\nprint(Machine.resume({str(saved)!r}).run().exit_code)"
    said = []
    for source in (before, after):
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    assert said == ["instructions None False", "159"]
