"""Which calls are shown: strace's ``-e trace=`` with names and %classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mmuemu.errors import UsageError
from mmuemu.view.strace.calls import SPECS
from mmuemu.view.strace.words import MISSING

_TEXT: Final = """\
%file: access chdir chmod chown chroot creat execve execveat faccessat faccessat2 fchmodat fchmodat2 fchownat
  futimesat getcwd getxattr inotify_add_watch lchown lgetxattr link linkat listxattr llistxattr lremovexattr lsetxattr
  lstat mkdir mkdirat mknod mknodat mount newfstatat open openat openat2 readlink readlinkat removexattr rename
  renameat renameat2 rmdir setxattr stat statfs statx symlink symlinkat truncate umount2 unlink unlinkat utime
  utimensat utimes
%process: clone clone3 execve execveat exit exit_group fork kill pidfd_open pidfd_send_signal rt_sigqueueinfo
  rt_tgsigqueueinfo tgkill tkill vfork wait4 waitid
%signal: kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
  rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill tkill
%memory: brk get_mempolicy madvise mbind mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall
  munmap pkey_mprotect set_mempolicy shmat shmdt
%network: accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendfile
  sendmmsg sendmsg sendto setsockopt shutdown socket socketpair
%ipc: msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget
%desc: accept4 close close_range copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
  epoll_pwait2 epoll_wait eventfd eventfd2 execveat faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat
  fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync
  ftruncate futimesat getdents getdents64 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl linkat
  lseek memfd_create mkdirat mknodat mmap mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend newfstatat open
  openat openat2 pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 poll ppoll pread64 preadv preadv2 pselect6
  pwrite64 pwritev pwritev2 read readahead readlinkat readv renameat renameat2 select sendfile signalfd signalfd4
  splice statx symlinkat sync_file_range syncfs tee timerfd_create timerfd_gettime timerfd_settime unlinkat utimensat
  vmsplice write writev
"""


def _read(text: str) -> dict[str, frozenset[str]]:
    classes: dict[str, set[str]] = {}
    for word in text.split():
        if word.endswith(":"):
            found = classes.setdefault(word[:-1], set())
        else:
            found.add(word)
    return {name: frozenset(words) for name, words in classes.items()}


CLASSES: Final = _read(_TEXT)
"""Class -> the calls in it (strace(1), -e trace)."""


def selected(text: str) -> frozenset[str] | None:
    """The names that a comma-separated list stands for; None for all. A ``!`` before it: all others.

    Raises UsageError for a name that is no call's and no class's.
    """
    words: Iterable[str] = filter(None, text.removeprefix("!").split(","))
    every = {*SPECS, *MISSING.values()}
    found: set[str] = set()
    for word in words:
        if word == "all":
            found |= every
        elif word in CLASSES:
            found |= CLASSES[word]
        elif word in every:
            found.add(word)
        else:
            raise UsageError(f"--strace-filter {text}: no system call {word} and no class of {', '.join(CLASSES)}")
    if text.startswith("!"):
        return frozenset(every - found)
    return frozenset(found) if text else None
