"""The pages as HTML: built without a warning, whole, and with figures that the tool draws the same today."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import mmuemu

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md"))
DRAWING = runpy.run_path(str(DOCS / "figures" / "make.py"))


class Page(HTMLParser):
    """Targets of a page's links and pictures, and its anchors."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
    reason="needs the extra 'docs'",
)
def test_the_pages_are_built_without_a_warning_and_whole(tmp_path):
    # One test, because a build takes some ten seconds.
    built = build(tmp_path)
    every_page_is_built(built)
    every_link_leads_to_a_page_that_is_there(built)
    nothing_is_fetched_from_a_network(built)
    the_reference_has_what_the_package_offers(built)


def build(out: Path) -> Path:
    """The built pages' folder. The command is the README's, which ``.ci/run`` uses as well."""
    (line,) = re.findall(r"^\.venv/bin/python (-m sphinx .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    *options, target = shlex.split(line)
    assert target == "build/docs"
    assert {"-W", "--keep-going"} <= set(options)
    command = [sys.executable, *options, str(out / "html"), "-d", str(out / "doctrees")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return out / "html"


def every_page_is_built(built: Path) -> None:
    assert [page for page in PAGES if not (built / page.with_suffix(".html")).exists()] == []
    listed = (built / "index.html").read_text()
    assert [str(page) for page in PAGES if f'href="{page}.html' not in listed and page.name != "index"] == []


def every_link_leads_to_a_page_that_is_there(built: Path) -> None:
    pages = {file: Page(file) for file in built.rglob("*.html") if "_static" not in file.parts}
    broken = []
    for file, page in pages.items():
        for target in page.targets:
            path, anchor = urldefrag(target)
            if "://" in path or path.startswith("data:"):
                continue
            place = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
            if not place.exists() or (anchor and place in pages and unquote(anchor) not in pages[place].anchors):
                broken.append((file.name, target))
            # What a code host calls a page must be one here, too.
            if place.suffix == ".md":
                broken.append((file.name, target))
    assert broken == []


def nothing_is_fetched_from_a_network(built: Path) -> None:
    for file in built.rglob("*.html"):
        text = file.read_text()
        assert re.findall(r'<(?:script|img|iframe)[^>]*src="https?:', text) == []
        assert re.findall(r'<link[^>]*rel="(?:stylesheet|preload)"[^>]*href="https?:', text) == []


def the_reference_has_what_the_package_offers(built: Path) -> None:
    text = "".join(unescape(file.read_text()) for file in sorted((built / "api").glob("*.html")))
    names = [f"{home}.{name}" for name, home in mmuemu._HOMES.items()]
    names += [
        "mmuemu.machine.Machine.spawn",
        "mmuemu.guestprocess.GuestProcess.translate",
        "mmuemu.board.Board.run",
        "mmuemu.mmu.walk.walk",
        "mmuemu.mmu.tlb.Tlb.invpcid",
        "mmuemu.leaks.leaks",
    ]
    assert [name for name in names if f'id="{name}"' not in text] == []
    assert "Raises NotFound, BadImage and UsageError." in text


@pytest.mark.parametrize("name", sorted(DRAWING["FIGURES"]))
def test_a_figure_is_what_the_tool_draws(name, tmp_path):
    DRAWING["make"](name, tmp_path)
    again = (tmp_path / name).read_text()
    assert again == (DOCS / "figures" / name).read_text(), "draw it again: python docs/figures/make.py"
    assert ("closes at" if "window" in name else "High addresses at the top") in again


def test_every_figure_is_drawn_and_shown():
    shown = set()
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            shown.add((page.parent / target).resolve())
    shown.remove(DOCS / "benchmarks.svg")  # measured, of benchmarks.md
    assert shown == {DOCS / "figures" / name for name in DRAWING["FIGURES"]}
    assert shown == set((DOCS / "figures").glob("*.svg"))
