"""The memory that the calls' arguments point into: named objects at known addresses, and the hostile addresses."""

from __future__ import annotations

import struct

GOOD, EDGE, READ_ONLY, NONE, FILE_MAPPING = 0x2000_0000, 0x2100_0000, 0x2200_0000, 0x2300_0000, 0x2400_0000
MARK = 0xF00D_0000
SHM, SEM, MSG, TIMER, SELF = (MARK + i for i in range(5))
"""Numbers the program replaces: of its IPC objects, of a new timer, its own."""

(FD_FILE, FD_DIRECTORY, FD_PIPE, FD_PIPE_END, FD_SOCKET, FD_SOCKET_PEER, FD_EPOLL, FD_EVENT, FD_TIMER, FD_SIGNAL,
 FD_PIDFD, FD_LISTENING, FD_DATAGRAM, FD_NULL, FD_PATH, FD_READ_ONLY, FD_WRITE_ONLY,
 FD_QUEUE) = range(10, 28)  # fmt: skip

POINTERS: dict[str, int] = {
    "null": 0,
    "one": 1,
    "direct-map": 0xFFFF_8880_0000_0000,
    "kernel-text": 0xFFFF_FFFF_8100_0000,
    "not-canonical": 0x8000_0000_0000_0000,
    "just-not-canonical": 0x8000_0000_0000,
    "last-of-user": 0x7FFF_FFFF_EFFF,
    "last-of-all": 0xFFFF_FFFF_FFFF_FFFF,
    "unmapped": 0x2080_0000,
    "read-only": READ_ONLY,
    "no-access": NONE,
    "straddles-by-1": EDGE + 4095,
    "straddles-by-3": EDGE + 4093,
    "straddles-by-7": EDGE + 4089,
    "misaligned": GOOD + 0x3001,
    "past-the-file": FILE_MAPPING + 4096,
}
"""Addresses no call should follow, and some it must follow with care."""


class Image:
    """What lies at GOOD: 16 pages, of which the fourth is zeros to be written to."""

    def __init__(self) -> None:
        self.data = bytearray(0x10000)
        self._next = 0x100
        self.names: dict[str, int] = {}

    def add(self, name: str, data: bytes, align: int = 8) -> int:
        """Put ``data`` down; its address."""
        self._next = -(-self._next // align) * align
        at = self._next
        self.data[at : at + len(data)] = data
        self._next += max(len(data), 1)
        assert self._next <= 0x3000, "the objects reach into the buffer"
        self.names[name] = GOOD + at
        return GOOD + at

    def __getattr__(self, name: str) -> int:
        try:
            return self.names[name]
        except KeyError:
            raise AttributeError(name) from None


def build() -> Image:
    """The objects that plausible arguments are."""
    image = Image()
    image.names["BUFFER"] = GOOD + 0x3000
    for name, text in {
        "FILE": b"file", "NEW": b"new", "DIR": b"dir", "LINK": b"link", "PROGRAM": b"/proc/self/exe", "WORD": b"word",
        "XATTR": b"user.mine", "QUEUE": b"/hostile-queue", "TMPFS": b"tmpfs",
    }.items():  # fmt: skip
        image.add(name, text + b"\0")
    words = {
        "TIME0": (0, 0), "TIME1": (0, 1_000_000), "TIMES": (1, 0, 2, 0), "SET": (0,), "OFF": (0,), "OFF2": (0,),
        "RLIMIT": (1 << 20, 1 << 20), "ITIMER": (0, 0, 0, 0), "OPENHOW": (0, 0, 0), "MASK": (1,),
        "UTIMBUF": (1, 2), "ACTION": (0, 0, 0, 0), "STACK": (0, 2, 0), "TIMES_BUFFER": (0,) * 4, "ROBUST": (0,) * 3,
        "CLONE": (0, 0, 0, 0, 17, 0, 0, 0), "SCHEDATTR": (48, 0, 0, 0, 0, 0),
    }  # fmt: skip
    for name, values in words.items():
        image.add(name, struct.pack(f"<{len(values)}Q", *values))
    buffer = image.BUFFER
    vector = image.add("IOV", struct.pack("<QQ", buffer, 16))
    image.add("ARGV", struct.pack("<QQ", image.WORD, 0))
    image.add("ENVP", struct.pack("<Q", 0))
    image.add("LENGTH", struct.pack("<i", 110))
    image.add("SMALL", struct.pack("<i", 4))
    image.add("SCHEDPARAM", struct.pack("<i", 0))
    image.add("POLLFD", struct.pack("<ihh", FD_FILE, 1, 0))
    image.add("ADDRESS", struct.pack("<H108s", 1, b"socket"))
    message = struct.pack("<QQQQQQQ", 0, 0, vector, 1, 0, 0, 0)
    image.add("MESSAGE", message)
    image.add("MESSAGES", (message + bytes(8)) * 2)
    image.add("EVENT", struct.pack("<IQ", 1, 7))
    image.add("EVENTS", bytes(12 * 4))
    image.add("SIGEVENT", struct.pack("<QII", 0, 0, 1).ljust(64, b"\0"))
    image.add("SIGINFO", struct.pack("<iii", 17, 0, -1).ljust(128, b"\0"))
    image.add("SEMBUF", struct.pack("<Hhh", 0, 1, 0o4000))
    image.add("MSGBUF", struct.pack("<Q16s", 1, b"text"))
    image.add("CAPHEADER", struct.pack("<Ii", 0x2008_0522, 0))
    image.add("CAPDATA", bytes(24))
    image.add("MASKSIZE", struct.pack("<QQ", image.SET, 8))
    image.add("FUTEX", struct.pack("<Q", 0))
    image.add("WAITERS", struct.pack("<QQII", 0, image.FUTEX, 2, 0))
    image.add("FDSET", struct.pack("<Q", 1 << FD_FILE).ljust(128, b"\0"))
    return image
