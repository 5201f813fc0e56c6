"""Chords: call styles, what is sent and opened, nesting, and what stays as it was."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from celeriac import Celery, Signature, chain, chord, group, signature
from celeriac.codec.chords import decode_body, decode_shape
from celeriac.result import GroupResult
from celeriac.worker.follow_ups import Sent


@pytest.fixture
def add(app: Celery) -> Any:
    return app.task(name="add")(lambda x, y=0: x + y)


@pytest.fixture
def tsum(app: Celery) -> Any:
    return app.task(name="tsum")(lambda values: sum(values))


@pytest.fixture
def fail(app: Celery) -> Any:
    return app.task(name="fail")(lambda *args: 1 / 0)


def embed(sent: Sent, index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sent.messages[index].body)[2]
    return found


def body_of(sent: Sent, index: int = 0) -> dict[str, Any]:
    return decode_body(sent.chords[index].body, accept=frozenset({"json"}))


def test_ways_to_make_one(add: Any, tsum: Any) -> None:
    plain = chord([add.s(1), add.s(2)], tsum.s())
    for other in (
        chord((add.s(n) for n in (1, 2)), tsum.s()),
        chord([dict(add.s(1)), dict(add.s(2))], dict(tsum.s())),
        chord(group(add.s(1), add.s(2)), tsum.s()),
        group(add.s(1), add.s(2)) | tsum.s(),
        chain(group(add.s(1), add.s(2)), tsum.s()),
        signature(json.loads(json.dumps(plain))),
        signature(dict(plain)),
        pickle.loads(pickle.dumps(plain)),
        plain.clone(),
    ):
        assert isinstance(other, chord)
        assert json.loads(json.dumps(other)) == json.loads(json.dumps(plain))
        assert repr(other) == "%tsum([add(1), add(2)])"
    assert (plain["task"], plain["subtask_type"]) == ("celery.chord", "chord")
    assert chord(add.s(1), tsum.s()) == chord([add.s(1)], tsum.s())


def test_a_chain_as_header_gives_its_steps(add: Any, tsum: Any) -> None:
    assert chord(chain(add.s(1), add.s(2)), tsum.s()) == chord([add.s(1), add.s(2)], tsum.s())


@pytest.mark.parametrize(
    "call",
    [
        lambda header, body, sent: chord(header)(body, producer=sent),
        lambda header, body, sent: chord(header, body)(producer=sent),
        lambda header, body, sent: chord(header, body).apply_async(producer=sent),
        lambda header, body, sent: chord(header).apply_async(kwargs={"body": body}, producer=sent),
        lambda header, body, sent: (group(header) | body).apply_async(producer=sent),
    ],
)
def test_call_styles(add: Any, tsum: Any, call: Any) -> None:
    sent = Sent()
    result = call([add.s(1), add.s(2)], tsum.s(), sent)
    (opened,) = sent.chords
    assert (opened.size, opened.shape, opened.expires) == (2, b"", 86_400.0)
    assert isinstance(result.parent, GroupResult)
    assert result.parent.id == opened.id
    assert [each.id for each in result.parent] == [message.id for message in sent.messages]
    for place, message in enumerate(sent.messages):
        assert (message.headers["group"], message.headers["group_index"]) == (opened.id, place)
        assert embed(sent, place)["chord"] == body_of(sent)
    assert body_of(sent)["options"]["task_id"] == result.id


def test_without_a_body(add: Any) -> None:
    with pytest.raises(TypeError, match=r"chord\(header\)\(body\)"):
        chord([add.s(1)])()
    assert repr(chord([add.s(1)])) == "<chord without body: [add(1)]>"
    assert chord([add.s(1)]).freeze() is None


def test_without_a_result_backend_nothing_is_sent(app: Celery, add: Any, tsum: Any, collecting: Any) -> None:
    app.conf.broker_url = "redis://localhost:1/0"
    with pytest.raises(NotImplementedError, match="result_backend"):
        chord([add.s(1)], tsum.s())()
    assert collecting.messages == []


def test_it_is_opened_before_its_tasks_are_sent(
    app: Celery, add: Any, tsum: Any, collecting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(app.backend, "open_chords", lambda chords: seen.append(len(collecting.messages)))
    chord([add.s(1), add.s(2)], tsum.s())()
    assert (seen, len(collecting.messages)) == ([0], 2)


@pytest.mark.parametrize("by_set", [False, True])
@pytest.mark.parametrize(
    ("options", "header", "body"),
    [
        ({"queue": "q"}, {"queue": "q"}, {"queue": "q"}),
        ({"priority": 7}, {"priority": 7}, {"priority": 7}),
        ({"countdown": 60}, {"eta": True}, {"countdown": None}),
        ({"eta": "2040-01-01T00:00:00+00:00"}, {"eta": True}, {"eta": None}),
        ({"expires": 60}, {"expires": True}, {"expires": 60}),
        ({"ignore_result": True}, {"ignore_result": True}, {"ignore_result": True}),
        ({"task_id": "x"}, {}, {"task_id": "x"}),
        ({"root_id": "r"}, {"root_id": "r"}, {"root_id": "r"}),
    ],
)
def test_options(
    add: Any, tsum: Any, options: dict[str, Any], header: dict[str, Any], body: dict[str, Any], by_set: bool
) -> None:
    if "eta" in options:
        from datetime import datetime

        options = {"eta": datetime.fromisoformat(options["eta"])}
    sent = Sent()
    workflow = chord([add.s(1)], tsum.s())
    if by_set:
        workflow.set(**options).apply_async(producer=sent)
    else:
        workflow.apply_async(producer=sent, **options)
    (message,) = sent.messages
    for key, expected in header.items():
        found = {**message.headers, "queue": message.queue, "priority": message.priority}[key]
        assert found == expected or (expected is True and found)
    for key, expected in body.items():
        assert body_of(sent)["options"].get(key) == expected
    assert message.id != "x"


def test_arguments_are_those_of_the_header(app: Celery, tsum: Any) -> None:
    sent = Sent()
    call = app.task(name="call")(lambda *args, **kwargs: None)
    chord([call.s(1), call.si(2)], tsum.s(), args=(7,)).apply_async((9,), {"y": 1}, producer=sent)
    assert [json.loads(message.body)[:2] for message in sent.messages] == [[[9, 7, 1], {"y": 1}], [[2], {}]]
    assert body_of(sent)["args"] == []


def test_callbacks_are_the_bodys(add: Any, tsum: Any, fail: Any) -> None:
    linked = chord([add.s(1)], tsum.s())
    assert linked.link(add.s(8)) == add.s(8)
    linked.link_error(fail.s())
    given, set_before = Sent(), Sent()
    linked.apply_async(producer=set_before)
    chord([add.s(1)], tsum.s()).apply_async(producer=given, link=add.s(8), link_error=[fail.s()])
    for sent in (given, set_before):
        options = body_of(sent)["options"]
        assert ([each["args"] for each in options["link"]], options["link_error"][0]["task"]) == ([[8]], "fail")
        assert embed(sent)["callbacks"] is embed(sent)["errbacks"] is None


def test_errbacks_on_the_header_when_the_setting_says_so(app: Celery, add: Any, tsum: Any, fail: Any) -> None:
    app.conf.task_allow_error_cb_on_chord_header = True
    workflow = chord([add.s(1), chain(add.s(2), add.s(3))], tsum.s()).on_error(fail.s())
    # Immutable: Celery writes an option of that name instead, which does nothing.
    assert [task.options["link_error"] for task in workflow.tasks] == [[fail.si()]] * 2
    assert workflow.body.options["link_error"] == [fail.s()]


@pytest.mark.parametrize(
    "header",
    [[], (), [group()], [group(), group(group())], [chain()]],
    ids=["list", "tuple", "group", "groups", "chain"],
)
def test_an_empty_header_calls_the_body_at_once(add: Any, tsum: Any, header: Any) -> None:
    sent = Sent()
    result = chord(header, tsum.s()).apply_async(producer=sent, countdown=5, task_id="x")
    (message,) = sent.messages
    assert (message.task, message.id, result.id) == ("tsum", "x", "x")
    assert json.loads(message.body)[0] == [[]]
    assert sent.chords == []
    assert result.parent.results == []


def test_behind_an_empty_header_the_parent_is_its_group(add: Any, tsum: Any, sent: Sent) -> None:
    result = (group([]) | tsum.s() | add.s(1)).delay()
    assert isinstance(result.parent, GroupResult)
    assert len(result.parent) == 0


@pytest.mark.parametrize("body", ["tsum", 5, print])
def test_a_body_that_is_no_signature_is_refused(body: Any, add: Any, sent: Sent) -> None:
    with pytest.raises(TypeError, match=r"a chord.s body is made of signatures, such as task\.s"):
        chord([add.s(1)])(body)
    assert not sent.messages


def test_sent_twice_it_has_fresh_ids_and_stays_as_it_was(add: Any, tsum: Any, fail: Any) -> None:
    for body in (tsum.s(), chain(tsum.s(), add.s(1)), group(tsum.s(), tsum.s()), chord([tsum.s()], tsum.s())):
        workflow = chord([add.s(1), chain(add.s(2), add.s(3)), group(add.s(4))], body)
        before = json.dumps(workflow)
        ids: set[str] = set()
        for _ in range(2):
            sent = Sent()
            result = workflow.apply_async((1,), producer=sent, queue="q", link_error=fail.s())
            ids |= {result.id, sent.chords[0].id, *(message.id for message in sent.messages)}
        assert json.dumps(workflow) == before
        assert len(ids) == 2 * 5


def test_frozen_its_results_are_known_before(add: Any, tsum: Any) -> None:
    workflow = chord([add.s(1), add.s(2)], tsum.s())
    known = workflow.freeze("x")
    sent = Sent()
    result = workflow.apply_async(producer=sent)
    assert (known.id, known.parent) == (result.id, result.parent) == ("x", known.parent)
    assert [message.id for message in sent.messages] == [each.id for each in known.parent]
    assert sent.chords[0].id == known.parent.id == workflow.id


def test_nested_groups_are_told_by_the_shape(add: Any, tsum: Any) -> None:
    sent = Sent()
    chord([add.s(1), chain(add.s(2), group(add.s(3), add.s(4)))], tsum.s()).apply_async(producer=sent)
    (opened,) = sent.chords
    first, second = decode_shape(opened.shape)[1]
    assert (opened.size, first[1], len(second[1])) == (3, None, 2)
    (behind,) = embed(sent, 1)["chain"]
    assert [task["options"]["group_index"] for task in behind["kwargs"]["tasks"]] == [1, 2]
    assert {task["options"]["group_id"] for task in behind["kwargs"]["tasks"]} == {opened.id}


def test_groups_in_the_header_are_its_tasks(add: Any, tsum: Any) -> None:
    """As in Celery, but in the order in which they are written (Celery 5.7 turns them round)."""
    sent = Sent()
    chord([group(add.s(1), add.s(2)), add.s(3)], tsum.s()).apply_async(producer=sent)
    assert [json.loads(message.body)[0] for message in sent.messages] == [[1], [2], [3]]
    assert (sent.chords[0].size, sent.chords[0].shape) == (3, b"")


def test_a_chord_in_a_header_is_a_member_by_its_body(add: Any, tsum: Any) -> None:
    sent = Sent()
    chord([add.s(1), chord([add.s(2), add.s(3)], tsum.s())], tsum.s(100)).apply_async(producer=sent)
    outer, inner = sent.chords
    assert (outer.size, inner.size) == (2, 2)
    assert [message.headers["group"] for message in sent.messages] == [outer.id, inner.id, inner.id]
    options = body_of(sent, 1)["options"]
    assert (options["group_id"], options["group_index"]) == (outer.id, 1)
    assert options["chord"] == body_of(sent)


def test_the_tail_of_its_body_does_not_travel_in_each_message_of_a_chain(add: Any, tsum: Any) -> None:
    sent = Sent()
    chain(group(add.s(n) for n in range(3)), tsum.s(), add.s(1), add.s(2)).apply_async(producer=sent)
    assert len(sent.messages) == 3
    sent = Sent()
    chain(add.s(0), group(add.s(n) for n in range(3)), tsum.s(), add.s(1), add.s(2)).apply_async(producer=sent)
    last, before, chorded = embed(sent)["chain"]
    assert (last["args"], before["args"], chorded["kwargs"]["body"]["task"]) == ([2], [1], "tsum")


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (lambda add: add.s(5), "%tsum([add(1), add(2)]) | add(5)"),
        (lambda add: chain(add.s(5), add.s(6)), "%tsum([add(1), add(2)]) | add(5) | add(6)"),
        (lambda add: group(add.s(5)), "%tsum([add(1), add(2)]) | add(5)"),
        (lambda add: group(add.s(5), add.s(6)), "%tsum([add(1), add(2)]) | group([add(5), add(6)])"),
    ],
)
def test_what_comes_behind_it(add: Any, tsum: Any, behind: Any, expected: str) -> None:
    workflow = chord([add.s(1), add.s(2)], tsum.s())
    assert repr(workflow | behind(add)) == expected
    assert repr(workflow) == "%tsum([add(1), add(2)])"


def test_a_clone_shares_nothing(add: Any, tsum: Any, fail: Any) -> None:
    workflow = chord([add.s(1), group(add.s(2), add.s(3))], group(tsum.s(), tsum.s()))
    before = json.dumps(workflow)
    clone = workflow.clone()
    clone.link(add.s(8))
    clone.link_error(fail.s())
    clone.set_immutable(True)
    clone.stamp(tenant=7)
    clone.freeze()
    assert json.dumps(workflow) == before


def test_how_many_have_to_end(add: Any, tsum: Any) -> None:
    header = [add.s(1), group(add.s(2), add.s(3)), chain(add.s(4), add.s(5)), chord([add.s(6)] * 9, tsum.s()), group()]
    assert chord(header, tsum.s()).__length_hint__() == 5
    assert chord([chord([add.s(1)], group(add.s(), add.s()))], tsum.s()).__length_hint__() == 2


def test_on_the_wire_without_what_may_lack(add: Any, tsum: Any) -> None:
    wire = {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": [dict(add.s(1))]}, "later": 1}
    found = Signature.from_dict(wire)
    assert isinstance(found, chord)
    assert (found.body, found.options, found["later"]) == (None, {}, 1)
    found(tsum.s(), producer=Sent())


def test_sent_many_at_once_it_is_opened_first(app: Celery, add: Any, tsum: Any) -> None:
    order: list[str] = []

    class Producer:
        def collect(self, message: Any) -> None:
            order.append(message.task)

        def open_chord(self, opened: Any) -> None:
            order.append("open")

    results = app.send_many([add.s(0), chord([add.s(1), add.s(2)], tsum.s())], chunk=2, producer=Producer())
    assert order == ["open", "add", "add", "add"]
    assert isinstance(results[1].parent, GroupResult)


# -- eager ---------------------------------------------------------------------------------------------------------


def test_eager(app: Celery, add: Any, tsum: Any) -> None:
    app.conf.task_always_eager = True
    assert chord([add.s(1), add.s(2)])(tsum.s()).get() == 3
    assert chord([add.s(1), add.s(2)], tsum.s()).delay(10).get() == 23
    assert chord([], tsum.s())().get() == 0
    assert chord([chord([add.s(1)], tsum.s()), chain(add.s(1), add.s(1))], chain(tsum.s(), add.s(10)))().get() == 13
    result = chord([add.s(1)], tsum.s()).apply_async(task_id="x")
    assert (result.id, result.parent.get()) == ("x", [1])


def test_eager_failures_are_raised(app: Celery, add: Any, tsum: Any, fail: Any) -> None:
    """Of a header task as Celery does, at the call; of the body when its result is asked for."""
    app.conf.task_always_eager = True
    with pytest.raises(ZeroDivisionError):
        chord([add.s(1), fail.s()], tsum.s())()
    result = chord([add.s(1)], fail.s())()
    assert isinstance(result.result, ZeroDivisionError)


def test_eager_behind_another_task_its_header_gets_the_result(app: Celery, add: Any, tsum: Any) -> None:
    app.conf.task_always_eager = True
    assert (add.s(5) | chord([add.s(1), add.s(2)], tsum.s())).delay(1).get() == 15
    assert chain(add.s(1), group(add.s(2), add.s(3)), tsum.s(), add.s(9)).delay(1).get() == 18
    assert chain(add.s(1), group(add.s(2), add.s(3))).delay(1).get() == [4, 5]
