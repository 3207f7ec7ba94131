"""``--strace`` with several threads and processes: every line whole, and whose it is."""

from __future__ import annotations

import re
from pathlib import Path

from tests.run.harness import mmuemu


def test_calls_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    found = mmuemu("--seed", "1", "--strace", "/bin/dash", "-c", "/bin/echo one | /bin/cat; exit 3", cwd=tmp_path)
    assert found.code == 3
    lines = found.err.decode().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("[pid"))
    shapes = (
        r"\w+\(.*( <unfinished \.\.\.>|\) += .*)|<\.\.\. \w+ resumed>.*\) += .*|--- SIG\w+ \{.*\} ---|\+\+\+ .* \+\+\+"
    )
    assert all(re.fullmatch(rf"(\[pid +\d+\] )?({shapes})", line) for line in lines if not line.startswith("mmuemu: "))
    after = [line for line in lines[first:] if line.startswith("[pid")]
    assert lines[-1] == "+++ exited with 3 +++"
    owners = {int(line[4:10]) for line in after}
    assert len(owners) == 3
    shell = min(owners)
    (reader, *_) = (line for line in after if re.search(r'read(\(0, | resumed>)"one\\n"', line))
    assert int(reader[4:10]) != shell
    waits = [line for line in after if re.search(r"\] (wait4\(-1, |<\.\.\. wait4 resumed>)", line)]
    assert waits
    assert all(int(line[4:10]) == shell for line in waits)
