"""A scheduler of periodic tasks, measured from inside: `python -m bench.beating MODE OPTIONS`, which prints JSON.

Modes: `idle`, many entries of which none is due; `spread`, so many a second; `instant`, all due at one moment.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from bench.app import app
from celeriac.beat.scheduler import SharedScheduler
from celeriac.beat.service import BeatService
from celeriac.beat.state import State, state_key
from celeriac.model.ledger import Change


def entries(count: int, every: float) -> None:
    app.conf.beat_schedule = {
        f"entry-{number}": {"task": "bench.noop_ignored", "schedule": every} for number in range(count)
    }


def drive(service: BeatService, seconds: float) -> None:
    async def run() -> None:
        running = asyncio.ensure_future(service.run())
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def idle(count: int, seconds: float) -> dict[str, float]:
    """Percent of a CPU while nothing is due, and the seconds until all entries were read."""
    entries(count, 86400.0)
    scheduler = SharedScheduler(app, max_interval=1.0)
    began = time.monotonic()
    scheduler.tick()
    loaded, cpu = time.monotonic() - began, time.process_time()
    drive(BeatService(app, make=lambda: scheduler), seconds)
    return {"cpu": 100 * (time.process_time() - cpu) / seconds, "loaded": loaded}


def spread(count: int, seconds: float) -> dict[str, float]:
    """Milliseconds by which tasks are sent late, by entries of one second that nobody has seen before."""
    entries(count, 1.0)
    scheduler = SharedScheduler(app)
    cpu = time.process_time()
    drive(BeatService(app, make=lambda: scheduler), seconds + 2)
    late = sorted(1000 * each for each in list(scheduler.lateness)[-int(count * (seconds - 1)) :])
    return {
        "p50": late[len(late) // 2],
        "p99": late[int(len(late) * 0.99)],
        "cpu": 100 * (time.process_time() - cpu) / (seconds + 2),
        "sent": float(scheduler.sent),
    }


def instant(count: int, seconds: float) -> dict[str, float]:
    """Milliseconds until all are sent that are due at one moment."""
    entries(count, 60.0)
    scheduler = SharedScheduler(app)
    anchor(scheduler, count)
    scheduler._read_book()  # what a look takes that has not to read all entries first
    began = time.monotonic()
    scheduler.tick()
    assert scheduler.sent == count
    return {"all": 1000 * (time.monotonic() - began)}


def anchor(scheduler: SharedScheduler, count: int) -> None:
    """Let all entries count from one moment, a minute ago."""
    now = datetime.fromtimestamp(time.time() - 60, UTC)
    fingerprint = next(iter(scheduler._book.entries()[1].values())).fingerprint
    state = State(slot=now, fingerprint=fingerprint).encode()
    changes = [Change(state_key(f"entry-{number}"), state) for number in range(count)]
    scheduler._ledger.change(changes, timeout=10.0)


MODES: dict[str, Any] = {"idle": idle, "spread": spread, "instant": instant}

if __name__ == "__main__":
    print(json.dumps(MODES[sys.argv[1]](**json.loads(sys.argv[2]))))
