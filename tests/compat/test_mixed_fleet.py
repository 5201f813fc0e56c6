"""Real Celery and our own on one Redis: each side's producer with the other side's worker, and both on one queue.

``way`` is the side of the worker: tasks for ``ours`` are sent and read by Celery, tasks for ``theirs`` by us.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.compat.project.fleet import Fleet
from tests.compat.project.tasks import VALUES
from tests.servers import wait_until


@pytest.fixture(params=["ours", "theirs"])
def way(request: pytest.FixtureRequest) -> str:
    side: str = request.param
    return side


VALUE: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], Any]] = {
    "plain": ("add", (1, 2), {}, 3),
    "kwargs": ("add", (), {"kwargs": {"x": "a", "y": "ü"}}, "aü"),
    "priority": ("add", (1, 2), {"priority": 6}, 3),
    "gzip": ("add", (1, 2), {"compression": "gzip"}, 3),
    "zlib": ("add", ("x" * 5000, "y"), {"compression": "zlib"}, "x" * 5000 + "y"),
    "bzip2": ("add", (1, 2), {"compression": "bzip2"}, 3),
    "pickle": ("echo", ((1, 2),), {"serializer": "pickle"}, {"args": [[1, 2]], "kwargs": {}}),
    "expires later": ("add", (1, 2), {"expires": 60}, 3),
    "retries": ("retry", (2,), {}, 2),
    "autoretry": ("auto", (), {}, 2),
}


@pytest.mark.parametrize("case", VALUE)
def test_it_runs_on_the_other_side(fleet: Fleet, way: str, case: str) -> None:
    name, args, options, expected = VALUE[case]
    found = fleet.call(way, name, args, **options)
    assert (found.get("value"), found["state"], found["traceback"]) == (expected, "SUCCESS", None), found


OURS, CELERY, BILLIARD = "celeriac.exceptions", "celery.exceptions", "billiard.exceptions"
ERROR: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], str, list[Any] | None, str]] = {
    "expired": ("add", (1, 2), {"expires": -1}, f"{CELERY}.TaskRevokedError", ["expired"], "REVOKED"),
    "expired while it waits": (
        "add",
        (1, 2),
        {"countdown": 0.4, "expires": 0.1},
        f"{CELERY}.TaskRevokedError",
        ["expired"],
        "REVOKED",
    ),
    "fails": ("fail", (42,), {}, "builtins.ValueError", ["bad input", 42], "FAILURE"),
    "retries exhausted": ("exhausted", (), {}, "builtins.KeyError", ["missing"], "FAILURE"),
    "retries exhausted plainly": ("exhausted_plain", (), {}, f"{CELERY}.MaxRetriesExceededError", None, "FAILURE"),
    "soft limit": ("soft", (), {}, f"{BILLIARD}.SoftTimeLimitExceeded", None, "FAILURE"),
    "hard limit": ("hard", (), {}, f"{BILLIARD}.TimeLimitExceeded", [0.6], "FAILURE"),
    "unknown task": ("unknown", (), {}, f"{CELERY}.NotRegistered", ["compat.unknown"], "FAILURE"),
}
#: Tasks whose body raised, so there is a traceback.
RAISED = {"fail", "exhausted", "exhausted_plain", "soft"}


@pytest.mark.parametrize("case", ERROR)
def test_its_failure_is_raised_on_the_other_side(fleet: Fleet, way: str, case: str) -> None:
    name, args, options, expected, arguments, state = ERROR[case]
    found = fleet.call(way, name, args, **options)
    module, _, cls = expected.rpartition(".")
    if way == "theirs" and module != "builtins":
        module = OURS
    assert found["error"][:2] == [module, cls], found
    assert arguments is None or found["error"][2] == arguments
    assert found["state"] == state
    if name in RAISED:
        assert found["traceback"].startswith("Traceback (most recent call last):\n")
        assert found["traceback"].splitlines()[-1].split(":")[0].endswith(cls)
    else:
        assert found["traceback"] is None


def test_a_foreign_exception_class(fleet: Fleet) -> None:
    """Celery rebuilds what its process has loaded; we keep the names as text unless the class is registered."""
    found = fleet.call("ours", "refuse")
    assert found["error"][:2] == ["tests.compat.project.tasks", "Refused"]
    result = fleet.send("refuse", queue="theirs")
    found = fleet.outcome(result)
    assert found["error"] == [OURS, "RemoteError", ["no", UUID(int=7)]]
    assert (result.result.exc_type, result.result.exc_module) == ("Refused", "tests.compat.project.tasks")


def test_every_type_tag(fleet: Fleet, way: str) -> None:
    """To the worker and back: what arrived there, and what its producer reads in the result."""
    if way == "theirs":
        found = fleet.outcome(fleet.send("check_values", (), VALUES, queue=way))["value"]
        assert found == {"wrong": {}, "values": VALUES}
    else:
        code = "r = outcome(send('check_values', (), tasks.VALUES, queue='ours'))['value']"
        found = fleet.console.run(f"{code}; [r['wrong'], r['values'] == tasks.VALUES]")
        assert found == [{}, True]


def test_the_request(fleet: Fleet, way: str) -> None:
    options = {"headers": {"x-custom": "v", "n": 1}, "priority": 6, "time_limit": 20, "soft_time_limit": 10}
    sent = fleet.call(way, "about", **options)
    about = sent["value"]
    mine = sent["id"]
    assert {key: about[key] for key in ("id", "root_id", "parent_id", "correlation_id", "group", "retries")} == {
        "id": mine,
        "root_id": mine,
        "parent_id": None,
        "correlation_id": mine,
        "group": None,
        "retries": 0,
    }
    delivery = {"exchange": "", "routing_key": way, "priority": 6, "redelivered": False}
    assert about["delivery_info"] == delivery
    assert (about["side"], about["hostname"]) == (way, f"{way}@host")
    assert (about["timelimit"], about["ignore_result"], about["reply_to"]) == ([20, 10], False, True)
    assert (about["headers"], about["custom"]) == ({"x-custom": "v", "n": 1}, "v")
    assert about["origin"].startswith("gen")


def test_countdown_and_eta(fleet: Fleet, way: str) -> None:
    for options in ("countdown=0.5", "eta=datetime.now(UTC) + timedelta(seconds=0.5)"):
        began = time.monotonic()
        if way == "ours":
            code = f"from datetime import *; outcome(send('about', queue='ours', {options}))"
            found = fleet.console.run(code)
        else:
            names: dict[str, Any] = {}
            exec(f"from datetime import *\noptions = dict({options})", names)  # the same text on both sides
            found = fleet.outcome(fleet.send("about", queue=way, **names["options"]))
        assert found["state"] == "SUCCESS"
        assert 0.5 <= time.monotonic() - began < 60
        assert found["value"]["eta"].endswith("+00:00")


def test_callbacks_and_errbacks(fleet: Fleet, way: str) -> None:
    code = """
    def mine(name, *args): return t["compat." + name].s(*args).set(queue=way)
    ids = [send("add", (1, 2), queue=way, link=[mine("callback", "a"), mine("callback", "b")]).id,
           send("fail", queue=way, link_error=mine("errback")).id]
    """
    if way == "ours":
        good, bad = fleet.console.run(f"{code}\n    ids", way=way)
    else:

        def mine(name: str, *args: Any) -> Any:
            return fleet.app.tasks[f"compat.{name}"].s(*args).set(queue=way)

        good = fleet.send("add", (1, 2), queue=way, link=[mine("callback", "a"), mine("callback", "b")]).id
        bad = fleet.send("fail", queue=way, link_error=mine("errback")).id
    assert good != bad
    wait_until(lambda: [way, bad] in fleet.journal("errback"), 60, fleet.logs)
    expected = [[way, "a", "3"], [way, "b", "3"]]
    wait_until(lambda: all(line in fleet.journal("callback") for line in expected), 60, fleet.logs)


def test_an_errback_of_the_newer_signature(fleet: Fleet) -> None:
    code = "outcome(send('fail', (1,), queue='ours', link_error=t['compat.errback_new'].s().set(queue='ours')))"
    found = fleet.console.run(code)
    assert found["error"] == ["builtins", "ValueError", ["bad input", 1]]
    line = ["ours", found["id"], "ValueError('bad input', 1)"]
    wait_until(lambda: line in fleet.journal("errback_new"), 60, fleet.logs)


def test_a_chain(fleet: Fleet, way: str) -> None:
    """Parents and children are found from the last result, on either side."""
    code = """
    from MODULE import chain
    def mine(*args): return t["compat.add"].s(*args).set(queue=way)
    last = chain(mine(1, 2), mine(3), mine(4)).apply_async()
    found = [last.get(timeout=60), last.parent.get(timeout=60), last.parent.parent.get(timeout=60)]
    found += [last.parent.parent.children[0].id == last.parent.id, last.children]
    """
    if way == "ours":
        found = fleet.console.run(f"{code.replace('MODULE', 'celery')}\n    found", way=way)
    else:
        from celeriac import chain

        def mine(*args: Any) -> Any:
            return fleet.app.tasks["compat.add"].s(*args).set(queue=way)

        last = chain(mine(1, 2), mine(3), mine(4)).apply_async()
        found = [last.get(timeout=60), last.parent.get(timeout=60), last.parent.parent.get(timeout=60)]
        found += [last.parent.parent.children[0].id == last.parent.id, last.children]
    assert found == [10, 6, 3, True, []]


def test_a_chain_alternates_between_the_sides(fleet: Fleet) -> None:
    queues = ["ours", "theirs", "both", "theirs", "ours"]
    code = """
    from celery import chain
    steps = [t["compat.hop"].s(*([[]] if at == 0 else [])).set(queue=queue) for at, queue in enumerate(queues)]
    chain(*steps).apply_async().get(timeout=60)
    """
    found = fleet.console.run(code, queues=queues)
    from celeriac import chain

    hop = fleet.app.tasks["compat.hop"]
    steps = [hop.s(*([[]] if at == 0 else [])).set(queue=queue) for at, queue in enumerate(queues)]
    for trail in (found, chain(*steps).apply_async().get(timeout=60)):
        assert [side for at, side in enumerate(trail) if at != 2] == ["ours", "theirs", "theirs", "ours"]


def test_children(fleet: Fleet, way: str) -> None:
    code = (
        "r = send('spawn', queue='ours'); v = r.get(timeout=60); [v, r.children[0].id, r.children[0].get(timeout=60)]"
    )
    if way == "ours":
        value, child, grandchild = fleet.console.run(code)
    else:
        result = fleet.send("spawn", queue=way)
        value = result.get(timeout=60)
        child, grandchild = result.children[0].id, result.children[0].get(timeout=60)
    assert (value, grandchild) == (child, 42)


def test_states_on_the_way(fleet: Fleet, way: str) -> None:
    """PROGRESS, STARTED and RETRY, as the other side reads them meanwhile."""
    gate, names = f"states-{way}-{uuid4()}", ["progress", "tracked", "later"]
    if way == "ours":
        ids = fleet.console.run("[send(n, (gate,), queue='ours').id for n in names]", names=names, gate=gate)
    else:
        ids = [fleet.send(name, (gate,), queue=way).id for name in names]
    for task_id, state in zip(ids[:2], ["PROGRESS", "STARTED"], strict=True):
        fleet.wait_state(task_id, state)
    (progress, info), (started, where), _ = _read(fleet, way, ids)
    fleet.open(gate)
    assert (progress, started) == ("PROGRESS", "STARTED")
    assert info == repr({"done": 3, "total": 10})
    assert f"'hostname': '{way}@host'" in where
    retried = fleet.wait_state(ids[2], "RETRY")
    assert retried["result"] == {"exc_type": "KeyError", "exc_message": ["missing"], "exc_module": "builtins"}
    assert retried["traceback"].splitlines()[-1].endswith("Retry: Retry in 1.0s: KeyError('missing')")
    assert _read(fleet, way, ids)[2] == ["RETRY", "KeyError('missing')"]
    fleet.open(f"{gate}-again")
    read = "[app.AsyncResult(i).get(timeout=60) for i in ids]"
    if way == "ours":
        assert fleet.console.run(read, ids=ids) == ["done", way, gate]
    else:
        assert [fleet.app.AsyncResult(task_id).get(timeout=60) for task_id in ids] == ["done", way, gate]


def _read(fleet: Fleet, way: str, ids: list[str]) -> list[list[str]]:
    """State and `info` (its repr) of each, read by the side that has no part in running them."""
    if way == "ours":
        code = "[[r.state, repr(r.info)] for r in map(app.AsyncResult, ids)]"
        found: list[list[str]] = fleet.console.run(code, ids=ids)
        return found
    return [[result.state, repr(result.info)] for result in map(fleet.app.AsyncResult, ids)]


def test_no_result_where_none_is_wanted(fleet: Fleet, way: str) -> None:
    names = ["ignored", "ignore"]
    if way == "ours":
        code = "[send(n, queue='ours').id for n in names] + [send('add', (1, 2), queue='ours', ignore_result=True).id]"
        ids = fleet.console.run(code, names=names)
    else:
        ids = [fleet.send(name, queue=way).id for name in names]
        ids.append(fleet.send("add", (1, 2), queue=way, ignore_result=True).id)
    # Two children each: when two more tasks than children have gone through, these have.
    assert [fleet.call(way, "add", (number, 1))["value"] for number in range(4)] == [1, 2, 3, 4]
    wait_until(lambda: [way] in fleet.journal("ignored"), 60, fleet.logs)
    assert [fleet.record(task_id) for task_id in ids] == [None] * 3


def test_rejected_for_good(fleet: Fleet, way: str) -> None:
    """Celery 5.7 stores a failure: who waits would wait for ever."""
    found = fleet.call(way, "reject")
    assert (found["error"][1], found["error"][2][0], found["state"]) == ("Reject", "unwanted", "FAILURE")


def test_protocol_1(fleet: Fleet) -> None:
    code = """
    app.conf.task_protocol = 1
    del app.amqp
    link = t["compat.callback"].s("v1").set(queue="ours")
    found = [outcome(send("add", (1,), {"y": 2}, queue="ours", countdown=0.1, link=link))]
    found.append(outcome(send("fail", (1,), queue="ours")))
    found.append(outcome(send("add", (1, 2), queue="ours", expires=-1)))
    app.conf.task_protocol = 2
    del app.amqp
    found
    """
    added, failed, expired = fleet.console.run(code)
    assert added["value"] == 3
    assert failed["error"] == ["builtins", "ValueError", ["bad input", 1]]
    assert expired["state"] == "REVOKED"
    wait_until(lambda: ["ours", "v1", "3"] in fleet.journal("callback"), 60, fleet.logs)


def test_both_drain_one_queue(fleet: Fleet) -> None:
    """Half of the tasks from either side: each runs exactly once, and both sides read every result."""
    code = "rs = [send('work', (n, 2.0), queue='both') for n in range(250)]; [r.id for r in rs]"
    ids: list[str] = []
    sides: set[str] = set()
    while sides != {"ours", "theirs"}:  # one of them may have been held up by the machine while the other did all
        assert len(ids) < 5000, sides
        fleet.console.start(code)
        results = [fleet.send("work", (number, 2.0), queue="both") for number in range(250, 500)]
        ids += [*fleet.console.answer(), *(result.id for result in results)]
        numbers = [number % 500 for number in range(len(ids))]
        read = "from celery.result import AsyncResult; [app.AsyncResult(i).get(timeout=60) for i in ids]"
        assert fleet.console.run(read, ids=ids) == numbers
        assert [fleet.app.AsyncResult(task_id).get(timeout=60) for task_id in ids] == numbers
        started = [(words[1], words[0]) for words in fleet.journal("start") if words[1] in set(ids)]
        assert sorted(task_id for task_id, _ in started) == sorted(ids)
        sides = {side for _, side in started}
    assert fleet.command("EXISTS", "both") == 0
    wait_until(lambda: fleet.command("HLEN", "unacked") == 0, 60, "nothing is held")
