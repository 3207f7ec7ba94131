"""Fuzzing from the command line: ``python -m tests.fuzz loader --minutes 10``, ``python -m tests.fuzz all``.

Exit code 0: nothing was found; 1: something was; 130: interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.session import Session, has_atheris
from tests.fuzz.targets import TARGETS, find, signature
from tests.fuzz.worker import attempt, child, limited


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "mmuemu-fuzz"


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<9}{what}" for name, what in TARGETS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Feed mmuemu with inputs that nobody thought of.", epilog=f"targets:\n{listed}",
    )  # fmt: skip
    parser.add_argument("target", nargs="+", choices=[*TARGETS, "all"], metavar="TARGET", help="a target, or all")
    parser.add_argument("--minutes", type=float, default=1, help="for each target (default: 1)")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="what is kept (default: in the user's cache)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default: 1)")
    parser.add_argument("--engine", choices=("atheris", "plain"), help="default: atheris where it is installed")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try this input, and tell what happens")
    return parser


def replay(name: str, path: Path) -> int:
    """Try one kept input in this process."""
    with limited():
        found = attempt(find(name), path.read_bytes())
    if found is None:
        print(f"{name}: nothing is wrong with {path}")
        return 0
    traceback.print_exception(found)
    print(f"{name}: {signature(found)}")
    return 1


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--child"]:
        engine, corpus, keep, desk, seed, seconds, name = given[1:]
        return child(name, engine, Path(corpus), Path(keep), Path(desk), int(seed), float(seconds))
    parser = _parser()
    options = parser.parse_args(given)
    names = list(TARGETS) if "all" in options.target else options.target
    if options.replay is not None:
        if len(names) != 1 or not options.replay.is_file():
            parser.error("--replay needs one target and a file")
        return replay(names[0], options.replay)
    engine = options.engine or ("atheris" if has_atheris() else "plain")
    if engine == "atheris" and not has_atheris():
        parser.error("atheris is not installed: pip install 'mmuemu[fuzz]', or --engine plain")
    top = options.corpus or _cache()
    found = 0
    for name in names:
        session = Session(name, top, engine, options.seed, options.minutes * 60)
        try:
            score = session.run(_say)
        except KeyboardInterrupt:
            _say(f"{session.score}\ninterrupted")
            return 130
        found += len(score.findings)
        _say(str(score))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
