"""Protection keys: the same program on the host's kernel and on ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.harness import Programs, compare

PROCESSORS = Path("/proc/cpuinfo")


def _host_has_keys() -> bool:
    return PROCESSORS.exists() and " ospke" in PROCESSORS.read_text()


@pytest.mark.skipif(not _host_has_keys(), reason="the host's processor has no protection keys, or its kernel none")
@pytest.mark.parametrize("engine", ["python", "native"])
@pytest.mark.parametrize("options", [["--seed", "1"], ["--seed", "7", "--kpti"]], ids=["plain", "kpti"])
def test_keys_are_obeyed_as_on_the_host(engine: str, options: list[str], programs: Programs, tmp_path: Path) -> None:
    compare(programs("keys", "glibc-static"), [], engine, tmp_path, options=options)
