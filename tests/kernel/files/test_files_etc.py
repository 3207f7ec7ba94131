"""The guest's /etc shows what programs need of the host's and nothing that may hold a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.etc import HOST_NAMES, EtcFs, ShownDirectory, accounts
from mmuemu.kernel.files.namespace import ViewOptions, _Composer, build_namespace

SECRETS = (
    "shadow", "shadow-", "gshadow", "passwd-", "sudoers", "sudoers.d", "ssh", "ssl/private", "apt", "npmrc", "pip.conf",
    "wgetrc", "gitconfig", "environment", "default", "machine-id", "postgresql", "ldap", "security", "fstab", "crontab",
)  # fmt: skip


@pytest.fixture
def etc(tmp_path: Path) -> ShownDirectory:
    """A directory like /etc, shown as /etc is."""
    for name in ("services", "shadow", "python3.12/site.py", "ssl/openssl.cnf", "ssl/certs/a.pem", "ssl/private/key"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    os.symlink("shadow", tmp_path / "magic")
    os.symlink("../private/key", tmp_path / "ssl" / "certs" / "trap")
    root = _Composer(ViewOptions(isolate=True)).host_root(str(tmp_path), "/etc", EtcFs)
    assert isinstance(root, ShownDirectory)
    root.only = HOST_NAMES
    return root


def names(directory: ShownDirectory) -> list[bytes]:
    return [entry[0] for entry in directory.entries()]


def test_only_the_listed_names_exist(etc: ShownDirectory) -> None:
    assert names(etc) == [b"magic", b"python3.12", b"services", b"ssl"]
    assert etc.lookup(b"shadow") is None
    assert etc.lookup(b"services").read_at(0, 99) == b"services"
    assert [entry[0] for entry in etc.lookup(b"python3.12").entries()] == [b"site.py"]


def test_a_directory_shown_in_part_stays_so_under_another_name(etc: ShownDirectory) -> None:
    ssl = etc.lookup(b"ssl")
    assert names(ssl) == [b"certs", b"openssl.cnf"]
    assert ssl.lookup(b"private") is None
    etc.rename(b"ssl", ssl, etc, b"moved", None, False)
    moved = etc.lookup(b"moved")
    assert names(moved) == [b"certs", b"openssl.cnf"]
    assert moved.lookup(b"private") is None
    assert names(moved.lookup(b"certs")) == [b"a.pem", b"trap"]


def test_a_guest_may_make_a_hidden_name_and_removes_only_its_own(etc: ShownDirectory, tmp_path: Path) -> None:
    made = etc.create(b"shadow", 0o100600, 0, 0)
    made.write_at(0, b"the guest's")
    assert etc.lookup(b"shadow") is made
    assert b"shadow" in names(etc)
    etc.unlink(b"shadow", made)
    assert etc.lookup(b"shadow") is None
    assert (tmp_path / "shadow").read_text() == "shadow"


@pytest.mark.skipif(not os.path.isdir("/etc"), reason="the host has no /etc")
def test_no_secret_of_this_host_is_shown() -> None:
    tree = build_namespace(ViewOptions())
    for name in SECRETS:
        with pytest.raises(SyscallError) as refused:
            tree.lookup(f"/etc/{name}")
        assert refused.value.errno is Errno.ENOENT, name
    for link in ("/etc/localtime", "/etc/os-release"):
        if os.path.exists(link):
            assert tree.lookup(link).read_at(0, 1 << 20) == Path(link).read_bytes()


def test_isolated_guests_see_nothing_of_the_hosts() -> None:
    tree = build_namespace(ViewOptions(isolate=True))
    found = {entry[0].decode() for entry in tree.lookup("/etc").entries()}
    assert found == {"passwd", "group", "hosts", "hostname", "nsswitch.conf", "resolv.conf", "mtab"}


def test_accounts_are_the_systems_and_the_guests() -> None:
    host = accounts(1000, 1000, True)
    for file, fields in (("passwd", 7), ("group", 4)):
        lines = [line.split(":") for line in host[file].splitlines()]
        assert all(len(line) == fields and line[1] == "x" for line in lines)
        assert all(int(line[2]) < 1000 or line[0] in ("user", "nobody", "nogroup") for line in lines)
        assert len({line[2] for line in lines}) == len(lines)
    assert all(line.endswith(":") for line in host["group"].splitlines())
    small = accounts(1000, 1000, False)
    assert [line.split(":")[0] for line in small["passwd"].splitlines()] == ["root", "nobody", "user"]
    assert accounts(0, 0, False)["passwd"].count("\n") == 2
