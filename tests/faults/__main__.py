"""``./dev faults``: the scenarios in rounds, each with its seed, for some minutes; then what they counted, as a table.

./dev faults                       one round, five times as long as in `./dev test`
./dev faults --minutes 60          rounds of new seeds until an hour is over
./dev faults --seed 7 -k frozen    one seed again; what is not known here goes to pytest
./dev faults --write               one round, and its counts into docs/reference/guarantees.md
./dev faults --write -k hosts      only some scenarios: the page keeps its lines of the others

A round that failed is repeated by its seed. With --rows FILE the counts outlive the run: `--minutes 0 --rows FILE`
shows the table again.
"""

from __future__ import annotations

import argparse
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import scenario
from tools import guarantees

ROOT = Path(__file__).parents[2]


def _arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="./dev faults", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31), help="of the first round")
    parser.add_argument("--minutes", type=float, help="go on with the next seeds for so long; default: one round")
    parser.add_argument("--scale", type=float, default=5.0, help="how much longer than in ./dev test; default 5")
    parser.add_argument("--rows", type=Path, help="keep the counts in this file, behind what is there")
    parser.add_argument(
        "--write", action="store_true", help=f"write the counts into {guarantees.PAGE.relative_to(ROOT)}"
    )
    return parser.parse_known_args(words)


def _round(seed: int, scale: float, rows: Path, until: float | None, further: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "--extended", "--seed", str(seed), "--fault-scale", str(scale)]
    command += [] if any(word.startswith("tests/") for word in further) else ["tests/faults"]
    command += ["--fault-rows", str(rows), *([] if until is None else ["--fault-until", str(until)]), *further]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(words: Sequence[str]) -> int:
    """Run; returns 0 when every scenario of every round passed."""
    options, further = _arguments(words)
    until = None if options.minutes is None else time.time() + 60 * options.minutes
    failed: list[int] = []
    seed = options.seed
    with tempfile.TemporaryDirectory(prefix="celeriac-faults-") as folder:
        path = (options.rows or Path(folder, "rows.jsonl")).absolute()
        while until is None or time.time() < until:
            print(f"== seed {seed}", flush=True)
            if _round(seed, options.scale, path, until, further):
                failed.append(seed)
            seed += 1
            if until is None:
                break
        rows = scenario.read(path)
    print("\n".join(guarantees.console(rows)))
    again = shlex.join(further)
    for number in failed:
        print(f"failed; to repeat: ./dev faults --seed {number} --scale {options.scale:g} {again}".rstrip())
    if options.write and rows and all(row.passed for row in rows):
        guarantees.update(rows, partly=bool(further))
        print(f"written: {guarantees.PAGE.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
