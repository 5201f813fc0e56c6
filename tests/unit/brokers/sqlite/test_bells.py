from __future__ import annotations

import os
from pathlib import Path

import pytest

from celeriac.brokers.sqlite.bells import Bells, result_topic


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "a.db").touch(0o600)
    return str(tmp_path / "a.db")


def test_a_queue_bell_rings_across_instances(file: str) -> None:
    ours, theirs = Bells(file), Bells(file)
    bell = ours.queue("q")
    assert not bell.heard()
    theirs.ring_queues(["other", "q", "q"])
    assert bell.wait(1.0)
    assert not bell.heard(), "one look takes all rings"
    bell.close()
    ours.close()
    theirs.close()


def test_a_ring_before_the_look_is_not_lost(file: str) -> None:
    bells = Bells(file)
    bells.ring_queues(["q"])
    bell = bells.queue("q")
    assert bell.heard()
    bell.close()
    bells.close()


def test_a_full_bell_is_no_error(file: str) -> None:
    bells = Bells(file)
    bell = bells.queue("q")
    bells.ring_queues(["q"] * 70_000)
    assert bell.heard()
    bell.close()
    bells.close()


def test_a_waiters_bell_rings_for_its_topic_and_goes_with_it(file: str) -> None:
    bells = Bells(file)
    bell = bells.hang(result_topic("a"))
    assert bells.waiting("r") == {result_topic("a")}
    bells.ring({result_topic("b")})
    assert not bell.heard()
    bells.ring({result_topic("a")})
    assert bell.heard()
    bell.close()
    bell.close()
    assert os.listdir(bells.path) == []
    bells.close()


def test_the_bell_of_a_dead_waiter_is_removed(file: str) -> None:
    bells = Bells(file)
    pid = os.fork()
    if pid == 0:
        _kept = bells.hang(result_topic("a"))
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert bells.waiting("r") == {result_topic("a")}
    bells.ring({result_topic("a")})
    assert bells.waiting("r") == set()
    bells.close()


def test_sweeping_leaves_the_living(file: str) -> None:
    bells = Bells(file)
    bell = bells.hang(result_topic("a"))
    bells.sweep()
    assert bells.waiting("r") == {result_topic("a")}
    assert not bell.heard()
    bell.close()
    bells.close()


def test_a_moved_directory_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.db").touch()
    ours = Bells(str(tmp_path / "here" / "a.db"))
    bell = ours.queue("q")
    (tmp_path / "here").rename(tmp_path / "there")
    theirs = Bells(str(tmp_path / "there" / "a.db"))
    theirs.ring_queues(["q"])
    assert bell.heard()
    for each in (bell, ours, theirs):
        each.close()


def test_a_removed_directory_is_made_anew(file: str) -> None:
    bells = Bells(file)
    bells.ring_queues(["q"])
    old = bells.queue("q")
    for name in os.listdir(bells.path):
        os.unlink(f"{bells.path}/{name}")
    os.rmdir(bells.path)
    assert old.gone
    bell = bells.queue("q")
    bells.ring_queues(["q"])
    assert bell.heard()
    for each in (old, bell, bells):
        each.close()


def test_without_fifos_waiters_look_by_themselves(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "mkfifo", refuse)
    bells = Bells(file)
    bell = bells.hang(result_topic("a"))
    assert bell.fd is None
    assert bell.wait(10.0), "it does not wait for ever, and looks"
    bells.ring_queues(["q"])
    bells.ring({result_topic("a")})
    bells.close()


@pytest.mark.parametrize("name", ["celery", "a/b", "../x", "ü" * 100, "", "a b", "x" * 300])
def test_any_queue_name_has_a_bell(file: str, name: str) -> None:
    bells = Bells(file)
    bell = bells.queue(name)
    bells.ring_queues([name])
    assert bell.heard()
    assert len(os.listdir(bells.path)) == 1
    bell.close()
    bells.close()
