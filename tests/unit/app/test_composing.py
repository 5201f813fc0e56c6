"""Signatures of a task, and its word about the workflow it runs in: ``replace`` and ``add_to_chord``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac import Celery, Signature, chain, chord, group
from celeriac.codec.body import decode_body
from celeriac.contrib.testing.app import TestApp, setup_default_app
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.settle import Accept, Completion
from celeriac.worker.options import NodeOptions
from celeriac.worker.report import Report
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import delivery

BODY = {"task": "body", "args": [], "kwargs": {}, "options": {"task_id": "body"}, "subtask_type": None}


@pytest.fixture
def app() -> Iterator[Celery]:
    app = TestApp("proj", {"broker_url": "memory://composing", "result_backend": "memory://composing"})
    with setup_default_app(app):
        yield app


@pytest.fixture
def add(app: Celery) -> Any:
    return app.task(name="add")(lambda x, y=0: x + y)


@pytest.fixture
def run(app: Celery) -> Callable[..., Completion]:
    """``run(body, **embed)``: what follows when a task with that body runs as ``id``, at place 2 of chord ``g``."""
    numbers = itertools.count()

    def run(body: Any, **embed: Any) -> Completion:
        name = f"task-{next(numbers)}"
        app.task(name=name, bind=True)(body)
        runner = Runner(app, NodeOptions(hostname="w@h", queues=("celery",)), slot=None, report=Report(), results=True)
        headers = {"group": "g", "group_index": 2, "root_id": "root"} if "chord" in embed else {"root_id": "root"}
        whole = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, **embed}
        completion = runner.run(delivery(name, id="id", headers=headers, embed=whole))
        assert isinstance(completion, Completion)
        return completion

    return run


def sent(completion: Completion) -> list[Any]:
    """Task, arguments and what follows of each message."""
    found = []
    for message in completion.publish:
        args, _, embed = decode_body(message, accept=frozenset({"json"}), max_bytes=1 << 20)
        found.append((message, args, embed))
    return found


def stored(completion: Completion) -> Any:
    assert completion.result is not None
    return json.loads(completion.result.body)


# -- signatures ----------------------------------------------------------------------------------------------------


def test_signatures(add: Any) -> None:
    assert add.s(1, y=2) == Signature("add", (1,), {"y": 2})
    assert add.si(1).immutable
    assert add.signature((1,), countdown=5) == add.subtask((1,), countdown=5) == Signature("add", (1,), countdown=5)
    assert add.signature((1,), {"y": 2}, {"queue": "q"}, immutable=True).options == {"queue": "q"}
    assert all(each.app is add.app for each in (add.s(), add.si(), add.map([]), add.starmap([]), add.chunks([], 1)))


# -- replace -------------------------------------------------------------------------------------------------------


def test_another_takes_over_the_id_and_what_follows(add: Any, run: Any) -> None:
    after = [dict(add.s(20).set(task_id="last")), dict(add.s(10).set(task_id="next"))]
    completion = run(
        lambda self: self.replace(add.s(1)), callbacks=[dict(add.s(7))], errbacks=[dict(add.s(8))], chain=after
    )
    ((message, args, embed),) = sent(completion)
    assert (message.id, args, message.headers["root_id"]) == ("id", [1], "root")
    assert [each["args"] for each in embed.callbacks] == [[7]]
    assert [each["args"] for each in embed.errbacks] == [[8]]
    assert [each["options"]["task_id"] for each in embed.chain] == ["last", "next"]
    assert message.headers["replaced_task_nesting"] == 1
    assert (completion.result, completion.others, completion.parts) == (None, (), ())
    assert isinstance(completion.settlement, Accept)


def test_in_a_chord_the_place_is_taken_over(add: Any, run: Any) -> None:
    completion = run(lambda self: self.replace(add.s(1)), chord=BODY)
    ((message, _, embed),) = sent(completion)
    assert (message.id, message.headers["group"], message.headers["group_index"]) == ("id", "g", 2)
    assert embed.chord["options"] == {"task_id": "body"}
    assert completion.parts == ()


def test_by_a_chain_its_last_step_has_the_id(add: Any, run: Any) -> None:
    completion = run(lambda self: self.replace(chain(add.s(1), add.s(2))), callbacks=[dict(add.s(7))], chord=BODY)
    ((message, _, embed),) = sent(completion)
    (last,) = embed.chain
    options = last["options"]
    assert message.id != "id"
    assert (options["task_id"], options["group_id"], options["group_index"]) == ("id", "g", 2)
    assert [each["args"] for each in options["link"]] == [[7]]
    assert embed.callbacks is embed.chord is None


@pytest.mark.parametrize(
    "make", [lambda add: group(add.s(1), add.s(2)), lambda add: chain(add.s(0), group(add.s(1), add.s(2)))]
)
def test_by_a_group_a_task_collects_its_results(add: Any, run: Any, make: Any) -> None:
    ((_, _, embed), *_) = sent(run(lambda self: self.replace(make(add))))
    follows = embed.chord or embed.chain[0]
    while follows["subtask_type"] == "chord":
        follows = follows["kwargs"]["body"]
    assert (follows["task"], follows["kwargs"], follows["options"]["task_id"]) == (
        "celery.accumulate",
        {"index": 0},
        "id",
    )


def test_by_a_chord_its_body_has_the_id(add: Any, run: Any) -> None:
    completion = run(lambda self: self.replace(chord([add.s(1), add.s(2)], add.s())), chord=BODY)
    assert [opened.size for opened in completion.opens] == [2]
    for message, _, embed in sent(completion):
        options = embed.chord["options"]
        assert message.headers["group"] == completion.opens[0].id
        assert (options["task_id"], options["group_id"], options["group_index"]) == ("id", "g", 2)
        assert options["chord"]["task"] == "body"


def test_what_cannot_replace(add: Any, run: Any) -> None:
    for wrong in (chain(), add.s(1).set(chord=BODY)):
        completion = run(lambda self, wrong=wrong: self.replace(wrong))
        assert stored(completion)["result"]["exc_type"] == ImproperlyConfigured.__name__
        assert not completion.publish


def test_a_replacement_that_cannot_be_sent_fails_the_task(add: Any, run: Any) -> None:
    completion = run(lambda self: self.replace(add.s({1})), chord=BODY)
    assert stored(completion)["status"] == "FAILURE"
    assert [json.loads(part.value)[2] for part in completion.parts] == ["FAILURE"]


def test_what_replaces_is_left_as_it_was(add: Any, run: Any) -> None:
    """Who keeps a signature, in a module or for each retry, may replace with it again."""
    kept = chain(add.s(1), add.s(2))
    before = json.dumps(kept)
    run(lambda self: self.replace(kept), callbacks=[dict(add.s(7))], errbacks=[dict(add.s(8))])
    assert json.dumps(kept) == before


def test_eager_it_runs_in_place(app: Celery, add: Any) -> None:
    task = app.task(name="outer", bind=True)(lambda self, n: self.replace(add.s(n, 1)))
    assert task.apply((4,)).get() == 5
    several = app.task(name="several", bind=True)(lambda self: self.replace(group(add.s(1), add.s(2))))
    assert several.apply().get() == [1, 2]


def test_eager_errbacks_get_what_a_worker_gives_them(app: Celery) -> None:
    """Celery 4 and later: who takes several arguments is called with request, exception and traceback."""
    seen: list[Any] = []
    fail = app.task(name="fail")(lambda: 1 / 0)
    old = app.task(name="old")(seen.append)
    new = app.task(name="new")(lambda request, exc, traceback: seen.append((request.id, type(exc), bool(traceback))))
    fail.apply(task_id="x", link_error=[old.s(), new.s()])
    assert seen == ["x", ("x", ZeroDivisionError, True)]


# -- add_to_chord --------------------------------------------------------------------------------------------------


def test_what_is_added_is_sent_in_the_step_that_joins(add: Any, run: Any) -> None:
    added: list[Any] = []

    def body(self: Any) -> int:
        added.append(self.add_to_chord(add.s(9)))
        return 1

    completion = run(body, chord=BODY)
    ((message, args, embed),) = sent(completion)
    (part,) = completion.parts
    assert (message.id, args, message.headers["group"]) == (added[0].id, [9], "g")
    assert embed.chord["task"] == "body"
    assert (part.grows, part.index) == (1, 2)


def test_lazily_the_caller_sends(add: Any, run: Any) -> None:
    kept: list[Any] = []

    def body(self: Any) -> None:
        kept.append(self.add_to_chord(add.s(9), lazy=True))

    completion = run(body, chord=BODY)
    assert (list(completion.publish), completion.parts[0].grows) == ([], 1)
    assert (kept[0].options["group_id"], kept[0].options["chord"]["task"]) == ("g", "body")


def test_when_it_fails_or_tries_again_nothing_is_added(add: Any, run: Any) -> None:
    def failing(self: Any) -> None:
        self.add_to_chord(add.s(9))
        raise ValueError

    def retrying(self: Any) -> None:
        self.add_to_chord(add.s(9))
        raise self.retry(countdown=1)

    failed, again = run(failing, chord=BODY), run(retrying, chord=BODY)
    assert (list(failed.publish), [part.grows for part in failed.parts]) == ([], [0])
    assert ([message.retries for message in again.publish], again.parts) == ([1], ())


def test_who_has_added_is_not_replaced(add: Any, run: Any) -> None:
    """A replaced attempt tells its chord nothing, so what it has added would not be waited for."""

    def body(self: Any) -> Any:
        self.add_to_chord(add.s(9))
        return self.replace(add.s(1))

    completion = run(body, chord=BODY)
    assert (sent(completion), stored(completion)["result"]["exc_type"]) == ([], "ImproperlyConfigured")


def test_outside_of_a_chord(add: Any, run: Any) -> None:
    completion = run(lambda self: self.add_to_chord(add.s(1)))
    assert stored(completion)["result"]["exc_type"] == "ValueError"
