"""Draw the figures of the pages again, with the tool itself: ``python docs/figures/make.py [FOLDER]``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FIGURES = {
    "v1-window.svg": (
        "demo v1 --seed 1 --bytes 1 --trace-file {scratch}/v1",
        "explain --svg {figure} {scratch}/v1",
    ),
    "meltdown-window.svg": (
        "demo meltdown --seed 1 --bytes 1 --trace-file {scratch}/meltdown",
        "explain --svg {figure} {scratch}/meltdown",
    ),
    "memory-map.svg": ("run --seed 1 --clear-env --svg {figure} samples/hello.s",),
}
"""Figure -> the commands of ``mmuemu`` that make it, run in the checkout. Each is the same on every host."""


def make(name: str, folder: Path) -> None:
    """Draw one figure into ``folder``. RuntimeError when a command fails."""
    with tempfile.TemporaryDirectory() as scratch:
        for command in FIGURES[name]:
            words = [word.format(scratch=scratch, figure=folder / name) for word in command.split()]
            done = subprocess.run(
                [sys.executable, "-m", "mmuemu", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
            )
            if done.returncode:
                raise RuntimeError(f"mmuemu {' '.join(words)}: {done.returncode}\n{done.stderr}")


if __name__ == "__main__":
    for figure in FIGURES:
        make(figure, Path(sys.argv[1] if len(sys.argv) > 1 else HERE).resolve())
