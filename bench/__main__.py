"""`python -m bench`: runs the scenarios, peers interleaved round by round, prints the table.

Exit code 0 whatever was missed (`--strict`: 1 when a bar is missed), 1 when a measurement could not be made.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers import BARE, CELERY, BenchError, Peer, Station
from bench.process import machine_busy
from bench.report import Report
from bench.scenario import Scenario, Size
from bench.scenarios import ALL
from bench.servers import Server, private_redis


def main() -> int:
    options = arguments()
    scenarios = chosen(options.only)
    report, size, started = Report(scenarios, machine_busy(1)), Size(quick=options.quick), time.monotonic()
    try:
        with private_redis() as server:
            for scenario in scenarios:
                peers = [peer for peer in scenario.peers if wanted(peer, options)]
                rounds = 1 if scenario.once else options.rounds or (1 if options.quick else 3)
                run(scenario, peers, rounds, size, server, report)
    except KeyboardInterrupt:
        print("stopped; what was measured so far:", file=sys.stderr)
    print(report.table())
    print(f"{time.monotonic() - started:.0f} s in all")
    if options.json:
        report.write(options.json)
    missed = options.strict and "MISS" in report.table()
    return 1 if report.errors or missed else 0


def run(scenario: Scenario, peers: Sequence[Peer], rounds: int, size: Size, server: Server, report: Report) -> None:
    """Interleaved, so that a change of the machine's mood meets every peer."""
    for turn in range(rounds):
        for peer in peers:
            began = time.monotonic()
            try:
                with Station(peer, server) as station:
                    sample = scenario.measure(station, size)
            except (BenchError, OSError, ValueError, ArithmeticError) as error:
                report.fail(scenario.name, peer.name, f"{type(error).__name__}: {error}")
                outcome = f"{type(error).__name__}: {error}"
            else:
                report.add(scenario.name, peer.name, sample)
                outcome = "  ".join(f"{metric} {value:,.4g}" for metric, value in sample.items())
            took = time.monotonic() - began
            print(f"{scenario.name} {turn + 1}/{rounds} {peer.name}: {outcome} [{took:.1f} s]", file=sys.stderr)


def wanted(peer: Peer, options: argparse.Namespace) -> bool:
    if peer is BARE:
        return True
    if peer is CELERY:
        return bool(options.celery)
    return options.broker in ("all", peer.broker)


def chosen(only: str | None) -> list[Scenario]:
    known = {scenario.name: scenario for scenario in ALL}
    names = only.split(",") if only else list(known)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"bench: no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="Celeriac against real Celery, on a private Redis."
    )
    parser.add_argument("--only", metavar="NAME,...", help=f"some of: {', '.join(s.name for s in ALL)}")
    parser.add_argument(
        "--rounds", type=int, help="measurements of each peer, of which the median counts (3; quick: 1)"
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the tasks, one round")
    parser.add_argument("--broker", choices=("redis", "sqlite", "all"), default="all", help="for our worker")
    parser.add_argument("--no-celery", dest="celery", action="store_false", help="leave Celery out")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples, medians and verdicts")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
