"""A fuzzer with access to the broker: whatever it writes costs itself only, and runs nothing.

Hypothesis makes the bytes (``fuzzing.py``); they go straight into the queues, the results, the chords, the groups and
the channels of a live node on each broker. The list of known poison is in ``test_poison.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st

from celeriac.brokers.memory import shared
from celeriac.client import resolver
from celeriac.codec import envelope
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import CeleryError
from celeriac.model.chord import NewChord, Part
from celeriac.model.message import Malformed
from celeriac.model.settle import StoredResult
from celeriac.result import AsyncResult, GroupResult
from tests.faults import project
from tests.faults.fuzzing import bombs, envelopes, generated, junk, records, requests
from tests.faults.journal import Journal, report
from tests.faults.place import QUEUE, Place
from tests.servers import wait_until

#: What asyncio and threads say of errors that nobody has caught.
_UNHANDLED = ("never retrieved", "Exception in callback", "Exception in thread", "Exception ignored", "Unhandled")
_numbers = itertools.count(1)


class Material(NamedTuple):
    """What is written. Made before there is a worker, which would take random numbers meanwhile."""

    canary: Path
    messages: list[bytes]
    records: list[bytes]
    requests: list[bytes]
    junk: list[bytes]
    #: Body, shape and a member's value of chords.
    chords: list[tuple[bytes, bytes, bytes]]


BODY = json.dumps({"task": "faults.collect", "args": [], "kwargs": {}, "options": {"task_id": "b"}}).encode()


@pytest.fixture(scope="module")
def material(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """As ``--seed`` says; more of it in ``./dev faults``."""
    canary = tmp_path_factory.mktemp("canary") / "canary"
    rng = Random(request.config.option.seed)
    scale: float = request.config.option.fault_scale
    return Material(
        canary,
        generated(envelopes(canary), int(150 * scale), rng),
        generated(records(canary), int(200 * scale), rng),
        generated(requests(), int(150 * scale), rng),
        generated(junk(), int(50 * scale), rng),
        generated(
            st.tuples(st.just(BODY) | junk(), st.just(b"") | junk(), st.just(b'[1, "m", "SUCCESS", 5]') | junk()),
            int(40 * scale),
            rng,
        ),
    )


class Live:
    """A node on a place, and where to write past everybody."""

    def __init__(
        self, place: Place, journal: Journal, canary: Path, unhurt: Callable[[], None], session: Any = None
    ) -> None:
        self.place = place
        #: Of PostgreSQL: one for all that is written.
        self.session = session
        self.journal = journal
        self.canary = canary
        self.unhurt = unhurt

    def send(self) -> tuple[str, float]:
        return self.place.send("work", 7, 1), time.time()

    def put(self, data: bytes) -> None:
        if self.place.kind == "memory":
            server = shared.server(self.place.url)
            with server.lock:
                server.queues.add(QUEUE, data, step=0, due=None, now=time.time())
        elif self.session is not None:
            self.session.execute(self.place.adding, (QUEUE, data, QUEUE))
        else:
            self.place.put_raw(data)

    def broadcast(self, exchange: str, data: bytes) -> None:
        """Into a channel, as it is."""
        place = self.place
        if place.kind == "memory":
            server = shared.server(place.url)
            with server.lock:
                server.topics.emit(exchange, (data, b"{}"))
                server.topics.emit(exchange, (b"{}", data))
        elif place.server is not None:
            wrapped = project_envelope(data)
            place.server.command("PUBLISH", f"/0.{exchange}", data)
            place.server.command("PUBLISH", f"/0.{exchange}", wrapped)
        elif self.session is not None:
            for headers, payload in ((b"{}", data), (data, b"{}")):
                emit = f"SELECT {place.schema}.emit(%s, '', %s, %s, true)"
                self.session.execute(emit, (exchange, headers, payload))
        else:
            with contextlib.closing(sqlite3.connect(place.path, timeout=10)) as file, file:
                row = "INSERT INTO bus (exchange, routing_key, expires, headers, payload) VALUES (?, '', ?, ?, ?)"
                file.execute(row, (exchange, time.time() + 60, b"{}", data))
                file.execute(row, (exchange, time.time() + 60, data, b"{}"))

    def reader(self) -> Any:
        return resolver.reader(self.place.url, resolver.store_options(self.place.app.conf))

    def well(self) -> None:
        """It still runs what it is sent, at once; nobody died, and nothing was executed."""
        task_id, sent = self.send()
        wait_until(lambda: self.journal.ended([task_id]) == 1, 20.0, "a good task runs")
        assert self.journal.started(task_id)[0].at - sent < 10.0
        self.unhurt()
        assert not self.canary.exists(), "decoding ran code"


def project_envelope(body: bytes) -> bytes:
    """A broadcast as kombu writes it, around any body."""
    import base64

    properties = {"body_encoding": "base64", "delivery_tag": "t", "delivery_info": {}}
    return json.dumps({"body": base64.b64encode(body).decode(), "headers": {}, "properties": properties}).encode()


@pytest.fixture(params=["memory", "redis", "sqlite", "postgres"])
def live(
    request: pytest.FixtureRequest, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Live]:
    """A worker in a thread for the memory broker, a node of processes for the others."""
    # A lease so long that nobody can wait for it unnoticed.
    conf: dict[str, Any] = {"worker_unknown_task_park": 0.2, "result_expires": 600, "worker_lease": 30}
    with ExitStack() as stack:
        if request.param == "memory":
            place = Place(f"memory://fuzz-{next(_numbers)}", tmp_path, **conf)
            monkeypatch.setenv(project.JOURNAL, str(tmp_path / "journal"))
            monkeypatch.setattr(project, "_journal", -1)
            worker = stack.enter_context(start_worker(place.app, perform_ping_check=False))
            yield Live(place, Journal(tmp_path / "journal"), material.canary, lambda: _serves(worker))
            return
        server = request.getfixturevalue("redis_server") if request.param == "redis" else None
        url = request.getfixturevalue("redis_url" if server else "sqlite_url")
        place = Place(url, tmp_path, server, **conf)
        if request.param == "postgres":
            place = request.getfixturevalue("postgres_place").through(**conf)
        fleet = stack.enter_context(place.fleet())
        node = fleet.start("-c", "2", "-E")
        place.wait_state(place.send("work", 0, 1), "SUCCESS")
        below = sorted(node.below())

        def unhurt() -> None:
            assert sorted(node.below()) == below, f"a process died\n{node.log()}"
            assert not [line for line in node.text().splitlines() if line.startswith("[CRITICAL]")]
            assert not [sign for sign in _UNHANDLED if node.has_logged(sign)], node.log(60)

        session = None if place.database is None else stack.enter_context(place.database.connect())
        yield Live(place, fleet.journal, material.canary, unhurt, session)
        assert node.stop() == 0, node.log()


def _serves(worker: Any) -> None:
    assert worker.running if hasattr(worker, "running") else True


def test_messages(live: Live, material: Material) -> None:
    bad = material.messages
    before = {letter.key for letter in live.place.dead(5000)}
    ids = []
    for raw in bad:
        live.put(raw)
        ids.append(live.send()[0])
    wait_until(lambda: live.journal.ended(ids) == len(ids), 30.0, lambda: f"all end: {live.place.depth()}")
    live.place.wait_empty(20.0)
    starts = sorted(live.journal.started(task_id)[0].at for task_id in ids)
    gap = max(after - before for before, after in pairwise(starts))
    letters = [letter for letter in live.place.dead(5000) if letter.key not in before]
    kept = Counter(letter.raw for letter in letters)
    malformed = Counter(raw for raw in bad if isinstance(envelope.decode(raw, queue=QUEUE), Malformed))
    report(place=live.place.kind, bad=len(bad), malformed=malformed.total(), dead=len(letters), gap=gap)
    assert not malformed - kept, "bytes that are no message are in the dead letters as they were"
    assert all(letter.reason and letter.detail and "\n" not in letter.detail for letter in letters)
    assert gap < 10.0
    live.well()


def test_bombs(live: Live) -> None:
    """A few bytes that become 64 MiB: neither the memory nor the time of a worker goes."""
    shapes = bombs()
    for raw in shapes:
        live.put(raw)
        live.well()
    wait_until(lambda: len(live.place.dead()) == len(shapes), 10.0, lambda: f"dead: {live.place.dead()}")
    assert {letter.raw for letter in live.place.dead()} == set(shapes)
    assert all("MessageTooLarge" in letter.detail for letter in live.place.dead())


def test_results(live: Live, material: Material) -> None:
    """Whoever reads a forged record gets an error that can be caught, or a value; nothing is imported or called."""
    reader = live.reader()
    modules = set(sys.modules)
    for record in material.records:
        task_id = f"forged-{next(_numbers)}"
        reader.put([StoredResult(task_id, record, True)], timeout=5.0)
        result = AsyncResult(task_id, app=live.place.app)
        for read in (
            lambda result=result: result.get(timeout=0.01),
            lambda result=result: (result.state, result.info, result.traceback, result.date_done, result.children),
            lambda result=result: list(result.collect(timeout=0.01)),
        ):
            try:
                read()
            except Exception:  # noqa: BLE001 - any, but no SystemExit and its like
                pass
    reader.close()
    assert set(sys.modules) - modules <= _ours()
    live.well()


def _ours() -> set[str]:
    """What our own code imports when it is first used."""
    return {name for name in sys.modules if name.startswith(("celeriac.", "_strptime", "encodings."))}


def test_redelivered_messages_with_forged_records(live: Live, material: Material) -> None:
    """A worker looks at the record of a redelivered message before it runs it."""
    from tests.faults.poison import envelope as good_envelope

    reader = live.reader()
    for record in material.records:
        task_id = f"again-{next(_numbers)}"
        reader.put([StoredResult(task_id, record, True)], timeout=5.0)
        live.put(good_envelope(task_id, headers={"redelivered": True}))
    reader.close()
    live.place.wait_empty(20.0)
    live.well()


def test_commands_and_events(live: Live, material: Material) -> None:
    control = live.place.app.control
    wait_until(lambda: control.ping(timeout=1.0, limit=1), 15.0, "it listens: else it would hear nothing of all this")
    for request in material.requests:
        live.broadcast("celery.pidbox", request)
    for data in material.junk:
        for exchange in ("celery.pidbox", "celeryev", "reply.celery.pidbox"):
            live.broadcast(exchange, data)
    live.well()
    (answer,) = control.ping(timeout=15.0, limit=1)
    assert list(answer.values()) == [{"ok": "pong"}]


def test_members_of_chords_and_saved_groups(live: Live, material: Material) -> None:
    """Values that a member of a chord never returned, bodies that nobody sent, result tuples of nothing."""
    app = live.place.app
    for data in material.junk:
        group_id = f"group-{next(_numbers)}"
        reader = live.reader()
        reader.save_group(group_id, data, expires=60, timeout=5.0)
        reader.close()
        try:
            found = GroupResult.restore(group_id, app=app)
        except CeleryError:
            continue
        assert found is None or isinstance(found, (GroupResult, AsyncResult))
    chords = [(f"chord-{next(_numbers)}", *parts) for parts in material.chords]
    asyncio.run(_complete(live, chords))
    live.well()


async def _complete(live: Live, chords: list[tuple[str, bytes, bytes, bytes]]) -> None:
    """Chords of one member that is forged; nodes find them, for nobody here sends their bodies."""
    store = resolver.store(live.place.url, resolver.store_options(live.place.app.conf))
    await store.open()
    try:
        for chord, body, shape, value in chords:
            await store.open_chords([NewChord(id=chord, size=1, body=body, shape=shape, expires=60.0)])
            await store.join([Part(chord=chord, id="m", index=0, value=value)], token="")
    finally:
        await store.close()


def test_tables_of_redis(redis_place: Place, material: Material) -> None:
    """What is in flight, and what waits for its time: entries that no worker has written."""
    place, server = redis_place, redis_place.server
    assert server is not None
    with place.fleet() as fleet:
        node = fleet.start("-c", "1")
        below = sorted(node.below())
        for number, data in enumerate([*material.junk, *material.messages[:50]]):
            entry = b"[" + data + b',"","celery"]'
            for token, text in (
                (b"celeriac:gone:%d" % number, entry),
                (b"celeriac:gone:\xff%d" % number, entry),
                (b"celeriac:left:\xff%d" % number, data),
                (b"kombu-\xff%d" % number, data),
            ):
                server.command("HSET", "unacked", token, text)
                server.command("ZADD", "unacked_index", "1", token)
        server.command("ZADD", "unacked_index", "1", b"celeriac:\xff:without entry")
        number, sent = 1, time.time()
        task_id = place.send("work", number, 1)
        place.wait_state(task_id, "SUCCESS")
        assert fleet.journal.started(task_id)[0].at - sent < 10.0
        wait_until(
            lambda: not [each for each in server.command("HKEYS", "unacked") or () if b"gone" in each],
            20.0,
            lambda: f"ours are restored: {server.command('HLEN', 'unacked')}\n{node.log()}",
        )
        assert len(node.lines("left alone")) <= 2 * len([*material.junk, *material.messages[:50]])
        assert sorted(node.below()) == below, node.log()
        assert not [sign for sign in _UNHANDLED if node.has_logged(sign)], node.log(60)
        assert node.stop() == 0
