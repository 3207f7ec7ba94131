"""System V message queues (ipc/msg.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.ipc.ids import IPC_NOWAIT, READ, WRITE, Ids, IpcObject, seconds
from mmuemu.kernel.sleeper import Sleeper, sleeping

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

MSG_NOERROR: Final = 0o10000
MSG_EXCEPT: Final = 0o20000
MSG_COPY: Final = 0o40000
MSGMAX: Final = 8192
MSGMNB: Final = 16384
MSGMNI: Final = 32000
_DS: Final = struct.Struct("<qqqQQQii16x")
_LONG_MAX: Final = (1 << 63) - 1


@dataclass(slots=True, eq=False)
class Message:
    """A message: its type, always positive, and its text."""

    kind: int
    text: bytes


class Wish(NamedTuple):
    """What msgrcv(2) asks for: ``kind`` and ``flags`` as given, and at most ``size`` bytes of text."""

    kind: int
    flags: int
    size: int

    def accepts(self, message: Message) -> bool:
        """Whether the message is one of those asked for (``testmsg``)."""
        if self.kind == 0:
            return True
        if self.kind < 0:
            return message.kind <= min(-self.kind, _LONG_MAX)
        return (message.kind != self.kind) == bool(self.flags & MSG_EXCEPT)

    def has_room(self, message: Message) -> bool:
        """Whether the text fits, or may be cut."""
        return len(message.text) <= self.size or bool(self.flags & MSG_NOERROR)

    def choose(self, messages: list[Message]) -> Message | None:
        """The message to give: the first, or of the lowest type when the type asked for is negative."""
        if self.flags & MSG_COPY:
            return messages[self.kind] if 0 <= self.kind < len(messages) else None
        fitting = [message for message in messages if self.accepts(message)]
        if self.kind < 0:
            return min(fitting, key=lambda message: message.kind, default=None)
        return fitting[0] if fitting else None


class Receiver(Sleeper):
    """A msgrcv(2) that waits; the message that was handed to it."""

    __slots__ = ("message", "wish")

    def __init__(self, task: Task, wish: Wish) -> None:
        super().__init__(task)
        self.wish = wish
        self.message: Message | None = None


class Sender(Sleeper):
    """A msgsnd(2) that waits for room."""

    __slots__ = ("message",)

    def __init__(self, task: Task, message: Message) -> None:
        super().__init__(task)
        self.message = message


class MessageQueue(IpcObject):
    """One queue."""

    def __init__(self, task: Task, key: int, mode: int) -> None:
        super().__init__(task, key, mode)
        self.messages: list[Message] = []
        self.bytes = 0
        self.limit = MSGMNB
        self.stime = self.rtime = 0
        self.lspid = self.lrpid = 0
        self.receivers: list[Receiver] = []
        self.senders: list[Sender] = []

    def has_room(self, message: Message) -> bool:
        """Whether ``message`` may be added."""
        return self.bytes + len(message.text) <= self.limit and len(self.messages) + 1 <= self.limit

    def put(self, task: Task, message: Message) -> None:
        """Hand ``message`` to the first who waits for one like it, or keep it."""
        self.lspid, self.stime = task.pid, seconds(task)
        if not self._hand_over(task, message):
            self.messages.append(message)
            self.bytes += len(message.text)

    def _hand_over(self, task: Task, message: Message) -> bool:
        self.receivers = [receiver for receiver in self.receivers if receiver.asleep]
        for receiver in self.receivers:
            if not receiver.wish.accepts(message):
                continue
            if receiver.wish.has_room(message):
                receiver.message = message
                self.lrpid, self.rtime = receiver.task.pid, seconds(task)
                receiver.finish()
                return True
            receiver.finish(-Errno.E2BIG)
        return False

    def take(self, task: Task, message: Message) -> None:
        """Remove ``message``, which ``task`` receives; those who wait for room go on."""
        self.messages.remove(message)
        self.bytes -= len(message.text)
        self.lrpid, self.rtime = task.pid, seconds(task)
        self.admit()

    def admit(self) -> None:
        """Let those who wait for room send, the oldest first."""
        self.senders = [sender for sender in self.senders if sender.asleep]
        for sender in self.senders:
            if self.has_room(sender.message):
                self.put(sender.task, sender.message)
                sender.finish()

    def pack(self) -> bytes:
        """The 120 bytes of ``struct msqid64_ds``."""
        times = (self.stime, self.rtime, self.ctime)
        counts = (self.bytes, len(self.messages), self.limit)
        return self.pack_permissions() + _DS.pack(*times, *counts, self.lspid, self.lrpid)

    def line(self) -> str:
        """Its line of /proc/sysvipc/msg."""
        return (
            f"{self.key:10d} {self.id:10d}  {self.mode:4o}  {self.bytes:10d} {len(self.messages):10d} "
            f"{self.lspid:5d} {self.lrpid:5d} {self.uid:5d} {self.gid:5d} {self.cuid:5d} {self.cgid:5d} "
            f"{self.stime:10d} {self.rtime:10d} {self.ctime:10d}\n"
        )


class MessageQueues:
    """Every message queue of a machine."""

    HEADER: Final = (
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime"
        "      ctime\n"
    )

    def __init__(self) -> None:
        self.ids: Ids[MessageQueue] = Ids(MSGMNI)

    def get(self, task: Task, key: int, flags: int) -> int:
        """msgget(2)."""
        return self.ids.get(task, key, flags, lambda: MessageQueue(task, key, flags), lambda _: True)

    def send(self, task: Task, identifier: int, message: Message, flags: int) -> int:
        """msgsnd(2): EAGAIN without room and with IPC_NOWAIT; EIDRM when the queue went meanwhile."""
        sender = sleeping(task, Sender)
        if sender is None:
            found = self.ids.find(identifier)
            found.demand(task, WRITE)
            if found.has_room(message):
                found.put(task, message)
                return 0
            if flags & IPC_NOWAIT:
                raise SyscallError(Errno.EAGAIN)
            sender = Sender(task, message)
            found.senders.append(sender)
        return sender.wait(restart=False)

    def receive(self, task: Task, identifier: int, wish: Wish) -> Message:
        """msgrcv(2): E2BIG for a text too long, ENOMSG with IPC_NOWAIT, EIDRM."""
        receiver = sleeping(task, Receiver)
        if receiver is None:
            found = self.ids.find(identifier)
            found.demand(task, READ)
            message = wish.choose(found.messages)
            if message is not None:
                if not wish.has_room(message):
                    raise SyscallError(Errno.E2BIG)
                if not wish.flags & MSG_COPY:
                    found.take(task, message)
                return message
            if wish.flags & IPC_NOWAIT:
                raise SyscallError(Errno.ENOMSG)
            receiver = Receiver(task, wish)
            found.receivers.append(receiver)
        receiver.wait(restart=False)
        assert receiver.message is not None
        return receiver.message

    def remove(self, found: MessageQueue) -> None:
        """IPC_RMID: who waits gets EIDRM."""
        self.ids.remove(found)
        for sleeper in (*found.receivers, *found.senders):
            if sleeper.asleep:
                sleeper.finish(-Errno.EIDRM)

    def text(self) -> str:
        """/proc/sysvipc/msg."""
        return self.HEADER + "".join(found.line() for found in self.ids)
