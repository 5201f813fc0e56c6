from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from celeriac import Celery, Signature, maybe_signature, signature
from tests.unit.app.conftest import Collector


@pytest.fixture
def add(app: Celery) -> Any:
    return app.task(name="add")(lambda x, y=0: x + y)


def test_what_a_signature_is(add: Any) -> None:
    sig = add.s(1, y=2)
    assert sig == {
        "task": "add",
        "args": (1,),
        "kwargs": {"y": 2},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    assert list(sig) == ["task", "args", "kwargs", "options", "subtask_type", "immutable"]
    assert (sig.task, sig.name, sig.args, sig.kwargs, sig.options) == ("add", "add", (1,), {"y": 2}, {})
    assert sig.type is add
    assert repr(sig) == "add(1, y=2)"
    assert sig.reprcall(9) == "add(9, 1, y=2)"
    assert add.si(1).immutable
    assert add.signature((1,), {"y": 2}, countdown=3).options == {"countdown": 3}
    assert add.signature((1,), options={"queue": "q"}, countdown=3).options == {"queue": "q", "countdown": 3}


def test_from_names_dicts_and_json(app: Celery, add: Any) -> None:
    sig = signature("add", args=(1,), kwargs={"y": 2}, queue="q")
    assert sig.options == {"queue": "q"}
    again = signature(json.loads(json.dumps(sig)))
    assert isinstance(again, Signature)
    assert list(again.args) == [1]
    assert signature({**sig, "chord_size": 3})["chord_size"] == 3
    assert maybe_signature(None) is None
    assert maybe_signature(sig) is sig
    assert maybe_signature(sig, clone=True) is not sig
    assert maybe_signature(dict(sig), app=app).app is app
    assert app.signature("add")._app is app


def test_arguments_of_the_call_come_first(app: Celery, add: Any, collecting: Collector) -> None:
    add.s(1).delay(5)
    assert collecting.body()[0] == [5, 1]
    add.si(1).delay(5)
    assert collecting.body()[0] == [1]
    add.s(1, y=2).set(queue="q").apply_async(kwargs={"y": 3}, priority=4)
    assert collecting.body()[:2] == ([1], {"y": 3})
    assert (collecting.last.queue, collecting.last.priority) == ("q", 4)


def test_unknown_task_is_sent_by_name(app: Celery, collecting: Collector) -> None:
    signature("elsewhere", (1,), app=app).apply_async((0,), queue="q")
    assert (collecting.last.task, collecting.last.queue) == ("elsewhere", "q")
    assert collecting.body()[0] == [0, 1]


def test_call_and_apply(add: Any) -> None:
    assert add.s(1)(2) == 3
    assert add.s(1).apply((5,)).get() == 6


def test_clone_shares_nothing_that_changes(add: Any) -> None:
    sig = add.s(1, y=2).set(headers={"a": 1})
    clone = sig.clone((0,), {"y": 3}, queue="q")
    clone.options["headers"]["a"] = 2
    clone.kwargs["z"] = 1
    assert (clone.args, clone.kwargs) == ((0, 1), {"y": 3, "z": 1})
    assert sig == add.s(1, y=2).set(headers={"a": 1})
    assert clone.type is add
    assert sig.replace(args=(7,)).args == (7,)


def test_set_link_and_errbacks(add: Any) -> None:
    sig = add.s(1)
    callback = add.s(2)
    assert sig.set(countdown=3, immutable=True) is sig
    assert sig.immutable
    assert sig.link(callback) is callback
    sig.link(callback)
    assert sig.options["link"] == [callback]
    assert sig.on_error(add.s(3)) is sig
    assert sig.options["link_error"] == [add.s(3)]
    callback.link(add.s(4))
    assert [part.args for part in sig.flatten_links()] == [(1,), (2,), (4,)]


def test_freeze(app: Celery, add: Any, collecting: Collector) -> None:
    sig = add.s(1)
    result = sig.freeze()
    assert sig.freeze().id == result.id == sig.id
    assert sig.options["reply_to"] == app.thread_oid
    assert sig.delay().id == result.id
    named = add.s(1)
    named.freeze("i", group_id="g", chord={"task": "c"}, root_id="r", parent_id="p", group_index=2)
    assert named.options["task_id"] == "i"
    assert (named.options["group_id"], named.options["group_index"], named.options["chord"]) == ("g", 2, {"task": "c"})
    assert (named.root_id, named.parent_id) == ("r", "p")
    named.apply_async(group_id="other")
    assert collecting.last.headers["group"] == "g"


def test_pickle_and_copy(add: Any) -> None:
    sig = add.s(1, y=2).set(queue="q")
    assert pickle.loads(pickle.dumps(sig)) == sig
    assert type(pickle.loads(pickle.dumps(sig))) is Signature
    assert copy.deepcopy(sig) == sig
    assert copy.copy(sig) == sig


def test_subtask_types_can_be_added(add: Any) -> None:
    @Signature.register_type("twice")
    class Twice(Signature[Any]):
        @classmethod
        def from_dict(cls, d: Any, app: Any = None) -> Signature[Any]:
            return cls(dict(d), app=app)

    try:
        assert type(signature({**add.s(), "subtask_type": "twice"})) is Twice
    finally:
        del Signature.TYPES["twice"]
