"""C programs on files that many processes share give the same bytes under ``mmuemu run`` as on the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.harness import Programs, compare

NAMES = (
    "sockets",
    "sockroom",
    "events",
    "pipes",
    "locks",
    "sharing",
    "ptys",
    "ptyroom",
    "busytext",
    "pidfds",
    "watches",
)


@pytest.mark.parametrize(("flavour", "engine"), [("glibc-static", "python"), ("musl-static-pie", "native")])
@pytest.mark.parametrize("name", NAMES)
def test_program(name: str, flavour: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    compare(programs(name, flavour), [], engine, tmp_path)


@pytest.mark.parametrize("engine", ["python", "native"])
def test_watches_where_a_queue_overflows(engine: str, programs: Programs, tmp_path: Path) -> None:
    compare(programs("watches"), ["overflow"], engine, tmp_path)


@pytest.mark.parametrize("engine", ["python", "native"])
def test_watches_on_a_directory_shared_with_the_host(engine: str, programs: Programs, tmp_path: Path) -> None:
    top = tmp_path.resolve()
    compare(programs("watches"), ["shared"], engine, tmp_path, options=["--mount", f"{top}:{top}:rw"])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["sockets", "pipes", "locks"])
def test_whatever_the_schedule(name: str, seed: int, programs: Programs, tmp_path: Path) -> None:
    compare(programs(name, "glibc-static"), [], "native", tmp_path, options=["--seed", str(seed)])
