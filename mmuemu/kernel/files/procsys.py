"""/proc/sys: what can be read of the kernel's settings (proc(5), Documentation/admin-guide/sysctl)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.inotify import MAX_QUEUED_EVENTS, MAX_USER_INSTANCES, MAX_USER_WATCHES
from mmuemu.kernel.files import proctext
from mmuemu.kernel.files.procnodes import ProcDirectory, ProcFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.procfs import ProcRoot

CONSTANTS: Final[dict[str, str]] = {
    "kernel/ostype": "Linux",
    "kernel/domainname": "(none)",
    "kernel/pid_max": "4194304",
    "kernel/ngroups_max": "65536",
    "kernel/cap_last_cap": "40",
    "kernel/core_pattern": "core",
    "kernel/core_uses_pid": "0",
    "kernel/kptr_restrict": "0",
    "kernel/dmesg_restrict": "1",
    "kernel/perf_event_paranoid": "2",
    "kernel/printk": "4\t4\t1\t7",
    "kernel/overflowuid": "65534",
    "kernel/overflowgid": "65534",
    "kernel/tainted": "0",
    "kernel/sched_rr_timeslice_ms": "100",
    "kernel/msgmax": "8192",
    "kernel/msgmnb": "16384",
    "kernel/msgmni": "32000",
    "kernel/sem": "32000\t1024000000\t500\t32000",
    "kernel/shmmax": "18446744073692774399",
    "kernel/shmall": "18446744073692774399",
    "kernel/shmmni": "4096",
    "kernel/shm_rmid_forced": "0",
    "kernel/random/entropy_avail": "256",
    "kernel/random/poolsize": "256",
    "vm/overcommit_memory": "0",
    "vm/overcommit_ratio": "50",
    "vm/overcommit_kbytes": "0",
    "vm/max_map_count": "65530",
    "vm/mmap_min_addr": "65536",
    "vm/swappiness": "60",
    "vm/nr_hugepages": "0",
    "vm/mmap_rnd_bits": "28",
    "fs/file-max": "1048576",
    "fs/nr_open": "1048576",
    "fs/pipe-max-size": "1048576",
    "fs/pipe-user-pages-soft": "16384",
    "fs/pipe-user-pages-hard": "0",
    "fs/lease-break-time": "45",
    "fs/protected_symlinks": "1",
    "fs/protected_hardlinks": "1",
    "fs/suid_dumpable": "0",
    "fs/inotify/max_queued_events": str(MAX_QUEUED_EVENTS),
    "fs/inotify/max_user_instances": str(MAX_USER_INSTANCES),
    "fs/inotify/max_user_watches": str(MAX_USER_WATCHES),
    "fs/mqueue/msg_max": "10",
    "fs/mqueue/msgsize_max": "8192",
    "fs/mqueue/msg_default": "10",
    "fs/mqueue/msgsize_default": "8192",
    "fs/mqueue/queues_max": "256",
}
"""Values that never change, by path."""


def _constant(value: str) -> Callable[[], bytes]:
    return lambda: value.encode() + b"\n"


def sys_tree(root: ProcRoot) -> ProcDirectory:
    """The whole of /proc/sys."""
    system = root.system
    texts: dict[str, Callable[[], bytes]] = {name: _constant(value) for name, value in CONSTANTS.items()}
    texts |= {
        "kernel/osrelease": lambda: system().release.encode() + b"\n",
        "kernel/version": lambda: system().version.encode() + b"\n",
        "kernel/hostname": lambda: system().hostname.encode() + b"\n",
        "kernel/randomize_va_space": lambda: b"%d\n" % system().randomize_va_space,
        "kernel/threads-max": lambda: b"%d\n" % system().max_tasks,
        "kernel/random/boot_id": lambda: proctext.boot_id(system()),
        "kernel/random/uuid": lambda: proctext.uuid(root.random()),
    }
    top = ProcDirectory(root.fs)
    for path, text in sorted(texts.items()):
        *directories, name = path.split("/")
        place = top
        for part in directories:
            below = place.names.get(part.encode())
            place = below if isinstance(below, ProcDirectory) else place.add(part, ProcDirectory(root.fs))
        place.add(name, ProcFile(root.fs, text))
    return top
