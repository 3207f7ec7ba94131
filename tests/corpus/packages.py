"""Programs of Debian packages that are not installed: fetched once, unpacked into a directory of their own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

PATIENCE = 60
"""Seconds for fetching one package."""


@cache
def unpacked(package: str, member: str) -> Path | None:
    """The file ``member`` (``bin/busybox``) of a package, or None where it is not to be had."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return None
    top = Path(tempfile.gettempdir()) / f"mmuemu-corpus-package-{package}"
    found = top / member
    if found.exists():
        return found
    with tempfile.TemporaryDirectory(prefix="mmuemu-corpus-") as place:
        try:
            subprocess.run(
                ["apt-get", "-q", "download", package], cwd=place, check=True, timeout=PATIENCE, capture_output=True
            )
            (archive,) = Path(place).glob("*.deb")
            subprocess.run(["dpkg", "-x", archive, f"{place}/tree"], check=True, timeout=PATIENCE, capture_output=True)
            Path(place, "tree").rename(top)
        except (OSError, ValueError, subprocess.SubprocessError):
            return found if found.exists() else None
    return found if found.exists() else None
