"""Django is set up where an app's modules are imported: in a process of its own, for that happens once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery
from celeriac.contrib.django.fixup import DjangoFixup, fixup
from celeriac.exceptions import FixupWarning

PROJECT = {
    "site_settings.py": "INSTALLED_APPS = ['django.contrib.contenttypes', 'orders.apps.Orders']\nUSE_TZ = True\n",
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


def run(folder: Path, **environment: str) -> Any:
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
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


def test_without_django_it_does_nothing_or_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("plain", broker="memory://", set_as_current=False)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    assert fixup(app) is None
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    assert isinstance(fixup(app), DjangoFixup)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(FixupWarning, match="'site_settings', but Django is not installed"):
        assert fixup(app) is None
