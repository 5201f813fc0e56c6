"""SQLite under several processes: claims, kills, forks, moves, waking, growth."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.brokers import sqlite
from celeriac.brokers.sqlite import broker_port, reader_port
from celeriac.exceptions import OperationalError
from celeriac.model.settle import StoredResult
from celeriac.testing.conformance.tools import message
from tests.integration.sqlite_processes import SUCCESS, children, options, produce, work


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


def check(tmp_path: Path) -> dict[str, set[str]]:
    """The file is sound; returns the ids that are stored, by table."""
    plain = sqlite3.connect(tmp_path / "a.db")
    assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = {
        table: {str(row[0]) for row in plain.execute(f"SELECT id FROM {table}")}
        for table in ("message", "ready", "lease", "schedule", "result")
    }
    plain.close()
    places = [found["ready"], found["lease"], found["schedule"]]
    assert set.union(*places) == found["message"], "each message is in one place"
    assert sum(map(len, places)) == len(found["message"]), "each message is in one place"
    return found


def test_many_processes_create_one_file(tmp_path: Path, url: str) -> None:
    gate = time.time() + 0.3

    def at_once(tell: Callable[[str], None]) -> None:
        time.sleep(max(0.0, gate - time.time()))
        produce(url, 5, tell)

    with children() as start:
        started = [start(at_once) for _ in range(8)]
        assert [child.join()[0] for child in started] == [0] * 8
    assert len(check(tmp_path)["message"]) == 40


def test_processes_share_a_file_without_a_double_lease(tmp_path: Path, url: str) -> None:
    with children() as start:
        producers = [start(lambda tell: produce(url, 150, tell, at_once=4)) for _ in range(2)]
        over = tmp_path / "over"
        workers = [start(lambda tell: work(url, tell, idle=0.5, limit=7, over=over.exists)) for _ in range(4)]
        sent = [line for child in producers for line in child.join()[1]]
        over.touch()
        done = [name for child in workers for line in child.join()[1] for name in line.split()]
    assert sorted(done) == sorted(name for line in sent for name in line.split())
    assert len(set(done)) == len(done) == 1200
    assert not check(tmp_path)["message"]


def test_no_kill_loses_or_spoils_anything(tmp_path: Path, url: str, rng: random.Random) -> None:
    sent: set[str] = set()
    done: set[str] = set()
    with children() as start:
        for _ in range(6):
            producers = [start(lambda tell: produce(url, 100_000, tell, at_once=3)) for _ in range(2)]
            workers = [start(lambda tell: work(url, tell, idle=9.0)) for _ in range(2)]
            assert all(child.begun() for child in (*producers, *workers))
            time.sleep(rng.uniform(0.0, 0.2))
            for child in (*producers, *workers):
                child.kill()
            sent |= {name for child in producers for line in child.join()[1] for name in line.split()}
            done |= {name for child in workers for line in child.join()[1] for name in line.split()}
            check(tmp_path)

    async def recover() -> tuple[set[str], int]:
        broker = sqlite.broker(url, options(lease=0.0))
        await broker.open()
        plain = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        plain.execute("UPDATE lease SET until = 0")  # time passes
        plain.close()
        await broker.maintain()
        left: list[str] = []
        while deliveries := await broker.claim(["q"], limit=1000, wait=0.0):
            left += [each.message.id for each in deliveries]
        await broker.close()
        return set(left), len(left)

    left, count = asyncio.run(recover())
    assert len(left) == count, "nothing is there twice"
    stored = check(tmp_path)["result"]
    assert done <= stored, "what was finished has its result"
    assert not stored & left, "what has a result is not run again"
    assert sent <= stored | left, "what was acknowledged is finished or waiting"
    assert sent, "the test published something"


def test_a_fork_takes_no_connection_along(tmp_path: Path, url: str) -> None:
    publisher = sqlite.publisher(url, options())
    publisher.publish([message()], timeout=30.0)

    def outlive(tell: Callable[[str], None]) -> None:
        publisher.publish([message()], timeout=30.0)
        tell("ready")
        time.sleep(0.5)
        publisher.publish([message()], timeout=30.0)

    with children() as start:
        child = start(outlive)
        time.sleep(0.2)
        publisher.close()
        # Others come and go meanwhile. The last one out removes the log: not while the child writes to it.
        for _ in range(20):
            other = sqlite.publisher(url, options())
            other.publish([message()], timeout=30.0)
            other.close()
        assert child.join()[0] == 0
    assert len(check(tmp_path)["message"]) == 23


def test_a_moved_directory_and_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_port, "LOOK_AGAIN", 60.0)  # so that only being rung helps
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    publisher = sqlite.publisher("sqlite:///a.db", options())
    publisher.publish([message("before")], timeout=30.0)
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(OperationalError, match="removed or replaced"):
        publisher.publish([message("lost in the move")], timeout=5.0)
    publisher.close()
    monkeypatch.chdir(tmp_path)

    async def claim() -> list[str]:
        broker = sqlite.broker(f"sqlite:///{tmp_path}/new/a.db", options())
        await broker.open()
        found = [each.message.id for each in await broker.claim(["q"], limit=5, wait=0.0)]
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=60.0))
        await asyncio.sleep(0.05)
        other = sqlite.publisher("sqlite:///new/a.db", options())
        other.publish([message("after")], timeout=30.0)
        async with asyncio.timeout(30):
            found += [each.message.id for each in await waiting]
        other.close()
        await broker.close()
        return found

    assert asyncio.run(claim()) == ["before", "after"]


def test_waiting_is_rung_and_costs_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_port, "LOOK_AGAIN", 60.0)  # so that only being rung helps

    def wait(tell: Callable[[str], None]) -> None:
        async def run() -> None:
            broker = sqlite.broker(url, options())
            await broker.open()
            tell("waiting")
            before = time.process_time()
            assert await broker.claim(["q"], limit=1, wait=60.0)
            tell(str(time.process_time() - before))
            await broker.close()

        asyncio.run(run())

    with children() as start:
        child = start(wait)
        assert child.begun(60.0)
        time.sleep(2.5)
        publisher = sqlite.publisher(url, options())
        publisher.publish([message()], timeout=30.0)
        sent = time.monotonic()
        publisher.close()
        code, lines = child.join()
    assert code == 0
    assert time.monotonic() - sent < 30.0, "it was rung"
    assert float(lines[-1]) < 0.05, "it did not poll"


def test_a_result_wakes_its_waiter_in_another_process(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_port, "_LOOK_AGAIN", 60.0)  # so that only being rung helps

    def wait(tell: Callable[[str], None]) -> None:
        reader = sqlite.reader(url, options())
        for ids in (["one"], ["x", "many", "y"]):
            assert reader.wait(ids, timeout=60) in ids

    async def put(name: str) -> None:
        store = sqlite.store(url, options())
        await store.open()
        await store.put([StoredResult(name, SUCCESS, True, 600.0)])
        await store.close()

    with children() as start:
        child = start(wait)
        began = time.monotonic()
        for name in ("one", "many"):
            time.sleep(0.6)
            asyncio.run(put(name))
        code, _ = child.join()
    assert code == 0
    assert time.monotonic() - began < 50.0, "it was rung"


def test_the_file_reuses_its_pages_and_its_log(tmp_path: Path, url: str) -> None:
    sizes = []
    for _ in range(4):
        publisher = sqlite.publisher(url, options())
        for _ in range(5):
            publisher.publish([message() for _ in range(1000)], timeout=60)
        work(url, lambda _: None, idle=0.0, limit=128)
        publisher.close()

        async def forget() -> None:
            plain = sqlite3.connect(tmp_path / "a.db")
            ids = [row[0] for row in plain.execute("SELECT id FROM result")]
            plain.close()
            store = sqlite.store(url, options())
            await store.open()
            await store.forget(ids)
            await store.close()

        asyncio.run(forget())
        sizes.append(os.path.getsize(tmp_path / "a.db"))
    assert max(sizes) < 1.3 * sizes[0]
