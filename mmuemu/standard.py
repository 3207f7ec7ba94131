"""What a machine that a script made gives its programs: standard streams that are kept, files of the script's own."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmuemu.kernel.files.namespace import MountTree


class Capture(io.RawIOBase):
    """A standard stream that is kept."""

    def __init__(self, into: bytearray) -> None:
        self._into = into

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._into += data
        return len(data)


def put_program(tree: MountTree, path: bytes, content: bytes) -> None:
    """An executable file of the guest's own."""
    inode = tree.make(path, directory=False)
    inode.write_at(0, content)
    inode.set_mode(0o755)
