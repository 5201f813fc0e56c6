"""The producer's side of a measurement, in the peer's own venv: `python -m bench.produce MODE '{"count": 1000}'`.

Prints one line of JSON. Times are taken inside, so the interpreter's start is not part of them.
"""

import itertools
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from statistics import median
from typing import Any

from bench import app as tasks

BULK = 1_000
LIMIT = 60  # seconds that a workflow may take


def main() -> None:
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    modes: dict[str, Callable[..., object]] = {
        "fill": fill,
        "declare": declare,
        "delay": delay,
        "claim": claim,
        "bulk": bulk,
        "latency": latency,
        "chord": chord,
        "chain": chain,
        "group": group,
    }
    print(json.dumps(modes[mode](**options)))


def fill(*, task: str, count: int, argument: object, mark_every: int, due: float | None, due_step: float) -> int:
    """The same calls as `bench.messages.Load` describes, by the peer's own bulk method."""
    called = tasks.app.tasks[task]
    args = () if argument is None else (argument,)
    if not hasattr(tasks.app, "send_many"):
        for index in range(count):
            called.apply_async(args, {"mark": index} if mark_every and index % mark_every == 0 else {})
        return count

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


def declare() -> int:
    """Make the queue by sending one task, as a first producer does."""
    tasks.noop.delay()
    return 1


def delay(*, count: int, threads: int = 1) -> dict[str, float]:
    """Calls a second of single `delay()`, in all threads together."""

    def send(calls: int) -> None:
        for _ in range(calls):
            tasks.noop.delay()

    send(100)
    if threads == 1:
        started = time.perf_counter()
        send(count)
        return {"rate": count / (time.perf_counter() - started)}
    with ThreadPoolExecutor(threads) as pool:
        # Each thread sends before the clock runs, so that it has its connection.
        list(pool.map(send, [10] * threads))
        started = time.perf_counter()
        list(pool.map(send, [count // threads] * threads))
        elapsed = time.perf_counter() - started
    return {"rate": count // threads * threads / elapsed}


def claim(*, few: int, many: int, limit: int, times: int) -> dict[str, float]:
    """What claims cost PostgreSQL with so few and so many messages waiting."""
    from bench import claiming

    return claiming.claim(few=few, many=many, limit=limit, times=times)


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


def chord(*, members: int, times: int) -> dict[str, float]:
    """Seconds from making a chord of no-ops to the result of its body."""

    def once() -> None:
        workflow = tasks.library.chord([tasks.noop.s() for _ in range(members)], tasks.length.s())
        found = workflow.apply_async().get(timeout=LIMIT)
        if found != members:
            raise ValueError(f"the body got {found} results of {members}")

    return {"time": median(timed(once, times))}


def chain(*, steps: int, times: int) -> dict[str, float]:
    """Milliseconds a step of a chain of no-ops, from making it to the result of the last."""

    def once() -> None:
        tasks.library.chain([tasks.noop.si() for _ in range(steps)]).apply_async().get(timeout=LIMIT)

    return {"step": median(timed(once, times)) / steps * 1000}


def group(*, members: int) -> dict[str, float]:
    """Members a second of one group, making it included, and the most memory this process has taken, in MB."""
    tasks.library.group(tasks.noop.s() for _ in range(BULK)).apply_async()
    started = time.perf_counter()
    tasks.library.group(tasks.noop.s() for _ in range(members)).apply_async()
    elapsed = time.perf_counter() - started
    return {"rate": members / elapsed, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def timed(once: Callable[[], None], times: int) -> list[float]:
    """Seconds of each time; one more before them warms up."""
    once()
    took = []
    for _ in range(times):
        started = time.perf_counter()
        once()
        took.append(time.perf_counter() - started)
    return took


if __name__ == "__main__":
    main()
