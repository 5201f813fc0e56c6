"""Django is set up where an app's modules are imported: in a process of its own, for that happens once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, Task
from celeriac.contrib.django import DjangoTask
from celeriac.contrib.django.fixup import DjangoFixup, fixup
from celeriac.exceptions import FixupWarning

PROJECT = {
    "site_settings.py": "INSTALLED_APPS = ['django.contrib.contenttypes', 'orders.apps.Orders']\nUSE_TZ = True\n"
    "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'site.db'}}\n",
    "orders/__init__.py": "",
    "orders/apps.py": "from django.apps import AppConfig\nclass Orders(AppConfig):\n    name = 'orders'\n",
    "orders/models.py": "from django.db import models\nclass Order(models.Model):\n    pass\n",
    "orders/tasks.py": "from celeriac import shared_task\nfrom orders.models import Order\n"
    "@shared_task(name='order')\ndef order(): ...\n",
}
CODE = """
import json, os
from celeriac import Celery
app = Celery("site", broker="memory://")
app.autodiscover_tasks()
app.loader.import_default_modules()
print(json.dumps(["order" in app.tasks, app.conf.task_default_queue]))
"""

#: A worker of this app begins, forks, and runs a task; another app's does nothing.
WORKER = """
import asyncio, json, os
from asgiref.sync import sync_to_async
from types import SimpleNamespace
from celeriac import Celery, signals
from celeriac.app.request import Request
from celeriac.app.trace import tracer_for
app = Celery("site", broker="memory://")
app.loader.import_default_modules()
from django.db import connection

def opened():
    connection.ensure_connection()
    return connection.connection

def broken():
    connection.errors_occurred, connection.is_usable = True, lambda: False

@app.task
def task():
    return connection.connection is None

def run(**how):
    return tracer_for(task).run(Request({}, id="1", args=[], kwargs={}, called_directly=False, **how)).value

said = {}
opened()
signals.worker_init.send(sender=SimpleNamespace(app=Celery("other", fixups=(), set_as_current=False)))
said["another app's worker closes"] = connection.connection is None or bool(signals.task_prerun.receivers)
signals.worker_init.send(sender=SimpleNamespace(app=app))
said["closed before forks"] = connection.connection is None
parents = opened()
if not (pid := os.fork()):
    signals.worker_process_init.send(sender=None)
    gone = connection.connection is None
    parents.execute("SELECT 1")  # nobody has closed it
    os._exit(0 if gone else 1)
said["forgotten in a child"] = os.waitpid(pid, 0)[1] == 0 and connection.connection is parents
said["closed before a task"] = run()
opened()
said["closed around one that runs in place"] = task.apply().get() or connection.connection is None
run()
said["closed after a task"] = connection.connection is None
connection.settings_dict["CONN_MAX_AGE"] = None
opened()
said["one that may live is closed"] = run() or connection.connection is None
broken()
said["a broken one is closed"] = run()

@app.task
async def query(fails):
    await sync_to_async(opened)()
    if fails:
        await sync_to_async(broken)()
        raise ValueError

async def coroutines():
    kept = []
    for fails in (False, True):
        await tracer_for(query).arun(Request({}, id="1", args=[fails], kwargs={}, called_directly=False))
        while fixup._aside:
            await asyncio.sleep(0)
        kept.append(await sync_to_async(lambda: connection.connection is not None)())
    return kept

fixup = app._fixups[0]
said["a coroutine's is kept, and closed when it has failed of it"] = asyncio.run(coroutines()) == [True, False]
said["delay_on_commit"] = hasattr(task, "delay_on_commit")
print(json.dumps(said))
"""


def run(folder: Path, code: str = CODE, **environment: str) -> Any:
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tasks_of_installed_applications_are_found_and_may_use_models(tmp_path: Path) -> None:
    assert run(tmp_path, DJANGO_SETTINGS_MODULE="site_settings")[0] is True
    assert run(tmp_path)[0] is False


def test_connections_are_closed_around_tasks_and_before_forks(tmp_path: Path) -> None:
    said = run(tmp_path, WORKER, DJANGO_SETTINGS_MODULE="site_settings")
    never = {"another app's worker closes", "closed around one that runs in place", "one that may live is closed"}
    assert said == {what: what not in never for what in said}


def test_another_base_class_of_tasks_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    assert issubclass(Celery("site", broker="memory://", set_as_current=False).Task, DjangoTask)
    own = Celery("site", broker="memory://", task_cls=Task, set_as_current=False)
    assert not issubclass(own.Task, DjangoTask)


def test_without_django_it_does_nothing_or_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("plain", broker="memory://", set_as_current=False)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    assert fixup(app) is None
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    assert isinstance(fixup(app), DjangoFixup)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(FixupWarning, match="'site_settings', but Django is not installed"):
        assert fixup(app) is None
