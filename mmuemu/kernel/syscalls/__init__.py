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


_USUAL: Final = (
    "exec",
    "files",
    "files_names",
    "files_stat",
    "fork",
    "futex",
    "memory",
    "process",
    "signals",
    "system",
)
"""Those that have the calls of a C library's start."""
_loaded: Final[set[str]] = set()


def load_usual() -> None:
    """Import the modules of calls that every program makes; the first other call needs :func:`load_all`."""
    _load(_USUAL)


def load_all() -> None:
    """Import every module of calls, so that the table is complete."""
    if len(_loaded) < len(_MODULES):
        _load(_MODULES)


def _load(names: tuple[str, ...]) -> None:
    for name in names:
        import_module(f"{__name__}.{name}")
    _loaded.update(names)
