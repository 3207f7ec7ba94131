"""Bare machines that are kept, in memory and in files: who goes on does what was done before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmuemu.board import Board, BoardOptions
from mmuemu.devices.serial import source_of
from mmuemu.errors import UsageError
from mmuemu.loader.kernel_image import read_kernel
from mmuemu.saving.file import read_file
from tests.boot.build import Kernels
from tests.boot.expected import ECHO_IN
from tests.boot.test_boot import boot
from tests.run.harness import ENGINES, emulator_environment

MOMENTS = {"long64": (15_200, 24_000), "timer": (2_000_000,), "timer32": (15_000,), "echo": (700,)}
"""Kernel -> instruction counts at which it is looked at."""


class Run:
    """A board with a kernel, what it printed, and its end."""

    def __init__(self, kernel: Path, engine: str, seed: int | None) -> None:
        self.out = bytearray()
        options = BoardOptions(16 << 20, engine, serial_out=self.out.extend, serial_in=source_of(ECHO_IN), seed=seed)
        self.board = Board(options)
        self.board.load(read_kernel(kernel.read_bytes(), "kernel", "auto"))

    def to_the_end(self) -> tuple[object, ...]:
        """What can be told of the rest of the run."""
        return go_on(self.board, self.out)


def go_on(board: Board, out: bytearray) -> tuple[object, ...]:
    begun = len(out)
    end = board.run(max_instructions=4_000_000)
    return end.kind, end.exit_code, bytes(out[begun:]), board.cpu.instructions, board.now, board.state()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kernel", MOMENTS)
def test_who_is_restored_or_resumed_does_what_an_undisturbed_machine_does(
    kernels: Kernels, engine: str, kernel: str, tmp_path: Path
) -> None:
    seed = 5 if kernel.startswith("timer") else None
    plain = Run(kernels(kernel), engine, seed)
    expected = plain.to_the_end()
    plain.board.close()
    assert expected[0] == "exit"
    for moment in MOMENTS[kernel]:
        run = Run(kernels(kernel), engine, seed)
        assert run.board.run(max_instructions=moment).kind == "instructions"
        printed = bytes(run.out)
        here = run.board.snapshot()
        run.board.save(str(tmp_path / "file"))
        for _ in range(2):
            rest = run.to_the_end()
            assert (*rest[:2], printed + rest[2], *rest[3:]) == expected
            run.board.restore(here)
        run.board.close()
        out = bytearray()
        board = Board.resume(str(tmp_path / "file"), BoardOptions(serial_out=out.extend, serial_in=source_of(b"")))
        assert go_on(board, out) == rest
        board.close()


def test_pages_that_were_zero_are_zero_again(kernels: Kernels) -> None:
    run = Run(kernels("spin"), "python", None)
    run.board.run(max_instructions=100)
    here = run.board.snapshot()
    run.board.write(0x80_0000, b"something")
    later = run.board.snapshot()
    run.board.restore(here)
    assert run.board.ram.read(0x80_0000, 9) == bytes(9)
    run.board.restore(later)
    assert run.board.ram.read(0x80_0000, 9) == b"something"
    run.board.close()


def test_what_cannot_be_kept_is_refused(kernels: Kernels, tmp_path: Path) -> None:
    run, other = Run(kernels("timer"), "python", None), Run(kernels("timer"), "python", None)
    here = run.board.snapshot()
    with pytest.raises(UsageError, match="another machine's"):
        other.board.restore(here)
    other.board.snapshot()
    with pytest.raises(UsageError, match="another machine's"):
        other.board.restore(here)
    refused = []

    def from_inside(kind: str, _text: str) -> None:
        if not refused:
            with pytest.raises(UsageError, match="between runs"):
                run.board.snapshot()
            refused.append(kind)

    run.board.trace = from_inside
    run.to_the_end()
    assert refused
    with pytest.raises(UsageError, match="has ended"):
        run.board.snapshot()
    with pytest.raises(UsageError, match="has ended"):
        run.board.save(str(tmp_path / "x"))
    run.board.restore(here)
    assert run.to_the_end()[0] == "exit"
    run.board.close()
    other.board.close()


def mmuemu(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mmuemu", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, env=emulator_environment())


def test_the_command_line(kernels: Kernels, tmp_path: Path) -> None:
    kernel, file = kernels("long64"), tmp_path / "file"
    whole = boot(kernel)
    first = boot(kernel, "--save", file, "--at", "15200")
    assert (first.code, first.err[:17]) == (0, b"mmuemu: saved to ")
    second = mmuemu("resume", "--save", file, "--at", "5000", file)
    third = mmuemu("resume", file)
    assert (second.returncode, third.returncode) == (0, whole.code)
    assert first.out + second.stdout + third.stdout == whole.out
    assert third.stderr == b""
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    for name, data, why in (
        ("cut", content[:-9], b"it is cut off, or too long"),
        ("changed", content, b"it was changed: the checksum is wrong"),
        ("old", content.replace(b"snapshot 1\n", b"snapshot 0\n"), b"a snapshot of format '0'"),
    ):
        (tmp_path / name).write_bytes(data)
        found = mmuemu("resume", tmp_path / name)
        assert (found.returncode, found.stdout) == (125, b"")
        assert found.stderr.startswith(b"mmuemu: %s: %s" % (str(tmp_path / name).encode(), why))
    assert read_file(str(file))[0]["kind"] == "board"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--at", "5"), b"--at: say where to with --save FILE"),
        (("--save", "f", "--at", "write"), b"--at write: a bare machine is stopped after a number of instructions"),
        (
            ("--save", "f", "--timeout", "1"),
            b"--save: say where to stop a bare machine, with --at or --max-instructions",
        ),
        (("--save", "/nowhere/f", "--at", "5"), b"--save /nowhere/f: it cannot be written"),
    ],
)
def test_options_that_cannot_be_meant(kernels: Kernels, given: tuple[str, ...], why: bytes, tmp_path: Path) -> None:
    found = mmuemu("boot", *given, kernels("spin"))
    assert (found.returncode, found.stderr) == (125, b"mmuemu: " + why + b"\n")
