"""Dead letters from end to end: every way in, with real messages and workers, and the command line as users run it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chord
from celeriac.brokers import memory
from celeriac.client import resolver
from celeriac.codec.envelope import decode
from celeriac.codec.letters import Letter
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import ChordError, Reject
from celeriac.model.message import Delivery, Marks, Message
from celeriac.model.settle import DeadLetter, DeadReason, Release
from celeriac.ports import Broker
from tests.servers import wait_until

_PROJECT = """
import os, signal, time
from celeriac import Celery, chord
from celeriac.exceptions import ChordError, Reject

app = Celery("proj")
app.conf.worker_unknown_task_park = 0.1
app.conf.worker_max_expired_leases = 2

@app.task(bind=True)
def fail(self, value, password=""):
    if not os.path.exists("fixed"):
        raise ValueError(f"on purpose: {value}")
    return [value, self.request.celeriac_replay["times"], self.request.retries]

@app.task(bind=True, max_retries=2)
def again(self):
    if os.path.exists("fixed") and self.request.retries == 2:
        return self.request.celeriac_replay["reason"]
    raise self.retry(exc=KeyError("still"), countdown=0)

@app.task
def die():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task
def die_once():
    if not os.path.exists("fixed"):
        raise ValueError("first")
    if not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"

@app.task(time_limit=0.3)
def hang():
    time.sleep(60)

@app.task
def refuse():
    raise Reject("not today", requeue=False)
"""
_DEADLINE = 60.0
_RUBBISH = b'{"body": "\xff\x00 rubbish'
_numbers = itertools.count()


class Project:
    """A directory with an app, its broker, and the command line in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        (folder / "proj.py").write_text(_PROJECT)
        self.environment = {**os.environ, "CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        self.app = Celery("observer", broker=url, backend=url, set_as_current=False)
        self._worker: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "celeriac", "-A", "proj", *arguments]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end; returns what it prints."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=_DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        with (self.folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                self.command("worker", "-l", "info", *options), cwd=self.folder, env=self.environment,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self._worker

    def log(self) -> str:
        return (self.folder / "worker.log").read_text("utf-8", "replace")

    def wait_dead(self, count: int) -> dict[str, Letter]:
        """Wait for so many dead letters; by their tasks' ids."""
        wait_until(lambda: self.app.dead_letters.count() == count, _DEADLINE, self.log)
        return {each.id: each for each in self.app.dead_letters.list()}

    def put_raw(self, raw: bytes) -> None:
        """One entry of the queue, as it is."""
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=60)) as file, file:
                number = file.execute("SELECT coalesce(max(id), 0) + 1 FROM message").fetchone()[0]
                file.execute("INSERT INTO message VALUES (?, 'celery', 0, 0, ?)", (number, raw))
                file.execute("INSERT INTO ready VALUES ('celery', 0, ?, ?, 0)", (number, number))
            return
        with closing(resolver.publisher(self.url, resolver.adapter_options(self.app.conf))) as publisher:
            publisher._pool.call(("LPUSH", "celery", raw), 5.0)  # type: ignore[attr-defined]

    def with_broker(self, work: Any, **options: Any) -> Any:
        return with_broker(self.app, work, **options)

    def close(self) -> None:
        if self._worker is not None:
            if self._worker.poll() is None:
                self._worker.kill()
            self._worker.wait()
        self.app.close()


def with_broker(app: Celery, work: Any, **options: Any) -> Any:
    """``work(broker)`` with an adapter of its own."""

    async def main() -> Any:
        from msgspec.structs import replace

        chosen = replace(resolver.adapter_options(app.conf, owner=f"test-{next(_numbers)}"), **options)
        broker = resolver.broker(app.broker_url, chosen)
        await broker.open()
        try:
            return await work(broker)
        finally:
            await broker.close()

    return asyncio.run(main())


@pytest.fixture(params=["sqlite", "redis"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder, request.getfixturevalue(f"{request.param}_url"))
    yield made
    made.close()


async def lose_leases(broker: Broker, times: int) -> None:
    """Whoever holds the two messages of the queue is lost, so often; nobody is to blame."""
    for round_ in range(times):
        held: list[Delivery] = []
        while len(held) < 2:
            held += await broker.claim(["celery"], limit=2, wait=1.0)
        assert all(each.marks.expired_leases == round_ for each in held)

        async with asyncio.timeout(_DEADLINE):
            while (await broker.depth(["celery"]))["celery"].leased:
                rest = await broker.maintain()
                await asyncio.sleep(min(rest, 0.05))


def test_every_way_in(project: Project) -> None:
    app, before = project.app, time.time()
    lost = [app.send_task("proj.fail", (0,)).id for _ in range(2)]
    project.with_broker(lambda broker: lose_leases(broker, 2), lease=0.2)
    ids = {
        name: app.send_task(f"proj.{name}", args).id
        for name, args in (("fail", (1,)), ("again", ()), ("die", ()), ("hang", ()), ("refuse", ()), ("nobody", ()))
    }
    pickled = app.send_task("proj.fail", (2,), serializer="pickle").id
    arity = app.send_task("proj.fail", (1, 2, 3, 4)).id
    project.put_raw(_RUBBISH)
    project.start("-c", "2")
    letters = project.wait_dead(len(lost) + len(ids) + 3)
    expected = {
        lost[0]: ("lease expired too often", "WorkerLostError", ""),
        lost[1]: ("lease expired too often", "WorkerLostError", ""),
        ids["fail"]: ("failed", "ValueError: on purpose: 1", "Traceback"),
        ids["again"]: ("failed", "KeyError: 'still'", "Traceback"),
        ids["die"]: ("worker lost", "WorkerLostError", ""),
        ids["hang"]: ("time limit", "TimeLimitExceeded", ""),
        ids["refuse"]: ("rejected", "Reject", ""),
        ids["nobody"]: ("unknown task", "NotRegistered", ""),
        pickled: ("refused", "ContentDisallowed", ""),
        arity: ("failed", "TypeError", "Traceback"),
        "": ("malformed", "DecodeError", ""),
    }
    for task_id, (reason, exception, traceback) in expected.items():
        letter = letters[task_id]
        assert letter.reason == reason, letter
        assert letter.exception.startswith(exception), letter
        assert letter.traceback.startswith(traceback), letter
        assert letter.detail
        assert letter.worker.startswith("celery@")
        assert before < letter.at < time.time()
        assert letter.queue == "celery"
    assert letters[""].raw == _RUBBISH
    assert letters[""].problem
    assert (letters[ids["again"]].retries, letters[ids["die"]].crashes) == (2, 3)
    assert letters[lost[0]].expired_leases == 2
    message = decode(letters[ids["fail"]].raw, queue="celery")
    assert isinstance(message, Message)
    assert json.loads(message.body)[0] == [1]
    states = {name: app.AsyncResult(each).state for name, each in ids.items()}
    assert set(states.values()) == {"FAILURE"}, states
    # And on the command line.
    shown = project.run("dead", "list")
    assert shown.count("\n") == 1 + 2 * len(letters)
    assert project.run("dead", "list", "--reason", "time-limit").splitlines()[1].startswith(ids["hang"])
    raw = project.run("dead", "show", letters[ids["fail"]].key, "--raw")
    assert raw.encode() == letters[ids["fail"]].raw


def test_from_the_failure_to_the_result(project: Project) -> None:
    project.start("-c", "1")
    task_id = project.run("call", "proj.fail", "-a", "[7]", "-k", '{"password": "hunter2"}').strip()
    project.wait_dead(1)
    assert f"{task_id}  " in project.run("dead", "list", "--exception", "valueerror", "--since", "1h")
    shown = project.run("dead", "show", task_id)
    assert "ValueError: on purpose: 7" in shown
    assert "hunter2" not in shown
    assert project.run("dead", "retry", task_id) == "Sent 1 dead letter again.\n"
    project.wait_dead(1)  # it fails again, under another key
    wait_until(lambda: [each.replays for each in project.app.dead_letters.list()] == [1], _DEADLINE, project.log)
    (project.folder / "fixed").touch()
    assert project.run("dead", "retry", task_id, "--args", '["new"]', "--kwargs", "{}") == "Sent 1 dead letter again.\n"
    assert project.run("result", task_id, "--timeout", "20") == "['new', 2, 0]\n"
    assert project.run("dead", "list") == "There are no dead letters.\n"
    project.run("dead", "show", task_id, code=1)


def test_a_task_knows_that_it_was_sent_again_whatever_it_retries(project: Project) -> None:
    project.start("-c", "1")
    result = project.app.send_task("proj.again")
    project.wait_dead(1)
    (project.folder / "fixed").touch()
    assert project.app.dead_letters.retry(result.id).get(timeout=_DEADLINE) == "failed"


def test_a_replay_whose_worker_dies_is_not_taken_for_done(project: Project) -> None:
    """The record of the first life said FAILURE: without opening it again the second delivery would be dropped."""
    project.start("-c", "1")
    result = project.app.send_task("proj.die_once")
    project.wait_dead(1)
    (project.folder / "fixed").touch()
    assert project.app.dead_letters.retry(result.id).get(timeout=_DEADLINE) == "alive"
    assert (project.folder / "died").exists()


COUNT = 10_000


def test_killed_while_it_sends_ten_thousand_again(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    app = project.app
    ids = [f"id-{number}" for number in range(COUNT)]
    bury_many(app, ids)
    took: dict[str, float] = {}
    began = time.perf_counter()
    assert len(project.run("dead", "list", "--json").splitlines()) == 100
    took["list 100"] = time.perf_counter() - began
    began = time.perf_counter()
    assert app.dead_letters.list(task="nobody") == ()
    took["look through all"] = time.perf_counter() - began
    process = subprocess.Popen(
        project.command("dead", "retry", "--all", "--yes"), cwd=project.folder, env=project.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: ready(app) > 0, _DEADLINE)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    sent = drain(app)
    left = [each.id for each in app.dead_letters.iterate()]
    assert len(sent) + len(left) == COUNT, "each letter was either sent or kept"
    assert set(sent) | set(left) == set(ids)
    assert sent
    began = time.perf_counter()
    done = project.run("dead", "retry", "--all", "--yes")
    took[f"retry {len(left)}"] = time.perf_counter() - began
    assert done == f"Sent {len(left)} dead letters again.\n" if left else "No dead letter fits.\n"
    assert sorted(drain(app)) == sorted(left)
    with capsys.disabled():
        print(f"\n{project.url.partition(':')[0]}:", {name: round(each, 2) for name, each in took.items()})


def bury_many(app: Celery, ids: Sequence[str]) -> None:
    async def work(broker: Broker) -> None:
        headers = {"lang": "py", "task": "proj.fail", "retries": 3}
        body = b'[[7], {"note": "%b"}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]' % (
            b"x" * 200
        )
        await broker.publish(
            [
                Message(id=each, task="proj.fail", headers={**headers, "id": each}, body=body, queue="celery")
                for each in ids
            ]
        )
        left = len(ids)
        while left:
            held = await broker.claim(["celery"], limit=1000, wait=1.0)
            left -= len(held)
            await broker.settle(
                [
                    DeadLetter(
                        delivery=each, reason=DeadReason.FAILED, exception="ValueError: x", traceback="line\n" * 50,
                        at=time.time(), worker="w@h",
                    )
                    for each in held
                ]
            )  # fmt: skip

    with_broker(app, work)


def ready(app: Celery) -> int:
    depth = app.sender.publisher.depth(["celery"], timeout=60)["celery"]
    return depth.ready


def drain(app: Celery) -> list[str]:
    async def work(broker: Broker) -> list[str]:
        found: list[str] = []
        while held := await broker.claim(["celery"], limit=1000, wait=0.0):
            found += [each.message.id for each in held]
        return found

    found: list[str] = with_broker(app, work)
    return found


def test_every_way_in_within_one_process() -> None:
    """The memory broker: its workers are threads, so that what dies with a process is told by marks."""
    url = f"memory://dead-letters-{next(_numbers)}"
    app = Celery("inside", broker=url, backend=url, set_as_current=False)
    app.conf.worker_unknown_task_park = 0.0

    @app.task(name="fail", shared=False)
    def fail() -> None:
        raise ValueError("on purpose")

    @app.task(name="refuse", shared=False)
    def refuse() -> None:
        raise Reject("not today", requeue=False)

    @app.task(name="again", bind=True, max_retries=1, shared=False)
    def again(self: Any) -> None:
        raise self.retry(exc=KeyError("still"), countdown=0)

    @app.task(name="hang", time_limit=0.1, shared=False)
    async def hang() -> None:
        await asyncio.sleep(60)

    async def lose(broker: Broker) -> None:
        for marks in (Marks(crashes=3, suspect=True), Marks(expired_leases=10, suspect=True)):
            (held,) = await broker.claim(["celery"], limit=1, wait=0.0)
            await broker.settle([Release(held, marks=marks, back=True)])

    crashed, expired = app.send_task("fail").id, app.send_task("fail").id
    with_broker(app, lose)
    expected = {crashed: "worker lost", expired: "lease expired too often", "": "malformed"}
    for name, reason in (
        ("fail", "failed"), ("again", "failed"), ("refuse", "rejected"), ("hang", "time limit"),
        ("nobody", "unknown task"),
    ):  # fmt: skip
        expected[app.send_task(name).id] = reason
    expected[app.send_task("fail", serializer="pickle").id] = "refused"
    with memory.server(url).lock:
        memory.server(url).queues.add("celery", _RUBBISH, step=0, due=None, now=0.0)
    with start_worker(app, perform_ping_check=False):
        wait_until(lambda: app.dead_letters.count() == len(expected), _DEADLINE)
        found = {each.id: each for each in app.dead_letters.list()}
        assert {name: each.reason for name, each in found.items()} == expected
        assert found[""].raw == _RUBBISH
    app.close()
    memory.drop(url)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_workflows_around_what_is_sent_again(kind: str, request: pytest.FixtureRequest) -> None:
    """A chain goes on behind its step. A chord has failed with its member: that one runs, the body does not."""
    url = f"memory://workflows-{next(_numbers)}" if kind == "memory" else request.getfixturevalue(f"{kind}_url")
    app = Celery("workflows", broker=url, backend=url, set_as_current=False)
    mended: list[int] = []
    ran: list[str] = []

    @app.task(name="step", shared=False)
    def step(value: int) -> int:
        if not mended:
            raise ValueError("broken")
        ran.append("step")
        return value + 1

    @app.task(name="total", shared=False)
    def total(values: Any) -> Any:
        ran.append("total")
        return values

    with start_worker(app, perform_ping_check=False):
        chained = (step.s(1) | total.s()).apply_async()
        body = chord([step.s(5), total.s(6)])(total.s())
        for each in (chained, body):
            with pytest.raises((ValueError, ChordError)):
                each.get(timeout=_DEADLINE)
        wait_until(lambda: app.dead_letters.count() == 2, _DEADLINE)
        mended.append(1)
        members = {each.id: each.group_id for each in app.dead_letters.list()}
        (member,) = (task_id for task_id, group in members.items() if group)
        assert len(app.dead_letters.retry_all(task="step").ids) == 2
        assert app.AsyncResult(chained.id).get(timeout=_DEADLINE) == 2
        assert app.AsyncResult(member).get(timeout=_DEADLINE) == 6
        assert app.AsyncResult(body.id).state == "FAILURE"
        assert sorted(ran) == ["step", "step", "total", "total"]
        assert app.dead_letters.count() == 0
    app.close()
    if kind == "memory":
        memory.drop(url)
