"""`python -m bench.crontabs`: microseconds for the next time of typical crontabs, in a zone with clock changes.

Beside ours, cronsim (which parses each time, for it cannot be asked twice) and Celery's estimate of the same, each in
the interpreter that has it; the best of many runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

CRONTABS = ("* * * * *", "*/15 8-18 * * mon-fri", "0 4 * * *", "30 6 1 * *", "0 0 29 2 *")
MOMENT = datetime(2026, 11, 30, 12, 34, 56, tzinfo=UTC)
ZONE = "Europe/Oslo"
CELERY = Path(".venv-celery/bin/python")


def best(call: Callable[[], object]) -> float:
    """Microseconds of the fastest of 50 runs of 100 calls: what the machine does besides makes the others slower."""
    return min(timeit.repeat(call, number=100, repeat=50)) / 100 * 1e6


def ours() -> list[float]:
    from celeriac.schedules import crontab

    return [best(partial(crontab.from_string(text, tz=ZONE).next_after, MOMENT)) for text in CRONTABS]


def cronsim() -> list[float]:
    from cronsim import CronSim

    local = MOMENT.astimezone(ZoneInfo(ZONE))
    return [best(partial(lambda text: next(CronSim(text, local)), text)) for text in CRONTABS]


def celery() -> list[float]:
    from celery import Celery
    from celery.schedules import crontab

    app = Celery(set_as_current=False, changes={"timezone": ZONE})
    found = []
    for text in CRONTABS:
        cron = crontab.from_string(text)
        cron.app, cron.nowfun = app, lambda: MOMENT
        found.append(best(partial(cron.remaining_estimate, MOMENT)))
    return found


def main() -> None:
    if sys.argv[1:] == ["celery"]:
        print(json.dumps(celery()))
        return
    columns = {"ours": ours(), "cronsim": cronsim()}
    if CELERY.exists():
        ran = subprocess.run([CELERY, __file__, "celery"], capture_output=True, text=True, check=True, timeout=120)
        columns["Celery"] = json.loads(ran.stdout)
    print(f"{'µs':24}" + "".join(f"{name:>10}" for name in columns))
    for text, *numbers in zip(CRONTABS, *columns.values(), strict=True):
        print(f"{text:24}" + "".join(f"{number:10.1f}" for number in numbers))


if __name__ == "__main__":
    main()
