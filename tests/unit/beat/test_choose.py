"""Which class a name means, and what is said where it means none."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from celeriac.beat import PersistentScheduler, Scheduler
from celeriac.beat import choose as module
from celeriac.beat.choose import scheduler_class
from celeriac.exceptions import ImproperlyConfigured


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    found: list[EntryPoint] = []

    def entry_points(group: str) -> list[EntryPoint]:
        return [each for each in found if each.group == group]

    assert module.entry_points is importlib.metadata.entry_points
    monkeypatch.setattr(module, "entry_points", entry_points)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "celeriac.beat:PersistentScheduler",
        "celeriac.beat.PersistentScheduler",
        "celery.beat:PersistentScheduler",
        "celery.beat.PersistentScheduler",
        PersistentScheduler,
    ],
)
def test_names_of_one_class(name: Any) -> None:
    assert scheduler_class(name) is PersistentScheduler


def test_entry_points_of_both_groups_ours_first(points: list[EntryPoint]) -> None:
    points += [
        EntryPoint("mine", "celeriac.beat:Scheduler", "celery.beat_schedulers"),
        EntryPoint("theirs", "celeriac.beat:Scheduler", "celery.beat_schedulers"),
        EntryPoint("mine", "celeriac.beat:PersistentScheduler", "celeriac.beat_schedulers"),
    ]
    assert scheduler_class("mine") is PersistentScheduler
    assert scheduler_class("theirs") is Scheduler
    with pytest.raises(ImproperlyConfigured, match=r"there are: mine, theirs"):
        scheduler_class("other")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:Scheduler", "cannot be imported: No module named 'nowhere'"),
        ("celeriac.beat:Nothing", "cannot be imported: .*Nothing"),
        ("celeriac.beat:SchedulingError", "is no scheduler: it has no tick"),
        ("no-such", "no installed package has a scheduler of that name"),
        (7, "7 is no scheduler"),
    ],
)
def test_what_is_no_scheduler_is_refused(name: Any, said: str, points: list[EntryPoint]) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        scheduler_class(name)


def test_an_add_on_without_celerys_names_is_told_of_them(
    points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'kombu'", name="kombu.utils")

    monkeypatch.setattr(module, "import_object", load)
    with pytest.raises(ImproperlyConfigured, match=r"needs the module 'kombu.utils': .*--celery-names beat"):
        scheduler_class("redbeat.RedBeatScheduler")
    base = type("Scheduler", (), {"__module__": "celery.beat", "tick": lambda self: 0})
    with pytest.raises(ImproperlyConfigured, match=r"built on the installed Celery: .*--celery-names beat"):
        scheduler_class(type("Theirs", (base,), {}))
