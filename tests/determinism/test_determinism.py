"""The same seed gives the same run: the same programs twice, on both engines, as recorded on another machine."""

from __future__ import annotations

import pytest

from mmuemu.machine import Machine
from tests.determinism import guests
from tests.determinism.programs import ENGINES, PROGRAMS, RECORDED, run
from tests.determinism.proof import RECORD, prove, read_record, unicorn_version
from tests.determinism.trace import trace_hash

SHARE = (
    "sums", "caught", "threads", "ticks", "chance", "pipe", "files", "again", "jobs", "threads, 5 levels", "cow, KPTI",
    "peek-kernel", "pipe, zen2", "attack meltdown", "attack v2",
)  # fmt: skip
"""What CI runs of them."""


def test_runs_are_the_same_everywhere(tmp_path):
    import random

    verdicts = prove(SHARE, [], ENGINES, tmp_path, random.Random())
    assert {verdict.name: verdict.complaint for verdict in verdicts if verdict.complaint} == {}
    assert all(len(verdict.runs) == 2 * len(PROGRAMS[verdict.name].engines) for verdict in verdicts)


def test_everything_is_recorded():
    if f'"{unicorn_version()}"' not in RECORD.read_text():
        pytest.skip("the record is for another version of Unicorn")
    assert list(read_record()) == list(RECORDED)
    assert len(PROGRAMS) >= 50


def test_a_captured_stream_tells_no_address_of_the_hosts():
    """Its name in /proc/self/fd is its inode's number, which is the same in every run."""
    image = guests.program(guests.link_text() + guests.call("fstat", 1, "&buffer") + guests.show("buffer", 16))
    with Machine(seed=1) as machine:
        process = machine.spawn(image, ["program"], {})
        process.wait()
    name, inode = process.stdout[:64].rstrip(b"\0"), int.from_bytes(process.stdout[72:80], "little")
    assert name == b"pipe:[%d]" % inode


def traced(image: bytes, seed: int = 1, stdin: bytes = b"", arguments: tuple[str, ...] = ("program",)) -> str:
    with Machine(seed=seed, memory="64M") as machine:
        return trace_hash(machine, image, list(arguments), {}, stdin=stdin).hash


def test_the_hash_sees_what_it_should():
    """What is changed is seen by the program in one place only."""
    image = guests.program(guests.call("read", 0, "&buffer", 8))
    plain = traced(image, stdin=b"12345678")
    assert traced(image, stdin=b"12345678") == plain
    changed = [
        traced(image, stdin=b"12345679"),
        traced(image, seed=2, stdin=b"12345678"),
        traced(image, stdin=b"12345678", arguments=("program", "x")),
        traced(guests.program(guests.call("read", 0, "&buffer", 8) + "mov rax, 3\n"), stdin=b"12345678"),
        traced(guests.program(guests.call("read", 0, "&buffer", 8) + "mov byte ptr [rsp], 1\n"), stdin=b"12345678"),
    ]
    assert len({plain, *changed}) == 6
    lines: list[str] = []
    run("hello", "python", log=lines.append)
    kinds = {line.split()[0] for line in lines}
    assert {"fault", "stores", "call", "result", "slice", "exit", "memory", "output", "outcome", "counts"} <= kinds
