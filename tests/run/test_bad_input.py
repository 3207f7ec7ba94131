"""Files that are no programs: one line naming file and trouble, the documented code, little time and memory."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import pytest

from tests.run.harness import (
    ENGINES,
    ENVIRONMENT,
    Result,
    command_line,
    emulator_environment,
    measured,
    mmuemu,
    peak_and_cpu,
)

CODE = bytes.fromhex("bf07000000b83c0000000f05")
"""exit(7)"""
BASE = 0x400000
LOAD, INTERP = 1, 3


def header(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "ident": b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), "type": 2, "machine": 62, "version": 1,
        "entry": BASE + 0x1000, "phoff": 64, "shoff": 0, "flags": 0, "ehsize": 64, "phentsize": 56, "phnum": 1,
        "shentsize": 64, "shnum": 0, "shstrndx": 0,
    }  # fmt: skip
    fields.update(changes)
    return struct.pack("<16sHHIQQQIHHHHHH", *fields.values())


def segment(**changes: int) -> bytes:
    fields = {
        "type": LOAD, "flags": 5, "offset": 0x1000, "vaddr": BASE + 0x1000, "paddr": 0, "filesz": len(CODE),
        "memsz": len(CODE), "align": 0x1000,
    }  # fmt: skip
    fields.update(changes)
    return struct.pack("<IIQQQQQQ", *fields.values())


def program(*segments: bytes, tail: bytes = b"", **changes: int | bytes) -> bytes:
    segments = segments or (segment(),)
    changes.setdefault("phnum", len(segments))
    return (header(**changes) + b"".join(segments)).ljust(0x1000, b"\0") + CODE + tail


def ident(**changes: int) -> bytes:
    data = bytearray(b"\x7fELF\x02\x01\x01".ljust(16, b"\0"))
    for place, value in (("klass", 4), ("data", 5), ("version", 6)):
        data[value] = changes.get(place, data[value])
    return bytes(data)


GOOD = program()
TOP = (1 << 64) - 1

BAD: dict[str, bytes] = {
    "empty": b"",
    "one-byte": b"\x7f",
    "magic-only": b"\x7fELF",
    "text": b"echo hello\n",
    "zeros": bytes(10000),
    "random": random.Random(1).randbytes(20000),
    "random-after-magic": b"\x7fELF\x02\x01\x01" + random.Random(2).randbytes(20000),
    "cut-header": GOOD[:40],
    "cut-program-headers": GOOD[:100],
    "cut-segment": GOOD[:0x1000],
    "32-bit": program(ident=ident(klass=1)),
    "big-endian": program(ident=ident(data=2)),
    "odd-class": program(ident=ident(klass=9)),
    "aarch64": program(machine=183),
    "relocatable": program(type=1),
    "core-dump": program(type=4),
    "no-segments": program(phnum=0),
    "no-load-segment": program(segment(type=4)),
    "many-segments": program(phnum=0xFFFF),
    "program-headers-beyond": program(phoff=1 << 40),
    "program-headers-wrap": program(phoff=TOP - 10),
    "odd-header-size": program(phentsize=8),
    "hostile-memsz": program(segment(memsz=1 << 62)),
    "memsz-beyond-user-space": program(segment(memsz=1 << 47)),
    "memsz-wraps": program(segment(memsz=TOP)),
    "filesz-over-memsz": program(segment(filesz=4096, memsz=1)),
    "filesz-beyond-file": program(segment(filesz=1 << 30, memsz=1 << 30)),
    "offset-beyond-file": program(segment(offset=1 << 50)),
    "kernel-address": program(segment(vaddr=0xFFFF_8880_0000_1000)),
    "null-page": program(segment(vaddr=0x1000), entry=0x1000),
    "not-canonical": program(segment(vaddr=0x8000_0000_0000_1000)),
    "unaligned": program(segment(vaddr=BASE + 0x1234)),
    "odd-alignment": program(segment(align=3)),
    "overlapping": program(segment(), segment(vaddr=BASE + 0x1000)),
    "backwards": program(segment(), segment(vaddr=BASE - 0x10000, offset=0x1000)),
    "interpreter-of-itself": program(
        segment(),
        segment(type=INTERP, offset=0x1000 + len(CODE), filesz=14, memsz=14),
        tail=b"./interpreted\0",
    ),
    "interpreter-missing": program(
        segment(),
        segment(type=INTERP, offset=0x1000 + len(CODE), filesz=15, memsz=15),
        tail=b"/no/such/ld.so\0",
    ),
    "interpreter-empty": program(segment(), segment(type=INTERP, offset=0x1000, filesz=0, memsz=0)),
    "interpreter-huge": program(segment(), segment(type=INTERP, offset=0x1000, filesz=1 << 40, memsz=1 << 40)),
}
MAY_RUN = {
    "overlapping",
    "backwards",
    "odd-alignment",
    "odd-header-size",
    "null-page",
    "interpreter-of-itself",
}
"""Files that Linux refuses or runs by taste: no demand but those on manners."""


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))


def run(name: str | Path, cwd: Path, *options: str) -> tuple[Result, float, int]:
    """Result, CPU seconds and peak resident KiB of one run."""
    out, err, cost = cwd / ".out", cwd / ".err", cwd / ".cost"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            measured(command_line(*options, "--timeout", "20", name), cost),
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            cwd=cwd, env=emulator_environment(), preexec_fn=_limited,
        )  # fmt: skip
        alarm = Timer(60, process.kill)
        alarm.start()
        process.wait()
        alarm.cancel()
    result = Result(process.returncode, out.read_bytes(), err.read_bytes())
    peak, spent = peak_and_cpu(cost)
    return result, spent, peak


def manners(found: Result, name: str) -> None:
    """One line that names the file, and nothing of our insides."""
    assert b"Traceback" not in found.err
    assert found.out == b""
    (line,) = found.err.decode().splitlines()
    assert line.startswith("mmuemu: ")
    assert name in line
    assert len(line) < 400


def test_the_program_these_are_made_of_runs(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(GOOD)
    (tmp_path / "good").chmod(0o755)
    for engine in ENGINES:
        assert mmuemu("--mmu", engine, "./good", cwd=tmp_path).code == 7


@pytest.mark.parametrize("name", BAD)
def test_bad_image(name: str, tmp_path: Path) -> None:
    path = tmp_path / "interpreted"
    path.write_bytes(BAD[name])
    path.chmod(0o755)
    began = time.monotonic()
    found, spent, _ = run("./interpreted", tmp_path)
    assert spent < 2
    assert time.monotonic() - began < 20
    if name in MAY_RUN and found.code in (7, 139):
        return
    assert found.code == 126, found.err
    manners(found, "interpreted")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("32-bit", "32-bit"),
        ("big-endian", "big-endian"),
        ("aarch64", "AArch64"),
        ("empty", "empty"),
        ("interpreter-missing", "/no/such/ld.so"),
    ],
)
def test_the_line_says_what_is_wrong(name: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BAD[name])
    path.chmod(0o755)
    assert words in run("./file", tmp_path)[0].err.decode()


def test_a_sparse_giant(tmp_path: Path) -> None:
    """64 GiB of holes behind a good header, and a segment as large as that."""
    path = tmp_path / "giant"
    path.write_bytes(program(segment(filesz=60 << 30, memsz=60 << 30)))
    os.truncate(path, 64 << 30)
    path.chmod(0o755)
    found, spent, resident = run("./giant", tmp_path)
    assert spent < 2
    assert resident < 500 << 10
    assert b"Traceback" not in found.err
    if found.code != 7:
        assert found.code == 126
        manners(found, "giant")


def test_a_great_bss_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bss"
    path.write_bytes(program(segment(), segment(flags=6, offset=0, vaddr=0x10_0000_0000, filesz=0, memsz=1 << 38)))
    path.chmod(0o755)
    found, spent, resident = run("./bss", tmp_path)
    assert found.code in (7, 126)
    assert spent < 2
    assert resident < 200 << 10


def _directory(path: Path) -> None:
    path.mkdir()


def _unreadable(path: Path) -> None:
    path.write_bytes(GOOD)
    path.chmod(0o111)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")


def _not_executable(path: Path) -> None:
    path.write_bytes(GOOD)
    path.chmod(0o644)


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o755)


def _link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def _socket(path: Path) -> None:
    import socket

    socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.parametrize("make", [_directory, _unreadable, _not_executable, _fifo, _socket])
def test_not_a_program_file(make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("thing"))
    found, spent, _ = run("./thing", tmp_path)
    assert found.code == 126, found.err
    assert spent < 2
    manners(found, "thing")


@pytest.mark.parametrize("make", [_link_loop, lambda path: path.symlink_to("nowhere")], ids=["loop", "dangling"])
def test_links_to_nothing(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "thing")
    found, _, _ = run("./thing", tmp_path)
    assert found.code in (126, 127)
    manners(found, "thing")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.s", b""),
        ("empty.c", b""),
        ("binary.s", bytes(range(256)) * 10),
        ("binary.c", bytes(range(256)) * 10),
        ("comment.s", b"# nothing\n"),
        ("wild.s", b"_start: .fill 99999999999, 1, 0\n"),
        ("deep.s", b"(" * 20000),
        ("reads.s", b'_start: nop\n.INCBIN "/etc/hostname"\n'),
        ("includes.s", b'.include "/etc/hostname"\n'),
        ("argument.s", b'.irp x,inc\n.\\x()bin "/etc/hostname"\n.endr\n'),
        ("statement.s", b'.irp d,.\na: \\d\\()inc\\()bin "/etc/hostname"\n.endr\n'),
    ],
)
def test_bad_source(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    began = time.monotonic()
    found, _, _ = run(name, tmp_path)
    assert time.monotonic() - began < 15
    assert found.code == 126, found.err
    assert b"Traceback" not in found.err
    last = found.err.decode(errors="replace").splitlines()[-1]
    assert last.startswith("mmuemu: ")
    assert name in last


def test_directory_named_like_a_source(tmp_path: Path) -> None:
    (tmp_path / "folder.c").mkdir()
    found, _, _ = run("folder.c", tmp_path)
    assert found.code == 126
    manners(found, "folder.c")


def test_too_many_arguments(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(GOOD)
    (tmp_path / "good").chmod(0o755)
    done = subprocess.run(
        command_line("--clear-env", "./good", *["x" * 100_000] * 15),
        capture_output=True, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": emulator_environment()["PYTHONPATH"]},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert done.returncode in (7, 126)


@pytest.mark.parametrize("count", range(6))
def test_mutations_end_in_a_documented_way(count: int, tmp_path: Path) -> None:
    """Bytes of the headers changed at random: whatever comes of it, it is one of the documented ends."""
    rng = random.Random(count)
    data = bytearray(program(segment(), segment(flags=6, offset=0, vaddr=BASE + 0x10000, filesz=64, memsz=5000)))
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(16, 176)] = rng.randrange(256)
    (tmp_path / "mutant").write_bytes(data)
    (tmp_path / "mutant").chmod(0o755)
    found, _, resident = run("./mutant", tmp_path)
    assert found.code in (7, 124, 126, 132, 133, 135, 136, 137, 139)
    assert b"Traceback" not in found.err
    assert len(found.err.splitlines()) <= 1
    assert resident < 500 << 10
