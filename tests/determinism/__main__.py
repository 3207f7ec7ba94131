"""The same run twice, under other Pythons, on both engines, and as recorded: the hash of all a guest can see.

python -m tests.determinism [NAME ...] [--python PATH ...] [--engines python,native] [--record] [--json FILE]
python -m tests.determinism NAME --show ENGINE
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.determinism.programs import ENGINES, PROGRAMS, run
from tests.determinism.proof import Verdict, prove, unicorn_version, write_record
from tests.run.harness import FLAVOURS
from tests.run.harness import PROGRAMS as SOURCES


def compile_all(names: list[str], directory: Path) -> None:
    """Compile the programs that are given as C."""
    flavours = {**FLAVOURS, "glibc-dynamic": tuple(word for word in FLAVOURS["glibc-static"] if word != "-static")}
    for file in {PROGRAMS[name].compiled for name in names} - {""}:
        name, _, flavour = file.partition("-")
        source = str(SOURCES / f"{name}.c")
        command = [source if word == "@" else word for word in flavours[flavour]]
        subprocess.run([*command, "-o", str(directory / file)], check=True)


def report(verdicts: list[Verdict]) -> int:
    """A line for each program; how many differ."""
    bad = 0
    for verdict in verdicts:
        complaint = verdict.complaint
        bad += bool(complaint)
        known = "as recorded" if verdict.recorded is not None else "not recorded"
        trace = verdict.runs[0][1].trace[:12] if verdict.runs else "-"
        print(f"{verdict.name:<28} {trace}  {complaint or f'same in {len(verdict.runs)} runs, {known}'}")
    print(f"{len(verdicts)} programs, {sum(len(verdict.runs) for verdict in verdicts)} runs, {bad} differ")
    return bad


def main() -> int:
    """Do what the command line asks; 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.determinism", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="programs (default: all)")
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help="an interpreter that has mmuemu")
    parser.add_argument("--engines", default=",".join(ENGINES), help="default: both")
    parser.add_argument("--record", action="store_true", help="write what is found to recorded.json")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many runs at once (default: 1)")
    parser.add_argument("--json", metavar="FILE", help="write all hashes there")
    parser.add_argument("--seed", type=int, help="of the surroundings (default: another each time)")
    parser.add_argument("--show", choices=ENGINES, help="run once and print what is hashed, line by line")
    options = parser.parse_args()
    unknown = set(options.names) - set(PROGRAMS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {'; '.join(PROGRAMS)}")
    engines = [options.show] if options.show else options.engines.split(",")
    if set(engines) - set(ENGINES):
        parser.error(f"--engines {options.engines}: choose from {', '.join(ENGINES)}")
    names = [name for name in options.names or PROGRAMS if set(engines) & set(PROGRAMS[name].engines)]
    if not names:
        parser.error(f"nothing to run: transient execution is the {ENGINES[0]} engine's alone")
    try:
        return work(options, names, engines)
    except (OSError, subprocess.CalledProcessError) as error:
        parser.exit(2, f"python -m tests.determinism: {error}\n")


def work(options: argparse.Namespace, names: list[str], engines: list[str]) -> int:
    """Compile, run, judge and tell; the exit code. Raises OSError and CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="mmuemu-determinism-", ignore_cleanup_errors=True) as place:
        directory = Path(place)
        compile_all(names, directory)
        if options.show:
            for name in names:
                print(run(name, options.show, directory, print).trace)
            return 0
        chance = random.Random(options.seed)
        verdicts = prove(
            names,
            options.python,
            engines,
            directory,
            chance,
            compare=not options.record,
            jobs=options.jobs,
            say=sys.stderr.write,
        )
    bad = report(verdicts)
    if options.record and not bad:
        write_record(verdicts)
    if options.json:
        runs = {v.name: [{"where": where, **vars(one)} for where, one in v.runs] for v in verdicts}
        facts = {"unicorn": unicorn_version(), "machine": platform.platform(), "programs": runs}
        Path(options.json).write_text(json.dumps(facts, indent=1) + "\n")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
