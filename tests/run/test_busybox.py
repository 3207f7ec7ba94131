"""Debian's static busybox: byte for byte what it prints on the host."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.run.harness import ENGINES, ENVIRONMENT, host, mmuemu

TEXT = "".join(f"{n % 97:05d} {'abcxyz'[n % 6] * (n % 9)}\tline {n * n}\n" for n in range(3000)).encode()
SH = (
    'set -- a "b c" d; echo $# "$2"; for i in 1 2 3; do x=$((x + i)); done; echo $x; f() { echo "f:$1"; return 3; };'
    ' f y; echo $?; case abc in a*) echo match;; esac; while read a b; do echo "$b-$a"; done < short; exit 9'
)

COMMANDS: dict[str, list[str]] = {
    "echo": ["echo", "-e", r"one\ttwo\n", "three"],
    "echo-n": ["echo", "-n", "no newline"],
    "sort": ["sort", "-k2", "text"],
    "sort-numeric": ["sort", "-rn", "text"],
    "wc": ["wc", "text", "short", "big"],
    "sha256sum": ["sha256sum", "text", "short"],
    "md5sum": ["md5sum", "text"],
    "cksum": ["cksum", "text"],
    "awk": [
        "awk",
        '{ s += $1; t[$2]++ } END { printf "%d %.10f %g\\n", s, s / 7, exp(1); print length(t), 2^53 + 1 }',
        "text",
    ],
    "sed": ["sed", "-n", "-e", r"s/line \([0-9]*\)/<\1>/p", "text"],
    "grep": ["grep", "-nE", "^000(1|2). [ab]+", "text"],
    "grep-none": ["grep", "nothing like that", "text"],
    "head": ["head", "-n", "7", "text"],
    "tail": ["tail", "-c", "100", "text"],
    "od": ["od", "-A", "x", "-t", "x1z", "binary"],
    "hexdump": ["hexdump", "-C", "binary"],
    "base64": ["base64", "binary"],
    "cut": ["cut", "-f", "2", "text"],
    "uniq": ["uniq", "-c", "-w", "3", "text"],
    "tr": ["tr", "a-z", "A-Z"],
    "seq": ["seq", "-w", "3", "7", "200"],
    "expr": ["expr", "(", "17", "*", "3", ")", "%", "7"],
    "printf": ["printf", r"%s %d %05.2f %x\n", "a", "42", "3.14159", "255"],
    "find": ["find", "tree", "-name", "*.c", "-o", "-type", "l"],
    "ls": ["ls", "-1R", "tree"],
    "stat": ["stat", "-c", "%n %s %F %a %h", "text", "tree", "tree/link"],
    "tar": ["tar", "-tf", "tree.tar"],
    "gzip": ["gzip", "-c", "-n", "text"],
    "diff": ["diff", "text", "short"],
    "cal": ["cal", "2", "2024"],
    "date": ["date", "-u", "-d", "@1234567890", "+%F %T %Z"],
    "date-zone": ["date", "-d", "@1234567890"],
    "dc": ["dc", "-e", "2 200 ^ p"],
    "factor": ["factor", "1234567890123"],
    "test": ["test", "-f", "text"],
    "test-not": ["test", "-d", "text"],
    "true": ["true"],
    "false": ["false"],
    "vi": ["vi", "-h"],
    "unknown-applet": ["no-such-applet"],
    "missing-file": ["cat", "no-such-file"],
    "sh": ["sh", "-c", SH],
    "env": ["env"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of files that the commands work on."""
    top = tmp_path_factory.mktemp("busybox")
    (top / "text").write_bytes(TEXT)
    (top / "short").write_bytes(b"1 one\n2 two\n")
    (top / "binary").write_bytes(bytes(range(256)) * 3 + b"\0\n\xff")
    (top / "big").write_bytes(random.Random(5).randbytes(5_000_000))
    tree = top / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    for name in ("b.c", "a.c", "deep/c.c", "deep/er/d.h"):
        (tree / name).write_text(name)
    (tree / "link").symlink_to("a.c")
    host(["tar", "-cf", "tree.tar", "--sort=name", "--mtime=@0", "tree"], cwd=top)
    return top


@pytest.mark.parametrize("name", COMMANDS)
def test_command(name: str, busybox: Path, place: Path) -> None:
    command = COMMANDS[name]
    environment = {**ENVIRONMENT, "TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}
    stdin = TEXT if name == "tr" else b""
    engine = ENGINES[list(COMMANDS).index(name) % 2]
    expected = host([busybox, *command], cwd=place, stdin=stdin, env=environment)
    found = mmuemu("--mmu", engine, busybox, *command, cwd=place, stdin=stdin, env=environment)
    if name == "find":  # in the order of the file system
        assert sorted(found.out.split()) == sorted(expected.out.split())
    else:
        assert found.out == expected.out
    assert (found.err, found.code) == (expected.err, expected.code)


@pytest.mark.parametrize("engine", ENGINES)
def test_five_megabytes_pass_through(engine: str, busybox: Path, place: Path) -> None:
    big = (place / "big").read_bytes()
    by_name = mmuemu("--mmu", engine, busybox, "cat", "big", cwd=place)
    assert (by_name.out, by_name.err, by_name.code) == (big, b"", 0)
    by_stdin = mmuemu("--mmu", engine, busybox, "cat", cwd=place, stdin=big)
    assert (by_stdin.out, by_stdin.code) == (big, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_sha256_of_five_megabytes(engine: str, busybox: Path, place: Path) -> None:
    expected = host([busybox, "sha256sum", "big"], cwd=place)
    assert mmuemu("--mmu", engine, busybox, "sha256sum", "big", cwd=place).out == expected.out


def test_a_seed_gives_the_same_date_each_time(busybox: Path, place: Path) -> None:
    first, second = (mmuemu("--seed", "7", busybox, "date", cwd=place) for _ in range(2))
    assert first.out == second.out != b""


def test_changes_to_the_working_directory_stay_in_memory(busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("as it was\n")
    script = "echo changed > kept; echo new > made; read line < kept; echo $line; rm -f kept"
    found = mmuemu(busybox, "sh", "-c", script.replace("; rm -f kept", ""), cwd=tmp_path)
    assert (found.out, found.code) == (b"changed\n", 0)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "as it was\n"
