"""The house keeps its floors: lower rooms never import higher ones, and none but ``cpu`` knows Unicorn."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mmuemu"

MAY_USE = {
    "x86": set(),
    "memory": {"x86", "errors"},
    "mmu": {"x86", "memory", "errors"},
    "cpu": {"x86", "memory", "mmu", "errors"},
    "loader": {"x86", "errors", "jsonfile"},
    "devices": {"x86", "errors"},
    "guest": set(),
    "speculation": {"x86", "memory", "mmu", "cpu", "errors", "jsonfile"},
    "kernel": {"x86", "memory", "mmu", "cpu", "loader", "guest", "errors"},
    "gdbstub": {"x86", "cpu", "mmu", "memory", "kernel", "view", "errors", "board", "machine"},
    "view": {"x86", "memory", "mmu", "cpu", "loader", "guest", "devices", "speculation", "kernel", "errors"},
    # Behind the machine and the board, which are what it keeps and makes anew; no room needs it.
    "saving": {"x86", "memory", "cpu", "kernel", "errors", "machine", "board"},
    # Helpers of a door, the pytest plugin: it composes what doors do.
    "testing": {
        "x86", "memory", "mmu", "cpu", "loader", "kernel", "speculation", "view", "errors", "machine", "guestprocess",
        "board", "sourcefile", "sources", "leaks", "reporter", "runner",
    },
    # A door with rooms behind it: it composes what the other doors do, many times.
    "sweep": {
        "x86", "memory", "loader", "kernel", "guest", "speculation", "view", "labs", "errors", "jsonfile", "machine",
        "guestprocess", "standard", "sourcefile", "sources", "linked", "demonstrator", "reporter", "options",
    },
    # Helpers of a door, mmuemu bench: what it measures may be anything.
    "bench": {"x86", "cpu", "view", "sourcefile", "sources", "machine", "demonstrator", "cli", "errors"},
    # Exercises: their graders are tests that the plugin runs.
    "labs": {"mmu", "guest", "testing", "errors"},
}  # fmt: skip
"""What each room may import besides itself (DESIGN: a room imports from the rooms below it)."""
LONGEST = 520
YARDSTICKS = {"bare_unicorn.py", "bare_exceptions.py"}
"""Programs on bare Unicorn that mmuemu is measured against; they know nothing of mmuemu."""


def modules(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module name a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


@pytest.mark.parametrize("room", sorted(MAY_USE))
def test_a_room_imports_only_from_below(room):
    for path in modules(room):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "mmuemu" and len(parts) > 1 and parts[1] != room:
                assert parts[1] in MAY_USE[room], f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("room", sorted(set(MAY_USE) - {"cpu"}))
def test_only_the_cpu_room_knows_unicorn(room):
    for path in modules(room):
        roots = {name.split(".")[0] for name in imported(path)}
        assert "unicorn" not in roots or (path.name in YARDSTICKS and "mmuemu" not in roots), path


def test_every_room_is_listed():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == set(MAY_USE)


def test_a_module_fits_in_a_head():
    long = {str(path): count for path in PACKAGE.rglob("*.py") if (count := path.read_text().count("\n")) > LONGEST}
    assert long == {}


def test_importing_the_package_costs_nothing():
    import subprocess
    import sys

    code = "import sys, mmuemu; print(sorted(m for m in sys.modules if m.startswith(('unicorn', 'capstone', 'rich'))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_run_imports_nothing_that_it_has_no_use_for():
    import subprocess
    import sys

    heavy = ("capstone", "json", "keystone", "platform", "rich", "string", "subprocess")
    code = (
        "import sys, mmuemu.cli, mmuemu.runner; mmuemu.cli.make_parser('run'); mmuemu.runner.Machine().close(); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_who_saves_nothing_imports_nothing_of_it():
    import subprocess
    import sys

    doors = "mmuemu.machine, mmuemu.board, mmuemu.runner, mmuemu.booter, mmuemu.resumer, mmuemu.testing.session"
    code = f"import sys, {doors}; print([m for m in sys.modules if m.startswith('mmuemu.saving')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
