"""What a process asked of the host's kernel, out of the lines of ``strace -f -y``."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

CALLS: Final = (
    "%file,%process,%network,kill,tkill,tgkill,rt_sigqueueinfo,pidfd_open,pidfd_send_signal,ftruncate,fchmod,fchown"
)
"""What strace is to tell of."""
_LINE: Final = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|\?)")
_WORD: Final = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_OPENED: Final = re.compile(r"\d+<([^>]*)>")
_OPENS: Final = frozenset({"open", "openat", "openat2", "creat"})
_CHANGES: Final = frozenset(
    (
        "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir",
        "mkdirat", "rmdir", "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown",
        "fchown", "fchownat", "truncate", "ftruncate", "utimensat", "setxattr", "lsetxattr", "removexattr", "mount",
        "umount2", "pivot_root", "chroot",
    )
)  # fmt: skip
_QUIET: Final = frozenset(
    (
        "clone", "clone3", "fork", "vfork", "execve", "exit", "exit_group", "wait4", "waitid", "arch_prctl",
        "access", "faccessat", "faccessat2", "stat", "lstat", "newfstatat", "statx", "statfs", "fstatfs",
        "readlink", "readlinkat", "getcwd", "chdir", "fchdir", "set_tid_address",
    )
)  # fmt: skip
_HARMLESS: Final = ("/dev/null", "/dev/tty", "/dev/pts/", "/dev/ptmx")


@dataclass
class Seen:
    """What there was in a trace."""

    looked_at: int = 0
    """Calls that succeeded."""
    wrong: list[str] = field(default_factory=list)
    """Lines of those that changed, or might have, what lies outside of where they may."""


def _inside(path: str, allowed: Sequence[str]) -> bool:
    path = os.path.normpath(path)
    return any(path == top or path.startswith(top + "/") for top in allowed) or path.startswith(_HARMLESS)


def _paths(call: str, arguments: str) -> list[str]:
    """Each path that a call changes; a link's text is none."""
    if call in ("fchmod", "fchown", "ftruncate"):
        return _OPENED.findall(arguments)[:1]
    found = [os.path.join(where or "", name) for where, name in _WORD.findall(arguments)]
    return found[-1:] if call.startswith("symlink") else found


def touched(text: str, allowed: Sequence[str]) -> Seen:
    """Judge the lines of a trace: files may be changed below the ``allowed`` directories."""
    seen = Seen()
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match[3].startswith("-"):
            continue
        call, arguments = match[1], match[2]
        seen.looked_at += 1
        if call in _OPENS:
            writes = re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)", arguments) is not None
            bad = writes and not all(_inside(path, allowed) for path in _paths(call, arguments))
        elif call in _CHANGES:
            bad = not all(_inside(path, allowed) for path in _paths(call, arguments) or ["?"])
        else:
            bad = call not in _QUIET
        if bad:
            seen.wrong.append(line)
    return seen
