"""RabbitMQ with results in Redis, ours and Celery's interleaved.

`python -m bench.rabbitmq AMQP_URL REDIS_PORT [ROUNDS]`: the servers are the caller's, and are emptied. Prints one line
a round and peer: tasks a second of a worker with two children (no-op, late ack, results stored), and of `delay()` with
one thread and with sixteen.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.resp import Redis

ROOT = Path(__file__).parent.parent.absolute()
PYTHONS = {"celery": ROOT / ".venv-celery/bin/python", "celeriac": ROOT / ".venv/bin/python"}
COUNT = {"celery": 2000, "celeriac": 20000}
WARM_UP = 0.2


def main() -> int:
    url, port = sys.argv[1], int(sys.argv[2])
    redis = Redis(port)
    for number in range(int(sys.argv[3]) if len(sys.argv) > 3 else 3):
        for library in ("celery", "celeriac"):
            environment = os.environ | {
                "BENCH_LIBRARY": library,
                "BENCH_BROKER": url,
                "BENCH_BACKEND": f"redis://127.0.0.1:{port}/0",
                "C_FORCE_ROOT": "1",
            }
            found = {"round": number, "peer": library}
            found |= produced(library, environment)
            found |= {"drained/s": round(drained(library, environment, redis))}
            print(json.dumps(found), flush=True)
    return 0


def produced(library: str, environment: dict[str, str]) -> dict[str, float]:
    """Rates of delay() and of the library's way to send many."""
    command = [str(PYTHONS[library]), "-m", "bench.rabbitmq_producer", str(COUNT[library])]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def drained(library: str, environment: dict[str, str], redis: Redis) -> float:
    """Results a second between the first fifth and the end; the queue was filled before."""
    redis.call("FLUSHALL")
    command = [str(PYTHONS[library]), "-m", library, "-A", "bench.rabbitmq_producer", "worker", "-c", "2"]
    command += ["-Q", f"bench-{library}", "-l", "ERROR"]
    count = COUNT[library]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet) as worker:
        try:
            marks: list[tuple[float, int]] = []
            while not marks or marks[-1][1] < count:
                marks.append((time.monotonic(), redis.call("DBSIZE")))
                time.sleep(0.02)
                if time.monotonic() - marks[0][0] > 120:
                    raise SystemExit(f"{library}: {marks[-1][1]} of {count} results after two minutes")
        finally:
            worker.terminate()
            worker.wait(30)
    first = next(mark for mark in marks if mark[1] >= count * WARM_UP)
    return (marks[-1][1] - first[1]) / (marks[-1][0] - first[0])


if __name__ == "__main__":
    sys.exit(main())
