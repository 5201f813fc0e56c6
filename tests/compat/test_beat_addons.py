"""django-celery-beat and celery-redbeat from PyPI, unmodified, beside an installed Celery: the names lead to ours."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.project.addons_fleet import ROOT, Addons
from tests.conftest import missing
from tests.servers import RedisServer, wait_until

pytestmark = pytest.mark.slow
ADDONS_PYTHON = Path(os.environ.get("CELERIAC_ADDONS_PYTHON", ROOT / ".venv-addons" / "bin" / "python"))
_DATABASE = 15
REDBEAT = """
from stall import app
from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry as Entry
"""
DJANGO = """
from django_celery_beat.models import *
every = IntervalSchedule.objects.get_or_create(every=250_000, period="microseconds")[0]
"""


def _addons(server: RedisServer, folder: Path) -> Addons:
    if not ADDONS_PYTHON.exists():
        missing("the add-ons (.venv-addons)")
    return Addons(ADDONS_PYTHON, server, _DATABASE, folder)


@pytest.fixture
def addons(compat_redis: RedisServer, tmp_path: Path) -> Iterator[Addons]:
    """The add-ons with an empty database of Redis; Django's has no tables yet."""
    made = _addons(compat_redis, tmp_path)
    yield made
    made.close()
    made.redis("FLUSHDB")


@pytest.fixture(scope="module")
def tables(compat_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with Django's tables, made once: that takes seconds."""
    made = _addons(compat_redis, tmp_path_factory.mktemp("tables"))
    made.run("from django.core.management import call_command; call_command('migrate', verbosity=0)", django=True)
    made.close()
    return made.database


@pytest.fixture
def shop(addons: Addons, tables: Path) -> Addons:
    """With Django's tables."""
    shutil.copy(tables, addons.database)
    return addons


# ---------------------------------------------------------------- celery-redbeat


def test_redbeat_runs_edits_pauses_and_deletes_entries(addons: Addons) -> None:
    with addons.beat("stall"):
        sent = addons.fires("settings")
        assert sent.task == "stall.count"
        assert sent.headers["celery_beat_task"] is True

        addons.run(REDBEAT + "Entry('mine', 'stall.count', schedule(1), args=['one'], app=app).save()")
        addons.fires("one")
        addons.run(
            REDBEAT
            + """
entry = Entry.from_key("redbeat:mine", app=app)
entry.args, entry.kwargs, entry.options = ["two"], {"x": 1}, {"priority": 3, "expires": 60}
entry.save()
"""
        )
        sent = addons.fires("two")
        assert sent.kwargs == {"x": 1}
        assert sent.priority == 3
        assert sent.headers["expires"] is not None

        addons.run(REDBEAT + "e = Entry.from_key('redbeat:mine', app=app); e.enabled = False; e.save()")
        addons.fires("settings", more=2)  # a tick that was under way is over: it may have sent the first of them
        paused = len(addons.sent("two"))
        addons.fires("settings", more=2)
        assert len(addons.sent("two")) == paused
        addons.run(REDBEAT + "e = Entry.from_key('redbeat:mine', app=app); e.enabled = True; e.save()")
        addons.fires("two")
        addons.run(REDBEAT + "Entry.from_key('redbeat:mine', app=app).delete()")
        addons.fires("settings", more=2)
        gone = len(addons.sent("two"))
        addons.fires("settings", more=2)
        assert len(addons.sent("two")) == gone


def test_redbeat_goes_on_after_a_restart_where_it_was(addons: Addons) -> None:
    addons.run(
        REDBEAT
        + """
from datetime import timedelta
for name, ago in (("late", 70), ("early", 30)):
    entry = Entry(name, "stall.count", schedule(3600), args=[name], app=app).save()
    entry.reschedule(app.now() - timedelta(minutes=ago))
"""
    )
    with addons.beat("stall") as beat:
        wait_until(lambda: addons.sent("late"), 60)
        addons.fires("settings")
        beat.kill()
    addons.redis("DEL", "redbeat::lock")  # else the next one waits until the dead one's lock lapses
    with addons.beat("stall"):
        addons.fires("settings")
    assert len(addons.sent("late")) == 1
    assert addons.sent("early") == []


def test_of_two_redbeats_one_works_and_the_other_takes_over(addons: Addons) -> None:
    with addons.beat("stall") as first:
        first.says("Acquired lock")
        with addons.beat("stall") as second:
            with addons.beat("stall") as third:
                second.says("Acquiring lock...")
                third.says("Acquiring lock...")  # SIGTERM ends one that waits, too
            addons.fires("settings")
            assert "Acquired lock" not in second.log()
            first.stop()
            second.says("Acquired lock")
            addons.fires("settings")


def test_redbeat_inside_a_worker_that_runs_what_it_sends(addons: Addons) -> None:
    with addons.beat("stall", "worker", "-B", "-c", "1", "-l", "info") as worker:
        worker.says("Acquired lock")
        wait_until(lambda: len(re.findall(r"Task stall.count\[\S+\] succeeded", worker.log())) > 1, 60, worker.log)


def test_redbeat_reads_back_what_it_wrote(addons: Addons) -> None:
    answer = addons.run(
        REDBEAT
        + """
from redbeat.schedules import rrule
from celery import schedules
made = {
    "crontab": crontab("*/5", "8-18", day_of_week="mon-fri"),
    "interval": schedule(90),
    "rule": rrule("MINUTELY", interval=5),
}
answer = {}
for name, each in made.items():
    Entry(name, "stall.count", each, app=app).save()
    read = Entry.from_key("redbeat:" + name, app=app)
    answer[name] = [type(read.schedule).__module__, read.is_due() is not None, read.due_at is not None]
answer["same"] = Entry.from_key("redbeat:crontab", app=app).schedule == made["crontab"]
"""
    )
    assert answer == {
        "crontab": ["celeriac.schedules.cron", True, True],
        "interval": ["celeriac.schedules.interval", True, True],
        "rule": ["redbeat.schedules", True, True],
        "same": True,
    }


# ---------------------------------------------------------------- django-celery-beat


def test_django_runs_edits_pauses_and_deletes_entries(shop: Addons) -> None:
    with shop.beat("shop"):
        sent = shop.fires("settings")
        assert sent.task == "shop.count"
        assert sent.headers["periodic_task_name"] == "from settings"
        assert sent.headers["celery_beat_task"] is True

        shop.run(
            DJANGO + "PeriodicTask.objects.create(name='mine', task='shop.count', interval=every, args='[\"one\"]')",
            django=True,
        )
        shop.fires("one", more=2)
        shop.run(
            DJANGO
            + """
task = PeriodicTask.objects.get(name="mine")
task.args, task.kwargs, task.priority, task.expire_seconds = '["two"]', '{"x": 1}', 3, 60
task.save()
""",
            django=True,
        )
        sent = shop.fires("two")
        assert sent.kwargs == {"x": 1}
        assert sent.priority == 3
        assert sent.headers["expires"] is not None

        shop.run(DJANGO + "t = PeriodicTask.objects.get(name='mine'); t.enabled = False; t.save()", django=True)
        shop.fires("settings")
        paused = len(shop.sent("two"))
        shop.fires("settings")  # in a second it would have fired four times
        assert len(shop.sent("two")) == paused
        shop.run(DJANGO + "t = PeriodicTask.objects.get(name='mine'); t.enabled = True; t.save()", django=True)
        shop.fires("two")
        shop.run(DJANGO + "PeriodicTask.objects.get(name='mine').delete()", django=True)
        shop.fires("settings")
        gone = len(shop.sent("two"))
        shop.fires("settings")
        assert len(shop.sent("two")) == gone


def test_django_runs_once_what_is_to_run_once(shop: Addons) -> None:
    shop.run(
        DJANGO
        + """
from datetime import timedelta
from django.utils.timezone import now
clocked = ClockedSchedule.objects.create(clocked_time=now() + timedelta(seconds=1))
PeriodicTask.objects.create(name="clocked", task="shop.count", clocked=clocked, one_off=True, args='["clocked"]')
PeriodicTask.objects.create(name="once", task="shop.count", interval=every, one_off=True, args='["once"]')
minute = CrontabSchedule.objects.create(timezone="America/New_York")
task = PeriodicTask.objects.create(name="missed", task="shop.count", crontab=minute, args='["missed"]')
PeriodicTask.objects.filter(pk=task.pk).update(last_run_at=now() - timedelta(minutes=2))
sun = SolarSchedule.objects.create(event="sunset", latitude=59.9, longitude=10.7)
PeriodicTask.objects.create(name="sun", task="shop.count", solar=sun, args='["sun"]')
""",
        django=True,
    )
    with shop.beat("shop") as beat:
        wait_until(lambda: shop.sent("clocked") and shop.sent("once") and shop.sent("missed"), 60, beat.log)
        shop.fires("settings", more=2)
        assert len(shop.sent("clocked")) == len(shop.sent("once")) == 1
        assert "Traceback" not in beat.log()
    enabled = "answer = {t.name: t.enabled for t in PeriodicTask.objects.all()}"
    answer = shop.run(DJANGO + enabled, django=True)
    assert answer["clocked"] is answer["once"] is False
    assert answer["sun"] is answer["missed"] is answer["from settings"] is True


def test_django_goes_on_after_a_restart_where_it_was(shop: Addons) -> None:
    shop.run(
        DJANGO
        + """
from datetime import timedelta
from django.utils.timezone import now
hourly = IntervalSchedule.objects.create(every=1, period="hours")
for name, ago in (("late", 70), ("early", 30)):
    task = PeriodicTask.objects.create(name=name, task="shop.count", interval=hourly, args='["%s"]' % name)
    PeriodicTask.objects.filter(pk=task.pk).update(last_run_at=now() - timedelta(minutes=ago))
""",
        django=True,
    )
    for _ in range(2):
        with shop.beat("shop"):
            shop.fires("settings")
            wait_until(lambda: shop.sent("late"), 60)
    assert len(shop.sent("late")) == 1
    assert shop.sent("early") == []
    runs = "answer = {t.name: t.total_run_count for t in PeriodicTask.objects.all()}"
    answer = shop.run(DJANGO + runs, django=True)
    assert answer["late"] == 1
    assert answer["from settings"] == len(shop.sent("settings"))


def test_djangos_admin_knows_our_tasks_and_sends_them(shop: Addons) -> None:
    pages = shop.run(
        DJANGO
        + """
from django.contrib.auth.models import User
from django.test import Client
from django.test.utils import setup_test_environment
setup_test_environment()
PeriodicTask.objects.create(name="mine", task="shop.count", interval=every, args='["by hand"]', queue="celery")
User.objects.create_superuser("root", password="root")
client = Client(headers={"host": "localhost"})
client.login(username="root", password="root")
base = "/admin/django_celery_beat/periodictask/"
mine = PeriodicTask.objects.get(name="mine").pk
page, form = client.get(base), client.get(f"{base}add/")
sent = client.post(base, {"action": "run_tasks", "_selected_action": [mine]}, follow=True)
bad = client.post(f"{base}{mine}/change/", {"name": "mine", "task": "shop.count", "interval": every.pk, "args": "[",
                                            "kwargs": "{}", "headers": "{}"})
answer = {
    "list": page.status_code, "wrong scheduler": page.context["wrong_scheduler"],
    "tasks": "shop.count" in form.content.decode(), "sent": "successfully run" in sent.content.decode(),
    "error": "Unable to parse JSON" in bad.content.decode(),
}
""",
        django=True,
    )
    assert pages == {"list": 200, "wrong scheduler": False, "tasks": True, "sent": True, "error": True}
    [sent] = shop.sent("by hand")
    assert sent.headers["periodic_task_name"] == "mine"
