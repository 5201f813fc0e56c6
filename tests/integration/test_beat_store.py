"""Stored entries on each kind of ledger: many editors at once, editors that are killed, and what a new reader finds."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac import Celery
from celeriac.beat import EntryRefused
from celeriac.beat.desk import Periodic
from celeriac.beat.pages import Pages
from celeriac.beat.places import ledger_of
from celeriac.beat.stored import Stored

pytestmark = pytest.mark.slow

TASK = {"task": "t", "schedule": {"every": 60}}
SERVERS = ["sqlite", "redis", "postgres", "cluster", "rabbitmq"]


@pytest.fixture(params=SERVERS)
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[], Celery]]:
    """Apps on one server."""
    results = None
    if request.param == "cluster":
        url = request.getfixturevalue("redis_cluster").url()
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    if request.param == "rabbitmq":
        results = request.getfixturevalue("redis_url")
    name = f"store-{os.urandom(4).hex()}:"
    options = {"global_keyprefix": name} if request.param in ("redis", "cluster") else {}
    made: list[Celery] = []

    def app() -> Celery:
        each = Celery("store", broker=url, backend=results, set_as_current=False)
        each.conf.broker_transport_options = options
        made.append(each)
        return each

    first = app()
    ledger_of(first).read(["beat:epoch"], timeout=60)
    yield app
    for each in made:
        each.close()


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the exit code tells
            os._exit(1)
        os._exit(0)
    return pid


def names(app: Celery) -> set[str]:
    return set(Stored(app, ledger_of(app)).entries()[1])


def test_many_editors_at_once_lose_nothing(make: Callable[[], Celery]) -> None:
    def edit(part: int) -> None:
        desk = Periodic(make())
        for number in range(10):
            # The shared one is changed by all.
            desk.add(f"{part}-{number}", **TASK)
            desk.change("shared", kwargs={**desk.show("shared").entry.kwargs, "last": part})
        desk.pause(f"{part}-0")

    app = make()
    app.periodic.add("shared", **TASK)
    pids = [forked(lambda part=part: edit(part)) for part in range(3)]  # type: ignore[misc]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    shown = {each.entry.name: each for each in app.periodic.list()}
    assert set(shown) == {"shared", *(f"{part}-{number}" for part in range(3) for number in range(10))}
    assert {name for name, each in shown.items() if not each.entry.enabled} == {"0-0", "1-0", "2-0"}
    with pytest.raises(EntryRefused, match="already"):
        Periodic(make()).add("1-1", **TASK)


def test_an_editor_that_is_killed_has_changed_all_or_nothing(make: Callable[[], Celery], rng: random.Random) -> None:
    """What was acknowledged is there; what was not is there whole, or not at all; readers hear of it in any case."""
    app = make()
    clock = [0.0]
    book = Stored(app, ledger_of(app), monotonic=lambda: clock[0])
    epoch, _ = book.entries()
    for round_ in range(4):
        reads, writes = os.pipe()

        def edit(round_: int = round_, writes: int = writes) -> None:
            desk = Periodic(make())
            for number in range(10_000):
                desk.add(f"{round_}-{number}", args=[number], **TASK)
                os.write(writes, b"%d " % number)

        pid = forked(edit)
        os.close(writes)
        told = b""
        wanted = rng.randrange(1, 20)
        while told.count(b" ") < wanted:
            chunk = os.read(reads, 64)
            assert chunk, "the editor ended by itself"
            told += chunk
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while chunk := os.read(reads, 4096):
            told += chunk
        os.close(reads)
        acknowledged = {f"{round_}-{number}" for number in told.decode().split()}
        clock[0] += 61.0
        assert book.changed(epoch), "the pages are looked at each minute, whatever the epoch says"
        epoch, entries = book.entries()
        found = {name: entry for name, entry in entries.items() if name.startswith(f"{round_}-")}
        assert acknowledged <= set(found)
        assert len(found) <= len(acknowledged) + 1
        assert all(entry.args == (int(name.partition("-")[2]),) for name, entry in found.items())
        assert names(app) == set(entries)


def test_killed_before_it_could_say_so(make: Callable[[], Celery]) -> None:
    app = make()
    clock = [0.0]
    book = Stored(app, ledger_of(app), monotonic=lambda: clock[0])
    epoch, _ = book.entries()

    def edit() -> None:
        def die(pages: Any, name: str) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        Pages._announce = die  # type: ignore[method-assign]
        Periodic(make()).add("x", **TASK)

    assert os.waitpid(forked(edit), 0)[1] == signal.SIGKILL
    clock[0] = 30.0
    assert not book.changed(epoch)
    clock[0] = 61.0
    assert book.changed(epoch)
    assert set(book.entries()[1]) == {"x"}
