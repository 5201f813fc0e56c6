"""Remote control and events across the sides.

Real `celery inspect`, `control`, `status` and its `EventReceiver` on our worker; our command line on Celery's; the
greetings of starting workers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.project.fleet import Fleet
from tests.servers import wait_until

LISTEN = """
import threading, time
from celery.events.state import State
seen, state, listening = [], State(), threading.Event()
def keep(event):
    seen.append(event)
    state.event(dict(event))
def listen():
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": keep})
        def ready(*args, **kwargs): listening.set()
        receiver.on_consume_ready = ready
        try:
            receiver.capture(limit=None, timeout=None, wakeup=False)
        except Exception as error:
            seen.append({"type": repr(error), "hostname": ""})
threading.Thread(target=listen, daemon=True).start()
listening.wait(60)
"""
COMMON = {"type", "hostname", "timestamp", "utcoffset", "pid", "clock", "local_received"}
FIELDS = {
    "worker-online": {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"},
    "worker-heartbeat": {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"},
    "worker-offline": {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"},
    "task-received": {"uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires"},
    "task-started": {"uuid"},
    "task-succeeded": {"uuid", "result", "runtime"},
    "task-failed": {"uuid", "exception", "traceback"},
    "task-retried": {"uuid", "exception", "traceback"},
    "task-revoked": {"uuid", "terminated", "signum", "expired"},
    "task-rejected": {"uuid", "requeue"},
}


def ask(fleet: Fleet, *arguments: str, node: str = "ours@host") -> Any:
    """Real `celery inspect …`, its answer for one node."""
    done = fleet.console.run("cli('inspect', '-j', '-t', '60', '-d', node, *words)", words=arguments, node=node)
    assert done["code"] == 0, done["output"]
    return json.loads(done["output"])[node]


def ask_until(fleet: Fleet, good: Callable[[Any], bool], *arguments: str) -> Any:
    """`ask` until the answer is good: of a child that did not answer its agent in time nothing is said."""
    answers: list[Any] = [None]

    def asked() -> bool:
        answers.append(ask(fleet, *arguments))
        return good(answers[-1])

    wait_until(asked, 60, lambda: answers[-1])
    return answers[-1]


def tell(fleet: Fleet, *arguments: str, node: str = "ours@host") -> str:
    """Real `celery control …`, its output."""
    done = fleet.console.run("cli('control', '-t', '60', '-d', node, *words)", words=arguments, node=node)
    assert done["code"] == 0, done["output"]
    return str(done["output"])


def ours(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Our command line."""
    command = [sys.executable, "-m", "celeriac", "-b", fleet.settings["broker_url"], *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def events(fleet: Fleet) -> Fleet:
    """The fleet, with Celery's receiver and `State` listening in the console."""
    fleet.console.run(LISTEN)
    return fleet


def heard(fleet: Fleet, hostname: str, kind: str, task_id: str = "") -> list[dict[str, Any]]:
    code = "[dict(e) for e in list(seen) if e['hostname'] == h and e['type'] == k and (not u or e.get('uuid') == u)]"
    found: list[dict[str, Any]] = fleet.console.run(code, h=hostname, k=kind, u=task_id)
    return found


def wait_for(fleet: Fleet, hostname: str, kind: str, task_id: str = "") -> dict[str, Any]:
    """An event, its fields checked against the wire format."""
    wait_until(lambda: heard(fleet, hostname, kind, task_id), 60, lambda: f"{kind} {task_id}\n{fleet.logs()}")
    event = heard(fleet, hostname, kind, task_id)[0]
    assert set(event) == COMMON | FIELDS[kind]
    return event


def started(fleet: Fleet, task_id: str) -> None:
    wait_until(lambda: [w for w in fleet.journal("start") if w[1] == task_id], 60, fleet.logs)


@pytest.fixture
def busy(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Two running tasks, one for each child of ours."""
    gate = f"busy-{request.node.name}"
    ids = [fleet.send("gated", (gate,), queue="ours").id for _ in range(2)]
    for task_id in ids:
        started(fleet, task_id)
    yield ids
    fleet.open(gate)


def test_celery_inspects_us(fleet: Fleet, busy: list[str]) -> None:
    assert ask(fleet, "ping") == {"ok": "pong"}
    active = ask_until(fleet, lambda tasks: len(tasks) >= len(busy), "active")
    theirs = ask(fleet, "active", node="theirs@host")
    assert theirs == []
    assert sorted(task["id"] for task in active) == sorted(busy)
    wanted = {
        "id",
        "name",
        "args",
        "kwargs",
        "type",
        "hostname",
        "time_start",
        "acknowledged",
        "delivery_info",
        "worker_pid",
    }
    assert {frozenset(task) for task in active} == {frozenset(wanted)}
    assert active[0]["delivery_info"] == {"exchange": "", "routing_key": "ours", "priority": 0, "redelivered": False}
    names = ask(fleet, "registered")
    assert names == ask(fleet, "registered", node="theirs@host")
    assert ask(fleet, "reserved") == []
    assert ask(fleet, "scheduled") == []
    found = ask_until(fleet, lambda found: len(found) >= len(busy), "query_task", *busy)
    assert set(found) == set(busy)
    assert ask_until(fleet, bool, "query_task", busy[0])[busy[0]][0] == "active"


def test_celery_reads_our_numbers(fleet: Fleet) -> None:
    stats = ask_until(fleet, lambda stats: len(stats["pool"]["processes"]) >= 2, "stats")
    theirs = ask(fleet, "stats", node="theirs@host")
    assert set(stats) == set(theirs)
    assert set(stats["broker"]) == set(theirs["broker"])
    assert set(stats["rusage"]) == set(theirs["rusage"])
    assert set(theirs["pool"]) - {"writes"} <= set(stats["pool"])
    assert stats["pool"]["max-concurrency"] == 2
    assert len(stats["pool"]["processes"]) == 2
    queues, foreign = ask(fleet, "active_queues"), ask(fleet, "active_queues", node="theirs@host")
    assert [queue["name"] for queue in queues] == ["ours", "both"]
    assert set(foreign[0]) <= set(queues[0])
    assert set(foreign[0]["exchange"]) <= set(queues[0]["exchange"])
    conf = ask(fleet, "conf")
    assert conf["accept_content"] == ["json", "pickle"]
    assert "celeriac" in ask(fleet, "report")["ok"]
    assert isinstance(ask(fleet, "clock")["clock"], int)


def test_celery_status(fleet: Fleet) -> None:
    """It waits one second for answers, which not everybody may have kept on a machine that stalls."""

    def seen() -> bool:
        done = fleet.console.run("cli('status')")
        shown = re.search(r"ours@host: \S*OK", done["output"])
        return done["code"] == 0 and shown is not None and "2 nodes online" in done["output"]

    wait_until(seen, 60, fleet.logs)


def test_celery_moves_our_consumers(fleet: Fleet) -> None:
    assert "add consumer extra" in tell(fleet, "add_consumer", "extra")
    assert "already consuming" in tell(fleet, "add_consumer", "extra")
    assert fleet.call("ours", "add", (1, 2), queue="extra")["value"] == 3
    assert "no longer consuming from extra" in tell(fleet, "cancel_consumer", "extra")
    assert [queue["name"] for queue in ask(fleet, "active_queues")] == ["ours", "both"]
    late = fleet.send("side", queue="extra")
    assert fleet.call("ours", "add", (1, 2))["value"] == 3
    assert fleet.command("LLEN", "extra") == 1
    assert "add consumer extra" in tell(fleet, "add_consumer", "extra")
    assert late.get(timeout=60) == "ours"
    tell(fleet, "cancel_consumer", "extra")


def test_celery_revokes_ours(events: Fleet, busy: list[str]) -> None:
    """One that waits is not run; one that runs is ended, its neighbour is not."""
    fleet = events
    tell(fleet, "enable_events")
    waiting = fleet.send("side", queue="ours")
    answers = fleet.console.run(
        "app.control.revoke(i, reply=True, timeout=60, destination=[h])", i=waiting.id, h="ours@host"
    )
    assert answers[0]["ours@host"]["ok"].endswith("flagged as revoked")
    code = "app.control.revoke(i, terminate=True, signal='SIGKILL', reply=True, timeout=60, destination=['ours@host'])"
    fleet.console.run(code, i=busy[0])
    ended = fleet.console.run("outcome(app.AsyncResult(i))", i=busy[0])
    assert (ended["error"], ended["state"]) == (["celery.exceptions", "TaskRevokedError", ["terminated"]], "REVOKED")
    ended = fleet.console.run("outcome(app.AsyncResult(i))", i=waiting.id)
    assert (ended["error"], ended["state"]) == (["celery.exceptions", "TaskRevokedError", ["revoked"]], "REVOKED")
    ask_until(fleet, lambda tasks: busy[1] in {task["id"] for task in tasks}, "active")
    assert set(ask(fleet, "revoked")) >= {busy[0], waiting.id}
    event = wait_for(fleet, "ours@host", "task-revoked", waiting.id)
    assert (event["terminated"], event["expired"]) == (False, False)
    event = wait_for(fleet, "ours@host", "task-revoked", busy[0])
    assert (event["terminated"], event["signum"]) == (True, 9)


def test_celery_hears_our_tasks(events: Fleet) -> None:
    fleet = events
    tell(fleet, "enable_events")
    assert "already enabled" in tell(fleet, "enable_events")
    good = fleet.send("add", (1, 2), queue="ours").id
    bad = fleet.send("fail", (7,), queue="ours").id
    again = fleet.send("retry", (1,), queue="ours").id
    expired = fleet.send("add", (1, 2), queue="ours", expires=-1).id
    rejected = fleet.send("reject", queue="ours").id
    slow = fleet.send("hard", queue="ours").id
    received = wait_for(fleet, "ours@host", "task-received", good)
    assert (received["name"], received["args"], received["kwargs"]) == ("compat.add", "(1, 2)", "{}")
    wait_for(fleet, "ours@host", "task-started", good)
    assert wait_for(fleet, "ours@host", "task-succeeded", good)["result"] == "3"
    failed = wait_for(fleet, "ours@host", "task-failed", bad)
    assert failed["exception"] == "ValueError('bad input', 7)"
    assert failed["traceback"].startswith("Traceback")
    assert wait_for(fleet, "ours@host", "task-retried", again)["exception"] == "KeyError('missing')"
    wait_for(fleet, "ours@host", "task-succeeded", again)
    assert wait_for(fleet, "ours@host", "task-revoked", expired)["expired"] is True
    assert wait_for(fleet, "ours@host", "task-rejected", rejected)["requeue"] is False
    assert "TimeLimitExceeded" in wait_for(fleet, "ours@host", "task-failed", slow)["exception"]
    code = "[state.tasks[i].state for i in ids]"
    states = fleet.console.run(code, ids=[good, bad, expired, rejected, slow])
    # Celery's State puts REJECTED below STARTED, also for tasks of its own workers.
    assert states == ["SUCCESS", "FAILURE", "REVOKED", "STARTED", "FAILURE"]


def test_celery_sees_our_worker_live_and_go(events: Fleet) -> None:
    """With -E from its start; `celery control shutdown` ends it."""
    fleet = events
    worker = fleet.ours("short@host", "-c", "1", "-Q", "short", "-E").ready()
    online = wait_for(fleet, "short@host", "worker-online")
    assert (online["freq"], online["sw_sys"]) == (2.0, "Linux")
    assert fleet.call("ours", "add", (1, 2), queue="short")["value"] == 3
    wait_for(fleet, "short@host", "task-succeeded")
    beat = wait_for(fleet, "short@host", "worker-heartbeat")
    assert beat["sw_ident"] == "celeriac"
    alive = "{w.hostname: w.alive for w in state.workers.values()}"
    # As long as its last heartbeat is not older than four seconds.
    wait_until(lambda: fleet.console.run(alive)["short@host"] is True, 60, fleet.logs)
    fleet.console.run("app.control.shutdown(destination=['short@host'])")
    assert worker.process.wait(15) == 0
    wait_for(fleet, "short@host", "worker-offline")
    assert fleet.console.run(alive)["short@host"] is False


def test_we_inspect_celery(fleet: Fleet) -> None:
    gate = "inspected"
    running = fleet.send("gated", (gate,), queue="theirs")
    started(fleet, running.id)
    inspect = fleet.app.control.inspect(destination=["theirs@host"], timeout=60)
    assert inspect.ping() == {"theirs@host": {"ok": "pong"}}
    active = inspect.active()["theirs@host"]
    assert [task["id"] for task in active] == [running.id]
    assert "compat.add" in inspect.registered()["theirs@host"]
    assert inspect.stats()["theirs@host"]["pool"]["max-concurrency"] == 2
    assert {queue["name"] for queue in inspect.active_queues()["theirs@host"]} == {"theirs", "both"}
    assert inspect.query_task([running.id])["theirs@host"][running.id][0] == "active"
    assert inspect.reserved() == {"theirs@host": []}
    assert inspect.conf()["theirs@host"]["broker_url"]
    fleet.app.control.revoke(running.id, terminate=True, destination=["theirs@host"])
    found = fleet.outcome(running)
    assert found["error"] == ["celeriac.exceptions", "TaskRevokedError", ["terminated"]]
    assert running.id in inspect.revoked()["theirs@host"]


def test_our_command_line_on_celery(fleet: Fleet) -> None:

    def seen() -> bool:  # it waits one second for answers
        done = ours(fleet, "status")
        return done.returncode == 0 and "theirs@host: OK" in done.stdout and "ours@host: OK" in done.stdout

    wait_until(seen, 60, fleet.logs)
    done = ours(fleet, "inspect", "-t", "60", "-d", "theirs@host", "-j", "stats")
    assert json.loads(done.stdout)["theirs@host"]["pool"]["max-concurrency"] == 2
    done = ours(fleet, "control", "-t", "60", "-d", "theirs@host", "add_consumer", "theirs-extra")
    assert "add consumer theirs-extra" in done.stdout, done.stderr
    assert fleet.call("theirs", "add", (1, 2), queue="theirs-extra")["value"] == 3
    done = ours(fleet, "control", "-t", "60", "-d", "theirs@host", "rate_limit", "compat.side", "100/s")
    assert "new rate limit set successfully" in done.stdout, done.stderr


def test_a_celery_worker_starts_beside_ours(fleet: Fleet) -> None:
    """Mingle: it learns from us what was revoked. Gossip: it sees ours come and go. Nothing of it alarms it."""
    known = fleet.console.run(
        "from uuid import uuid4; i = str(uuid4()); app.control.revoke(i, reply=True, timeout=60, destination=[h]); i",
        h="ours@host",
    )
    for _ in range(3):  # it waits one second for answers: ours may be too late on a machine that stalls
        newcomer = fleet.theirs("new@host", "-c", "1", "-Q", "new").ready()
        fleet.wait_for_answer("new@host")
        if known in ask(fleet, "revoked", node="new@host"):
            break
        newcomer.end()
    assert "mingle: sync complete" in newcomer.text()
    assert known in ask(fleet, "revoked", node="new@host")
    guest = fleet.ours("guest@host", "-c", "1", "-Q", "guest").ready()
    assert guest.stop() == 0
    assert fleet.call("theirs", "add", (1, 2), queue="new")["value"] == 3
    newcomer.end()
    assert [line for line in newcomer.text().splitlines() if re.search(r": (WARNING|ERROR|CRITICAL)/", line)] == []


def test_what_a_newcomer_revoked_reaches_us(fleet: Fleet) -> None:
    """A starting worker tells what it knows to be revoked; those that run take it over, as Celery's do."""
    fleet.console.run(
        "app.control.inspect(timeout=60, destination=['ours@host']).hello('from@host', ['told-by-hello'])"
    )
    assert "told-by-hello" in ask(fleet, "revoked")
