"""Descriptors for processes (pidfd_open(2)): readable once the process has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.fcntl import O_RDWR, POLLHUP, POLLIN, POLLRDNORM
from mmuemu.kernel.files.anonymous import AnonymousFile

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import FileSystem
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.wait import WaitQueue


class PidFd(AnonymousFile):
    """A process, whatever becomes of its number."""

    __slots__ = ("process",)

    label = b"anon_inode:[pidfd]"
    pollable = True

    def __init__(self, fs: FileSystem, process: Process, flags: int) -> None:
        super().__init__(fs, O_RDWR | flags)
        self.process = process

    def poll(self) -> int:
        """POLLIN at its end, POLLHUP as well once it was waited for."""
        process = self.process
        if not process.zombie:
            return 0
        gone = process.kernel.processes.get(process.pid) is not process
        return POLLIN | POLLRDNORM | (POLLHUP if gone else 0)

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """The process's end."""
        return (self.process.end_events,)
