"""Bad input without end: every hostile argument, or random calls from many seeds.

python -m tests.hostile calls [NAME ...] [--mmu python|native]
python -m tests.hostile fuzz [--seeds FIRST-LAST] [--calls N] [--mmu python|native]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.hostile.cases import cases
from tests.hostile.differences import reason
from tests.hostile.trial import compare, fuzz


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def all_calls(names: list[str], engine: str, top: Path) -> int:
    """Make every case of the calls named (all: none named), and tell of each difference; 1 for one without a reason."""
    chosen = [case for case in cases() if not names or case.call.name in names]
    different, ending = compare(chosen, top, "--mmu", engine)
    bare = [found for found in different if reason(found.case) is None]
    for found in different:
        print(f"{found} ({reason(found.case) or 'NO REASON'})")
    print(f"{len(chosen):,} cases, {len(different)} differ, {len(bare)} without a reason, peak {ending.peak} MiB")
    if ending.broke or ending.code:
        print(ending.err, file=sys.stderr)
    return int(bool(bare) or ending.broke or ending.code != 0)


def many_seeds(seeds: range, calls: int, engine: str, top: Path) -> int:
    """Make random calls from each seed; 1 when mmuemu failed in one."""
    failed = 0
    for seed in seeds:
        ending = fuzz(seed, calls, top, "--mmu", engine)
        bad = ending.broke or ending.code != 0
        failed += bad
        last = ending.out.strip().splitlines()[-1:] or [""]
        print(f"seed {seed}: {'FAILED' if bad else 'lived'}, peak {ending.peak} MiB, {last[0]}", flush=True)
        if bad:
            print(ending.err[-2000:], flush=True)
    return int(failed > 0)


def main() -> int:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("calls", "fuzz"))
    parser.add_argument("names", nargs="*", help="calls (default: all)")
    parser.add_argument("--mmu", choices=("python", "native"), default="python")
    parser.add_argument("--seeds", type=_seeds, default=range(1, 11), help="default: 1-10")
    parser.add_argument("--calls", type=int, default=20_000, help="random calls a seed (default: 20000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmuemu-hostile-", ignore_cleanup_errors=True) as name:
        top = Path(name)
        top.chmod(0o755)
        if options.what == "calls":
            return all_calls(options.names, options.mmu, top)
        return many_seeds(options.seeds, options.calls, options.mmu, top)


if __name__ == "__main__":
    sys.exit(main())
