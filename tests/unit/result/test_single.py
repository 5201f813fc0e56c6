"""AsyncResult and EagerResult, on the memory adapter."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import states
from celeriac.client.current import request_var
from celeriac.codec.results import encode_result
from celeriac.exceptions import DecodeError, IncompleteStream, RemoteError, TaskRevokedError, TimeoutError  # noqa: A004
from celeriac.result import (
    AsyncResult,
    EagerResult,
    ResultBase,
    allow_join_result,
    denied_join_result,
    result_from_tuple,
)
from tests.servers import wait_until
from tests.unit.result.app import App

# ---------------------------------------------------------------- waiting


def test_a_result_that_is_there(app: App) -> None:
    result = app.store("i", {"a": [1]})
    assert result.get(timeout=0) == {"a": [1]}
    assert result.wait(timeout=0) == {"a": [1]}


def test_a_result_that_comes(app: App, later: Any) -> None:
    later(app.store, "i", 5)
    assert app.AsyncResult("i").get(timeout=5) == 5


def test_states_on_the_way_end_no_wait(app: App, later: Any) -> None:
    app.store("i", None, states.STARTED)
    later(app.store, "i", {"done": 1}, "PROGRESS")
    result = app.AsyncResult("i")
    with pytest.raises(TimeoutError, match="timed out"):
        result.get(timeout=0.08)
    wait_until(lambda: result.state == "PROGRESS")
    later(app.store, "i", 5)
    assert result.get(timeout=5) == 5


def test_timeouts(app: App) -> None:
    started = time.monotonic()
    with pytest.raises(AsyncResult.TimeoutError):
        app.AsyncResult("i").get(timeout=0.05)
    assert time.monotonic() - started < 10
    with pytest.raises(TimeoutError):
        app.AsyncResult("i").get(timeout=0)


def test_failures_are_raised_or_returned(app: App) -> None:
    result = app.store("i", ValueError("bad", 1), states.FAILURE, traceback="Traceback …")
    with pytest.raises(ValueError, match="bad"):
        result.get(timeout=1)
    assert repr(result.get(propagate=False)) == "ValueError('bad', 1)"
    assert result.traceback == "Traceback …"
    with pytest.raises(ValueError, match="bad"):
        result.maybe_throw()
    assert app.store("r", TaskRevokedError("revoked"), states.REVOKED).failed() is False
    with pytest.raises(TaskRevokedError):
        app.AsyncResult("r").get(timeout=1)


def test_a_forged_failure_ends_no_process(app: App) -> None:
    for name in ("SystemExit", "KeyboardInterrupt"):
        app.put("i", b'{"status": "FAILURE", "result": {"exc_type": "%s", "exc_module": "builtins"}}' % name.encode())
        with pytest.raises(RemoteError, match=name):
            app.AsyncResult("i").get(timeout=1)


@pytest.mark.parametrize("junk", [b"", b"\xff", b"[]", b'{"status": 1}', b"\x80\x04N."])
def test_junk_in_the_store_is_an_error_of_ours(app: App, junk: bytes) -> None:
    app.put("i", junk)
    with pytest.raises(DecodeError):
        app.AsyncResult("i").get(timeout=1)
    with pytest.raises(DecodeError):
        app.AsyncResult("i").ready()


def test_callbacks(app: App, later: Any) -> None:
    told: list[Any] = []
    app.store("i", 5).get(callback=lambda *said: told.append(said))
    assert told == [("i", 5)]
    ticks: list[int] = []
    messages: list[str] = []
    heard = threading.Event()

    def work() -> None:
        for _ in range(1000):  # what is written between two waits is heard of by nobody
            app.store("j", {"n": 1}, "PROGRESS")
            if heard.wait(0.02):
                break
        app.store("j", 6)

    def hear(meta: Any) -> None:
        messages.append(meta["status"])
        if ticks:
            heard.set()

    later(work)
    result = app.AsyncResult("j")
    value = result.get(
        timeout=30,
        interval=0.01,
        on_interval=lambda: ticks.append(1),
        on_message=hear,
    )
    assert value == 6
    assert ticks
    assert messages[-1] == "SUCCESS"
    assert "PROGRESS" in messages


def test_a_failing_step_before_ends_the_wait(app: App, later: Any) -> None:
    parent = app.AsyncResult("p")
    child = app.AsyncResult("c", parent=parent)
    later(app.store, "p", ValueError("first"), states.FAILURE)
    with pytest.raises(ValueError, match="first"):
        child.get(timeout=5)
    app.store("p2", 1)
    later(app.store, "c2", 2)
    assert app.AsyncResult("c2", parent=app.AsyncResult("p2")).get(timeout=5) == 2
    with pytest.raises(TimeoutError):
        app.AsyncResult("c3", parent=parent).get(timeout=0.01, follow_parents=False)


def test_an_ignored_result_is_none_at_once(app: App) -> None:
    result = app.AsyncResult("i")
    result.ignored = True
    assert result.get() is None


def test_without_a_backend_it_says_so(app: App) -> None:
    class Disabled:
        @property
        def reader(self) -> Any:
            raise NotImplementedError("No result backend is configured")

    result: AsyncResult[Any] = AsyncResult("i", backend=Disabled(), app=app)
    for ask in (result.get, result.ready, lambda: result.state, lambda: asyncio.run(result.aget())):
        with pytest.raises(NotImplementedError, match="No result backend"):
            ask()


# ---------------------------------------------------------------- inside tasks


def request(**fields: Any) -> Any:
    return SimpleNamespace(called_directly=False, is_eager=False, _previous=None, **fields)


def test_waiting_inside_a_task_is_refused(app: App) -> None:
    result = app.store("i", 5)
    token = request_var.set(request())
    try:
        with pytest.raises(RuntimeError, match=r"Never call result\.get"):
            result.get()
        assert result.get(disable_sync_subtasks=False) == 5
        with allow_join_result():
            assert result.get() == 5
            with denied_join_result(), pytest.raises(RuntimeError):
                result.get()
        with pytest.raises(RuntimeError):
            EagerResult("i", 5, states.SUCCESS).get()
        assert asyncio.run(result.aget()) == 5
    finally:
        request_var.reset(token)
    with denied_join_result(), pytest.raises(RuntimeError):
        result.get()
    assert result.get() == 5


# ---------------------------------------------------------------- coroutines


def test_aget(app: App) -> None:
    async def main() -> None:
        async def work() -> None:
            for _ in range(5):
                await asyncio.sleep(0.001)
            app.store("i", 5)

        working = asyncio.create_task(work())
        assert await app.AsyncResult("i").aget(timeout=5) == 5
        await working
        assert await app.store("j", 6).aget() == 6
        app.store("k", ValueError("bad"), states.FAILURE)
        with pytest.raises(ValueError, match="bad"):
            await app.AsyncResult("k").aget()
        assert repr(await app.AsyncResult("k").aget(propagate=False)) == "ValueError('bad')"
        with pytest.raises(TimeoutError):
            await app.AsyncResult("never").aget(timeout=0.01)
        app.put("junk", b"[]")
        with pytest.raises(DecodeError):
            await app.AsyncResult("junk").aget(timeout=1)

    asyncio.run(main())


def test_many_coroutines_wait_on_one_thread(app: App) -> None:
    ids = [str(n) for n in range(100)]
    before = set(threading.enumerate())  # another's may be about to end

    async def main() -> None:
        waiting = [asyncio.create_task(app.AsyncResult(i).aget(timeout=5)) for i in ids for _ in range(2)]
        await asyncio.sleep(0.01)
        assert [thread.name for thread in set(threading.enumerate()) - before] == ["celeriac-results"]
        for i in ids:
            app.store(i, i)
        assert await asyncio.gather(*waiting) == [i for i in ids for _ in range(2)]

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name == "celeriac-results":
            thread.join(30)
            assert not thread.is_alive()


# ---------------------------------------------------------------- asking


def test_an_unknown_result_is_pending(app: App) -> None:
    result = app.AsyncResult("i")
    assert result.state == result.status == states.PENDING
    assert (result.result, result.info, result.traceback, result.children) == (None, None, None, None)
    assert not any((result.ready(), result.successful(), result.failed(), result.exists()))


def test_a_terminal_record_is_read_once(app: App) -> None:
    result = app.store("i", 5)
    assert result.successful()
    app.backend.reader.forget(["i"], timeout=1)
    assert result.result == 5
    assert result.exists()


def test_extended_fields(app: App) -> None:
    extended = {"name": "n", "args": [1], "kwargs": {"a": 1}, "worker": "w", "retries": 2, "queue": "q"}
    result = app.store("i", 5, extended=extended, date_done="2026-11-22T10:29:52+00:00")
    assert {key: getattr(result, key) for key in extended} == extended
    assert result.date_done == datetime(2026, 11, 22, 10, 29, 52, tzinfo=UTC)
    assert app.AsyncResult("x").name is None


def test_then(app: App) -> None:
    told: list[Any] = []
    result = app.store("i", 5)
    result.then(lambda done: told.append(done.result))
    assert not told
    result.get()
    result.then(told.append)
    failed = app.store("j", ValueError("bad"), states.FAILURE)
    failed.then(told.append, on_error=lambda exc: told.append(repr(exc)))
    failed.ready()
    assert told == [5, result, "ValueError('bad')"]


def test_forget_and_revoke(app: App) -> None:
    parent = app.store("p", 1)
    child = app.store("c", 2)
    child.parent = parent
    child.forget()
    assert (parent.state, child.state) == (states.PENDING, states.PENDING)
    child.revoke(terminate=True, signal="SIGKILL", wait=True, timeout=2)
    how = {"terminate": True, "signal": "SIGKILL", "by": None, "reason": "", "reply": True, "timeout": 2}
    assert app.revoked == [(("c",), how)]


# ---------------------------------------------------------------- the tree


def test_children_and_leaves(app: App) -> None:
    app.store("a", 1, children=[[["b", None], None], [["c", ["a", None]], None]])
    app.store("b", 2)
    app.store("c", 3)
    root = app.AsyncResult("a")
    assert root.children == ["b", "c"]
    assert root.children[1].parent == "a"
    assert [(str(node), value) for node, value in root.collect()] == [("a", 1), ("b", 2), ("c", 3)]
    assert root.get_leaf() == 3
    app.store("d", 1, children=[[["e", None], None]])
    with pytest.raises(IncompleteStream):
        list(app.AsyncResult("d").iterdeps())
    assert len(list(app.AsyncResult("d").iterdeps(intermediate=True))) == 2


@pytest.mark.parametrize("children", ["junk", [1], [[]], [[["g", None], [[["m", None], None]]]], {"a": 1}])
def test_odd_children_break_nothing(app: App, children: Any) -> None:
    body = encode_result(task_id="i", state="SUCCESS", result=1, children=children)
    app.put("i", body)
    found = app.AsyncResult("i").children
    assert found is None or all(isinstance(child, ResultBase) for child in found)


def test_tuples(app: App) -> None:
    child = app.AsyncResult("c", parent=app.AsyncResult("p"))
    assert child.as_tuple() == (("c", (("p", None), None)), None)
    assert child.as_list() == ["c", "p"]
    again = result_from_tuple(child.as_tuple(), app)
    assert (again, again.parent) == ("c", "p")
    assert result_from_tuple(child, app) is child
    assert result_from_tuple([["c", None], None], app) == child


# ---------------------------------------------------------------- as a value


def test_results_are_values(app: App) -> None:
    one, two = app.AsyncResult("i"), app.AsyncResult("i")
    assert one == two == "i"
    assert one != app.AsyncResult("j")
    assert one != 5
    assert len({one, two, "i"}) == 1
    assert (str(one), repr(one)) == ("i", "<AsyncResult: i>")
    one.task_id = "k"
    assert one.id == one.task_id == "k"
    duplicate = copy.copy(two)
    assert (duplicate.id, duplicate.app) == ("i", app)
    with pytest.raises(ValueError, match="task id"):
        app.AsyncResult(None)  # type: ignore[arg-type]


def test_results_pickle(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.client.current._default", app)
    result = app.AsyncResult("c", parent=app.AsyncResult("p"))
    again = pickle.loads(pickle.dumps(result))
    assert (again, again.parent) == ("c", "p")


# ---------------------------------------------------------------- eager


def test_eager_results() -> None:
    result: EagerResult[int] = EagerResult("i", 5, states.SUCCESS, name="n")
    assert result.get() == result.wait() == result.result == asyncio.run(result.aget()) == 5
    assert result.ready()
    assert result.successful()
    assert (result.state, result.name, result.traceback, result.children) == (states.SUCCESS, "n", None, None)
    result.forget()
    for again in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert (again.id, again.get(), again.name) == ("i", 5, "n")
    failed: EagerResult[int] = EagerResult("j", ValueError("bad"), states.FAILURE, traceback="T")
    with pytest.raises(ValueError, match="bad"):
        failed.get()
    assert repr(failed.get(propagate=False)) == "ValueError('bad')"
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get()
