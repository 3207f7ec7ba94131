"""Runs programs for ``python -m tests.determinism``, in whatever Python and surroundings it was started.

python -m tests.determinism.worker DIRECTORY ENGINES NAME...: a line of JSON for each run.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

from tests.determinism.programs import PROGRAMS, run


def main(arguments: list[str]) -> int:
    """Hash each program on each engine it runs on."""
    directory, engines, *names = arguments
    # When garbage is collected must not matter either; 0 is never.
    gc.set_threshold(int(os.environ.get("GARBAGE", "700")))
    for name in names:
        for engine in PROGRAMS[name].engines:
            if engine in engines.split(","):
                found = run(name, engine, Path(directory))
                line = {"name": name, "engine": engine, "image": found.image, "trace": found.trace}
                print(json.dumps({**line, "exit": found.traced.exit_code}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
