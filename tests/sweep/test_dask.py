"""Cells on a Dask cluster: the same results as here. Needs ``distributed``."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mmuemu.cli import main
from mmuemu.errors import UsageError
from mmuemu.sweep.dask import Cluster
from tests.sweep.submissions import matrix, write

SAME = "SELECT key, state, exit_code, signal, stdout_sha256, instructions, peak_frames, matches FROM cells ORDER BY key"


def results(path: Path) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(SAME).fetchall()
    finally:
        database.close()


def test_a_cluster_gives_the_same_results(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 12)
    file = matrix(tmp_path / "m.json", seeds=[1, 2])
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**options) as cluster:
        code = main(["sweep", file, "--out", "far.sqlite", "--dask", cluster.scheduler_address])
    assert main(["sweep", file, "--out", "near.sqlite"]) == code == 1
    near = results(tmp_path / "near.sqlite")
    assert len(near) == 24
    assert results(tmp_path / "far.sqlite") == near


def test_no_scheduler_and_no_worker_are_said(tmp_path):
    distributed = pytest.importorskip("distributed")
    with pytest.raises(UsageError, match="no scheduler answers there"):
        Cluster("tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match="no scheduler answers there"):
        Cluster("nonsense://")
    options = {"n_workers": 0, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**options) as cluster, pytest.raises(UsageError, match="has no workers"):
        Cluster(cluster.scheduler_address)


def test_without_dask_the_option_says_what_to_install(tmp_path):
    write(tmp_path, 1)
    code = (
        "import sys; sys.modules['distributed'] = None\nfrom mmuemu.cli import main\n"
        f"sys.exit(main(['sweep', {matrix(tmp_path / 'm.json')!r}, '--out', {str(tmp_path / 'r')!r}, '--dask', 'x:1']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert (done.returncode, done.stderr) == (125, "mmuemu: --dask needs Dask: pip install 'mmuemu[dask]'\n")
