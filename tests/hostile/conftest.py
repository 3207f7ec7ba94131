from __future__ import annotations

import shutil
import sys

if sys.platform != "linux" or shutil.which("gcc") is None:
    collect_ignore_glob = ["test_*.py"]
