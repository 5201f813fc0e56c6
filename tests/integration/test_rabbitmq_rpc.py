"""``rpc://``: results in the reply queues of a private RabbitMQ, read by those who have sent the tasks."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chain, chord, group
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Connection, monotonic
from celeriac.brokers.rabbitmq.layout import passive
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import ImproperlyConfigured, WorkerLostError
from celeriac.exceptions import TimeoutError as CeleriacTimeoutError
from celeriac.ports import AdapterOptions
from celeriac.result import AsyncResult
from tests.servers import RabbitServer, wait_until

GUARD = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def make_app(url: str, **settings: Any) -> Any:
    app = Celery(f"rpc-{time.monotonic_ns()}", broker=url, backend="rpc://", set_as_current=False)
    app.conf.update(worker_unknown_task_park=0.01, **settings)
    gate = threading.Event()

    @app.task(shared=False, name="rpc.add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(shared=False, name="rpc.fail")
    def fail() -> None:
        raise ValueError("bad input", 42)

    @app.task(shared=False, name="rpc.again", bind=True, max_retries=3)
    def again(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0.01, exc=KeyError("missing"))
        return int(self.request.retries)

    @app.task(shared=False, name="rpc.slow", bind=True, track_started=True)
    def slow(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"done": 1})
        assert gate.wait(120.0)
        return "done"

    @app.task(shared=False, name="rpc.parent")
    def parent() -> str:
        return str(add.delay(3, 4).id)

    @app.task(shared=False, name="rpc.waits")
    def waits() -> Any:
        return add.delay(3, 4).get(timeout=60, disable_sync_subtasks=False)

    app.gate = gate
    return app


@contextmanager
def working(url: str, **settings: Any) -> Iterator[Any]:
    app = make_app(url, **settings)
    try:
        with start_worker(app, perform_ping_check=False):
            yield app
    finally:
        app.close()


@pytest.fixture
def worker(rabbitmq_url: str) -> Iterator[Any]:
    with working(rabbitmq_url) as app:
        yield app


@pytest.fixture
def client(rabbitmq_url: str) -> Iterator[Any]:
    app = make_app(rabbitmq_url)
    yield app
    app.close()


def asked(url: str, ask: tuple[Any, ...]) -> list[Any]:
    (address,) = parse(url, AdapterOptions())
    connection = Connection(address, monotonic() + 60)
    try:
        return connection.ask(ask, monotonic() + 60)
    finally:
        connection.close()


def waiting(url: str, queue: str) -> int:
    """Messages that are ready in a queue that exists."""
    return int(asked(url, passive(queue))[1])


def test_what_a_result_says(worker: Any, client: Any) -> None:
    tasks = client.tasks
    result = tasks["rpc.add"].delay(2, 3)
    assert result.get(timeout=60) == 5
    assert (result.state, result.ready(), result.successful(), result.result) == ("SUCCESS", True, True, 5)
    assert client.AsyncResult(result.id).get(timeout=1) == 5
    failed = tasks["rpc.fail"].delay()
    with pytest.raises(ValueError, match="bad input") as told:
        failed.get(timeout=60)
    assert told.value.args == ("bad input", 42)
    assert failed.failed()
    assert "ValueError" in failed.traceback
    assert tasks["rpc.again"].delay().get(timeout=60) == 2


def test_states_on_the_way(worker: Any, client: Any) -> None:
    result = client.tasks["rpc.slow"].delay()
    wait_until(lambda: result.state == "PROGRESS", 60)
    assert result.info == {"done": 1}
    with pytest.raises(CeleriacTimeoutError):
        result.get(timeout=0.2)
    worker.gate.set()
    seen: list[str] = []
    assert result.get(timeout=60, on_message=lambda meta: seen.append(meta["status"])) == "done"
    assert seen[-1] == "SUCCESS"


def test_chains_and_groups(worker: Any, client: Any) -> None:
    add, fail = client.tasks["rpc.add"], client.tasks["rpc.fail"]
    result = chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()
    assert result.get(timeout=60) == 10
    assert result.parent.get(timeout=60) == 6
    assert group(add.s(i, i) for i in range(20)).apply_async().get(timeout=60) == [2 * i for i in range(20)]
    broken = chain(fail.s(), add.si(1, 1)).apply_async()
    with pytest.raises(ValueError, match="bad input"):
        broken.get(timeout=60)
    assert broken.state == "FAILURE"


def test_children_are_their_first_senders(worker: Any, client: Any) -> None:
    result = client.tasks["rpc.parent"].delay()
    child = client.AsyncResult(result.get(timeout=60))
    assert child.get(timeout=60) == 7
    assert [each.id for each in result.children] == [child.id]
    assert [value for _, value in result.collect()] == [child.id, 7]


def test_a_task_cannot_wait_for_its_own(worker: Any, client: Any) -> None:
    with pytest.raises(NotImplementedError, match="this one has sent none"):
        client.tasks["rpc.waits"].delay().get(timeout=60)


def test_what_it_cannot_do_is_said(worker: Any, client: Any, rabbitmq_url: str) -> None:
    add = client.tasks["rpc.add"]
    for refused in (chord([add.s(1, 1)], add.s(1)), chain(group(add.s(1, 1), add.s(2, 2)), add.si(1, 1))):
        with pytest.raises(NotImplementedError, match="cannot count the tasks of a chord"):
            refused.apply_async()
    with pytest.raises(NotImplementedError, match="cannot count the tasks of a chord"):
        chain(add.s(1, 1), chord([add.s(1)], add.si(1, 1))).apply_async()
    sent = group(add.s(1, 1)).apply_async()
    for use in (sent.save, lambda: client.GroupResult.restore(sent.id), lambda: client.backend.delete_group(sent.id)):
        with pytest.raises((NotImplementedError, AttributeError)):
            use()
    with pytest.raises(NotImplementedError, match="does not know who waits"):
        client.backend.store_result("somebody", 1, "SUCCESS")
    other = make_app(rabbitmq_url)
    with pytest.raises(NotImplementedError, match="to the process that has sent the task"):
        other.AsyncResult(sent[0].id).get(timeout=60)
    assert sent.get(timeout=60) == [2]
    other.close()


@pytest.mark.parametrize("broker", ["memory://rpc", "redis://localhost/0", ""])
def test_other_brokers_are_refused(broker: str) -> None:
    app = Celery("rpc-elsewhere", broker=broker or None, backend="rpc://", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="sends results through RabbitMQ"):
        app.backend.reader  # noqa: B018
    app.close()


def test_rabbitmq_alone_keeps_no_results(rabbitmq_url: str) -> None:
    app = Celery("rpc-amqp", broker=rabbitmq_url, backend=rabbitmq_url, set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="set result_backend to rpc://"):
        app.backend.reader  # noqa: B018
    app.close()


def test_results_wait_for_those_who_come_late(worker: Any, client: Any, rabbitmq_url: str) -> None:
    """Nothing is read before somebody asks; then all is there at once."""
    results = [client.tasks["rpc.add"].delay(i, 1) for i in range(1500)]
    wait_until(lambda: waiting(rabbitmq_url, client.oid) == 1500, 60)
    assert all(result.ready() for result in results)
    assert [result.result for result in results] == list(range(1, 1501))
    wait_until(lambda: waiting(rabbitmq_url, client.oid) == 0, 60)


def test_forgotten(worker: Any, client: Any) -> None:
    result = client.tasks["rpc.add"].delay(1, 1)
    assert result.get(timeout=60) == 2
    result.forget()
    assert result.state == "PENDING"


def test_many_threads(worker: Any, client: Any) -> None:
    def ask(number: int) -> list[int]:
        sent = [client.tasks["rpc.add"].delay(number, i) for i in range(50)]
        return [result.get(timeout=60) - number for result in sent]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(16))) == [list(range(50))] * 16
    assert sum(each.name == "celeriac-replies" for each in threading.enumerate()) == 1


def test_nobody_waits_for_ever(rabbitmq_server: RabbitServer, rabbitmq_vhost: str, rabbitmq_url: str) -> None:
    """The queue and what is in it expire."""
    with working(rabbitmq_url, result_expires=1) as worker:
        client = make_app(rabbitmq_url, result_expires=60)
        # It is there for a second: whoever comes later than that sees the next one.
        wait_until(lambda: _is_seen(client, rabbitmq_url), 60)
        wait_until(lambda: waiting(rabbitmq_url, client.oid) == 0, 60)
        client.close()
        wait_until(lambda: _comes(worker), 60)
        gone = make_app(rabbitmq_url, result_expires=1)
        gone.tasks["rpc.add"].delay(1, 1)
        # To ask for a queue over AMQP is to use it.
        wait_until(lambda: gone.oid not in rabbitmq_server.queues(rabbitmq_vhost), 60)
        gone.close()


def _is_seen(client: Any, url: str) -> bool:
    """Whether the result of a new task is seen in the queue."""
    client.tasks["rpc.add"].delay(1, 1)
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        if waiting(url, client.oid):
            return True
    return False


def _comes(app: Any) -> bool:
    """Whether a new task's result comes, before it expires."""
    try:
        return bool(app.tasks["rpc.add"].delay(1, 1).get(timeout=3) == 2)
    except CeleriacTimeoutError:
        return False


def _is_gone(url: str, queue: str) -> bool:
    try:
        waiting(url, queue)
    except Exception as error:  # noqa: BLE001 - the server's word
        return "NOT_FOUND" in str(error)
    return False


def test_a_reader_that_is_gone_harms_nobody(worker: Any, client: Any, rabbitmq_url: str) -> None:
    """Its queue is deleted: results go nowhere, tasks end, and whoever asks next gets what comes from then on."""
    add = client.tasks["rpc.add"]
    slow = client.tasks["rpc.slow"].delay()
    wait_until(lambda: slow.state == "PROGRESS", 60)
    asked(rabbitmq_url, (m.QUEUE_DELETE, 0, client.oid, False, False, False))
    worker.gate.set()
    wait_until(lambda: not _is_gone(rabbitmq_url, client.oid), 60)
    assert add.delay(1, 1).get(timeout=60) == 2
    wait_until(lambda: waiting(rabbitmq_url, "celery") == 0, 60)


def test_a_lost_connection_loses_no_result(worker: Any, client: Any, rabbitmq_server: RabbitServer) -> None:
    add = client.tasks["rpc.add"]
    assert add.delay(1, 1).get(timeout=60) == 2
    for _ in range(5):
        results = [add.delay(i, 1) for i in range(200)]
        client.backend.reader._connection.hang_up()
        assert [result.get(timeout=60) for result in results] == list(range(1, 201))


_SCRIPT = """
import sys
from celeriac import Celery
app = Celery("rpc-script", broker=sys.argv[1], backend="rpc://")
result = app.send_task("rpc.add", (1, 2))
print(app.oid, result.get(timeout=60), flush=True)
{end}
"""


@pytest.mark.parametrize(("end", "gone"), [("", True), ("import os; os._exit(0)", False)])
def test_the_end_of_a_process(worker: Any, rabbitmq_url: str, end: str, gone: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(end=end), rabbitmq_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    oid, value = done.stdout.split()
    assert value == "3"
    assert not done.stderr
    assert _is_gone(rabbitmq_url, oid) is gone


def test_a_fork_has_a_queue_of_its_own(worker: Any, client: Any) -> None:
    add = client.tasks["rpc.add"]
    before, oid = add.delay(1, 1), client.oid
    assert before.get(timeout=60) == 2
    pending = add.delay(2, 2)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert client.oid != oid
            with pytest.raises(NotImplementedError):
                pending.get(timeout=60)
            assert add.delay(3, 3).get(timeout=60) == 6
            code = 0
        except BaseException:  # noqa: BLE001 - shown, and told by the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert pending.get(timeout=60) == 4
    assert client.oid == oid


def test_coroutines_wait_too(worker: Any, client: Any) -> None:
    async def ask() -> list[int]:
        results: list[AsyncResult[int]] = [client.tasks["rpc.add"].delay(i, 2) for i in range(20)]
        return await asyncio.gather(*(result.aget(timeout=60) for result in results))

    assert asyncio.run(ask()) == list(range(2, 22))


def test_the_newest_reader_comes_before_a_dead_one(worker: Any, client: Any, rabbitmq_url: str) -> None:
    """A connection that the server has not yet given up, and that nobody reads, takes no result away."""
    add = client.tasks["rpc.add"]
    assert add.delay(1, 1).get(timeout=60) == 2
    reader = client.backend.reader
    (address,) = parse(rabbitmq_url, AdapterOptions())
    dead = Connection(address, monotonic() + 60)
    dead.ask((m.BASIC_CONSUME, 0, client.oid, "", False, False, False, False, {}), monotonic() + 60)
    before = reader._connection
    before.hang_up()
    wait_until(lambda: reader._up.is_set() and reader._connection is not before, 60)
    assert [add.delay(i, 1).get(timeout=60) for i in range(20)] == list(range(1, 21))
    dead.close()


def test_a_closed_app_goes_on(worker: Any, client: Any) -> None:
    """``close`` gives the connections back; what was sent before can still be read."""
    add = client.tasks["rpc.add"]
    assert add.delay(1, 1).get(timeout=60) == 2
    pending = [add.delay(i, 1) for i in range(20)]
    client.close()
    wait_until(lambda: not any(each.name == "celeriac-replies" for each in threading.enumerate()), 60)
    assert [result.get(timeout=60) for result in pending] == list(range(1, 21))


def test_a_task_without_a_result(
    worker: Any, client: Any, rabbitmq_server: RabbitServer, rabbitmq_vhost: str, rabbitmq_url: str
) -> None:
    add = client.tasks["rpc.add"]
    add.apply_async((1, 1), ignore_result=True)
    assert add.delay(1, 2).get(timeout=60) == 3
    # What was read is acknowledged a moment later.
    wait_until(lambda: rabbitmq_server.queues(rabbitmq_vhost).get(client.oid) == (0, 0), 60, "the queue is empty")
    client.close()
    assert waiting(rabbitmq_url, client.oid) == 0


@pytest.mark.parametrize("own", [2**70, "x" * 130_000], ids=["number", "length"])
def test_a_next_step_that_amqp_cannot_hold_fails_its_task(worker: Any, client: Any, own: Any) -> None:
    """Not the child, which would meet it again and again."""
    add = client.tasks["rpc.add"]
    result = chain(add.s(1, 2), add.s(3).set(headers={"own": own})).apply_async()
    with pytest.raises(Exception, match=r"more than 64 bits|the headers of rpc\.add have"):
        result.parent.get(timeout=60)
    assert add.delay(1, 2).get(timeout=60) == 3


def test_a_process_that_dies_with_what_it_had_acknowledged(rabbitmq_url: str, tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(
        "import os, signal\n"
        "from celeriac import Celery\n"
        f"app = Celery('proj', broker={rabbitmq_url!r}, backend='rpc://')\n"
        "@app.task(name='rpc.dies', acks_late=False)\n"
        "def dies():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [*GUARD, sys.executable, "-m", "celeriac", "-A", "proj", "worker", "-c", "1", "-l", "warning"]
    app = make_app(rabbitmq_url)
    worker = subprocess.Popen(command, cwd=tmp_path)
    try:
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            app.send_task("rpc.dies").get(timeout=60)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
        app.close()
