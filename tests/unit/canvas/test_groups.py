"""Groups: how they are made, what is sent for them, and what stays as it was."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celery, Signature, chain, chord, group, signature
from celeriac.result import GroupResult
from celeriac.worker.follow_ups import Sent


@pytest.fixture
def add(app: Celery) -> Any:
    return app.task(name="add")(lambda x, y=0: x + y)


@pytest.fixture
def errback(app: Celery) -> Any:
    return app.task(name="errback")(lambda task_id: None)


def places(sent: Sent) -> list[tuple[Any, Any]]:
    return [(message.headers["group"], message.headers["group_index"]) for message in sent.messages]


def arguments(sent: Sent) -> list[Any]:
    return [json.loads(message.body)[0] for message in sent.messages]


def test_ways_to_make_one(add: Any) -> None:
    plain = group(add.s(1), add.s(2))
    for other in (
        group([add.s(1), add.s(2)]),
        group(add.s(n) for n in (1, 2)),
        group([dict(add.s(1)), dict(add.s(2))]),
        group(plain),
        signature(json.loads(json.dumps(plain))),
        signature(dict(plain)),
        pickle.loads(pickle.dumps(plain)),
        plain.clone(),
    ):
        assert isinstance(other, group)
        assert json.loads(json.dumps(other)) == json.loads(json.dumps(plain))
        assert repr(other) == "group([add(1), add(2)])"
    assert (plain["task"], plain["subtask_type"]) == ("celery.group", "group")


def test_one_and_none(add: Any) -> None:
    assert len(group(add.s(1))) == len(group([add.s(1)])) == len(group(dict(add.s(1)))) == 1
    assert len(group(chain(add.s(1), add.s(2)))) == 1
    sent = Sent()
    result = group().apply_async(producer=sent)
    assert isinstance(result, GroupResult)
    assert (result.results, sent.messages, repr(group())) == ([], [], "group(<empty>)")


def test_one_signature_is_copied(add: Any) -> None:
    one = add.s(1)
    group(one).tasks[0].set(queue="q")
    assert one.options == {}


def test_each_message_has_the_groups_id_and_its_place(add: Any) -> None:
    sent = Sent()
    result = group(add.s() for _ in range(3)).apply_async((9,), {"y": 1}, producer=sent)
    assert places(sent) == [(result.id, 0), (result.id, 1), (result.id, 2)]
    assert [each.id for each in result] == [message.id for message in sent.messages]
    assert [json.loads(message.body)[:2] for message in sent.messages] == [[[9], {"y": 1}]] * 3
    assert all(message.headers["root_id"] == message.id for message in sent.messages)


def test_arguments_stay_away_from_the_immutable(add: Any) -> None:
    sent = Sent()
    group(add.s(1), add.si(2, 3)).apply_async((9,), producer=sent)
    assert arguments(sent) == [[9, 1], [2, 3]]


def test_partial_arguments_of_its_own(add: Any) -> None:
    """Celery forgets them; a chain that begins with the group, and runs eagerly, hands them over this way."""
    sent = Sent()
    group(add.s(1), add.si(2, 3)).clone((9,)).apply_async(producer=sent)
    assert arguments(sent) == [[9, 1], [2, 3]]


def test_groups_in_it_give_their_tasks_in_their_place(add: Any) -> None:
    sent = Sent()
    nested = group(add.s(0), group(add.s(1), group(add.s(2)), group()), add.s(3))
    result = nested.apply_async(producer=sent)
    assert arguments(sent) == [[0], [1], [2], [3]]
    assert [place for _, place in places(sent)] == [0, 1, 2, 3]
    assert len(result) == 4


def test_fifty_deep(add: Any) -> None:
    deep: Any = add.s(0)
    for n in range(1, 51):
        deep = group(deep, add.s(n))
    sent = Sent()
    deep.apply_async(producer=sent)
    assert [args for (args,) in arguments(sent)] == list(range(51))


def test_a_chain_in_it_is_a_member_by_its_last_step(add: Any) -> None:
    sent = Sent()
    result = group(chain(add.s(1), add.s(2)), add.s(3)).apply_async(producer=sent)
    assert places(sent) == [(None, None), (result.id, 1)]
    (last,) = json.loads(sent.messages[0].body)[2]["chain"]
    assert (last["options"]["group_id"], last["options"]["group_index"]) == (result.id, 0)
    assert last["options"]["task_id"] == result[0].id


def test_a_chain_that_ends_in_a_group_takes_that_many_places(add: Any) -> None:
    frozen = group(add.s(1), chain(add.s(2), group(add.s(3), add.s(4))), add.s(5))
    frozen.freeze()
    first, ends, last = frozen.tasks
    inner = ends.tasks[-1].tasks
    assert [task.options["group_index"] for task in (first, *inner, last)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"queue": "q"}, lambda message: message.queue == "q"),
        ({"priority": 7}, lambda message: message.priority == 7),
        ({"countdown": 60}, lambda message: message.headers["eta"] is not None and message.due is not None),
        ({"expires": 60}, lambda message: message.headers["expires"] is not None),
        ({"ignore_result": True}, lambda message: message.headers["ignore_result"] is True),
        ({"root_id": "r", "parent_id": "p"}, lambda message: message.headers["root_id"] == "r"),
        ({"headers": {"tenant": 7}}, lambda message: message.headers["tenant"] == 7),
    ],
)
def test_options_are_those_of_all_tasks(add: Any, options: dict[str, Any], read: Callable[[Any], bool]) -> None:
    at_the_call, before = Sent(), Sent()
    group(add.s(1), chain(add.s(2), add.s(3))).apply_async(producer=at_the_call, **options)
    group(add.s(1), chain(add.s(2), add.s(3))).set(**options).apply_async(producer=before)
    assert all(read(message) for sent in (at_the_call, before) for message in sent.messages)


def test_its_id_may_be_given(add: Any) -> None:
    sent = Sent()
    result = group(add.s(1), add.s(2)).apply_async(task_id="g", producer=sent)
    assert result.id == "g"
    assert places(sent) == [("g", 0), ("g", 1)]
    assert "g" not in [message.id for message in sent.messages]


def test_sent_twice_it_has_fresh_ids_and_stays_as_it_was(add: Any) -> None:
    workflow = group(add.s(1), chain(add.s(2), add.s(3)), group(add.s(4), chord([add.s(5)], add.s())))
    before = json.dumps(workflow)
    first, second = Sent(), Sent()
    results = [workflow.apply_async((1,), queue="q", producer=sent) for sent in (first, second)]
    assert json.dumps(workflow) == before
    assert results[0].id != results[1].id
    assert not {message.id for message in first.messages} & {message.id for message in second.messages}
    assert not {each.id for each in results[0]} & {each.id for each in results[1]}


def test_the_same_signature_twice_in_one_group(add: Any, sent: Any, collecting: Any) -> None:
    """Also after it has been sent on its own."""
    steps = chain(add.s(1), add.s(2))
    own = steps.delay()
    result = group(steps, steps, steps).apply_async()
    assert len({own.id, *(each.id for each in result)}) == 4


def test_frozen_its_results_are_known_before(add: Any) -> None:
    workflow = group(add.s(1), group(add.s(2)))
    known = workflow.freeze("g")
    sent = Sent()
    result = workflow.apply_async(producer=sent)
    assert known == result
    assert known.id == "g"
    assert [message.id for message in sent.messages] == [each.id for each in known]


def test_a_clone_has_tasks_of_its_own(app: Celery, add: Any, errback: Any) -> None:
    """Celery's shares them, so that sending a chain that ends in a group with ``link_error`` changes the group."""
    workflow = group(add.s(1), group(add.s(2)))
    before = json.dumps(workflow)
    clone = workflow.clone()
    clone.link_error(errback.s())
    clone.set_immutable(True)
    clone.skew()
    clone.stamp(tenant=7)
    assert json.dumps(workflow) == before


@pytest.mark.parametrize("option", ["link", "link_error"])
def test_callbacks_are_refused_at_the_call(app: Celery, add: Any, errback: Any, option: str) -> None:
    sent = Sent()
    with pytest.raises(TypeError, match="Cannot add link to group"):
        group(add.s(1)).apply_async(producer=sent, **{option: errback.s()})
    assert sent.messages == []


def test_linked_to_its_tasks(add: Any, errback: Any) -> None:
    workflow = group(add.s(1), add.s(2))
    workflow.link(errback.s(5))
    linked = workflow.link_error(errback.s())
    first, second = workflow.tasks
    # As in Celery: without the result, and of the first task alone.
    assert first.options["link"] == [errback.si(5)]
    assert "link" not in second.options
    assert linked == (errback.s(), errback.s())
    assert first.options["link_error"] == second.options["link_error"] == [errback.s()]
    with pytest.raises(IndexError):
        group().link(errback.s())


@pytest.mark.parametrize(
    ("arguments", "countdowns"),
    [
        ({}, [1.0, 2.0, 3.0, 4.0]),
        ({"start": 2, "stop": 4}, [2, 3.0, 4, 4]),
        ({"start": 1, "step": 0.5}, [1, 1.5, 2.0, 2.5]),
    ],
)
def test_skew(add: Any, arguments: dict[str, Any], countdowns: list[float]) -> None:
    workflow = group(add.s(n) for n in range(4))
    assert workflow.skew(**arguments) is workflow
    assert [task.options["countdown"] for task in workflow.tasks] == countdowns


def test_what_comes_behind_it(add: Any) -> None:
    two = group(add.s(1), add.s(2))
    assert isinstance(two | add.s(), chord)
    assert isinstance(two | group(add.s(), add.s()), chord)
    assert (two | group()) is two
    assert isinstance(add.s(0) | two, chain)
    assert isinstance(two | add.s() | add.s(), chord)
    with pytest.raises(TypeError):
        two | 3


def test_a_dict_behind_it_is_a_signature(add: Any) -> None:
    """``dict`` has an ``__ror__``: without a word of ours the outcome is a dict that lost the group."""
    assert group(add.s(1), add.s(2)) | dict(add.s()) == group(add.s(1), add.s(2)) | add.s()


def test_many_are_sent_in_order(add: Any) -> None:
    sent = Sent()
    result = group(add.s(n) for n in range(2500)).apply_async(producer=sent)
    assert [args for (args,) in arguments(sent)] == list(range(2500))
    assert [message.id for message in sent.messages] == [each.id for each in result]


def test_eager(app: Celery, add: Any) -> None:
    app.conf.task_always_eager = True
    fail = app.task(name="fail")(lambda *args: 1 / 0)
    assert group(add.s(1), group(add.s(2), chain(add.s(3), add.s(4))))().get() == [1, 2, 7]
    assert group(add.s(1), add.s(2)).delay(10).get() == [11, 12]
    assert group()().get() == []
    mixed = group(add.s(1), fail.s()).apply_async()
    assert mixed.failed()
    assert isinstance(mixed.get(propagate=False)[1], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        mixed.get()


def test_unknown_keys_on_the_wire_are_kept(add: Any) -> None:
    wire = {**json.loads(json.dumps(group(add.s(1)))), "chord_size": None, "later": 1}
    found = Signature.from_dict(wire)
    assert isinstance(found, group)
    assert (found["later"], type(found.tasks[0])) == (1, Signature)
