"""``map``, ``starmap`` and ``chunks``: values, messages, routes, and that they stay what they are when copied."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celeriac import Celery, chord, chunks, group, signature
from celeriac.canvas import xstarmap
from celeriac.worker.follow_ups import Sent

PAIRS = [(1, 2), (3, 4), (5, 6)]


@pytest.fixture
def add(app: Celery) -> Any:
    return app.task(name="add")(lambda x, y=0: x + y)


@pytest.fixture
def tsum(app: Celery) -> Any:
    return app.task(name="tsum")(lambda values: sum(map(sum, values)))


def test_eager(app: Celery, add: Any) -> None:
    app.conf.task_always_eager = True
    assert add.map(range(3)).delay().get() == [0, 1, 2]
    assert add.starmap(zip([1, 2], [3, 4], strict=True)).delay().get() == [4, 6]
    assert add.chunks(zip([1, 2, 3], [3, 4, 5], strict=True), 2)().get() == [[4, 6], [8]]
    assert add.chunks(PAIRS, 2).apply().get() == [[3, 7], [11]]
    assert add.chunks([], 2)().get() == []


@pytest.mark.parametrize("items", [[1, 2], (1, 2), range(1, 3), iter([1, 2]), (n for n in (1, 2)), {1: 0, 2: 0}])
def test_any_iterable(add: Any, items: Any) -> None:
    assert add.map(items).kwargs["it"] == [1, 2]


def test_sent_as_one_message(add: Any) -> None:
    sent = Sent()
    add.map([1, 2]).apply_async((9,), producer=sent)
    add.starmap(PAIRS).apply_async(producer=sent, countdown=5)
    first, second = sent.messages
    assert (first.task, second.task) == ("celery.map", "celery.starmap")
    # Immutable: whatever came before.
    assert json.loads(first.body)[:2] == [[], {"task": json.loads(json.dumps(add.s())), "it": [1, 2]}]
    assert second.headers["eta"]


def test_chunks_are_sent_as_a_group_of_starmaps(add: Any) -> None:
    sent = Sent()
    result = add.chunks(PAIRS, 2).apply_async(producer=sent, priority=3)
    assert [message.task for message in sent.messages] == ["celery.starmap"] * 2
    assert [json.loads(message.body)[1]["it"] for message in sent.messages] == [[[1, 2], [3, 4]], [[5, 6]]]
    assert [message.headers["group"] for message in sent.messages] == [result.id] * 2
    assert {message.priority for message in sent.messages} == {3}
    assert chunks.apply_chunks(add.s(), [], 1).results == []


def test_options_of_its_own_are_those_of_the_chunks(add: Any) -> None:
    """Celery drops them."""
    sent = Sent()
    add.chunks(PAIRS, 2).set(queue="q", task_id="g").apply_async(producer=sent)
    assert {(message.queue, message.headers["group"]) for message in sent.messages} == {("q", "g")}


@pytest.mark.parametrize(
    "make",
    [
        lambda add: add.map([1]),
        lambda add: add.starmap(PAIRS),
        lambda add: add.chunks(PAIRS, 2),
        lambda add: add.chunks(PAIRS, 2).group(),
        lambda add: group(add.map([1])),
        lambda add: add.map([1]).clone(),
        lambda add: signature(json.loads(json.dumps(add.starmap(PAIRS)))),
    ],
    ids=["map", "starmap", "chunks", "chunks().group()", "in a group", "clone", "json"],
)
def test_routed_as_the_task_that_it_calls(app: Celery, add: Any, make: Any) -> None:
    app.conf.task_routes = {"add": {"queue": "adds"}}
    sent = Sent()
    make(add).apply_async(producer=sent)
    assert {message.queue for message in sent.messages} == {"adds"}


def test_a_named_route_wins(app: Celery, add: Any) -> None:
    app.conf.task_routes = {"add": {"queue": "adds"}, "other": {"queue": "others"}}
    sent = Sent()
    add.map([1]).apply_async(producer=sent, route_name="other")
    assert sent.messages[0].queue == "others"


def test_parts_of_chunks(add: Any) -> None:
    parts = add.chunks(PAIRS, 2).group()
    assert isinstance(parts, group)
    assert [type(part) for part in parts.tasks] == [xstarmap, xstarmap]
    assert [part.kwargs["it"] for part in parts.tasks] == [[(1, 2), (3, 4)], [(5, 6)]]
    parts.skew(start=1)
    assert [part.options["countdown"] for part in parts.tasks] == [1, 2]


@pytest.mark.parametrize("size", [0, -1])
def test_chunks_of_nothing(add: Any, size: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        add.chunks(PAIRS, size)


def test_copies_are_what_they_are_copies_of(add: Any) -> None:
    for original in (add.map([1, 2]), add.starmap(PAIRS), add.chunks(PAIRS, 2)):
        assert type(original.clone()) is type(original)
        assert type(signature(json.loads(json.dumps(original)))) is type(original)


def test_chunks_in_a_workflow_are_a_group(add: Any, tsum: Any) -> None:
    """Celery sends a task ``celery.chunks``, whose result is a group's result, which nothing can store."""
    for workflow in (
        add.chunks(PAIRS, 2) | tsum.s(),
        chord(add.chunks(PAIRS, 2), tsum.s()),
        chord([add.chunks(PAIRS, 2)], tsum.s()),
        group(add.chunks(PAIRS, 2)),
    ):
        sent = Sent()
        workflow.apply_async(producer=sent)
        assert [message.task for message in sent.messages] == ["celery.starmap"] * 2
        assert [opened.size for opened in sent.chords] in ([2], [])


def test_in_front_of_a_task(app: Celery, add: Any) -> None:
    app.conf.task_always_eager = True
    total = app.task(name="total")(sum)
    assert (add.map([1, 2]) | total.s()).delay().get() == 3
    assert (add.s(1) | add.map([1, 2]) | total.s()).delay(9).get() == 3


def test_text(add: Any) -> None:
    assert repr(add.map([1, 2])) == "[add(x) for x in [1, 2]]"
    assert repr(add.starmap([(1, 2)])) == "[add(*x) for x in [(1, 2)]]"
    shown = repr(add.map(range(1000)))
    assert len(shown) < 130
    assert shown.endswith("...]")


def test_the_names_on_the_wire_are_known(app: Celery) -> None:
    """A Celery producer may send each of them, and a copy of ``chunks`` does."""
    names = {"accumulate", "backend_cleanup", "chain", "chord", "chord_unlock", "chunks", "group", "map", "starmap"}
    app.finalize()
    assert {f"celery.{name}" for name in names} <= set(app.tasks)
