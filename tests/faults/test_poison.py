"""Bad input straight into the broker: it costs itself only."""

from __future__ import annotations

import random
import time

from celeriac.ports import DeadRecord
from tests.faults.journal import report
from tests.faults.place import Place
from tests.faults.poison import Poison, envelope, poisons
from tests.faults.scenario import scenario
from tests.servers import wait_until


@scenario(
    "producers",
    fault="malformed and malicious messages lie in the queue",
    promise="each costs itself: a dead letter with a reason, nothing executed",
)
def test_bad_messages_cost_only_themselves(place: Place, rng: random.Random) -> None:
    canary = place.folder / "canary"
    bad = list(poisons(canary))
    rng.shuffle(bad)
    good: dict[str, tuple[int, float]] = {}
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        place.wait_state(place.send("work", 0, 1), "SUCCESS")
        below = sorted(node.below())
        for number, poison in enumerate(bad):
            place.put_raw(poison.data)
            sent = time.time()
            good[place.send("work", number, 1)] = (number, sent)
        fates = [poison for poison in bad if poison.state is not None]
        wait_until(
            lambda: (
                [record and record["status"] for record in place.records([each.id for each in fates])]
                == [each.state for each in fates]
            ),
            20.0,
            lambda: f"fates: {_unmet(place, fates)}\n{node.log()}",
        )
        place.wait_all(fleet, list(good), 20.0)
        letters = place.dead()
        died = {letter.raw for letter in letters} | {letter.id.encode() for letter in letters}
        doomed = [poison for poison in bad if poison.state != "SUCCESS"]
        alive = [poison.name for poison in doomed if died.isdisjoint({poison.data, poison.id.encode() or b"-"})]
        delays = [fleet.journal.started(each)[0].at - sent for each, (_, sent) in good.items()]
        numbers = {each: number for each, (number, _) in good.items()}
        place.judge(fleet, numbers, allowed=0, bad=len(bad), delay_max=max(delays))
        assert not alive, f"not in the dead letters: {alive}"
        assert not canary.exists(), "decoding a message ran code"
        assert max(delays) < 10.0, "somebody waited for a lease"
        assert sorted(node.below()) == below, f"a process died\n{node.log()}"
        _check_lines(node.text(), letters)
        assert node.stop() == 0


def _unmet(place: Place, fates: list[Poison]) -> list[tuple[str, str]]:
    return [(each.name, place.state(each.id)) for each in fates if place.state(each.id) != each.state]


def _check_lines(text: str, letters: list[DeadRecord]) -> None:
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


@scenario(
    "producers",
    fault="the message of a finished task is delivered again",
    promise="it is recognised, and not run",
)
def test_copies_of_a_finished_task_do_not_run_again(place: Place) -> None:
    with place.fleet(worker_lease=30) as fleet:
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
            sent=2,
            lost=0,
            again=fleet.journal.again(["original", "failed"]),
            repeats=len(node.lines("already done")),
        )
        assert fleet.journal.again(["original", "failed"]) == 0
        assert place.records(["original"]) == [before]
        assert len(place.dead()) == 1
        assert len(node.lines("already done")) == 40


@scenario(
    "producers",
    fault="messages of 34 MB lie in the queue",
    promise="refused, others wait less than 3 s",
)
def test_huge_messages_are_refused(place: Place) -> None:
    shapes = [
        envelope("huge-body", body=b'[["' + b"x" * 34_000_000 + b'", 1], {}, {}]'),
        envelope("huge-number", body=b"[[" + b"7" * 1_000_000 + b", 1], {}, {}]"),
    ]
    good: dict[str, tuple[int, float]] = {}
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        for number, data in enumerate(shapes):
            place.put_raw(data)
            sent = time.time()
            good[place.send("work", number, 1)] = (number, sent)
        place.wait_all(fleet, list(good), 30.0)
        sizes = sorted(len(letter.raw) for letter in place.dead())
        delay = max(fleet.journal.started(each)[0].at - sent for each, (_, sent) in good.items())
        lost = [each for each, (number, _) in good.items() if place.records([each])[0] is None]
        report(place=place.kind, sent=len(good), lost=len(lost), again=0, delay=delay, dead=len(sizes))
        assert sizes == sorted(map(len, shapes))
        assert not lost
        assert delay < 12.0
        assert not [line for line in node.text().splitlines() if len(line) > 2000]
        assert node.stop() == 0


def test_a_result_key_of_a_wrong_type(redis_place: Place) -> None:
    server = redis_place.server
    assert server is not None
    server.command("LPUSH", "celery-task-meta-occupied", "by somebody else")
    with redis_place.fleet() as fleet:
        node = fleet.start("-c", "1")
        ids = [redis_place.send("work", number, 1) for number in range(20)]
        redis_place.send("work", 7, 1, task_id="occupied")
        redis_place.wait_all(fleet, [*ids, "occupied"], 10.0)
        redis_place.judge(fleet, {each: number for number, each in enumerate(ids)} | {"occupied": 7})
        assert node.stop() == 0
