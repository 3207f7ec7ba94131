"""The guest's /etc: what programs read of the host's and holds no secret, with made-up accounts over it."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.files.hostfs import HostDirectory, HostFs

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from mmuemu.kernel.files.inode import Directory, Inode

    Names = Mapping[str, "Names | None"]

SYSTEM: Final = 1000
"""User and group numbers below are the system's, from there on people's (login.defs(5): UID_MIN)."""
NOBODY: Final = 65534

_WHOLE: Final = (
    "ImageMagick-*", "X11", "alternatives", "bindresvport.blacklist", "debian_version", "dpkg", "emacs", "ethertypes",
    "fonts", "gai.conf", "gdb", "ghostscript", "gprofng.rc", "groff", "host.conf", "inputrc", "issue",
    "java*-openjdk", "ld-musl-x86_64.path", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime",
    "lsb-release", "lynx", "magic", "magic.mime", "manpath.config", "mime.types", "mke2fs.conf", "nanorc", "netconfig",
    "networks", "os-release", "papersize", "perl", "protocols", "python3", "python3.*", "rpc", "services", "sgml",
    "shells", "terminfo", "texmf", "timezone", "vim", "xattr.conf", "xml",
)  # fmt: skip
HOST_NAMES: Final[Names] = {**dict.fromkeys(_WHOLE), "ssl": {"openssl.cnf": None, "certs": None}}
"""What is shown of the host's /etc, by pattern: all of it (None), or a part of a directory. Whatever may hold a
password or a token (shadow, ssl/private, sudoers, ssh, apt, the settings of pip, npm, git and wget) is not here."""


class ShownDirectory(HostDirectory):
    """A host directory of which only some names exist; ``only`` is None where all do."""

    def __init__(self, fs: HostFs, st: os.stat_result) -> None:
        super().__init__(fs, st)
        self.only: Names | None = None

    def _rule(self, name: bytes) -> str | None:
        """The pattern that lets ``name`` be seen."""
        text = name.decode("latin-1")
        return next((pattern for pattern in self.only or () if fnmatch.fnmatchcase(text, pattern)), None)

    def host_stat(self, name: bytes) -> os.stat_result | None:
        """None for what is not shown."""
        return super().host_stat(name) if self.only is None or self._rule(name) else None

    def host_lookup(self, name: bytes) -> Inode | None:
        """The host's entry, which may be shown in part too."""
        inode = super().host_lookup(name)
        if self.only is not None and isinstance(inode, ShownDirectory):
            inode.only = self.only[self._rule(name) or ""]
        return inode

    def host_entries(self) -> list[tuple[bytes, int, int]]:
        """Those shown."""
        found = super().host_entries()
        return found if self.only is None else [entry for entry in found if self._rule(entry[0])]


class EtcFs(HostFs):
    """The host's /etc in part."""

    def new_directory(self, st: os.stat_result) -> HostDirectory:
        """A directory of which all is shown until somebody says otherwise."""
        return ShownDirectory(self, st)


def _system(path: str) -> Iterable[list[str]]:
    """The lines of the host's passwd or group that are the system's, as fields."""
    try:
        with open(path, encoding="latin-1") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdecimal() and 0 < int(fields[2]) < SYSTEM:
            yield fields


def accounts(uid: int, gid: int, of_host: bool) -> dict[str, str]:
    """The texts of passwd and group: root, the guest's user, nobody and, with ``of_host``, the system's accounts
    of the host (so that owners have their names); passwords and the members of groups are left out.
    """
    users = {0: "root:x:0:0:root:/root:/bin/sh"}
    groups = {0: "root:x:0:"}
    if of_host:
        users |= {int(f[2]): ":".join([f[0], "x", *f[2:]]) for f in _system("/etc/passwd")}
        groups |= {int(f[2]): f"{f[0]}:x:{f[2]}:" for f in _system("/etc/group")}
    users |= {NOBODY: f"nobody:x:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin"}
    groups |= {NOBODY: f"nogroup:x:{NOBODY}:"}
    if uid:
        users[uid] = f"user:x:{uid}:{gid}:user:/tmp:/bin/sh"
    if gid:
        groups[gid] = f"user:x:{gid}:"
    return {"passwd": _lines(users), "group": _lines(groups)}


def _lines(entries: dict[int, str]) -> str:
    return "".join(f"{line}\n" for line in entries.values())


def fill(etc: Directory, uid: int, gid: int, hostname: str, of_host: bool) -> None:
    """Put the made-up files into ``etc``: accounts, a machine without a network, where mounts are told."""
    texts = {
        **accounts(uid, gid, of_host),
        "hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost\n",
        "hostname": f"{hostname}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "",
    }
    for file, text in texts.items():
        inode = etc.create(file.encode(), 0o100644, 0, 0)
        if text:
            inode.write_at(0, text.encode("latin-1"))
    etc.symlink(b"mtab", b"../proc/self/mounts", 0, 0)
