"""Constants of open(2), fcntl(2), lseek(2), access(2), poll(2), the ``*at`` calls and a few ioctls on x86-64.

Values: Linux include/uapi/asm-generic/fcntl.h, include/uapi/linux/{fcntl,fs,poll,memfd,magic}.h and
include/uapi/asm-generic/ioctls.h. They are the guest's and do not depend on the host.
"""

from __future__ import annotations

from typing import Final

O_RDONLY: Final = 0
O_WRONLY: Final = 1
O_RDWR: Final = 2
O_ACCMODE: Final = 3
O_CREAT: Final = 0o100
O_EXCL: Final = 0o200
O_NOCTTY: Final = 0o400
O_TRUNC: Final = 0o1000
O_APPEND: Final = 0o2000
O_NONBLOCK: Final = 0o4000
O_DSYNC: Final = 0o10000
O_ASYNC: Final = 0o20000
O_DIRECT: Final = 0o40000
O_LARGEFILE: Final = 0o100000
O_DIRECTORY: Final = 0o200000
O_NOFOLLOW: Final = 0o400000
O_NOATIME: Final = 0o1000000
O_CLOEXEC: Final = 0o2000000
O_SYNC: Final = 0o4010000
O_PATH: Final = 0o10000000
O_TMPFILE: Final = 0o20000000 | O_DIRECTORY

OPEN_FLAGS: Final = 0o37777703
"""Every flag open(2) knows (include/linux/fcntl.h: VALID_OPEN_FLAGS); it ignores others, openat2 refuses them."""
RESOLVE_NO_XDEV: Final = 1
RESOLVE_NO_MAGICLINKS: Final = 2
RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8
RESOLVE_IN_ROOT: Final = 16
RESOLVE_CACHED: Final = 32
RESOLVE_ALL: Final = 63

F_DUPFD: Final = 0
F_GETFD: Final = 1
F_SETFD: Final = 2
F_GETFL: Final = 3
F_SETFL: Final = 4
F_GETLK: Final = 5
F_SETLK: Final = 6
F_SETLKW: Final = 7
F_SETOWN: Final = 8
F_GETOWN: Final = 9
F_SETSIG: Final = 10
F_GETSIG: Final = 11
F_SETOWN_EX: Final = 15
F_GETOWN_EX: Final = 16
F_OFD_GETLK: Final = 36
F_OFD_SETLK: Final = 37
F_OFD_SETLKW: Final = 38
F_DUPFD_CLOEXEC: Final = 1030
F_SETPIPE_SZ: Final = 1031
F_GETPIPE_SZ: Final = 1032
F_ADD_SEALS: Final = 1033
F_GET_SEALS: Final = 1034
FD_CLOEXEC: Final = 1
F_RDLCK: Final = 0
F_WRLCK: Final = 1
F_UNLCK: Final = 2

F_SEAL_SEAL: Final = 1
F_SEAL_SHRINK: Final = 2
F_SEAL_GROW: Final = 4
F_SEAL_WRITE: Final = 8
F_SEAL_FUTURE_WRITE: Final = 16

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EACCESS: Final = 0x200
AT_REMOVEDIR: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_SYNC_TYPE: Final = 0x6000

SEEK_SET: Final = 0
SEEK_CUR: Final = 1
SEEK_END: Final = 2
SEEK_DATA: Final = 3
SEEK_HOLE: Final = 4

F_OK: Final = 0
X_OK: Final = 1
W_OK: Final = 2
R_OK: Final = 4

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4

FALLOC_FL_KEEP_SIZE: Final = 1
FALLOC_FL_PUNCH_HOLE: Final = 2
FALLOC_FL_ZERO_RANGE: Final = 16

LOCK_SH: Final = 1
LOCK_EX: Final = 2
LOCK_NB: Final = 4
LOCK_UN: Final = 8
LOCK_MAND: Final = 32
"""A lock that Linux 5.15 and later takes no notice of."""

MFD_CLOEXEC: Final = 1
MFD_ALLOW_SEALING: Final = 2
MFD_NOEXEC_SEAL: Final = 8
MFD_EXEC: Final = 16

POLLIN: Final = 0x001
POLLPRI: Final = 0x002
POLLOUT: Final = 0x004
POLLERR: Final = 0x008
POLLHUP: Final = 0x010
POLLNVAL: Final = 0x020
POLLRDNORM: Final = 0x040
POLLRDBAND: Final = 0x080
POLLWRNORM: Final = 0x100
POLLWRBAND: Final = 0x200

TCGETS: Final = 0x5401
TCSETS: Final = 0x5402
TCSETSW: Final = 0x5403
TCSETSF: Final = 0x5404
TCSBRK: Final = 0x5409
TCXONC: Final = 0x540A
TCFLSH: Final = 0x540B
TIOCSCTTY: Final = 0x540E
TIOCGPGRP: Final = 0x540F
TIOCSPGRP: Final = 0x5410
TIOCOUTQ: Final = 0x5411
TIOCSWINSZ: Final = 0x5414
TIOCNOTTY: Final = 0x5422
TIOCGSID: Final = 0x5429
TIOCGPTN: Final = 0x8004_5430
TIOCSPTLCK: Final = 0x4004_5431
TIOCGPTLCK: Final = 0x8004_5439
TIOCGPTPEER: Final = 0x5441
FIOASYNC: Final = 0x5452
TIOCGWINSZ: Final = 0x5413
FIONREAD: Final = 0x541B
FIONBIO: Final = 0x5421
FIONCLEX: Final = 0x5450
FIOCLEX: Final = 0x5451

UTIME_NOW: Final = (1 << 30) - 1
UTIME_OMIT: Final = (1 << 30) - 2

PATH_MAX: Final = 4096
NAME_MAX: Final = 255
IOV_MAX: Final = 1024
MAX_RW_COUNT: Final = 0x7FFF_F000
"""The most bytes one read or write moves (include/linux/fs.h, with 4 KiB pages)."""
MAX_SYMLINKS: Final = 40
MAX_FILE_SIZE: Final = (1 << 63) - 1
