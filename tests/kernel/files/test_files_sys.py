"""/sys: the processor's attributes and those of huge pages, which nobody changes."""

from __future__ import annotations

import os

import pytest

from mmuemu.cpu.cpuid import DEFAULT_CACHES
from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.abi.stat import SYSFS_MAGIC
from mmuemu.kernel.files.sysfs import VULNERABILITIES

CPU = "/sys/devices/system/cpu"


@pytest.fixture(params=[1000, 0], ids=["user", "root"])
def guest(make_guest, request):
    found = make_guest("/", isolate=True)
    found.task.uid = request.param
    return found


def test_there_is_one_processor_and_nothing_of_the_hosts(guest):
    assert sorted(guest.listdir("/sys")) == [b".", b"..", b"devices", b"kernel"]
    assert guest.listdir("/sys/devices/system") == [b".", b"..", b"cpu"]
    for name in ("online", "possible", "present"):
        assert guest.slurp(f"{CPU}/{name}") == b"0\n"
    assert guest.slurp(f"{CPU}/smt/active") == b"0\n"
    assert guest.stat(f"{CPU}/cpu1") == -Errno.ENOENT


def test_huge_pages_are_told(guest):
    huge = "/sys/kernel/mm/transparent_hugepage"
    assert guest.slurp(f"{huge}/enabled") == b"[always] madvise never\n"
    assert guest.slurp(f"{huge}/hpage_pmd_size") == b"2097152\n"
    root = guest.task.uid == 0
    assert guest.open(f"{huge}/enabled", os.O_WRONLY) == -Errno.EACCES or root


def test_nothing_is_affected_before_a_model_is_chosen(guest):
    assert guest.listdir(f"{CPU}/vulnerabilities")[2:] == [name.encode() for name in VULNERABILITIES]
    assert {guest.slurp(f"{CPU}/vulnerabilities/{name}") for name in VULNERABILITIES} == {b"Not affected\n"}


def test_caches_are_the_models(guest):
    for index, cache in enumerate(DEFAULT_CACHES):
        place = f"{CPU}/cpu0/cache/index{index}"
        assert guest.slurp(f"{place}/size") == f"{cache.kib}K\n".encode()
        assert guest.slurp(f"{place}/level") == f"{cache.level}\n".encode()


def test_attributes_look_as_linux_shows_them(guest):
    found = guest.stat(f"{CPU}/online")
    assert (found.mode, found.size, found.uid) == (0o100444, 4096, 0)
    assert guest.stat("/sys").mode == 0o040755
    assert b"sysfs /sys sysfs rw" in guest.slurp("/proc/mounts")
    assert guest.tree.lookup("/sys").fs.magic == SYSFS_MAGIC


def test_nothing_can_be_changed(guest):
    root = guest.task.uid == 0
    refused = -(Errno.EPERM if root else Errno.EACCES)
    assert guest.call("mkdir", "/sys/x", 0o755) == refused
    assert guest.call("unlink", f"{CPU}/online") == refused
    assert guest.call("symlink", "/x", "/sys/x") == refused
    if not root:
        assert guest.open(f"{CPU}/online", os.O_WRONLY) == -Errno.EACCES
