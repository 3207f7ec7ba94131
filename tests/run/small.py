"""Run a command from a small process, and write its peak resident KiB and CPU seconds: small.py FILE COMMAND...

A process counts the size of the one it was forked from as its own peak (``setmax_mm_hiwater_rss``), and the process
that runs the tests is large.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run, wait, write, and end as the command did."""
    path, *command = sys.argv[1:]
    pid = os.fork()
    if not pid:
        os.execvp(command[0], command)
    _, status, usage = os.wait4(pid, 0)
    with open(path, "w") as file:
        file.write(f"{usage.ru_maxrss} {usage.ru_utime + usage.ru_stime}")
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
