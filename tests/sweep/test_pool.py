"""Work in processes: one that dies or hangs loses what it had in hand, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from mmuemu.sweep.pool import Lost, Pool
from tests.sweep.works import work


def test_what_dies_or_hangs_is_lost_and_nothing_else():
    names = ["fine", "also", "die", "hang", "thread", *(f"more {number}" for number in range(6))]
    with Pool[str](1) as pool:
        found = dict(pool.run(work, ((name, (name,)) for name in names), patience=4.0))
    assert set(found) == set(names)
    assert found.pop("die") == Lost("its worker died (SIGKILL)")
    assert found.pop("hang") == Lost("its worker hung and was ended")
    assert found["fine"] == found["also"] != found["thread"] != found["more 0"]
    assert len({found[f"more {number}"] for number in range(6)}) == 1
    assert os.getpid() not in found.values()
    for pid in found.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_exception_is_raised_for_who_asked():
    with Pool[str](1) as pool, pytest.raises(KeyError, match="mine"):
        list(pool.run(work, [("raise", ("raise",))]))


STARTED = """
import sys
from mmuemu.sweep.pool import Pool
from tests.sweep.works import work
if __name__ == "__main__":
    with Pool(1) as pool:
        for key, pid in pool.run(work, [("fine", ("fine",)), ("hang", ("hang",))]):
            print(pid, flush=True)
"""


def test_workers_end_with_who_started_them_however_it_dies(tmp_path):
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
