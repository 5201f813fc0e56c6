"""A fleet with a key: its own work goes on as ever, and nothing that a stranger writes into the broker is believed."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celeriac import chain, chord, group
from celeriac.client import resolver
from celeriac.codec.signing import Signer
from celeriac.exceptions import SecurityError
from celeriac.model.message import Message
from celeriac.model.settle import DeadReason, StoredResult
from celeriac.result import AsyncResult
from tests.faults.journal import report
from tests.faults.place import Place
from tests.servers import wait_until

KEY, OLD = "the key of this fleet, 32 bytes!", "the key it had before that, too."


def test_the_fleets_own_work(place: Place, rng: random.Random) -> None:
    """Retries, chains, chords, schedules, and what dead children leave: all of it is signed anew or still valid."""
    own = place.through(signing_key=[KEY, OLD], worker_max_crashes=100)
    before = place.through(signing_key=OLD)
    task = own.app.tasks
    numbers: dict[str, int] = {}
    with own.fleet() as fleet:
        node = fleet.start("-c", "2")
        numbers |= {own.send("work", number, 20): number for number in range(60)}
        numbers |= {own.send("again", number): number for number in range(20)}
        numbers |= {own.send("work", number, 1, countdown=1.0): number for number in range(20)}
        numbers |= {before.send("work", number, 1): number for number in range(20)}
        chained = chain(task["faults.step"].s(1), task["faults.step"].s(), task["faults.step"].s())()
        chords = [
            chord([task["faults.work"].s(n, 5) for n in range(6)], task["faults.collect"].s())() for _ in range(4)
        ]
        for _ in range(3):
            time.sleep(0.2)
            node.kill_one(rng)
        own.wait_all(fleet, list(numbers), 40.0)
        assert chained.get(timeout=20) == 4
        assert [each.get(timeout=20) for each in chords] == [list(range(6))] * 4
        own.judge(fleet, numbers)
        assert own.dead() == []
        # The agent may be the one that was killed: its successor takes a moment to listen.
        wait_until(lambda: own.app.control.ping(timeout=1.0, limit=1), 15.0, "the node answers")


def raw_of(place: Place, number: int, **options: Any) -> tuple[str, bytes]:
    """A message of this place's own sender, as stored text."""
    from celeriac.codec import envelope

    taken: list[Message] = []

    class Taker:
        collect = taken.append

    place.app.tasks["faults.work"].apply_async((number, 1), producer=Taker(), **options)
    return taken[0].id, envelope.encode(taken[0])


def changed(raw: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    whole = json.loads(raw)
    change(whole)
    return json.dumps(whole).encode()


def _body(whole: dict[str, Any]) -> None:
    whole["body"] = base64.b64encode(b'[[666, 1], {}, {"callbacks": null}]').decode()


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "body": _body,
    "task": lambda whole: whole["headers"].update(task="faults.die"),
    "id": lambda whole: whole["headers"].update(id="other"),
    "eta": lambda whole: whole["headers"].update(eta="2020-01-01T00:00:00+00:00"),
    "expires": lambda whole: whole["headers"].update(expires="2020-01-01T00:00:00+00:00"),
    "retries": lambda whole: whole["headers"].update(retries=0.0),
    "a new header": lambda whole: whole["headers"].update(replaced=True),
    "priority": lambda whole: whole["properties"].update(priority=3),
    "compression": lambda whole: whole["headers"].update(compression="application/x-gzip"),
    "content type": lambda whole: whole.update({"content-type": "application/x-python-serialize"}),
    "no signature": lambda whole: whole["headers"].pop("celeriac_signature"),
    "signature of another": lambda whole: whole["headers"].update(celeriac_signature="1:" + "0" * 64),
    "signature of another kind": lambda whole: whole["headers"].update(celeriac_signature={"$ne": 1}),
}


def test_strangers_run_nothing(place: Place) -> None:
    own = place.through(signing_key=KEY)
    stranger = place.through(signing_key="a key that nobody here has given")
    bad: dict[str, tuple[str, bytes]] = {}
    for name, change in CHANGES.items():
        task_id, raw = raw_of(own, 666)
        bad[name] = task_id, changed(raw, change)
    bad["not signed"] = raw_of(place, 666)
    bad["another key"] = raw_of(stranger, 666)
    bad["of another queue"] = raw_of(own, 666, queue="other")
    bad["not signed, shown as redelivered"] = raw_of(place, 666, headers={"redelivered": True})
    good: dict[str, int] = {}
    with own.fleet() as fleet:
        node = fleet.start("-c", "2")
        for number, (_, raw) in enumerate(bad.values()):
            place.put_raw(raw)
            good[own.send("work", number, 1)] = number
        own.wait_all(fleet, list(good), 20.0)
        wait_until(lambda: len(own.dead()) == len(bad), 10.0, lambda: f"dead: {len(own.dead())}\n{node.log()}")
        own.judge(fleet, good)
        assert {letter.raw for letter in own.dead()} == {raw for _, raw in bad.values()}
        assert {letter.reason for letter in own.dead()} == {DeadReason.REFUSED}
        assert {letter.detail for letter in own.dead()} == {"signature missing", "signature invalid"}
        ran = fleet.journal.read().starts
        assert not [name for name, (task_id, _) in bad.items() if ran[task_id]]
        assert own.records([task_id for task_id, _ in bad.values()]) == [None] * len(bad)
        assert len(node.lines("is refused, not run: signature")) == len(bad)
        report(place=place.kind, strangers=len(bad), run=0, good=len(good))
        assert node.stop() == 0


def put(place: Place, task_id: str, body: bytes) -> None:
    reader = resolver.reader(place.app.backend_url or "", resolver.store_options(place.app.conf))
    reader.put([StoredResult(task_id, body, True)], timeout=5.0)
    reader.close()


def stored(place: Place, task_id: str) -> bytes | None:
    reader = resolver.reader(place.app.backend_url or "", resolver.store_options(place.app.conf))
    try:
        return reader.get([task_id], timeout=5.0)[0]
    finally:
        reader.close()


def test_forged_results_are_not_believed(place: Place) -> None:
    own = place.through(signing_key=KEY)
    forged = b'{"status":"SUCCESS","result":666,"traceback":null,"children":[],"task_id":"%s"}'
    with own.fleet() as fleet:
        fleet.start("-c", "1")
        first, second = (AsyncResult(own.send("work", number, 1), app=own.app) for number in (1, 2))
        assert (first.get(timeout=10), second.get(timeout=10)) == (1, 2)
        of_second = stored(own, second.id)
        assert of_second is not None
        for body in (forged % first.id.encode(), of_second, Signer(b"x" * 16).seal("result", first.id, forged)):
            put(own, first.id, body)
            with pytest.raises(SecurityError, match=first.id):
                AsyncResult(first.id, app=own.app).get(timeout=5)
        # A record that says "done" does not keep a task from running either.
        task_id, raw = raw_of(own, 7)
        lie = forged % task_id.encode()
        put(own, task_id, lie)
        own.put_raw(changed(raw, lambda whole: whole["headers"].update(redelivered=True)))
        # Its result is written behind its end.
        wait_until(lambda: stored(own, task_id) != lie, 10.0, lambda: f"it runs\n{fleet.logs()}")
        assert fleet.journal.ended([task_id]) == 1
        assert AsyncResult(task_id, app=own.app).get(timeout=10) == 7


def test_unsigned_commands_stop_nothing(place: Place) -> None:
    own = place.through(control_key=KEY)
    with own.fleet() as fleet:
        node = fleet.start("-c", "1")
        wait_until(lambda: own.app.control.ping(timeout=1.0, limit=1), 15.0, "the agent listens")
        assert place.app.control.ping(timeout=0.5) == []
        place.app.control.shutdown()
        node.logged("is refused: it is not signed with control_key")
        assert own.app.control.ping(timeout=15.0, limit=1)
        assert node.running
        own.app.control.shutdown()
        assert node.exit_code(20.0) == 0


def test_a_large_group_and_a_large_payload(place: Place, tmp_path: Path) -> None:
    """What is put aside before it is sent, and what lies beside the broker."""
    own = place.through(signing_key=KEY, payload_store=str(tmp_path / "payloads"), payload_store_min_bytes=1000)
    task = own.app.tasks
    with own.fleet() as fleet:
        fleet.start("-c", "2")
        many = group(task["faults.work"].s(number, 0) for number in range(2500))()
        large = task["faults.collect"].delay([1] * 5000)
        assert many.get(timeout=60) == list(range(2500))
        assert large.get(timeout=20) == [1] * 5000
        assert own.dead() == []
