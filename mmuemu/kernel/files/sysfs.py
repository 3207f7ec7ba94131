"""/sys: what it tells of the processor and of huge pages.

After Linux drivers/base/{cpu,cacheinfo}.c, Documentation/ABI/testing, Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.cpuid import LINE
from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.abi.stat import SYSFS_MAGIC
from mmuemu.kernel.files.procnodes import ProcDirectory, ProcFile
from mmuemu.kernel.files.procsource import SystemFacts
from mmuemu.kernel.huge import POLICIES
from mmuemu.x86.paging import PAGE_SIZE, SIZE_2M

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.cpu.cpuid import Cache
    from mmuemu.kernel.files.inode import Inode
    from mmuemu.kernel.files.namespace import MountTree

_HUGE: Final = "kernel/mm/transparent_hugepage"
_CPU: Final = "devices/system/cpu"
VULNERABILITIES: Final = (
    "gather_data_sampling", "itlb_multihit", "l1tf", "mds", "meltdown", "mmio_stale_data", "reg_file_data_sampling",
    "retbleed", "spec_rstack_overflow", "spec_store_bypass", "spectre_v1", "spectre_v2", "srbds", "tsx_async_abort",
)  # fmt: skip
"""The files of /sys/devices/system/cpu/vulnerabilities."""
NOT_AFFECTED: Final = "Not affected"
_CONSTANTS: Final[dict[str, str]] = {
    f"{_HUGE}/defrag": "always defer defer+madvise madvise [never]",
    f"{_HUGE}/hpage_pmd_size": str(SIZE_2M),
    f"{_HUGE}/use_zero_page": "1",
    f"{_CPU}/online": "0",
    f"{_CPU}/possible": "0",
    f"{_CPU}/present": "0",
    f"{_CPU}/offline": "",
    f"{_CPU}/isolated": "",
    f"{_CPU}/kernel_max": "0",
    f"{_CPU}/smt/active": "0",
    f"{_CPU}/smt/control": "notsupported",
    f"{_CPU}/cpu0/topology/core_id": "0",
    f"{_CPU}/cpu0/topology/physical_package_id": "0",
    f"{_CPU}/cpu0/topology/core_cpus_list": "0",
    f"{_CPU}/cpu0/topology/package_cpus_list": "0",
    f"{_CPU}/cpu0/topology/thread_siblings": "1",
    f"{_CPU}/cpu0/topology/thread_siblings_list": "0",
}
"""Texts that never change: there is one processor."""
_KINDS: Final = {1: "Data", 2: "Instruction", 3: "Unified"}
_CACHE_TEXTS: Final[dict[str, Callable[[Cache], object]]] = {
    "level": lambda cache: cache.level,
    "type": lambda cache: _KINDS[cache.kind],
    "size": lambda cache: f"{cache.kib}K",
    "coherency_line_size": lambda cache: LINE,
    "physical_line_partition": lambda cache: 1,
    "ways_of_associativity": lambda cache: cache.ways,
    "number_of_sets": lambda cache: cache.sets,
    "shared_cpu_list": lambda cache: 0,
    "shared_cpu_map": lambda cache: 1,
}
_MOST_CACHES: Final = 4


class SysFile(ProcFile):
    """An attribute: a text of at most a page, which ``stat`` shows as a page long."""

    __slots__ = ()

    @property
    def size(self) -> int:
        """The room there is for the text."""
        return PAGE_SIZE


class SysDirectory(ProcDirectory):
    """A directory of attributes."""

    __slots__ = ()

    def refuse(self) -> Errno:
        """kernfs has no operation that makes or removes a name."""
        return Errno.EPERM


def sys_root(tree: MountTree) -> SysDirectory:
    """/sys itself."""
    root = SysDirectory(tree.memory_fs("sysfs", SYSFS_MAGIC), 0o755)

    def system() -> SystemFacts:
        return tree.proc.system() if tree.proc is not None else SystemFacts()

    def vulnerability(name: str) -> Callable[[], bytes]:
        return lambda: system().vulnerabilities.get(name, NOT_AFFECTED).encode() + b"\n"

    def cache_text(index: int, text: Callable[[Cache], object]) -> Callable[[], bytes]:
        return lambda: f"{text(system().caches[index])}\n".encode()

    def constant(text: str) -> Callable[[], bytes]:
        return lambda: text.encode() + b"\n"

    def choice() -> bytes:
        return " ".join(f"[{name}]" if name == system().thp else name for name in POLICIES).encode() + b"\n"

    _add(root, f"{_HUGE}/enabled", choice)
    for path, text in _CONSTANTS.items():
        _add(root, path, constant(text))
    for name in VULNERABILITIES:
        _add(root, f"{_CPU}/vulnerabilities/{name}", vulnerability(name))
    for index in range(_MOST_CACHES):
        for name, told in _CACHE_TEXTS.items():
            _add(root, f"{_CPU}/cpu0/cache/index{index}/{name}", cache_text(index, told))
    return root


def _add(root: SysDirectory, path: str, text: Callable[[], bytes]) -> None:
    """The attribute at ``path``, with the directories above it."""
    *above, name = path.split("/")
    here = root
    for part in above:
        found: Inode | None = here.lookup(part.encode())
        here = found if isinstance(found, SysDirectory) else here.add(part, SysDirectory(here.fs, 0o755))
    here.add(name, SysFile(here.fs, text))
