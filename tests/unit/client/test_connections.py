"""One thing per process."""

from __future__ import annotations

import os
import threading

import pytest

from celeriac.client.connections import PerProcess


class Thing:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_made_once_whatever_the_thread() -> None:
    holder = PerProcess(Thing)
    found: list[Thing] = []
    threads = [threading.Thread(target=lambda: found.append(holder.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_it_is_closed_once_and_made_anew() -> None:
    holder = PerProcess(Thing)
    first = holder.get()
    holder.close()
    holder.close()
    assert first.closed == 1
    assert holder.get() is not first


def test_a_forked_child_makes_its_own_and_leaves_the_parents_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = PerProcess(Thing)
    inherited = holder.get()
    holder._lock.acquire()  # as another thread may have done when this process was forked
    monkeypatch.setattr(os, "getpid", lambda: 12345)
    own = holder.get()
    assert own is not inherited
    assert holder.get() is own
    holder.close()
    assert (own.closed, inherited.closed) == (1, 0)


def test_a_forked_child_does_not_close_what_it_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = PerProcess(Thing)
    inherited = holder.get()
    monkeypatch.setattr(os, "getpid", lambda: 12345)
    holder.close()
    assert inherited.closed == 0
    assert holder.get() is not inherited


def test_an_error_is_not_kept() -> None:
    answers = [OSError("no"), Thing()]

    def make() -> Thing:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    holder = PerProcess(make)
    with pytest.raises(OSError, match="no"):
        holder.get()
    assert isinstance(holder.get(), Thing)
