"""Constants of socket(2) and its relatives on x86-64.

Values: Linux include/linux/{net,socket}.h, include/uapi/asm-generic/socket.h.
"""

from __future__ import annotations

from typing import Final

AF_UNSPEC: Final = 0
AF_UNIX: Final = 1
AF_MAX: Final = 46

SOCK_STREAM: Final = 1
SOCK_DGRAM: Final = 2
SOCK_RAW: Final = 3
SOCK_SEQPACKET: Final = 5
SOCK_TYPE_MASK: Final = 15
SOCK_MAX: Final = 11
SOCK_NONBLOCK: Final = 0o4000
SOCK_CLOEXEC: Final = 0o2000000

SHUT_RD: Final = 0
SHUT_WR: Final = 1
SHUT_RDWR: Final = 2
SOMAXCONN: Final = 4096

MSG_OOB: Final = 1
MSG_CMSG_COMPAT: Final = 1 << 31
"""The kernel's own mark for 32-bit callers."""
MSG_PEEK: Final = 2
MSG_CTRUNC: Final = 8
MSG_TRUNC: Final = 0x20
MSG_DONTWAIT: Final = 0x40
MSG_EOR: Final = 0x80
MSG_WAITALL: Final = 0x100
MSG_NOSIGNAL: Final = 0x4000
MSG_WAITFORONE: Final = 0x10000
MSG_CMSG_CLOEXEC: Final = 0x4000_0000

SOL_SOCKET: Final = 1
SCM_RIGHTS: Final = 1
SCM_CREDENTIALS: Final = 2
SCM_MAX_FD: Final = 253

SO_DEBUG: Final = 1
SO_REUSEADDR: Final = 2
SO_TYPE: Final = 3
SO_ERROR: Final = 4
SO_DONTROUTE: Final = 5
SO_BROADCAST: Final = 6
SO_SNDBUF: Final = 7
SO_RCVBUF: Final = 8
SO_KEEPALIVE: Final = 9
SO_OOBINLINE: Final = 10
SO_LINGER: Final = 13
SO_REUSEPORT: Final = 15
SO_PASSCRED: Final = 16
SO_PEERCRED: Final = 17
SO_RCVLOWAT: Final = 18
SO_SNDLOWAT: Final = 19
SO_RCVTIMEO: Final = 20
SO_SNDTIMEO: Final = 21
SO_ACCEPTCONN: Final = 30
SO_PROTOCOL: Final = 38
SO_DOMAIN: Final = 39

POLLRDHUP: Final = 0x2000
UNIX_PATH_MAX: Final = 108
