"""Test apps, the trap, and what is left of them afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from celeriac import current_app, shared_task
from celeriac.app import state
from celeriac.app.base import Celery
from celeriac.client import current
from celeriac.contrib.testing.app import TestApp, Trap, set_trap, setup_default_app


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = current._thread.app, current._default, current._latest
    yield
    current._thread.app, current._default, current._latest = before


def test_each_app_has_a_broker_of_its_own() -> None:
    one, other = TestApp(), TestApp()
    assert one.conf.broker_url.startswith("memory://")
    assert one.conf.broker_url == one.conf.result_backend
    assert one.conf.broker_url != other.conf.broker_url


def test_settings_and_arguments_go_above_the_defaults() -> None:
    app = TestApp("mine", config={"broker_url": "memory://a", "timezone": "Europe/Berlin"}, backend="memory://b")
    assert (app.main, app.conf.broker_url, app.conf.result_backend) == ("mine", "memory://a", "memory://b")
    assert app.conf.timezone == "Europe/Berlin"


def test_it_is_not_the_current_app() -> None:
    mine = Celery("mine")
    app = TestApp()
    assert current_app.main == "mine"
    app.set_current()
    assert current_app.main == "celery.tests"
    mine.close()


def test_what_was_current_is_current_afterwards() -> None:
    mine = Celery("mine")
    app = TestApp()
    with setup_default_app(app):
        app.set_current()
        app.set_default()
        assert current_app.main == "celery.tests"
    assert current_app.main == "mine"
    assert current._default is not app
    mine.close()


def test_the_trap_springs() -> None:
    with setup_default_app(TestApp(), use_trap=True), pytest.raises(RuntimeError, match="current app"):
        _ = current_app.conf
    with set_trap(None):
        assert isinstance(current.get_current_app(), Trap)
    assert not isinstance(current._default, Trap)


def test_shared_tasks_of_tests_go_and_those_of_modules_stay(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(state._finalizers)
    with setup_default_app(TestApp()):

        @shared_task(name="local")
        def local() -> None: ...

        namespace: dict[str, object] = {"__name__": "some_module"}
        exec("from celeriac import shared_task\n@shared_task(name='lasting')\ndef lasting(): ...", namespace)
    later = TestApp()
    assert "lasting" in later.tasks
    assert "local" not in later.tasks
    for callback in set(state._finalizers) - set(before):
        del state._finalizers[callback]


def test_the_plugin_imports_nothing_of_ours() -> None:
    code = "import sys, celeriac.contrib.pytest; print(sorted(m for m in sys.modules if m.startswith('celeriac')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['celeriac', 'celeriac.contrib', 'celeriac.contrib.pytest']"
