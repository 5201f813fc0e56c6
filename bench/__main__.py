"""`python -m bench`: runs the scenarios, peers interleaved round by round, prints the table.

Exit code 0 whatever was missed (`--strict`: 1 when a bar is missed), 1 when a measurement could not be made.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import SubprocessError

from bench.peers import BenchError, Peer, Station
from bench.process import machine_busy
from bench.report import Report
from bench.scenario import Scenario, Size
from bench.scenarios import ALL
from bench.servers import BROKERS, Servers, missing


def main() -> int:
    options = arguments()
    options.broker = brokers(options.broker)
    scenarios = chosen(options)
    report, size, started = Report(scenarios, machine_busy(1)), Size(quick=options.quick), time.monotonic()
    try:
        with Servers() as servers:
            for scenario in scenarios:
                peers = [peer for peer in scenario.peers if wanted(peer, options)]
                rounds = 1 if scenario.once else options.rounds or (1 if options.quick else 3)
                run(scenario, peers, rounds, size, servers, report)
    except KeyboardInterrupt:
        print("stopped; what was measured so far:", file=sys.stderr)
    print(report.table())
    print(f"{time.monotonic() - started:.0f} s in all")
    if options.json:
        report.write(options.json)
    missed = options.strict and "MISS" in report.table()
    return 1 if report.errors or missed else 0


def run(scenario: Scenario, peers: Sequence[Peer], rounds: int, size: Size, servers: Servers, report: Report) -> None:
    """Interleaved, so that a change of the machine's mood meets every peer."""
    for turn in range(rounds):
        for peer in peers:
            began = time.monotonic()
            try:
                with Station(peer, servers) as station:
                    sample = scenario.measure(station, size)
            except (BenchError, OSError, ValueError, ArithmeticError, RuntimeError, SubprocessError) as error:
                report.fail(scenario.name, peer.name, f"{type(error).__name__}: {error}")
                outcome = f"{type(error).__name__}: {error}"
            else:
                report.add(scenario.name, peer.name, sample)
                outcome = "  ".join(f"{metric} {value:,.4g}" for metric, value in sample.items())
            took = time.monotonic() - began
            print(f"{scenario.name} {turn + 1}/{rounds} {peer.name}: {outcome} [{took:.1f} s]", file=sys.stderr)


def wanted(peer: Peer, options: argparse.Namespace) -> bool:
    """Our own by its broker; the others with those that are compared with them."""
    if not Path(peer.program("python")).exists():
        return False
    if peer.library == "celeriac":
        return peer.base or peer.broker in options.broker
    return bool(options.peers)


def chosen(options: argparse.Namespace) -> list[Scenario]:
    """Scenarios with something of ours on a broker that is wanted; Redis has the bases of others."""
    known = {scenario.name: scenario for scenario in ALL}
    names = options.only.split(",") if options.only else list(known)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"bench: no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    return [
        known[name]
        for name in names
        if any(
            peer.library == "celeriac" and not peer.base and peer.broker in options.broker for peer in known[name].peers
        )
    ]


def brokers(word: str) -> list[str]:
    """Those that can be measured here; says why of each that cannot."""
    found = []
    for name in BROKERS if word == "all" else [word]:
        if reason := missing(name):
            print(f"bench: {name} is skipped: {reason}", file=sys.stderr)
        else:
            found.append(name)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Celeriac against its peers, on private servers.")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of: {', '.join(s.name for s in ALL)}")
    parser.add_argument(
        "--rounds", type=int, help="measurements of each peer, of which the median counts (3; quick: 1)"
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the tasks, one round")
    parser.add_argument("--broker", choices=(*BROKERS, "all"), default="all", help="for our worker")
    parser.add_argument("--no-peers", "--no-celery", dest="peers", action="store_false", help="leave the peers out")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples, medians and verdicts")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
