"""`./dev simulate`: any number of seeds, on all cores. Ends with 1 when one of them found something."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Collection

from tests.simulation.faults import KINDS
from tests.simulation.many import simulate_many
from tests.simulation.themes import THEMES


def _chosen(
    parser: argparse.ArgumentParser, what: str, text: str | None, known: Collection[str]
) -> frozenset[str] | None:
    if text is None:
        return None
    chosen = frozenset() if text == "none" else frozenset(text.split(","))
    if not chosen <= set(known):
        parser.error(f"unknown {what} {min(chosen - set(known))!r}; there are: {', '.join(known)}")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=None, help="the first seed (default: a random one)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--faults", default=None, help="kinds of faults, with commas, or none (default: by seed)")
    parser.add_argument("--themes", default=None, help="features beside plain work, with commas, or none")
    parser.add_argument("--beside", action="store_true", help="the ledger is on a server of its own")
    arguments = parser.parse_args()
    kinds = _chosen(parser, "fault", arguments.faults, KINDS)
    themes = _chosen(parser, "theme", arguments.themes, THEMES)
    first = random.SystemRandom().randrange(10**9) if arguments.first is None else arguments.first
    began = time.monotonic()
    found, steps = simulate_many(
        range(first, first + arguments.seeds), jobs=arguments.jobs, kinds=kinds, themes=themes, beside=arguments.beside
    )
    for text in found:
        print(text, file=sys.stderr)
    took = time.monotonic() - began
    print(f"{arguments.seeds} seeds from {first}: {steps} steps in {took:.0f} s, {len(found)} with problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
