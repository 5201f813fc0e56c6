from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, Signature, chain, signature
from tests.unit.app.conftest import Collector

GOLDEN = json.loads((Path(__file__).parents[2] / "compat" / "golden" / "workflows.json").read_text())


@pytest.fixture
def add(app: Celery) -> Any:
    return app.task(name="golden.add")(lambda x, y=0: x + y)


def following(sent: Collector) -> list[dict[str, Any]]:
    return json.loads(sent.last.body)[2]["chain"] or []  # type: ignore[no-any-return]


def test_ways_to_make_one(add: Any) -> None:
    by_operator = add.s(1) | add.s(2) | add.s(3)
    for other in (
        chain(add.s(1), add.s(2), add.s(3)),
        chain([add.s(1), add.s(2), add.s(3)]),
        chain(add.s(n) for n in (1, 2, 3)),
        chain(add.s(1), chain(add.s(2), add.s(3))),
        add.s(1) | (add.s(2) | add.s(3)),
        signature(json.loads(json.dumps(by_operator))),
        pickle.loads(pickle.dumps(by_operator)),
    ):
        assert isinstance(other, chain)
        assert repr(other) == repr(by_operator) == "golden.add(1) | golden.add(2) | golden.add(3)"
    assert by_operator["task"] == "celery.chain"
    assert by_operator["subtask_type"] == "chain"
    assert all(type(step) is Signature for step in by_operator.tasks)
    with pytest.raises(TypeError, match="made of signatures"):
        chain(add, 3)


def test_sent_as_first_message_with_the_rest_in_reverse(add: Any, collecting: Collector) -> None:
    result = chain(add.s(1, 2), add.s(3), add.s(4)).delay()
    assert len(collecting.messages) == 1
    assert collecting.body()[0] == [1, 2]
    rest = following(collecting)
    assert [step["args"] for step in rest] == [[4], [3]]
    assert result.id == rest[0]["options"]["task_id"]
    assert result.parent.id == rest[1]["options"]["task_id"]
    assert result.parent.parent.id == collecting.last.id


@pytest.mark.parametrize("name", ["chain", "chain_countdown", "chain_immutable", "chain_link_error"])
def test_as_celery_sends_it(app: Celery, add: Any, collecting: Collector, name: str) -> None:
    failed = app.task(name="golden.failed")(lambda task_id: task_id)
    {
        "chain": lambda: (add.s(1, 2) | add.s(3) | add.s(4)).delay(),
        "chain_countdown": lambda: (add.s(1, 2) | add.s(3).set(countdown=60)).delay(),
        "chain_immutable": lambda: (add.s(1, 2) | add.si(3, 4)).delay(),
        "chain_link_error": lambda: chain(add.s(1, 2), add.s(3)).on_error(failed.s()).delay(),
    }[name]()
    envelope = json.loads(GOLDEN["sent_by_the_producer"][name]["messages"][0]["raw"])
    expected = json.loads(base64.b64decode(envelope["body"]))
    ours = json.loads(collecting.last.body)
    assert list(ours[2]) == list(expected[2])
    assert _without_ids(ours) == _without_ids(expected)
    assert list(collecting.last.headers) == list(envelope["headers"])


def _without_ids(body: Any) -> Any:
    for step in body[2]["chain"]:
        for key in ("task_id", "reply_to"):
            assert step["options"].pop(key)
    return body


def test_options_and_callbacks(app: Celery, add: Any, collecting: Collector) -> None:
    (add.s(1) | add.s(2)).apply_async(
        (0,), countdown=5, task_id="last", link=add.s(8), link_error=add.s(9), queue="q", root_id="r", parent_id="p"
    )
    headers = collecting.last.headers
    assert collecting.body()[0] == [0, 1]
    assert (collecting.last.queue, headers["root_id"], headers["parent_id"]) == ("q", "r", "p")
    assert headers["eta"]
    embed = collecting.body()[2]
    (last,) = following(collecting)
    assert (last["options"]["task_id"], last["options"]["root_id"]) == ("last", "r")
    assert [callback["args"] for callback in last["options"]["link"]] == [[8]]
    assert [errback["args"] for errback in last["options"]["link_error"]] == [[9]]
    assert [errback["args"] for errback in embed.errbacks] == [[9]]
    assert embed.callbacks is None
    assert "countdown" not in last["options"]


def test_sending_changes_nothing_in_the_chain(add: Any, collecting: Collector) -> None:
    workflow = add.s(1) | add.s(2)
    before = repr(dict(workflow))
    workflow.delay()
    first = collecting.last.id
    workflow.delay()
    assert collecting.last.id != first
    assert repr({**workflow, "options": {}}) == before


def test_sent_from_within_a_chain_what_follows_stays_behind(add: Any, collecting: Collector) -> None:
    (add.s(1) | add.s(2)).apply_async((0,), chain=[dict(add.s(99))])
    assert [step["args"] for step in following(collecting)] == [[99], [2]]


def test_chain_in_a_chain_keeps_its_callbacks(add: Any) -> None:
    inner = chain(add.s(1), add.s(2))
    inner.link(add.s(7))
    inner.link_error(add.s(8))
    first, second, third = (inner | add.s(3)).tasks
    assert [sig.args for sig in second.options["link"]] == [(7,)]
    assert [sig.options["link_error"][0].args for sig in (first, second)] == [(8,), (8,)]
    assert third.options == {}
    assert inner.tasks[0].options == {}


def test_one_step_and_none(add: Any, collecting: Collector) -> None:
    result = chain(add.s(1, 2)).delay()
    assert result.id == collecting.last.id
    assert result.parent is None
    assert chain()() is None
    with pytest.raises(ValueError, match="without steps"):
        chain().delay()


def test_freeze(add: Any, collecting: Collector) -> None:
    workflow = chain(add.s(1), add.s(2))
    result = workflow.freeze("last", root_id="r", group_id="g", chord=add.s(5), group_index=3)
    first, last = workflow.tasks
    assert result.id == workflow.id == last.id == "last"
    assert result.parent.id == first.id
    assert (last.options["group_id"], last.options["group_index"]) == ("g", 3)
    assert "group_id" not in first.options
    assert workflow.delay().id == "last"
    assert collecting.last.id == first.id


def test_clone_has_steps_of_its_own(add: Any) -> None:
    workflow = chain(add.s(1), add.s(2))
    clone = workflow.clone()
    clone.tasks[0].set(queue="q")
    assert workflow.tasks[0].options == {}
    assert isinstance(clone, chain)


def test_apply(app: Celery, add: Any) -> None:
    failing = app.task(name="fail")(lambda x: 1 / 0)
    result = chain(add.s(1, 2), add.s(3), add.si(10, 20)).apply()
    assert (result.get(), result.parent.get(), result.parent.parent.get()) == (30, 6, 3)
    assert chain(add.s(1), add.s(3)).apply((5,)).get() == 9
    failed = chain(add.s(1, 2), failing.s(), add.s(3)).apply()
    assert isinstance(failed.result, ZeroDivisionError)
    assert failed.parent.get() == 3


def test_always_eager(app: Celery, add: Any) -> None:
    app.conf.task_always_eager = True
    seen: list[int] = []
    note = app.task(name="note")(seen.append)
    workflow = chain(add.s(1, 2), add.s(3))
    workflow.link(note.s())
    assert workflow.delay().get() == 6
    assert seen == [6]
    assert (add.s(1, 1) | add.s(1))().get() == 3
    assert ~add.s(1, 2) == 3
