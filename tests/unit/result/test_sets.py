"""ResultSet and GroupResult, on the memory adapter."""

from __future__ import annotations

import asyncio
import io
import pickle
from typing import Any

import pytest

from celeriac import states
from celeriac.client.current import request_var
from celeriac.exceptions import TimeoutError  # noqa: A004
from celeriac.result import AsyncResult, DependencyGraph, GroupResult, ResultSet, result_from_tuple
from tests.unit.result.app import App


def group(app: App, *names: str, **kwargs: Any) -> GroupResult[Any]:
    return app.GroupResult("g", [app.AsyncResult(name) for name in names], **kwargs)


@pytest.mark.parametrize("way", ["get", "join", "join_native"])
def test_values_come_in_order(app: App, later: Any, way: str) -> None:
    app.store("b", 2)
    for name, value in (("c", 3), ("a", 1)):
        later(app.store, name, value)
    assert getattr(group(app, "a", "b", "c"), way)(timeout=5) == [1, 2, 3]


@pytest.mark.parametrize("way", ["get", "join"])
def test_a_failure_is_raised(app: App, way: str) -> None:
    app.store("a", 1)
    app.store("b", KeyError("x"), states.FAILURE)
    found = group(app, "a", "b")
    with pytest.raises(KeyError):
        getattr(found, way)(timeout=5)
    value, error = getattr(found, way)(timeout=5, propagate=False)
    assert (value, type(error)) == (1, KeyError)


def test_get_does_not_wait_for_the_others_of_a_failed_one(app: App) -> None:
    app.store("b", KeyError("x"), states.FAILURE)
    with pytest.raises(KeyError):
        group(app, "never", "b").get(timeout=5)


@pytest.mark.parametrize("way", ["get", "join"])
def test_the_time_is_for_all_together(app: App, way: str) -> None:
    app.store("a", 1)
    with pytest.raises(TimeoutError):
        getattr(group(app, "a", "never", "nor this"), way)(timeout=0.02)
    with pytest.raises(TimeoutError):
        getattr(app.GroupResult("o", [group(app, "never")]), way)(timeout=0)


def test_a_set_in_a_set(app: App, later: Any) -> None:
    inner = group(app, "a", "b")
    outer = app.GroupResult("o", [app.AsyncResult("c"), inner])
    for name in "abc":
        later(app.store, name, name)
    assert outer.get(timeout=5) == ["c", ["a", "b"]]
    assert [outer.ready(), outer.successful(), outer.completed_count()] == [True, True, 3]


def test_callbacks(app: App) -> None:
    for name in "ab":
        app.store(name, name)
    told: list[Any] = []
    assert group(app, "a", "b").get(callback=lambda *pair: told.append(pair)) is None
    assert group(app, "a", "b").join(callback=lambda *pair: told.append(pair)) == []
    assert sorted(told) == [("a", "a"), ("a", "a"), ("b", "b"), ("b", "b")]
    records: list[Any] = []
    group(app, "a", "b").get(on_message=records.append)
    assert {record["task_id"] for record in records} == {"a", "b"}


def test_on_interval(app: App) -> None:
    class Enough(Exception):
        pass

    def tick() -> None:
        raise Enough

    with pytest.raises(Enough):
        group(app, "never").get(timeout=5, interval=0.01, on_interval=tick)


def test_states(app: App) -> None:
    found = group(app, "a", "b")
    assert [found.ready(), found.waiting(), found.failed(), found.completed_count()] == [False, True, False, 0]
    app.store("a", 1)
    assert [found.ready(), found.completed_count()] == [False, 1]
    app.store("b", KeyError(), states.FAILURE)
    assert [found.ready(), found.failed(), found.successful(), found.completed_count()] == [True, True, False, 1]
    with pytest.raises(KeyError):
        found.maybe_throw()


def test_ignored_members_are_there_at_once(app: App) -> None:
    found = group(app, "a")
    found[0].ignored = True
    assert (found.get(timeout=0), found.ready(), found.successful()) == ([None], True, True)


def test_many(app: App) -> None:
    names = [f"id-{number}" for number in range(700)]
    for number, name in enumerate(names):
        app.store(name, number)
    assert group(app, *names).get(timeout=5) == list(range(700))
    assert group(app, *names).completed_count() == 700


def test_iter_native_tells_what_came(app: App, later: Any) -> None:
    app.store("b", 2)
    later(app.store, "a", 1)
    found = [(task_id, meta["result"]) for task_id, meta in group(app, "a", "b").iter_native(timeout=5)]
    assert found == [("b", 2), ("a", 1)]


def test_waiting_inside_a_task_is_refused(app: App) -> None:
    class Request:
        _task = None
        is_eager = called_directly = False
        _previous = None

    token = request_var.set(Request())
    try:
        for way in ("get", "join"):
            with pytest.raises(RuntimeError, match="within a task"):
                getattr(group(app, "a"), way)(timeout=0)
    finally:
        request_var.reset(token)


def test_coroutines_wait(app: App, later: Any) -> None:
    later(app.store, "a", 1)
    app.store("b", 2)
    assert asyncio.run(group(app, "a", "b").aget(timeout=5)) == [1, 2]
    with pytest.raises(TimeoutError):
        asyncio.run(group(app, "never").aget(timeout=0.02))


def test_then(app: App) -> None:
    told: list[Any] = []
    found = group(app, "a").then(told.append)
    app.store("a", 1)
    found.get(timeout=5)
    found.then(told.append)
    assert told == [found, found]


def test_as_a_list(app: App) -> None:
    found: ResultSet[Any] = ResultSet([app.AsyncResult("a")], app=app)
    found.add(app.AsyncResult("b"))
    found.add(app.AsyncResult("b"))
    found.update([app.AsyncResult("c"), app.AsyncResult("a")])
    assert [member.id for member in found] == ["a", "b", "c"]
    found.remove("b")
    found.discard("nothing")
    with pytest.raises(KeyError):
        found.remove("b")
    assert (len(found), found[1], bool(found)) == (2, "c", True)
    assert found == ResultSet([app.AsyncResult("a"), app.AsyncResult("c")], app=app)
    found.clear()
    assert (len(found), bool(found)) == (0, False)


def test_tuples_and_pickles(app: App) -> None:
    found = group(app, "a", parent=app.AsyncResult("p"))
    assert found.as_tuple() == (("g", (("p", None), None)), [(("a", None), None)])
    assert found.as_list() == ["g", "p"]
    again = result_from_tuple(found.as_tuple(), app)
    assert (again, again.parent, again.children) == (found, "p", ["a"])
    assert found == "g"
    copy = pickle.loads(pickle.dumps(app.GroupResult("g", [])))
    assert (copy.id, list(copy), bool(copy)) == ("g", [], True)
    assert hash(found) == hash("g")
    assert repr(found) == "<GroupResult: g [a]>"


def test_forget_and_revoke(app: App) -> None:
    app.store("a", 1)
    outer = app.GroupResult("o", [group(app, "a"), app.AsyncResult("b")])
    outer.revoke(terminate=True)
    assert app.revoked[0][0] == (["a", "b"],)
    outer.forget()
    assert app.AsyncResult("a").state == states.PENDING


def test_the_cause_of_a_failure_is_raised(app: App) -> None:
    """What failed a header is told to whoever waits for the body."""
    app.store("a", ValueError("first"), states.FAILURE)
    app.store("body", KeyError("Dependency a raised"), states.FAILURE)
    body = app.AsyncResult("body", parent=group(app, "a", "never"))
    with pytest.raises(ValueError, match="first"):
        body.get(timeout=1)
    with pytest.raises(KeyError):
        app.AsyncResult("body", parent=group(app, "a")).get(timeout=1, follow_parents=False)


def test_the_graph(app: App) -> None:
    app.store("a", 1, children=[[["g", None], [[["b", None], None], [["c", None], None]]]])
    app.store("b", 2)
    app.store("c", 3)
    graph = app.AsyncResult("a").graph
    assert isinstance(graph, DependencyGraph)
    nodes = {str(node): [str(child) for child in children] for node, children in graph.items()}
    assert nodes == {"a": ["g"], "g": ["b", "c"], "b": [], "c": []}
    stream = io.StringIO()
    graph.to_dot(stream)
    assert '"a" -> "g";' in stream.getvalue()
    assert (len(graph), "a" in graph, [str(node) for node in graph.edges()]) == (4, True, ["a", "g"])
    assert repr(graph).startswith("a: g")
    assert [type(node) for node in graph] == [AsyncResult, GroupResult, AsyncResult, AsyncResult]
