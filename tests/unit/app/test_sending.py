from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from celeriac import Celery, signals, signature
from celeriac.app.request import Request
from celeriac.app.trace import tracer_for
from celeriac.client.queues import Exchange, Queue
from celeriac.exceptions import AlwaysEagerIgnored, EncodeError, OperationalError
from celeriac.model.message import Message
from celeriac.result import AsyncResult
from tests.unit.app.conftest import Collector


def test_delay(app: Celery, collecting: Collector) -> None:
    add = app.task(name="add")(lambda x, y: x + y)
    result = add.delay(2, y=3)
    assert isinstance(result, AsyncResult)
    assert (result.id, result.app) == (collecting.last.id, app)
    assert (collecting.last.task, collecting.last.queue) == ("add", "celery")
    assert collecting.body()[:2] == ([2], {"y": 3})


def test_options_of_task_and_call(app: Celery, collecting: Collector) -> None:
    task = app.task(name="n", queue="q", priority=3, expires=60, ignore_result=True)(lambda: 1)
    task.apply_async()
    last = collecting.last
    assert (last.queue, last.priority, last.headers["ignore_result"]) == ("q", 3, True)
    assert last.expires is not None
    result = task.apply_async(
        queue="r", priority=5, task_id="i", headers={"tenant": 7}, shadow="s", time_limit=9, ignore_result=False
    )
    last = collecting.last
    assert (last.queue, last.priority, last.id) == ("r", 5, "i")
    assert (last.headers["tenant"], last.headers["shadow"], last.headers["timelimit"]) == (7, "s", [9, None])
    assert (result.id, result.ignored) == ("i", False)


def test_arguments_are_checked_when_sent(app: Celery, collecting: Collector) -> None:
    @app.task(name="n")
    def f(a: int, /, b: int, *, c: int = 3) -> None: ...

    f.delay(1, 2, c=4)
    for args, kwargs, message in (
        ((1,), {}, r"f\(\) missing 1 required positional argument: 'b'"),
        ((1, 2, 3), {}, "takes 2 positional arguments but 3"),
        ((1, 2), {"d": 1}, "unexpected keyword argument 'd'"),
    ):
        with pytest.raises(TypeError, match=message):
            f.apply_async(args, kwargs)
    assert len(collecting.messages) == 1


def test_bound_task_is_checked_without_self(app: Celery, collecting: Collector) -> None:
    @app.task(bind=True)
    def f(self: Any, a: int, b: int = 2) -> None: ...

    f.delay(1)
    f.delay(1, b=3)
    with pytest.raises(TypeError, match="'a'"):
        f.delay()


@pytest.mark.parametrize("how", ["task", "app"])
def test_check_can_be_switched_off(how: str, sent: Collector) -> None:
    app = Celery(set_as_current=False, strict_typing=how != "app")
    task = app.task(name="n", **({"typing": False} if how == "task" else {}))(lambda x: x)
    task.apply_async((1, 2, 3), producer=sent)
    assert sent.body()[0] == [1, 2, 3]


def test_producer_gets_the_message(app: Celery, sent: Collector) -> None:
    app.task(name="n")(lambda: 1).apply_async(producer=sent)
    app.send_task("other", producer=sent)
    assert [message.task for message in sent.messages] == ["n", "other"]


def test_send_task_by_name(app: Celery, collecting: Collector) -> None:
    result = app.send_task("elsewhere.f", (1,), {"a": 2}, queue="q", task_id="i", countdown=5)
    assert (result.id, collecting.last.task, collecting.last.queue) == ("i", "elsewhere.f", "q")
    assert collecting.last.headers["eta"]
    app.task(name="known", queue="k")(lambda: 1)
    app.send_task("known")
    assert collecting.last.queue == "k"
    app.send_task("known", queue="z")
    assert collecting.last.queue == "z"


def test_send_task_warns_that_it_is_never_eager(app: Celery, collecting: Collector) -> None:
    app.conf.task_always_eager = True
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("x")


def test_encode_error_names_the_task(app: Celery, collecting: Collector) -> None:
    with pytest.raises(EncodeError, match=r"\bn\b"):
        app.task(name="n")(lambda x: 1).delay(object())


def test_shadow_name(app: Celery, collecting: Collector) -> None:
    task = app.task(name="n", shadow_name=lambda self, args, kwargs, options: f"n-{args[0]}")(lambda x: 1)
    task.delay(5)
    assert collecting.last.headers["shadow"] == "n-5"


def test_sent_inside_a_task(app: Celery, collecting: Collector) -> None:
    inner = app.task(name="inner")(lambda: 1)
    outer = app.task(name="outer")(lambda: inner.delay())
    message = Message(id="i", task="outer", headers={"root_id": "r"}, body=b"")
    request = Request.from_message(message, [], {})
    tracer_for(outer).run(request)
    assert (collecting.last.headers["parent_id"], collecting.last.headers["root_id"]) == ("i", "r")
    assert [child.id for child in request.children] == [collecting.last.id]  # type: ignore[attr-defined]
    tracer_for(outer).run(other := Request.from_message(message, [], {}))
    assert other.children != request.children  # type: ignore[attr-defined]


def test_trail_and_add_to_parent(app: Celery, collecting: Collector) -> None:
    inner = app.task(name="inner")(lambda: 1)
    quiet = app.task(name="quiet", trail=False)(lambda: inner.delay())
    apart = app.task(name="apart")(lambda: inner.apply_async(add_to_parent=False))
    for task in (quiet, apart):
        request = Request.from_message(Message(id="i", task=task.name, headers={}, body=b""), [], {})
        tracer_for(task).run(request)
        assert request.children == []  # type: ignore[attr-defined]


def test_patched_and_overridden_apply_async_is_called_by_delay(app: Celery, collecting: Collector) -> None:
    class Base(app.Task):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            return super().apply_async(args, kwargs, headers={"from": "base"}, **options)

    task = app.task(name="n", base=Base)(lambda: 1)
    task.delay()
    task.s().delay()
    app.send_many([task.s()])
    assert [message.headers["from"] for message in collecting.messages] == ["base"] * 3


def test_adelay_does_not_block_the_loop(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    task = app.task(name="n")(lambda x: x)
    go, sends = threading.Event(), []

    def send(message: Message, **options: Any) -> None:
        assert go.wait(10)
        sends.append(message)

    monkeypatch.setattr(app.sender, "send", send)

    async def main() -> AsyncResult[Any]:
        sending = asyncio.ensure_future(task.adelay(1))
        await asyncio.sleep(0)
        assert not sends
        go.set()
        return await sending

    assert asyncio.run(main()).id == sends[0].id


def test_many_calls_of_one_task(app: Celery, collecting: Collector) -> None:
    add = app.task(name="add", queue="q")(lambda x, y=0: x + y)
    results = add.delay_many([(1, 2), [3], ((4,), {"y": 5})], priority=3)
    assert [result.id for result in results] == [message.id for message in collecting.messages]
    assert [collecting.body(index)[:2] for index in range(3)] == [([1, 2], {}), ([3], {}), ([4], {"y": 5})]
    assert {(message.queue, message.priority) for message in collecting.messages} == {("q", 3)}
    with pytest.raises(TypeError, match="takes from 1 to 2"):
        add.delay_many([(1, 2, 3)])


def test_many_signatures_in_chunks(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    add = app.task(name="add")(lambda x, y=0: x + y)
    sizes: list[int] = []
    taken = 0

    def calls() -> Any:
        nonlocal taken
        for number in range(25):
            taken += 1
            yield add.s(number)

    def send(batch: list[Message], **options: Any) -> None:
        sizes.append(len(batch))
        assert taken - sum(sizes) <= 0

    monkeypatch.setattr(app.sender, "send", send)
    results = app.send_many(calls(), chunk=10)
    assert sizes == [10, 10, 5]
    assert len({result.id for result in results}) == 25
    with pytest.raises(ValueError, match="chunk"):
        app.send_many([], chunk=0)
    assert app.send_many([]) == []


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (10, [10]), (11, []), (25, [])])
def test_all_or_none(app: Celery, monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]) -> None:
    add = app.task(name="add")(lambda x, y=0: x + y)
    sent: list[int] = []
    staged: list[tuple[str, int]] = []
    launched: list[tuple[str, int]] = []
    told: list[str] = []

    def stage(batch: list[Message], name: str) -> int:
        staged.append((name, len(batch)))
        return len(batch)

    def tell(sender: str, **kwargs: Any) -> None:
        assert launched
        told.append(sender)

    monkeypatch.setattr(app.sender, "send", lambda batch, **options: sent.append(len(batch)))
    monkeypatch.setattr(app.sender, "stage", stage)
    monkeypatch.setattr(app.sender, "launch", lambda name, count: launched.append((name, count)))
    signals.after_task_publish.connect(tell)
    try:
        results = app.send_many((add.s(n) for n in range(count)), chunk=10, together=True)
    finally:
        signals.after_task_publish.disconnect(tell)
    assert len({result.id for result in results}) == count
    assert sent == sizes
    if count > 10:
        ((name, total),) = launched
        assert total == count
        assert [size for _, size in staged] == {11: [10, 1], 25: [10, 10, 5]}[count]
        assert {part[0] for part in staged} == {name}
        assert told == ["add"] * count
    else:
        assert not staged


def test_what_cannot_be_put_aside_was_not_sent(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    add = app.task(name="add")(lambda x, y=0: x + y)

    def fails(*args: Any, **options: Any) -> None:
        error = OperationalError("gone")
        error.uncertain = True
        raise error

    monkeypatch.setattr(type(app.sender.publisher), "stage", fails)
    with pytest.raises(OperationalError, match="gone") as caught:
        app.send_many((add.s(n) for n in range(11)), chunk=10, together=True)
    assert not caught.value.uncertain


def test_a_fan_out_is_counted_as_what_it_becomes(app: Celery) -> None:
    exchange = Exchange("all")
    app.conf.task_queues = [Queue("one", exchange, routing_key="x"), Queue("two", exchange, routing_key="x")]
    add = app.task(name="add")(lambda x, y=0: x + y)
    app.send_many((add.s(n).set(exchange="all", routing_key="x") for n in range(25)), chunk=10, together=True)
    depth = app.sender.publisher.depth(["one", "two"], timeout=5.0)
    assert [depth[name].ready for name in ("one", "two")] == [25, 25]


def test_many_of_all_kinds(app: Celery, collecting: Collector) -> None:
    add = app.task(name="add")(lambda x, y=0: x + y)
    results = app.send_many([add.s(1) | add.s(2), dict(add.s(3)), signature("elsewhere", (4,)).set(queue="q")])
    assert [message.task for message in collecting.messages] == ["add", "add", "elsewhere"]
    assert results[0].parent.id == collecting.messages[0].id
    assert collecting.last.queue == "q"


def test_urls(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def urls(**settings: Any) -> tuple[str, str | None]:
        app = Celery(set_as_current=False, **settings)
        return app.broker_url, app.backend_url

    broker, backend = urls()
    assert broker == backend
    assert broker.startswith("sqlite:////")
    assert broker.endswith("tests/unit/app/celeriac.db")
    assert urls(broker="redis://h") == ("redis://h", None)
    assert urls(broker="redis://h", backend="redis://r") == ("redis://h", "redis://r")
    assert urls(broker="sqlite:///x.db") == ("sqlite:///x.db", "sqlite:///x.db")
    assert urls(broker="memory://") == ("memory://", "memory://")
    assert urls(broker="memory://", backend="disabled://") == ("memory://", None)


def test_without_backend_get_says_so_at_once() -> None:
    app = Celery(set_as_current=False, broker="redis://h")
    with pytest.raises(NotImplementedError, match="No result backend is configured"):
        app.AsyncResult("i").get()
    assert app.backend.store_result("i", 1, "SUCCESS") == 1
    assert app.backend.as_uri() == "disabled://"


def test_update_state(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = []
    monkeypatch.setattr(type(app.backend), "store_result", lambda self, *args, **kwargs: stored.append(args))

    @app.task(bind=True)
    def f(self: Any) -> None:
        self.update_state(state="PROGRESS", meta={"done": 1})
        self.update_state("other", "PROGRESS")

    f.apply(task_id="i")
    assert stored == [("i", {"done": 1}, "PROGRESS"), ("other", None, "PROGRESS")]


def test_settings_changed_later_are_seen(app: Celery, sent: Collector) -> None:
    task = app.task(name="n")(lambda: 1)
    task.apply_async(producer=sent)
    app.conf.task_routes = {"n": "routed"}
    task.apply_async(producer=sent)
    assert [message.queue for message in sent.messages] == ["celery", "routed"]
    assert app.amqp.router is app.sender.router
    assert app.amqp.default_queue.name == "celery"
