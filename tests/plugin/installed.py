"""The package's entry points for a Python that has it on its path and not installed (or installed from elsewhere)."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def entry_points() -> dict[str, str]:
    """What pyproject.toml says for pytest."""
    section = PROJECT.read_text().split("[project.entry-points.pytest11]\n")[1].split("\n[")[0]
    return dict(re.findall(r'^(\w+) = "([\w.]+)"$', section, re.MULTILINE))


def describe(folder: Path) -> None:
    """Metadata of a distribution with these entry points: put ``folder`` on PYTHONPATH and pytest finds the plugin."""
    info = folder / "mmuemu-0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mmuemu\nVersion: 0\n")
    lines = [f"{name} = {module}" for name, module in entry_points().items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
