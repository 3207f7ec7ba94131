"""``mmuemu doctor``: whether mmuemu works here, which tools are there, and what works without the others."""

from __future__ import annotations

import json
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from typing import Any, Final

from mmuemu import __version__

_EPILOG: Final = """\
exit codes of `mmuemu doctor`:
  0            everything needed works
  1            something needed is missing or broken
  125          mmuemu failed, or its options are wrong
"""


def doctor_options(commands: Any) -> None:
    """The parser of ``doctor`` among ``commands``."""
    doctor = commands.add_parser(
        "doctor",
        help="see whether mmuemu works here, and which tools are there",
        usage="mmuemu doctor [--json]",
        description="Show the packages and tools that mmuemu uses, and what does not work without those that are not "
        "here; run short programs on both engines.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")


def doctor(options: Namespace) -> int:
    """Print what was found; the exit code."""
    from mmuemu.examination import examine
    from mmuemu.view.checkup import as_json, is_well, parts
    from mmuemu.view.sheet import show

    findings = examine()
    if options.json:
        print(json.dumps(as_json(findings, __version__), indent=2))
    else:
        shown = list(parts(findings))
        try:
            show(shown)
        except ImportError:
            # No rich, which is among the findings.
            sys.stdout.write("".join(part if isinstance(part, str) else part.text() for part in shown))
    return 0 if is_well(findings) else 1


__all__ = ["doctor", "doctor_options"]
