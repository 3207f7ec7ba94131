"""Where a case may end otherwise than on the host, and why: each row is a choice, not an oversight."""

from __future__ import annotations

import re
from typing import Final

from tests.hostile.cases import HostileCall

DIFFERENCES: Final[tuple[tuple[str, str], ...]] = (
    (r".*xattr\(.*", "there are no extended attributes: EOPNOTSUPP"),
    (r"sendfile\(fd 1: 2\^32\)", "from /dev/null: Linux cannot splice it, we read nothing"),
    (r"rseq\(.*", "rseq is registered by a program's C library on the host, and not here"),
    (r"(lseek|fallocate)\((off|long).*", "how long a file can be is the file system's"),
    (r"pkey_\w+\(.*", "the host's processor may have no protection keys for users"),
    (r"(mmap|mremap|shmget)\(size.*: (int-max|min)\)", "the guest has less memory than the host"),
    (r"(mmap\(map_flags|shmget\(octal).*: (all|top|bit-\d+)\)", "there are no huge pages of chosen sizes"),
    (r"(shm|sem|msg)\w+\(int 0: (0|high-garbage)\)", "the number of an object that is somebody's on one side only"),
    (r"send\w*\(flags.*: (all|3)\)", "there is no out-of-band data (MSG_OOB)"),
    (r"sendto\(size.*", "a stream takes the readable beginning of a bad buffer on Linux, in pieces of its own size"),
    (
        r"fch(mod|own)\w*\(.*: (epoll|event)\)",
        "Linux 6.16 refuses to change anonymous inodes; older ones and we do not",
    ),
    (r"ioctl\(fd 0: epoll\)", "Linux 6.9 gave epoll descriptors an ioctl"),
    (r"execveat\(at_flags 4: bit-16\)", "AT_EXECVE_CHECK is new in Linux 6.14"),
    (r"recvmmsg\(struct 4: read-only\)", "what is left of the time limit is not written back"),
)
"""Patterns of cases' names, each with the reason."""


def reason(case: HostileCall) -> str | None:
    """Why ``case`` may differ; None when it must not."""
    return next((why for pattern, why in DIFFERENCES if re.fullmatch(pattern, case.name)), None)
