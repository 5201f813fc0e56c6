"""The producer's side of a measurement, in the peer's own venv: `python -m bench.produce MODE '{"count": 1000}'`.

Prints one line of JSON. Times are taken inside, so the interpreter's start is not part of them.
"""

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from bench import app as tasks

BULK = 1_000


def main() -> None:
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    modes: dict[str, Callable[..., object]] = {"fill": fill, "delay": delay, "bulk": bulk, "latency": latency}
    print(json.dumps(modes[mode](**options)))


def fill(*, task: str, count: int, argument: object, mark_every: int, due: float | None, due_step: float) -> int:
    """The same calls as `bench.messages.Load` describes, by the peer's own bulk method."""
    called = tasks.app.tasks[task]
    args = () if argument is None else (argument,)

    def signatures() -> Iterator[Any]:
        for index in range(count):
            marked = mark_every and index % mark_every == 0
            signature = called.signature(args, {"mark": index} if marked else {})
            if due is not None:
                signature.set(eta=datetime.fromtimestamp(due + index * due_step, UTC))
            yield signature

    calls = signatures()
    while batch := list(itertools.islice(calls, BULK)):
        tasks.app.send_many(batch)
    return count


def delay(*, count: int) -> dict[str, float]:
    """Calls a second of single `delay()`."""
    for _ in range(100):
        tasks.noop.delay()
    started = time.perf_counter()
    for _ in range(count):
        tasks.noop.delay()
    return {"rate": count / (time.perf_counter() - started)}


def bulk(*, count: int) -> dict[str, float]:
    """Calls a second when sent by the thousand, making the signatures included."""
    tasks.noop.delay_many([()] * BULK)
    started = time.perf_counter()
    for _ in range(0, count, BULK):
        tasks.noop.delay_many([()] * BULK)
    return {"rate": count / (time.perf_counter() - started)}


def latency(*, count: int) -> dict[str, list[float]]:
    """Milliseconds from before `delay()` to the task's first line, and to the return of `delay().get()`."""
    spread = random.Random(1)
    starts, round_trips = [], []
    for index in range(-20, 2 * count):
        before, clock = time.time(), time.perf_counter()
        result = tasks.started.delay()
        if index % 2:  # get at once; else only after the task has certainly run, so that no waiter is in the way
            result.get(timeout=10)
            elapsed = time.perf_counter() - clock
            if index >= 0:
                round_trips.append(elapsed * 1000)
        else:
            time.sleep(0.005)
            started = result.get(timeout=10)
            if index >= 0:
                starts.append((started - before) * 1000)
        time.sleep(spread.uniform(0.003, 0.008))
    return {"start": starts, "get": round_trips}


if __name__ == "__main__":
    main()
