"""The file of `PersistentScheduler`: what is kept, how it is written, what it refuses."""

from __future__ import annotations

import json
import os
import pickle
import shelve
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery
from celeriac.beat import PersistentScheduler
from celeriac.exceptions import ImproperlyConfigured

HOURLY = {"hourly": {"task": "t", "schedule": 3600.0}}


def make_app(**settings: Any) -> Celery:
    app = Celery("beats", broker="memory://", set_as_current=False)
    app.conf.update({"beat_schedule": HOURLY, "timezone": "Europe/Oslo", **settings})
    return app


def make(path: Path, **settings: Any) -> PersistentScheduler:
    return PersistentScheduler(make_app(**settings), schedule_filename=str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "celerybeat-schedule"


def age(scheduler: PersistentScheduler, hours: float) -> datetime:
    entry = scheduler.schedule["hourly"]
    entry.last_run_at = datetime.now(UTC) - timedelta(hours=hours)
    entry.total_run_count = 41
    last: datetime = entry.last_run_at
    return last


def test_it_knows_after_a_restart_when_each_entry_ran(path: Path) -> None:
    first = make(path)
    last = age(first, 0.5)
    first.close()
    again = make(path)
    entry = again.schedule["hourly"]
    assert (entry.last_run_at, entry.total_run_count) == (last, 41)
    assert not entry.is_due().is_due
    again.close()


def test_a_changed_entry_keeps_when_it_ran_and_a_removed_one_is_forgotten(path: Path) -> None:
    first = make(path)
    last = age(first, 0.5)
    first.close()
    second = make(
        path, beat_schedule={"hourly": {"task": "u", "schedule": 60.0}, "new": {"task": "n", "schedule": 5.0}}
    )
    assert second.schedule["hourly"].last_run_at == last
    assert second.schedule["hourly"].task == "u"
    second.close()
    make(path, beat_schedule={}).close()
    third = make(path)
    assert third.schedule["hourly"].total_run_count == 0
    third.close()


@pytest.mark.parametrize("settings", [{"timezone": "UTC"}, {"enable_utc": False}])
def test_another_time_zone_begins_anew(path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    first = make(path)
    age(first, 5)
    first.close()
    second = make(path, **settings)
    assert second.schedule["hourly"].total_run_count == 0
    assert f"{next(iter(settings))} was" in caplog.text
    second.close()


def test_the_file_is_its_owners_alone_and_replaced_as_a_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = make(path)
    file = path.with_name("celerybeat-schedule.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    age(scheduler, 1)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    scheduler.sync()
    assert file.read_text() == before
    monkeypatch.undo()
    scheduler.sync()
    assert json.loads(file.read_text())["entries"]["hourly"]["total_run_count"] == 41
    scheduler.close()
    assert sorted(each.name for each in path.parent.iterdir()) == [file.name, f"{file.name}.lock"]


def test_a_disk_that_is_full_is_told_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make(path)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    for _ in range(3):
        scheduler.sync()
    assert caplog.text.count("No space left on device") == 1
    monkeypatch.undo()
    scheduler.close()


def test_a_second_beat_with_the_file_is_refused(path: Path) -> None:
    first = make(path)
    with pytest.raises(ImproperlyConfigured, match="another beat uses"):
        make(path)
    PersistentScheduler(make_app(), schedule_filename=str(path), lazy=True)
    first.close()
    make(path).close()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="No such file or directory; name another file by -s"):
        make(tmp_path / "missing" / "schedule")


def test_celerys_file_is_never_read_and_never_touched(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    with shelve.open(str(path)) as celerys:
        celerys["entries"] = {}
    theirs = {each: each.read_bytes() for each in path.parent.iterdir()}
    scheduler = make(path)
    assert "is Celery's and is not read" in caplog.text
    scheduler.close()
    assert all(each.read_bytes() == content for each, content in theirs.items())
    caplog.clear()
    make(path).close()
    assert "Celery's" not in caplog.text
    assert ran == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"version": 2, "entries": {}}',
        b'{"version": 1, "entries": {"hourly": {"last_run_at": "2026-01-01T00:00:00", "total_run_count": 1}}}',
        b'{"version": 1, "entries": {"hourly": 7}}',
        pickle.dumps({"entries": {}}),
    ],
)
def test_a_broken_file_is_put_aside(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = path.with_name("celerybeat-schedule.json")
    file.write_bytes(content)
    scheduler = make(path)
    assert scheduler.schedule["hourly"].total_run_count == 0
    assert file.with_name(f"{file.name}.broken").read_bytes() == content
    assert "is not what it should be" in caplog.text
    scheduler.close()


def test_a_name_that_ends_in_json_is_kept_and_the_banner_tells_it(tmp_path: Path) -> None:
    scheduler = make(tmp_path / "mine.json")
    assert scheduler.info == f"       . file -> {tmp_path / 'mine.json'}"
    scheduler.close()
    assert (tmp_path / "mine.json").exists()
