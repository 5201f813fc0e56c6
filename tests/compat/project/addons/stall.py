"""An app with celery-redbeat, written for Celery and not changed for Celeriac."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.schedules import crontab

app = Celery("stall", broker=os.environ["ADDONS_REDIS"])
app.conf.update(
    beat_scheduler="redbeat.RedBeatScheduler",
    beat_max_loop_interval=0.2,
    redbeat_redis_url=os.environ["ADDONS_REDIS"],
    redbeat_lock_timeout=60,
    timezone="Europe/Oslo",
    beat_schedule={
        "from settings": {"task": "stall.count", "schedule": 1.0, "args": ["settings"]},
        "at new year": {"task": "stall.count", "schedule": crontab("0", "0", month_of_year="1", day_of_month="1")},
    },
)


@app.task(name="stall.count")
def count(*args: Any, **kwargs: Any) -> None:
    """Nothing: the tests look at the messages."""
