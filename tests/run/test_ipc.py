"""Threads and inter-process communication: C programs give the same bytes as on the host, whoever's turn it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.harness import Programs, compare

CASES = (
    ("threads", "glibc-static", "python", ("--seed", "1")),
    ("threads", "musl-static", "native", ("--seed", "2")),
    ("threads", "glibc-static-pie", "native", ("--seed", "3")),
    ("threads", "musl-static-pie", "python", ()),
    ("sysvipc", "glibc-static", "python", ()),
    ("sysvipc", "musl-static", "native", ("--seed", "1")),
    ("ipcfork", "glibc-static-pie", "native", ()),
    ("ipcfork", "musl-static-pie", "python", ("--seed", "1")),
    ("ipcfork", "glibc-static", "python", ("--seed", "2")),
    ("ipcsignals", "glibc-static", "python", ("--seed", "4")),
    ("ipcsignals", "musl-static-pie", "native", ()),
    ("scheduling", "glibc-static", "native", ()),
)


@pytest.mark.parametrize(("name", "flavour", "engine", "options"), CASES)
def test_program(
    name: str, flavour: str, engine: str, options: tuple[str, ...], programs: Programs, tmp_path: Path
) -> None:
    compare(programs(name, flavour), [], engine, tmp_path, options=options)
