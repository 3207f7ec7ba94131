"""What is in the wheel and in the source distribution."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

import mmuemu
from tests.release.conftest import given

ROOT = Path(__file__).parents[2]
TOP = f"mmuemu-{mmuemu.__version__}"
INFO = f"{TOP}.dist-info"


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def wheel():
    return contents(one(given("MMUEMU_DIST"), "*.whl"))


@pytest.fixture(scope="module")
def source():
    """Names below the top directory of the source distribution."""
    with tarfile.open(one(given("MMUEMU_DIST"), "*.tar.gz")) as file:
        names = [member.name for member in file.getmembers() if member.isfile()]
    assert all(name.startswith(f"{TOP}/") for name in names)
    return {name.removeprefix(f"{TOP}/") for name in names}


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    return HeaderParser().parsestr(wheel[f"{INFO}/METADATA"].decode())


def files(*folders: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(ROOT)): path.read_bytes()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    inside = {name: content for name, content in wheel.items() if not name.startswith(f"{INFO}/")}
    assert inside == files("mmuemu")
    assert "mmuemu/py.typed" in inside


def test_the_source_distribution_makes_the_same_wheel(wheel):
    # The wheel that is released was made of the source distribution; this one of the checkout.
    assert contents(one(given("MMUEMU_DIST") / "checkout", "*.whl")) == wheel


def test_the_source_distribution_is_whole(source):
    wanted = {*files("mmuemu", "tests", "samples", "docs"), "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"}
    assert wanted - source == set()


def test_metadata(metadata, wheel):
    assert (metadata["Name"], metadata["Version"]) == ("mmuemu", mmuemu.__version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")
    assert wheel[f"{INFO}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    low, high = sorted(map(int, re.findall(r"3\.(\d+)", metadata["Requires-Python"])))
    told = {c.rpartition(" ")[2] for c in metadata.get_all("Classifier", []) if re.search(r":: 3\.\d+$", c)}
    assert told == {f"3.{minor}" for minor in range(low, high)}
    assert "unicorn<2.2,>=2.1.4" in metadata.get_all("Requires-Dist", [])


def test_commands_and_plugin_are_registered(wheel):
    text = wheel[f"{INFO}/entry_points.txt"].decode()
    assert "mmuemu = mmuemu.cli:main" in text
    assert "mmuemu = mmuemu.pytest_plugin" in text


def test_links_of_the_description_lead_somewhere_from_anywhere(metadata):
    text = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "mmuemu run" in text
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link] == []
