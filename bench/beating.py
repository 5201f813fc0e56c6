"""A scheduler of periodic tasks, measured from inside: `python -m bench.beating MODE OPTIONS`, which prints JSON.

Modes: `idle`, many entries of which none is due; `spread`, so many a second, evenly; `instant`, all due at one moment.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta
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
    """Milliseconds by which tasks are sent late; each entry has a moment of its own within the second."""
    entries(count, 1.0)
    scheduler = SharedScheduler(app)
    anchor(scheduler, count, step=1.0 / count)
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
    anchor(scheduler, count, step=0.0, ahead=-60.0)
    scheduler._read_book()  # what a look takes that has not to read all entries first
    began = time.monotonic()
    scheduler.tick()
    assert scheduler.sent == count
    return {"all": 1000 * (time.monotonic() - began)}


def anchor(scheduler: SharedScheduler, count: int, *, step: float, ahead: float = 0.0) -> None:
    """Write when each entry counts from."""
    now = datetime.fromtimestamp(time.time() + ahead, UTC)
    fingerprint = next(iter(scheduler._book.entries()[1].values())).fingerprint
    changes: list[Change] = []
    for number in range(count):
        state = State(slot=now + timedelta(seconds=step * number), fingerprint=fingerprint)
        changes.append(Change(state_key(f"entry-{number}"), state.encode()))
    scheduler._ledger.change(changes, timeout=10.0)


MODES: dict[str, Any] = {"idle": idle, "spread": spread, "instant": instant}

if __name__ == "__main__":
    print(json.dumps(MODES[sys.argv[1]](**json.loads(sys.argv[2]))))
