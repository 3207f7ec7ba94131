"""/proc/mmuemu: where the kernel's secret and the vulnerable driver lie, for labs that ask for it.

/proc/safeside_meltdown has the same in the form of the kernel module that the SafeSide test suite brings
(kernel_modules/kmod_meltdown/meltdown_module.c: ``%px`` and ``%d``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmuemu.kernel.files.procnodes import ProcDirectory
from mmuemu.kernel.vulnerable import ARRAY, SECRET_AT, SECRET_LENGTH

if TYPE_CHECKING:
    from mmuemu.kernel.files.procfs import ProcRoot
    from mmuemu.kernel.kernel import Kernel


def add_driver_files(kernel: Kernel, proc: ProcRoot) -> None:
    """Add both directories to ``proc``."""
    driver = kernel.memory.driver
    symbols = driver.data_symbols() | driver.text_symbols()
    addresses = {name.removeprefix("mmuemu_"): place for name, place in symbols.items()}
    secret = addresses["secret"]

    def told(text: str) -> Callable[[], bytes]:
        return lambda: text.encode()

    def length() -> bytes:
        """As ``strlen`` does, this reads the secret."""
        if kernel.hidden is not None:
            kernel.hidden.touch(kernel.memory.data_frame + SECRET_AT, SECRET_LENGTH, False)
        return b"%d\n" % SECRET_LENGTH

    files = {f"{name}_address": told(f"{place:#x}\n") for name, place in addresses.items()}
    files |= {"secret_length": length, "array_length": told(f"{len(ARRAY)}\n")}
    proc.add("mmuemu", ProcDirectory(proc.fs)).texts(**files)
    proc.add("safeside_meltdown", ProcDirectory(proc.fs)).texts(address=told(f"{secret:016x}\n"), length=length)
