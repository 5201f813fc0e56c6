from __future__ import annotations

import asyncio
import pickle
import threading
from typing import Any

import pytest

from celeriac import Celery, current_task
from celeriac.app.request import Request
from celeriac.app.trace import tracer_for
from celeriac.model.message import Message
from celeriac.model.outcome import Embed

HEADERS = {
    "lang": "py",
    "task": "n",
    "id": "i",
    "retries": 2,
    "root_id": "r",
    "parent_id": "p",
    "group": "g",
    "group_index": 4,
    "eta": "2026-11-22T08:06:45+00:00",
    "timelimit": [10, 5],
    "argsrepr": "(1,)",
    "ignore_result": None,
    "tenant": 7,
    "x-death": [],
}


def message(**fields: Any) -> Message:
    return Message(
        **{
            "id": "i", "task": "n", "headers": HEADERS, "body": b"", "queue": "q", "priority": 3, "retries": 2,
            "time_limit": 10.0, "soft_time_limit": 5.0, **fields,
        }
    )  # fmt: skip


def test_fields_come_from_the_message() -> None:
    embed = Embed(callbacks=[{"task": "c"}], chain=[{"task": "d"}])
    request = Request.from_message(message(), [1], {"a": 2}, embed, hostname="w@h", redelivered=True)
    assert (request.id, request.task, request.args, request.kwargs) == ("i", "n", [1], {"a": 2})
    assert (request.retries, request.root_id, request.parent_id) == (2, "r", "p")
    assert (request.group, request.group_index, request.hostname) == ("g", 4, "w@h")
    assert (request.time_limit, request.soft_time_limit, request.timelimit) == (10.0, 5.0, [10, 5])
    assert (request.callbacks, request.chain, request.chord) == ([{"task": "c"}], [{"task": "d"}], None)
    assert request.delivery_info == {"exchange": "", "routing_key": "q", "priority": 3, "redelivered": True}
    assert request.correlation_id == "i"
    assert request.properties is not None
    assert request.properties["content_type"] == "application/json"
    assert not request.called_directly
    assert not request.is_eager
    assert request.ignore_result is False
    assert request.asks_to_ignore_result is None


def test_custom_headers_are_attributes_and_headers() -> None:
    request = Request.from_message(message(), [], {})
    assert request.tenant == 7  # type: ignore[attr-defined]
    assert request.headers == {"tenant": 7, "x-death": []}
    assert request.get("tenant") == 7
    assert request.get("nothing", 1) == 1
    with pytest.raises(AttributeError, match="'Request' object has no attribute 'nothing'"):
        assert request.nothing  # type: ignore[attr-defined]
    assert Request.from_message(message(headers={"task": "n", "id": "i"}), [], {}).headers is None
    assert Request.from_message(message(headers={"headers": {"a": 1}}), [], {}).headers == {"a": 1}


def test_it_is_mutable_and_shares_nothing() -> None:
    request, other = Request.from_message(message(), [], {}), Request.from_message(message(), [], {})
    request.retries = 9
    request.children.append("child")  # type: ignore[attr-defined]
    request.update(group="x", timelimit=(3, 2))
    assert (request.retries, request.group, request.time_limit, request.soft_time_limit) == (9, "x", 3, 2)
    assert (other.retries, other.group, other.children) == (2, "g", [])  # type: ignore[attr-defined]
    request.update(timelimit=None)
    assert request.time_limit is None


def test_a_request_without_message_has_defaults() -> None:
    request = Request(id="i", args=(1,), custom=1)
    assert request.called_directly
    assert request.retries == 0
    assert request.headers == {"custom": 1}
    assert request.delivery_info is None
    request.clear()
    assert request.id is None


def test_execution_options_leave_death_headers_out() -> None:
    options = Request.from_message(message(), [], {}).as_execution_options()
    assert options["headers"] == {"tenant": 7}
    assert (options["task_id"], options["group_id"], options["retries"]) == ("i", "g", 2)
    assert (options["time_limit"], options["soft_time_limit"]) == (10, 5)


def test_stamps_are_execution_options() -> None:
    request = Request(stamps={"a": [1], "b": 2}, stamped_headers=["a"])
    options = request.as_execution_options()
    assert options["stamped_headers"] == ["a"]
    assert options["a"] == [1]
    assert "b" not in options


def test_it_pickles() -> None:
    request = pickle.loads(pickle.dumps(Request.from_message(message(), [1], {}, hostname="w@h")))
    assert (request.id, request.args, request.tenant, request.retries, request.called_directly) == (
        "i",
        [1],
        7,
        2,
        False,
    )


def test_stack_is_per_task_and_per_context(app: Celery) -> None:
    seen: list[Any] = []

    @app.task(bind=True)
    def inner(self: Any) -> None:
        seen.append((self.request.called_directly, self.request.args, outer.request.id, current_task.name))
        seen.append(app.current_worker_task)

    @app.task(bind=True)
    def outer(self: Any, x: int) -> None:
        seen.append(self.request.id)
        inner()
        threads = threading.Thread(target=lambda: seen.append(self.request.id))
        threads.start()
        threads.join()

    tracer_for(outer).run(Request.from_message(message(), [5], {}))
    assert seen == ["i", (True, (), "i", inner.name), outer, None]
    assert not current_task
    assert outer.request.id is None


def test_calling_a_task_from_its_own_call_keeps_the_request(app: Celery) -> None:
    class InContext(app.Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    @app.task(bind=True, base=InContext)
    def f(self: Any, x: int) -> Any:
        self.request.children.append("c")
        return self.request.id, self.request.called_directly, self.request.args

    request = Request.from_message(message(), [5], {})
    assert tracer_for(f).run(request).value == ("i", False, (5,))  # type: ignore[union-attr]
    assert request.children == ["c"]  # type: ignore[attr-defined]


def test_each_coroutine_has_its_request(app: Celery) -> None:
    @app.task(bind=True)
    async def f(self: Any, x: int) -> Any:
        before = self.request.id
        await asyncio.sleep(0)
        return before, self.request.id, await g(x)

    @app.task(bind=True)
    async def g(self: Any, x: int) -> Any:
        await asyncio.sleep(0)
        return self.request.args, f.request.id

    async def main() -> list[Any]:
        tracer = tracer_for(f)
        requests = [Request.from_message(message(id=str(n)), [n], {}) for n in range(3)]
        return await asyncio.gather(*(tracer.arun(request) for request in requests))

    assert [outcome.value for outcome in asyncio.run(main())] == [(str(n), str(n), ((n,), str(n))) for n in range(3)]


def test_push_and_pop_request(app: Celery) -> None:
    task = app.task(name="n")(lambda: 1)
    task.push_request(id="a", retries=1)
    task.push_request(retries=2)
    assert (task.request.id, task.request.retries) == ("a", 2)
    assert len(task.request_stack) == 2
    task.pop_request()
    assert task.request.retries == 1
    task.pop_request()
    assert task.request.id is None


def test_request_class_of_the_task(app: Celery) -> None:
    class Mine(Request):
        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
            seen.append(exc_info.exception)

    seen: list[Any] = []

    @app.task(Request=Mine)
    def f() -> None:
        raise KeyError(1)

    assert f.request_class is Mine
    tracer_for(f).run(f.request_class.from_message(message(), [], {}))
    assert [type(exc) for exc in seen] == [KeyError]
    assert app.task(name="m", Request="celery.worker.request:Request")(lambda: 1).request_class is Request
