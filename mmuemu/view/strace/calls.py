"""The table of calls: which types its arguments have, what of them is known only afterwards, how it shows its result.

A line is ``name type type <type ...``. A type behind ``<`` is one that the call fills in: it is shown when the call has
returned, as an address when it failed. ``=kind`` at the end is how the result is shown. Types are those of ``PURE`` and
``TYPES``; ``f.X`` are flags and ``e.X`` one constant of the group X; ``*name`` a pointer to a structure, ``name[N]`` as
many of them as argument N says. A ``?`` behind a type: it gives None for an argument that the call has not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mmuemu.view.strace import buffers, special, structs
from mmuemu.view.strace.constants import CONSTANTS
from mmuemu.view.strace.parts import After, Text, beginning, rest
from mmuemu.view.strace.values import PURE, Call, Type, flags, one_of, pointer

_TEXT: Final = """\
read d <taken lu
write d given:2 lu
open path open openmode?
close d
stat path <*stat
fstat d <*stat
lstat path <*stat
poll pollfds u timeout =poll
lseek d ld e.SEEK_
mmap p lu prot map d lx =x
mprotect p lu prot
munmap p lu
brk p =x
rt_sigaction sig *action <*action lu
rt_sigprocmask e.SIG_ sigset <sigset lu
rt_sigreturn
ioctl d request ioctl? <ioctl?
pread64 d <taken lu ld
pwrite64 d given:2 lu ld
readv d <iovec d
writev d iovec d
access path access
pipe <*pair
select d fdset fdset fdset *timeval =select
sched_yield
mremap p lu lu f.MREMAP_ mremap? =x
msync p lu f.MS_
mincore p lu <mincore
madvise p lu e.MADV_
shmget key lu shmget
shmat d p f.SHM_ =x
shmctl d e.SHM_CMD p
dup d
dup2 d d
pause
nanosleep *timespec <interrupted
getitimer e.ITIMER_ <*itimerval
alarm u
setitimer e.ITIMER_ *itimerval <*itimerval
getpid
sendfile d d *long <offset lu
socket e.AF_ socktype protocol
connect d address:2 d
accept d <address:2 <length
sendto d given:2 lu f.MSG_ address:5 u
recvfrom d <taken lu f.MSG_ <address:5 <length
sendmsg d message f.MSG_
recvmsg d <message f.MSG_
shutdown d e.SHUT_
bind d address:2 d
listen d d
getsockname d <address:2 <length
getpeername d <address:2 <length
socketpair e.AF_ socktype protocol <*pair
setsockopt d e.SOL_ option optval d
getsockopt d e.SOL_ option <optval <length
clone clone <clone
fork
vfork
execve path argv envp
exit d
wait4 d <wstatus f.W <rusage4
kill d sig
uname <*utsname
semget key d ipcget
semop d *sembuf[2] lu
semctl d d e.SEM_CMD semarg?
shmdt p
msgget key ipcget
msgsnd d msgbuf lu f.MSG_F
msgrcv d <msgbuf lu ld f.MSG_F
msgctl d e.MSG_CMD p
fcntl d e.F_ fcntl? <fcntl? =fcntl
flock d f.LOCK_
fsync d
fdatasync d
truncate path ld
ftruncate d ld
getdents d <entries lu
getcwd <cstring lu
chdir path
fchdir d
rename path path
mkdir path mode
rmdir path
creat path mode
link path path
unlink path
symlink path path
readlink path <taken lu
chmod path mode
fchmod d mode
chown path uid uid
fchown d uid uid
lchown path uid uid
umask mode =o
gettimeofday <*timeval <*timezone
getrlimit e.RLIMIT_ <*rlimit
getrusage e.RUSAGE_ <*rusage
sysinfo <*sysinfo
times <*tms
getuid
getgid
setuid uid
setgid uid
geteuid
getegid
setpgid d d
getppid
getpgrp
setsid
setreuid uid uid
setregid uid uid
getgroups d <groups
setgroups lu groups
setresuid uid uid uid
getresuid <*uint <*uint <*uint
setresgid uid uid uid
getresgid <*uint <*uint <*uint
getpgid d
getsid d
capget *cap_header <*cap_data
rt_sigpending <sigset lu
rt_sigtimedwait sigset <siginfo *timespec lu =signal
rt_sigqueueinfo d sig siginfo
rt_sigsuspend sigset lu
sigaltstack *stack <*stack
utime path *utimbuf
mknod path filemode device?
personality personality =personality
statfs path <*statfs
fstatfs d <*statfs
getpriority e.PRIO_ d
setpriority e.PRIO_ d d
sched_setparam d *int
sched_getparam d <*int
sched_setscheduler d sched *int
sched_getscheduler d =sched
sched_get_priority_max e.SCHED_
sched_get_priority_min e.SCHED_
sched_rr_get_interval d <*timespec
mlock p lu
munlock p lu
mlockall f.MCL_
munlockall
prctl e.PR_ prctl? <prctl? prctl+? prctl+? prctl+? =prctl
arch_prctl e.ARCH_ arch? <arch?
setrlimit e.RLIMIT_ *rlimit
chroot path
sync
mount path path path f.MOUNT_ p
umount2 path umount
sethostname given:1 d
gettid
readahead d ld lu
setxattr path string given:3 lu f.XATTR_
lsetxattr path string given:3 lu f.XATTR_
fsetxattr d string given:3 lu f.XATTR_
getxattr path string <xattr lu
lgetxattr path string <xattr lu
fgetxattr d string <xattr lu
listxattr path <xattr lu
llistxattr path <xattr lu
flistxattr d <xattr lu
removexattr path string
lremovexattr path string
fremovexattr d string
tkill d sig
time <*long =time
futex p futexop futex3? futex4? futex5? futex6?
sched_setaffinity d lu cpus
sched_getaffinity d lu <cpus
epoll_create d
getdents64 d <entries lu
set_tid_address p
semtimedop d *sembuf[2] lu *timespec
fadvise64 d ld ld e.POSIX_FADV_
timer_create clock sigevent <*int
timer_settime d f.TIMER_ *itimerspec <*itimerspec
timer_gettime d <*itimerspec
timer_getoverrun d
timer_delete d
clock_settime clock *timespec
clock_gettime clock <*timespec
clock_getres clock <*timespec
clock_nanosleep clock f.TIMER_ *timespec <interrupted
exit_group d
epoll_wait d <*epoll_event[] d d
epoll_ctl d e.EPOLL_CTL_ d epollevent
tgkill d d sig
utimes path utimes
mbind p lu e.MPOL_ p lu f.MPOL_MF_
set_mempolicy e.MPOL_ p lu
get_mempolicy <*int p lu p f.MPOL_F_
mq_open mqname open mqmode? mqattr?
mq_unlink mqname
mq_timedsend d given:2 lu u *timespec
mq_timedreceive d <taken lu <*uint *timespec
mq_notify d sigevent
mq_getsetattr d *mq_attr <*mq_attr
waitid e.P_ d <siginfo f.W <rusage4
ioprio_set e.IOPRIO_WHO_ d ioprio
ioprio_get e.IOPRIO_WHO_ d
inotify_init
inotify_add_watch d path f.IN_
inotify_rm_watch d d
openat dirfd path open openmode?
mkdirat dirfd path mode
mknodat dirfd path filemode device?
fchownat dirfd path uid uid at
futimesat dirfd path utimes
newfstatat dirfd path <*stat at
unlinkat dirfd path unlinkat
renameat dirfd path dirfd path
linkat dirfd path dirfd path at
symlinkat path dirfd path
readlinkat dirfd path <taken lu
fchmodat dirfd path mode
faccessat dirfd path access
pselect6 d fdset fdset fdset *timespec sigsetpair =select
ppoll pollfds u *timespec sigset lu =poll
set_robust_list p lu
get_robust_list d <*hexlong <*ulong
splice d *long d *long lu f.SPLICE_F_
tee d d lu f.SPLICE_F_
sync_file_range d ld ld f.SYNC_FILE_RANGE_
vmsplice d iovec lu f.SPLICE_F_
utimensat dirfd path utimens at
epoll_pwait d <*epoll_event[] d d sigset lu
signalfd d sigset lu
timerfd_create clock f.TFD_
eventfd u
fallocate d f.FALLOC_FL_ ld ld
timerfd_settime d f.TFD_TIMER_ *itimerspec <*itimerspec
timerfd_gettime d <*itimerspec
accept4 d <address:2 <length f.SOCK_FLAGS
signalfd4 d sigset lu f.SFD_
eventfd2 u f.EFD_
epoll_create1 f.EPOLL_CLOEXEC
dup3 d d f.O_
pipe2 <*pair f.O_
inotify_init1 f.IN_INIT
preadv d <iovec d ld -?
pwritev d iovec d ld -?
rt_tgsigqueueinfo d d sig siginfo
recvmmsg d <messages u f.MSG_ *timespec
prlimit64 d e.RLIMIT_ *rlimit64 <*rlimit64
syncfs d
sendmmsg d <mmsghdrs u f.MSG_
getcpu <*uint <*uint p
kcmp d d e.KCMP_ kcmp? kcmp?
sched_setattr d *sched_attr u
sched_getattr d <*sched_attr u u
renameat2 dirfd path dirfd path f.RENAME_
getrandom <random lu f.GRND_
memfd_create string f.MFD_
execveat dirfd path argv envp at
membarrier e.MEMBARRIER_CMD_ f.MEMBARRIER_F membarriercpu? =membarrier
mlock2 p lu f.MLOCK_
copy_file_range d *long d *long lu x
preadv2 d <iovec d ld -? f.RWF_
pwritev2 d iovec d ld -? f.RWF_
pkey_mprotect p lu prot d
pkey_alloc lx pkeyrights
pkey_free d
statx dirfd path statxat statxmask <*statx
rseq p lxu f.RSEQ_ lx
pidfd_send_signal d sig siginfo x
pidfd_open d f.PIDFD_
clone3 clone3 clone3size? <clone3? <clone3size?
close_range u u f.CLOSE_RANGE_
openat2 dirfd path *open_how lu
pidfd_getfd d d x
faccessat2 dirfd path access faccessat
epoll_pwait2 d <*epoll_event[] d *timespec sigset lu
futex_waitv p u x *timespec clock
fchmodat2 dirfd path mode at
"""


_VALUES: Final = frozenset({191, 192, 193})
"""getxattr, lgetxattr and fgetxattr, whose size is the fourth argument."""


def _offset_after(call: Call, address: int) -> str:
    """sendfile's position afterwards: `` => [5]``."""
    return f" => {structs.show(call, 'long', address)}" if address and not call.failed else ""


def _interrupted(call: Call, address: int) -> str:
    """What is left of a sleep, which is written when a signal ended it."""
    return structs.show(call, "timespec", address) if call.result == -4 else pointer(address)


def _xattr(call: Call, address: int) -> str:
    """An extended attribute or their names; of a call that asks for the size, the address."""
    return buffers.taken(call, address) if call.args[3 if call.number in _VALUES else 2] else pointer(address)


def _mincore(call: Call, address: int) -> str:
    """mincore's answer: a byte a page."""
    count = call.args[1] + 4095 >> 12
    data = call.read(address, min(count, call.limit))
    if data is None:
        return pointer(address)
    return f"[{', '.join(str(byte & 1) for byte in data)}{', ...' if count > call.limit else ''}]"


def _mremap_address(call: Call, value: int) -> str | None:
    return pointer(value) if call.args[3] & 6 else None


def _epoll_event(call: Call, value: int) -> str:
    return pointer(value) if call.args[1] & 0xFFFF_FFFF == 2 else structs.show(call, "epoll_event", value)


def _hex_unsigned(_call: Call, value: int) -> str:
    return f"{value & 0xFFFF_FFFF:#x}"


TYPES: Final[dict[str, Type]] = {
    "path": buffers.path, "string": buffers.string, "mqname": structs.mq_name, "argv": structs.strings,
    "envp": structs.variables, "iovec": buffers.vector_given, "<iovec": buffers.vector_taken, "<taken": buffers.taken,
    "<cstring": buffers.c_string, "<random": buffers.random_bytes, "<xattr": _xattr, "<entries": buffers.entries,
    "<mincore": _mincore, "sigset": structs.sigset, "<sigset": structs.sigset, "sigsetpair": structs.sigset_pair,
    "siginfo": special.siginfo, "<siginfo": special.siginfo, "sigevent": buffers.sigevent,
    "pollfds": buffers.poll_asked, "fdset": buffers.descriptors, "cpus": buffers.cpus, "<cpus": buffers.cpus,
    "message": buffers.message_given, "<message": buffers.message_taken, "<messages": buffers.messages(True),
    "<mmsghdrs": buffers.messages(False), "<length": buffers.length_changed, "option": buffers.option_name,
    "optval": buffers.option_given, "<optval": buffers.option_taken, "protocol": buffers.protocol,
    "groups": buffers.groups, "<groups": buffers.groups, "msgbuf": buffers.message_queue_buffer,
    "<msgbuf": buffers.message_queue_buffer, "<wstatus": special.wait_status, "<rusage4": special.wait_usage,
    "device": special.device_if_any, "openmode": special.open_mode, "mqmode": special.mq_mode,
    "mqattr": special.mq_attr,
    "request": special.ioctl_request, "ioctl": special.ioctl_given, "<ioctl": special.ioctl_taken,
    "fcntl": special.fcntl_given, "<fcntl": special.fcntl_taken, "futex3": special.futex_value,
    "futex4": special.futex_time, "futex5": special.futex_second, "futex6": special.futex_third,
    "prctl": special.prctl_given, "<prctl": special.prctl_taken, "prctl+": special.prctl_rest,
    "arch": special.arch_given, "<arch": special.arch_taken, "clone": special.clone_given,
    "<clone": special.clone_taken, "membarriercpu": special.membarrier_processor, "clone3size": buffers.clone3_size,
    "<clone3size": buffers.clone3_size_after, "kcmp": special.kcmp_resource,
    "clone3": buffers.clone3, "<clone3": buffers.clone3_after, "semarg": special.semctl_argument,
    "utimes": structs.utimes("timeval"), "utimens": structs.utimes("timespec"), "<offset": _offset_after,
    "<interrupted": _interrupted, "mremap": _mremap_address, "epollevent": _epoll_event, "lxu": _hex_unsigned,
}  # fmt: skip
RESULTS: Final[dict[str, special.Result]] = {
    "x": special.hexadecimal, "o": special.octal, "time": special.time_of_day, "fcntl": special.fcntl_result,
    "personality": special.personality, "sched": special.scheduler, "signal": special.signal_number,
    "prctl": special.prctl_result, "membarrier": special.membarrier_commands,
}  # fmt: skip
SUFFIXES: Final[dict[str, Callable[[Call], str]]] = {"poll": buffers.poll_result, "select": buffers.select_result}
JOINED: Final = frozenset({"<fcntl", "<ioctl", "<prctl", "<arch", "<offset", "<clone3", "<clone3size", "<clone"})
"""Types that show the argument before them a second time: the same place among the registers."""
GLUED: Final = frozenset({"<offset", "<clone3", "<clone"})
"""Types whose text follows the one before without a comma."""
RAW_WHEN_FAILED: Final = frozenset({*JOINED, "<length", "<rusage4", "<wstatus", "<interrupted"})
"""Types that know themselves what to show of a call that failed."""


@dataclass(frozen=True)
class Spec:
    """How one call is shown: its arguments' types in order, with the number of their register."""

    name: str
    before: tuple[tuple[int, Type], ...]
    """Those known when it is called, up to the first that it fills in."""
    after: tuple[After, ...]
    """The others."""
    result: special.Result | None
    suffix: Callable[[Call], str] | None
    keep: Callable[[Call], None] | None
    """What to remember of memory when it is called."""
    comma: bool = False
    """Whether ``after`` follows ``before`` for certain, as further arguments."""
    sparse: tuple[bool, bool] = (False, False)
    """Whether types of ``before``, of ``after`` may give None."""

    @cached_property
    def begin(self) -> Text:
        """The line up to where ``after`` begins."""
        return _BEGIN.get(self.name) or beginning(self.name, self.before, self.comma, sparse=self.sparse[0])

    @cached_property
    def rest(self) -> Text | None:
        """``after`` and a bracket, once it has returned; None for nothing but the bracket."""
        return rest(self.after, bool(self.before) and not self.comma, sparse=self.sparse[1])

    @cached_property
    def plain(self) -> bool:
        """Its result is a number or an error, and nothing else."""
        return self.result is None and self.suffix is None


_PREFIXES: Final = {
    "SHM_CMD": "SHM_", "MSG_CMD": "MSG_", "SEM_CMD": "SEM_", "MSG_F": "MSG_", "MOUNT_": "MS_", "IN_INIT": "IN_",
    "SOCK_FLAGS": "SOCK_", "MEMBARRIER_F": "MEMBARRIER_CMD_FLAG_",
}  # fmt: skip
"""Group -> what its constants begin with, where that is not its name."""


def _type(word: str) -> Type:
    """The type of a word of the table, which says ValueError when there is none."""
    out, bare = word.startswith("<"), word.removeprefix("<")
    if word in TYPES:
        return TYPES[word]
    if bare in PURE and not out:
        return PURE[bare]
    kind, _, index = bare.partition(":")
    if kind == "given" and index:
        return buffers.given(int(index))
    if kind == "address" and index:
        return buffers.address_taken(int(index)) if out else buffers.address_given(int(index))
    if bare.startswith("*"):
        name, bracket, number = bare[1:].partition("[")
        if not bracket:
            return structs.reader(name)
        return buffers.result_array(name) if number == "]" else buffers.plain_array(int(number[:-1]), name)
    if bare[:2] in ("f.", "e.") and bare[2:] in CONSTANTS:
        return (flags if bare[0] == "f" else one_of)(bare[2:], _PREFIXES.get(bare[2:], ""))
    raise ValueError(f"no type {word!r}")


_BEGIN: Final[dict[str, Text]] = {"rt_sigreturn": lambda call: f"rt_sigreturn({special.frame_mask(call)}"}
_KEEP: Final[dict[str, Callable[[Call], None]]] = {
    "recvmsg": buffers.remember_name,
    "clone3": buffers.remember_parent,
}


def _spec(line: str) -> Spec:
    name, *marked = line.split()
    kind = marked.pop()[1:] if marked and marked[-1].startswith("=") else ""
    words = [word.rstrip("?") for word in marked]
    before: list[tuple[int, Type]] = []
    after: list[After] = []
    register = -1
    keep = _KEEP.get(name)
    for word in words:
        register += word not in JOINED
        out = word.startswith("<")
        if word == "<length":
            keep = buffers.remember_length(register)
        if not out and not after:
            before.append((register, _type(word)))
        else:
            after.append((register, _type(word), out and word not in RAW_WHEN_FAILED, "" if word in GLUED else ", "))
    comma = bool(before and after) and words[len(before)] not in JOINED
    split = len(before)
    sparse = words[:split] != marked[:split], words[split:] != marked[split:]
    return Spec(name, tuple(before), tuple(after), RESULTS.get(kind), SUFFIXES.get(kind), keep, comma, sparse)


SPECS: Final[dict[str, Spec]] = {spec.name: spec for spec in map(_spec, _TEXT.splitlines())}
"""How each call is shown, by its name."""
