"""The app of `bench.rabbitmq` on either library; run as a program it measures producing and leaves a full queue."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

LIBRARY = os.environ["BENCH_LIBRARY"]
QUEUE = f"bench-{LIBRARY}"
app: Any = import_module(LIBRARY).Celery(
    "bench.rabbitmq_producer", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"]
)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)
THREADS, CALLS = 16, 1000


@app.task(name="bench.noop")  # type: ignore[untyped-decorator]
def noop() -> None:
    """Nothing."""


def rate(count: int, act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return round(count / (time.perf_counter() - begin))


def main() -> None:
    count = int(sys.argv[1])
    noop.delay()

    def one() -> None:
        for _ in range(CALLS):
            noop.delay()

    def many() -> None:
        threads = [threading.Thread(target=one) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = {"delay/s": rate(CALLS, one), f"delay/s, {THREADS} threads": rate(THREADS * CALLS, many)}

    def fill() -> None:
        if LIBRARY == "celery":
            with app.producer_or_acquire() as producer:
                for _ in range(count):
                    noop.apply_async(producer=producer)
        else:
            app.send_many(noop.s() for _ in range(count))

    app.control.purge()
    found["bulk/s"] = rate(count, fill)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
