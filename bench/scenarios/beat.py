"""A scheduler of periodic tasks: idle with 10,000 entries, 100 tasks a second, 1,000 due at one moment."""

import json
import subprocess
from dataclasses import replace
from typing import Any

from bench.bars import Bar
from bench.peers import OURS, POSTGRES, RABBIT, ROOT, SQLITE, BenchError, Station
from bench.scenario import Sample, Scenario, Size


def beat(station: Station, size: Size) -> Sample:
    idle = measured(station, "idle", count=10_000, seconds=size.seconds(20))
    spread = measured(station, "spread", count=100, seconds=size.seconds(10))
    instant = measured(station, "instant", count=1_000, seconds=0)
    return {
        "idle": idle["cpu"],
        "loaded": idle["loaded"],
        "p50": spread["p50"],
        "p99": spread["p99"],
        "cpu": spread["cpu"],
        "instant": instant["all"],
    }


def measured(station: Station, mode: str, **options: float) -> dict[str, float]:
    command = [station.peer.program("python"), "-m", "bench.beating", mode, json.dumps(options)]
    done = subprocess.run(command, cwd=ROOT, env=station._env, capture_output=True, timeout=120, check=False)
    if done.returncode:
        raise BenchError(f"beat: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
    found: Any = json.loads(done.stdout.splitlines()[-1])
    return dict(found)


SCENARIOS = (
    Scenario(
        name="beat",
        about="beat: 10,000 entries idle; 100 fires/s: late by; 1,000 due at once",
        units={"idle": "% CPU", "loaded": "s", "p50": "ms", "p99": "ms", "cpu": "% CPU", "instant": "ms"},
        peers=(OURS, SQLITE, replace(POSTGRES, name="postgres"), replace(RABBIT, name="rabbitmq")),
        measure=beat,
        bars=(Bar(metric="idle", at_most=0.5), Bar(metric="p99", at_most=20)),
    ),
)
