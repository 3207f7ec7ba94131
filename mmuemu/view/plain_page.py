"""Pages of tables that need nothing else: what is common to them, light and dark."""

from __future__ import annotations

from html import escape
from typing import Final

_STYLE: Final = """\
:root{color-scheme:light dark;--ink:#1d2433;--paper:#fff;--dim:#667;--rule:#d5d9e2;--hit:#1a7f37;--miss:#5b7bb5;
--bad:#b35900;--heat:179,89,0}
@media(prefers-color-scheme:dark){:root{--ink:#dfe4ee;--paper:#14181f;--dim:#98a1b3;--rule:#333b48;--hit:#4ac26b;
--miss:#7d9bd1;--bad:#f0a14a;--heat:240,161,74}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;
border-bottom:1px solid var(--rule)}th{font-weight:600;color:var(--dim);white-space:nowrap}
td{overflow-wrap:anywhere}.yes{color:var(--hit);font-weight:600}.no{color:var(--bad);font-weight:600}
.wide{overflow-x:auto}.wide table{width:auto}.wide td,.wide th{white-space:nowrap;padding-right:1rem}
svg{width:100%;height:auto}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.hit{fill:var(--hit)}.miss{fill:var(--miss)}.line{stroke:var(--bad);stroke-dasharray:4 3}
code{font-family:ui-monospace,monospace}p.dim{color:var(--dim)}
"""


def page(title: str, body: str, style: str = "") -> str:
    """The page; ``body`` is HTML, ``style`` further CSS. ``--heat`` is a colour for ``rgba()``."""
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n{body}</body></html>\n"
    )


__all__ = ["page"]
