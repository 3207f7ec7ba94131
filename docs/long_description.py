"""The README as package indexes show it: they have no pages beside it, so links to pages become plain words.

A metadata hook of hatchling's (pyproject.toml names it).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+://)[^)]*\)")


class LongDescription(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = _LINK.sub(r"\1", Path(self.root, "README.md").read_text(encoding="utf-8"))
        text = text.replace("## Read on\n", "## Read on\n\nThese pages are in the source distribution, under `docs`.\n")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
