"""How the pages are built: ``python -m sphinx -W --keep-going docs build/docs``. Nothing is asked of a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.osutil import relative_uri

sys.path.insert(0, str(Path(__file__).parent.parent))

import mmuemu

project = "mmuemu"
version = release = mmuemu.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = True
# What is written is what is shown: "--seed" in a heading keeps its two dashes.
smartquotes = False

myst_heading_anchors = 3

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"mmuemu {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_copy_source = False


def readme_is_the_first_page(_app: Sphinx, _document: str, source: list[str]) -> None:
    """On a code host pages link to the README, which here is ``index``."""
    source[0] = source[0].replace("](../README.md)", "](index.md)")


def by_its_last_names(_app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> Any:
    """What ``Machine.spawn`` in a docstring means, whatever module says it: the one object whose full name ends so.

    A type in a signature that has no entry of its own is shown without a link. What a docstring or a page refers to
    must be found: None, and Sphinx warns.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    domain = env.domains.python_domain
    if target.split(".")[0] in sys.stdlib_module_names:
        return text
    found = [name for name, entry in domain.objects.items() if f".{name}".endswith(f".{target}") and not entry.aliased]
    if len(found) == 1:
        entry = domain.objects[found[0]]
        place = _app.builder.get_relative_uri(node.get("refdoc", env.docname), entry.docname)
        return nodes.reference("", "", text, internal=True, refuri=f"{place}#{entry.node_id}", reftitle=found[0])
    return None if "refwarn" in node else text


def figures_open_alone(app: Sphinx, doctree: nodes.document, document: str) -> None:
    """A figure that links to its own file opens in the browser, where Sphinx would have it downloaded."""
    for link in list(doctree.findall(download_reference)):
        image = link.next_node(nodes.image)
        if image is not None and (known := app.env.images.get(image["uri"])) is not None:
            place = relative_uri(app.builder.get_target_uri(document), f"_images/{known[1]}")
            link.replace_self(nodes.reference("", "", image, refuri=place))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", readme_is_the_first_page)
    app.connect("doctree-resolved", figures_open_alone)
    app.connect("missing-reference", by_its_last_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
