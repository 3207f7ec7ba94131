"""Runs PROGRAM, which lies in ROOTFS, under Qiling: ``qiling_run.py process|threads ROOTFS PROGRAM [ARGS...]``.

A program of its own, for a Python that has Qiling: it knows nothing of mmuemu.
"""

from __future__ import annotations

import sys


def main(kind: str, root: str, words: list[str]) -> int:
    """The exit code; ``kind`` says whether the program makes threads."""
    from qiling import Qiling
    from qiling.const import QL_VERBOSE

    ql = Qiling(words, root, verbose=QL_VERBOSE.DISABLED, multithread=kind == "threads")
    ql.add_fs_mapper("/dev/null", "/dev/null")
    ql.run()
    sys.stdout.flush()
    return int(ql.os.exit_code or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
