"""POSIX message queues (ipc/mqueue.c; mq_overview(7)): a file system without directories, each file a queue."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from mmuemu.kernel.abi.stat import PERMISSIONS, S_IFREG
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode
from mmuemu.kernel.files.openfile import OpenFile, moved_offset
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.sleeper import Sleeper, sleeping
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task

MQUEUE_MAGIC: Final = 0x1980_0202
MSG_MAX: Final = 10
MSGSIZE_MAX: Final = 8192
QUEUES_MAX: Final = 256
HARD_MSG_MAX: Final = 65536
HARD_MSGSIZE_MAX: Final = 16 << 20
MQ_PRIO_MAX: Final = 32768
SI_MESGQ: Final = -3
SIGEV_SIGNAL: Final = 0
_STATUS_SIZE: Final = 80

Posted = tuple[int, bytes]
"""A message: priority and text."""


class Receiver(Sleeper):
    """An mq_timedreceive(3) that waits; what was handed to it."""

    __slots__ = ("message",)

    def __init__(self, task: Task, deadline: int | None) -> None:
        super().__init__(task, deadline)
        self.message: Posted | None = None


class Sender(Sleeper):
    """An mq_timedsend(3) that waits for room."""

    __slots__ = ("message",)

    def __init__(self, task: Task, deadline: int | None, message: Posted) -> None:
        super().__init__(task, deadline)
        self.message = message


class Queue(Inode):
    """One queue: at most ``capacity`` messages of ``longest`` bytes, by priority, then by age."""

    __slots__ = ("capacity", "changed", "longest", "messages", "name", "notify", "receivers", "senders")

    def __init__(self, fs: FileSystem, name: bytes, mode: int, task: Task, capacity: int, longest: int) -> None:
        super().__init__(fs, S_IFREG | mode & PERMISSIONS, task.uid, task.gid)
        self.name = name
        self.capacity = capacity
        self.longest = longest
        self.messages: list[Posted] = []
        self.receivers: list[Receiver] = []
        self.senders: list[Sender] = []
        self.changed = WaitQueue()
        self.notify: tuple[Any, int, int, bytes] | None = None
        """Who is told of the next message in an empty queue: process, way, signal, value."""

    @property
    def size(self) -> int:
        """What stat(2) shows of every queue."""
        return _STATUS_SIZE

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A descriptor."""
        return OpenQueue(self, flags)

    def put(self, task: Task, message: Posted) -> None:
        """Hand the message to the first who waits, or keep it behind those of its priority and tell who asked."""
        self.receivers = [receiver for receiver in self.receivers if receiver.asleep]
        if self.receivers:
            receiver = self.receivers.pop(0)
            receiver.message = message
            receiver.finish()
            return
        place = len(self.messages)
        while place and self.messages[place - 1][0] < message[0]:
            place -= 1
        self.messages.insert(place, message)
        self.changed.wake()
        if len(self.messages) == 1 and self.notify is not None:
            process, way, signal, value = self.notify
            self.notify = None
            if way == SIGEV_SIGNAL:
                payload = struct.pack("<ii", task.pid, task.uid) + value
                task.kernel.send_signal(process, SigInfo(signal, SI_MESGQ, payload))

    def take(self) -> Posted:
        """The message of the highest priority; who waits for room goes on."""
        message = self.messages.pop(0)
        self.senders = [sender for sender in self.senders if sender.asleep]
        if self.senders:
            sender = self.senders.pop(0)
            self.put(sender.task, sender.message)
            sender.finish()
        self.changed.wake()
        return message

    def status(self) -> bytes:
        """What read(2) gives."""
        total = sum(len(text) for _, text in self.messages)
        way, signal, pid = 0, 0, 0
        if self.notify is not None:
            way, signal, pid = self.notify[1], self.notify[2], self.notify[0].pid
        return f"QSIZE:{total:<10d} NOTIFY:{way:<5d} SIGNO:{signal:<5d} NOTIFY_PID:{pid:<6d}\n".encode()


class OpenQueue(OpenFile):
    """A message queue descriptor."""

    __slots__ = ()

    inode: Queue

    def path(self) -> bytes:
        """The name, as /proc/self/fd shows it."""
        return b"/" + self.inode.name

    def read(self, count: int) -> bytes:
        """The state of the queue in words."""
        data = self.inode.status()[self.offset : self.offset + count]
        self.offset += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        """Move in that text."""
        self.offset = moved_offset(self.offset, _STATUS_SIZE, offset, whence)
        return self.offset

    def poll(self) -> int:
        """Readable with a message, writable with room."""
        queue = self.inode
        bits = POLLIN | POLLRDNORM if queue.messages else 0
        return bits | (POLLOUT | POLLWRNORM if len(queue.messages) < queue.capacity else 0)

    def closed(self) -> None:
        """The process that closes it is not told of messages any more (``mqueue_flush_file``)."""
        super().closed()
        notify = self.inode.notify
        if notify is not None:
            process = notify[0]
            current = process.kernel.current
            if current is not None and current.process is process:
                self.inode.notify = None

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """Woken when a message comes or goes."""
        return (self.inode.changed,)


class PosixQueues:
    """Every queue of a machine, by name."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.queues: dict[bytes, Queue] = {}
        self._fs: FileSystem | None = None

    def create(self, task: Task, name: bytes, mode: int, attributes: tuple[int, int] | None) -> Queue:
        """A new queue; ``attributes`` are mq_maxmsg and mq_msgsize. EINVAL beyond the limits, ENOSPC."""
        capacity, longest = attributes or (MSG_MAX, MSGSIZE_MAX)
        most, largest = (HARD_MSG_MAX, HARD_MSGSIZE_MAX) if task.uid == 0 else (MSG_MAX, MSGSIZE_MAX)
        if not 0 < capacity <= most or not 0 < longest <= largest:
            raise SyscallError(Errno.EINVAL)
        if len(self.queues) >= QUEUES_MAX:
            raise SyscallError(Errno.ENOSPC)
        if self._fs is None:
            self._fs = task.fs.mounts.memory_fs("mqueue", MQUEUE_MAGIC)
        queue = Queue(self._fs, name, mode & ~task.fs.umask, task, capacity, longest)
        self.queues[name] = queue
        return queue

    def unlink(self, task: Task, name: bytes) -> None:
        """mq_unlink(3): the queue goes with its last descriptor. ENOENT, EPERM for another's."""
        queue = self.queues.get(name)
        if queue is None:
            raise SyscallError(Errno.ENOENT)
        if task.uid not in (0, queue.uid):
            raise SyscallError(Errno.EPERM)
        del self.queues[name]

    def send(self, task: Task, file: OpenQueue, message: Posted, deadline: int | None) -> int:
        """mq_timedsend(3): EAGAIN or ETIMEDOUT without room."""
        sender = sleeping(task, Sender)
        if sender is None:
            queue = file.inode
            if len(queue.messages) < queue.capacity:
                queue.put(task, message)
                return 0
            if file.nonblocking:
                raise SyscallError(Errno.EAGAIN)
            sender = Sender(task, deadline, message)
            queue.senders.append(sender)
        return sender.wait()

    def receive(self, task: Task, file: OpenQueue, deadline: int | None) -> Posted:
        """mq_timedreceive(3): EAGAIN or ETIMEDOUT without a message."""
        receiver = sleeping(task, Receiver)
        if receiver is None:
            queue = file.inode
            if queue.messages:
                return queue.take()
            if file.nonblocking:
                raise SyscallError(Errno.EAGAIN)
            receiver = Receiver(task, deadline)
            queue.receivers.append(receiver)
        receiver.wait()
        assert receiver.message is not None
        return receiver.message

    def exit(self, task: Task) -> None:
        """The process of ``task`` ends and is not told of messages any more."""
        owner = getattr(task, "process", task)
        for queue in self.queues.values():
            if queue.notify is not None and queue.notify[0] is owner:
                queue.notify = None
