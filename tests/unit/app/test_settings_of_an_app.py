from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac import Celery
from celeriac.exceptions import ImproperlyConfigured


class Plain:
    task_serializer = "yaml"


class Conf:
    CELERY_TASK_SERIALIZER = "msgpack"
    CELERY_BROKER_URL = "redis://conf"


def test_config_from_object_with_a_namespace() -> None:
    app = Celery(set_as_current=False)
    app.config_from_object(Conf, namespace="CELERY")
    assert not app.configured
    assert (app.conf.task_serializer, app.broker_url) == ("msgpack", "redis://conf")
    assert app.configured


def test_arguments_and_changes_win() -> None:
    app = Celery(
        broker="redis://argument", config_source=Conf, namespace="CELERY", changes={"task_time_limit": 5},
        task_ignore_result=True, set_as_current=False,
    )  # fmt: skip
    assert app.conf.broker_url == "redis://argument"
    assert (app.conf.task_time_limit, app.conf.task_ignore_result) == (5, True)


def test_config_from_envvar(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery(set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="'PROJ_CONFIG' is not set: set it to the name"):
        app.config_from_envvar("PROJ_CONFIG")
    assert app.config_from_envvar("PROJ_CONFIG", silent=True) is False
    monkeypatch.setenv("PROJ_CONFIG", f"{__name__}:Plain")
    app.config_from_envvar("PROJ_CONFIG")
    assert app.conf.task_serializer == "yaml"


@pytest.mark.filterwarnings("ignore:setting 'beat_schedule' has no effect")
def test_signals_around_configuring() -> None:
    app = Celery(set_as_current=False)
    seen: list[Any] = []
    app.on_configure.connect(lambda sender, **_: seen.append("before"), weak=False)

    @app.on_after_configure.connect
    def after(sender: Celery, source: Any, **_: Any) -> None:
        seen.append(source is app.conf)
        sender.add_periodic_task(10.0, task.s(1), name="ten")

    task = app.task(name="n")(lambda x: x)
    key = app.add_periodic_task(5, task.s(2).set(queue="q"), expires=3)
    assert not seen
    schedule = app.conf.beat_schedule
    assert seen == ["before", True]
    assert key == "n(2)"
    assert schedule["n(2)"] == {
        "schedule": 5, "task": "n", "args": (2,), "kwargs": {}, "options": {"queue": "q", "expires": 3},
    }  # fmt: skip
    assert schedule["ten"]["schedule"] == 10.0
    assert list(app.conf.beat_schedule) == ["n(2)", "ten"]


def test_on_configure_as_a_method() -> None:
    class Mine(Celery):
        def on_configure(self) -> None:  # type: ignore[override]
            self.conf.task_default_queue = "mine"

    assert Mine(set_as_current=False).conf.task_default_queue == "mine"


def test_time_zone() -> None:
    def zone(**settings: Any) -> Any:
        return Celery(set_as_current=False, **settings).timezone

    assert zone() is UTC
    assert str(zone(timezone="Europe/Oslo")) == "Europe/Oslo"
    assert zone(timezone="UTC") is UTC
    assert zone(enable_utc=False).utcoffset(None) is not None
    with pytest.raises(ImproperlyConfigured, match="timezone='Mars/Base' is not known"):
        zone(timezone="Mars/Base")
    now = Celery(timezone="Europe/Oslo", set_as_current=False).now()
    assert abs((now - datetime.now(UTC)).total_seconds()) < 5
    assert now.utcoffset() == datetime.now(UTC).astimezone(now.tzinfo).utcoffset()


def test_either_bugreport_and_info() -> None:
    app = Celery(set_as_current=False, broker="redis://u:secret@h:1/2", task_default_queue="q")
    assert app.either("task_default_queue", None, "own") == "own"
    assert app.either("task_default_queue", None) == "q"
    report = app.bugreport()
    assert "celeriac:" in report
    assert "secret" not in report
    info = app.broker_info()
    assert (info["hostname"], info["userid"], info["port"], info["virtual_host"]) == ("h", "u", 1, "2")
    assert "secret" not in str(info)


def test_worker_main_needs_its_command() -> None:
    with pytest.raises(ValueError, match="needs the command 'worker'"):
        Celery(set_as_current=False).worker_main(["status"])


def test_user_options_and_steps() -> None:
    app = Celery(set_as_current=False)
    app.user_options["worker"].add("option")
    app.steps["consumer"].add("step")
    assert app.user_options["worker"] == {"option"}
    assert app.steps["consumer"] == {"step"}
