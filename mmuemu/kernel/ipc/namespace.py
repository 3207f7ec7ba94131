"""What a machine has of System V IPC and POSIX message queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.ipc.mqueue import PosixQueues
from mmuemu.kernel.ipc.msg import MessageQueues
from mmuemu.kernel.ipc.sem import Semaphores
from mmuemu.kernel.ipc.shm import SharedSegments

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task


class IpcNamespace:
    """One per machine (ipc_namespaces(7))."""

    def __init__(self, kernel: Kernel) -> None:
        self.shm = SharedSegments(kernel)
        self.sem = Semaphores()
        self.msg = MessageQueues()
        self.mqueue = PosixQueues(kernel)

    def exit(self, task: Task) -> None:
        """The last thread of a process ends: its semaphore adjustments and notifications."""
        self.sem.exit(task)
        self.mqueue.exit(task)
