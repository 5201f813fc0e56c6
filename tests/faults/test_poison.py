"""Bad input straight into the broker: it costs itself only."""

from __future__ import annotations

import json
import random
import time

import pytest

from tests.faults.journal import report
from tests.faults.place import Place
from tests.faults.poison import envelope, poisons
from tests.servers import wait_until


def test_bad_messages_cost_only_themselves(place: Place, rng: random.Random) -> None:
    canary = place.folder / "canary"
    bad = list(poisons(canary))
    rng.shuffle(bad)
    good: dict[str, tuple[int, float]] = {}
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        place.wait_state(place.send("work", 0, 1), "SUCCESS")
        below = sorted(node.below())
        for number, poison in enumerate(bad):
            place.put_raw(poison.data)
            sent = time.time()
            good[place.send("work", number, 1)] = (number, sent)
        fates = [poison for poison in bad if poison.state is not None]
        wait_until(
            lambda: [record and record["status"] for record in place.records([each.id for each in fates])]
            == [each.state for each in fates],
            20.0,
            lambda: f"fates: {_unmet(place, fates)}\n{node.log()}",
        )
        place.wait_all(fleet, list(good), 20.0)
        letters = place.dead()
        died = {letter.raw for letter in letters}
        alive = [poison.name for poison in bad if poison.state != "SUCCESS" and poison.data not in died]
        delays = [fleet.journal.started(each)[0].at - sent for each, (_, sent) in good.items()]
        place.judge(
            fleet, {each: number for each, (number, _) in good.items()}, bad=len(bad), delay_max=max(delays)
        )
        assert not alive, f"not in the dead letters: {alive}"
        assert not canary.exists(), "decoding a message ran code"
        assert max(delays) < 1.0
        assert sorted(node.below()) == below, f"a process died\n{node.log()}"
        _check_lines(node.text(), letters)
        assert node.stop() == 0


def _unmet(place: Place, fates: list) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    return [(each.name, place.state(each.id)) for each in fates if place.state(each.id) != each.state]


def _check_lines(text: str, letters: list) -> None:  # type: ignore[type-arg]
    """Each dead letter has one line that says why; no message has written a line of its own."""
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith("[CRITICAL]")], "a message forged a log line"
    assert "\x00" not in text
    assert "\x1b" not in text
    for letter in letters:
        assert letter.detail, letter
        assert "\n" not in letter.detail, letter
    told = [line for line in lines if "goes to the dead letters" in line or "raised unexpected" in line]
    assert len(told) == len(letters), "\n".join(line[:200] for line in told)
    assert not [line[:200] for line in lines if len(line) > 2000], "a log line repeats its message"


def test_copies_of_a_finished_task_do_not_run_again(place: Place) -> None:
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        place.put_raw(envelope("original"))
        before = place.wait_state("original", "SUCCESS")
        place.put_raw(envelope("failed", body=b'[[1, "soon"], {}, {}]'))
        place.wait_state("failed", "FAILURE")
        for _ in range(20):
            place.put_raw(envelope("original", headers={"redelivered": True}))
            place.put_raw(envelope("failed", body=b'[[1, "soon"], {}, {}]', headers={"redelivered": True}))
        place.wait_empty()
        report(
            place=place.kind,
            lost=0,
            doubled=fleet.journal.doubled(["original", "failed"]),
            repeats=len(node.lines("already done")),
        )
        assert fleet.journal.doubled(["original", "failed"]) == 0
        assert place.records(["original"]) == [before]
        assert len(place.dead()) == 1
        assert len(node.lines("already done")) == 40


@pytest.mark.parametrize("shape", ["envelope", "body", "digits"])
def test_a_huge_message_is_refused(place: Place, shape: str) -> None:
    size = 50_000_000
    data = {
        "envelope": lambda: b"{" + b" " * size,
        "body": lambda: envelope("huge", body=b'[["' + b"x" * size + b'", 1], {}, {}]'),
        "digits": lambda: envelope("huge", body=b"[[" + b"7" * (size // 2) + b", 1], {}, {}]"),
    }[shape]()
    with place.fleet() as fleet:
        node = fleet.start("-c", "1")
        place.put_raw(data)
        sent = time.time()
        good = place.send("work", 5, 1)
        place.wait_state(good, "SUCCESS", 20.0)
        place.wait_empty()
        letters = place.dead()
        delay = fleet.journal.started(good)[0].at - sent
        place.judge(fleet, {good: 5}, shape=shape, delay=delay, size=len(data))
        assert [len(letter.raw) for letter in letters] == [len(data)]
        assert delay < 3.0
        assert not [line for line in node.text().splitlines() if len(line) > 2000]
        assert node.stop() == 0


def test_keys_of_wrong_types_beside_the_queues(redis_place: Place) -> None:
    """Another program writes to our keys: the worker says so and goes on with the other queues."""
    server = redis_place.server
    assert server is not None
    server.command("SET", "taken", "by somebody else")
    server.command("SET", "celery-task-meta-occupied", "")
    server.command("DEL", "celery-task-meta-occupied")
    server.command("LPUSH", "celery-task-meta-occupied", "x")
    with redis_place.fleet() as fleet:
        node = fleet.start("-c", "1", "-Q", "taken,celery")
        ids = [redis_place.send("work", number, 1) for number in range(20)]
        redis_place.send("work", 7, 1, task_id="occupied")
        redis_place.wait_all(fleet, [*ids, "occupied"], 10.0)
        redis_place.judge(fleet, {each: number for number, each in enumerate(ids)})
        assert json.loads(server.command("GET", "celery-task-meta-occupied"))["result"] == 7
        assert node.stop() == 0
