"""The Linux x86-64 system calls: one function each, gathered in one table."""

from __future__ import annotations

from importlib import import_module
from typing import Final

_MODULES: Final = (
    "exec",
    "files",
    "files_copy",
    "files_event",
    "files_fd",
    "files_lock",
    "files_names",
    "files_poll",
    "files_stat",
    "files_xattr",
    "fork",
    "futex",
    "groups",
    "inotify",
    "ipc",
    "itimers",
    "memory",
    "mqueue",
    "pidfd",
    "process",
    "scheduling",
    "signals",
    "sockets",
    "system",
    "time",
    "wait",
)


def load_all() -> None:
    """Import every module of calls, so that the table is complete."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}")
