"""What `from celeriac import Celery, chain` costs a web process, and what it drags in."""

import json
import statistics
import subprocess

from bench.bars import Bar
from bench.peers import CELERY, OURS, ROOT, Station
from bench.scenario import Sample, Scenario, Size

PROGRAM = """
import json, sys, time
before, started = set(sys.modules), time.perf_counter()
from {library} import Celery, chain
elapsed = time.perf_counter() - started
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
foreign = loaded - set(sys.stdlib_module_names) - {{"{library}", "msgspec"}}
print(json.dumps([elapsed, sorted(foreign), "asyncio" in loaded]))
"""
TRIES = 5


def imports(station: Station, size: Size) -> Sample:
    command = [station.peer.program("python"), "-c", PROGRAM.format(library=station.peer.library)]
    runs = [json.loads(subprocess.check_output(command, cwd=ROOT)) for _ in range(TRIES)]
    seconds, foreign, asyncio = runs[-1]
    seconds = statistics.median(run[0] for run in runs)
    return {"time": seconds * 1000, "third_party": float(len(foreign)), "asyncio": float(asyncio)}


SCENARIOS = (
    Scenario(
        name="import",
        about="from … import Celery, chain (msgspec not counted)",
        units={"time": "ms", "third_party": "packages", "asyncio": "loaded"},
        peers=(CELERY, OURS),
        measure=imports,
        bars=(
            Bar(metric="time", at_most=60),
            Bar(metric="third_party", at_most=0),
            Bar(metric="asyncio", at_most=0),
        ),
    ),
)
