"""A complete chord becomes the completion that ends it, whatever its bytes hold."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery, chain, chord, group
from celeriac.codec.body import decode_body
from celeriac.codec.chords import encode_body, encode_part
from celeriac.codec.signing import Signer
from celeriac.model.chord import Closing, Gathered
from celeriac.model.settle import Completion, Hold
from celeriac.worker.joiner import Joiner
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import delivery

LAST = delivery("t", id="last", headers={"root_id": "root"})
FAILED = encode_part("b", "FAILURE", ValueError("no"))


@pytest.fixture
def total(app: Celery) -> Any:
    return app.task(name="total")(lambda values: sum(values))


@pytest.fixture
def joiner(runner: Runner) -> Joiner:
    return runner.joiner


def complete(body: Any, parts: Sequence[bytes] | None = None, shape: Any = None) -> Gathered:
    """A chord whose members returned 1 and 2."""
    if parts is None:
        parts = [encode_part("a", "SUCCESS", 1), encode_part("b", "SUCCESS", 2)]
    raw = body if isinstance(body, bytes) else encode_body(body, "application/x-python-serialize")
    form = json.dumps({"result": shape}).encode() if shape is not None else b""
    return Gathered(chord="g", token="t", parts=parts, body=raw, shape=form)


def frozen(body: Any, **options: Any) -> Any:
    body.freeze("body", **options)
    return body


def arguments(completion: Completion) -> list[Any]:
    accept = frozenset({"json", "pickle"})
    return [decode_body(message, accept=accept, max_bytes=1 << 20)[0] for message in completion.publish]


def stored(completion: Completion) -> dict[str, Any]:
    return {record.id: json.loads(record.body)["result"]["exc_message"] for record in completion.others}


def test_the_body_is_sent_with_the_values(joiner: Joiner, total: Any) -> None:
    completion = joiner.conclude(complete(frozen(total.s())), Hold(LAST))
    (message,) = completion.publish
    assert (message.id, message.task, arguments(completion)) == ("body", "total", [[[1, 2]]])
    # The member that came last is its parent.
    assert (message.headers["parent_id"], message.headers["root_id"]) == ("last", "root")
    assert completion == Completion(settlement=Hold(LAST), publish=[message], opens=[], closes=Closing("g", "t"))


def test_by_the_sweeper_it_has_no_parent(joiner: Joiner, total: Any) -> None:
    completion = joiner.conclude(complete(frozen(total.s())), Hold())
    (message,) = completion.publish
    assert (message.headers["parent_id"], message.headers["root_id"]) == (None, "body")


def test_nested_groups(joiner: Joiner, total: Any) -> None:
    leaf = [["a", None], None], [["b", None], None]
    shape = [["g", None], [leaf[1], [["i", None], [leaf[0]]]]]
    assert arguments(joiner.conclude(complete(frozen(total.s()), shape=shape), Hold(LAST))) == [[[2, [1]]]]


def test_a_body_of_several(joiner: Joiner, total: Any) -> None:
    steps = joiner.conclude(complete(frozen(chain(total.s(), total.s()))), Hold(LAST))
    assert (len(steps.publish), arguments(steps)) == (1, [[[1, 2]]])
    tasks = joiner.conclude(complete(frozen(group(total.s(), total.s()))), Hold(LAST))
    assert arguments(tasks) == [[[1, 2]], [[1, 2]]]
    again = joiner.conclude(complete(frozen(chord([total.s(), total.s()], total.s()))), Hold(LAST))
    assert arguments(again) == [[[1, 2]], [[1, 2]]]
    assert [opened.size for opened in again.opens] == [2]


# -- failures ------------------------------------------------------------------------------------------------------


def test_a_failed_member_fails_the_body_and_what_is_behind_it(joiner: Joiner, total: Any) -> None:
    body = total.s().set(chain=[dict(frozen_step) for frozen_step in (total.s().set(task_id="next"),)])
    completion = joiner.conclude(complete(frozen(body), [FAILED]), Hold(LAST))
    text = "Dependency b raised ValueError('no')"
    assert stored(completion) == {"body": [text], "next": [text]}
    assert completion.publish == []
    assert completion.closes == Closing("g", "t")
    assert all(record.terminal for record in completion.others)


def test_errbacks_are_told_the_bodys_id(app: Celery, joiner: Joiner, total: Any) -> None:
    seen: list[Any] = []
    old = app.task(name="old")(lambda task_id: None)
    new = app.task(name="new")(lambda request, exc, traceback: seen.append((request.id, request.task, str(exc))))
    raising = app.task(name="raising")(lambda request, exc, traceback: 1 / 0)
    body = total.s()
    for errback in (raising.s(), new.s(), old.s()):
        body.link_error(errback)
    completion = joiner.conclude(complete(frozen(body, root_id="r"), [FAILED]), Hold(LAST))
    assert seen == [("body", "total", "Dependency b raised ValueError('no')")]
    assert arguments(completion) == [["body"]]
    assert (completion.publish[0].headers["parent_id"], completion.publish[0].headers["root_id"]) == ("body", "r")
    assert list(stored(completion)) == ["body"]


def test_the_chord_around_it_hears_of_it(joiner: Joiner, total: Any) -> None:
    around = dict(frozen(total.s(9)))
    body = frozen(total.s(), group_id="outer", group_index=3, chord=around)
    (part,) = joiner.conclude(complete(body, [FAILED]), Hold(LAST)).parts
    assert (part.chord, part.id, part.index, json.loads(part.body)) == (
        "outer",
        "body",
        3,
        json.loads(json.dumps(around)),
    )
    assert json.loads(part.value)[2] == "FAILURE"


@pytest.mark.parametrize("parts", [None, [FAILED]], ids=["succeeded", "failed"])
def test_what_only_pickle_can_hold(app: Celery, runner: Runner, total: Any, parts: Any) -> None:
    """The chord around a body travels in the serializer that its message came with."""
    app.conf.accept_content = ["json", "pickle"]
    app.conf.task_serializer = "json"
    around = {"task": "total", "args": [{1, 2}], "kwargs": {}, "options": {"task_id": "outer"}}
    body = frozen(total.s({3}), group_id="outer", group_index=0, chord=around)
    completion = runner.joiner.conclude(complete(body, parts), Hold(LAST))
    assert completion.closes == Closing("g", "t")
    assert [part.chord for part in completion.parts] == ["outer"]


def test_a_body_that_cannot_be_sent_has_failed(app: Celery, joiner: Joiner, total: Any) -> None:
    def route(name: str, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no way")

    app.conf.task_routes = (route,)
    completion = joiner.conclude(complete(frozen(total.s())), Hold(LAST))
    assert (completion.publish, stored(completion)) == ([], {"body": ["Callback error: RuntimeError('no way')"]})


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([b"{"], "cannot be read"),
        ([b"[1, 2]"], "cannot be read"),
        ([b'[1, "a", "SUCCESS", {"__type__": "nope", "__value__": 1}]'], "cannot be read"),
        ([b'[1, "a", "REVOKED", null]'], "Dependency a raised"),
        ([b'[1, "a", "FAILURE", {"exc_type": 5, "exc_message": {"a": 1}}]'], "Dependency a raised"),
    ],
)
def test_parts_that_others_wrote(joiner: Joiner, total: Any, parts: Any, text: str) -> None:
    completion = joiner.conclude(complete(frozen(total.s()), parts), Hold(LAST))
    assert text in stored(completion)["body"][0]


@pytest.mark.parametrize("shape", [5, [], [["g", None], [[["zz", None], None]]], [["g", None], ["a"]]])
def test_a_shape_that_does_not_fit(joiner: Joiner, total: Any, shape: Any) -> None:
    completion = joiner.conclude(complete(frozen(total.s()), shape=shape), Hold(LAST))
    assert list(stored(completion)) == ["body"]


def test_a_body_that_cannot_be_read_is_closed_and_told(
    joiner: Joiner, total: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for raw in (b"", b"[]", b'{"task": 5}', b"\xff"):
        completion = joiner.conclude(complete(raw), Hold(LAST))
        assert completion == Completion(settlement=Hold(LAST), closes=Closing("g", "t"))
    assert caplog.text.count("its body cannot be read") == 4


def test_a_body_that_is_refused_here_is_left_to_other_nodes(joiner: Joiner, caplog: pytest.LogCaptureFixture) -> None:
    assert joiner.conclude(complete(b"application/x-python-serialize\0x"), Hold(LAST)) is None
    assert "its body is refused here" in caplog.text


WHOLE = {"task": "total", "args": [], "kwargs": {}, "options": {"task_id": "body"}}


@pytest.mark.parametrize("parts", [None, [FAILED]], ids=["succeeded", "failed"])
@pytest.mark.parametrize(
    "body",
    [
        {"task": "total"},
        {**WHOLE, "options": None},
        {**WHOLE, "options": [1]},
        {**WHOLE, "options": "text"},
        {**WHOLE, "args": "ab", "kwargs": 5},
        {**WHOLE, "subtask_type": "nope"},
        {**WHOLE, "subtask_type": ["chain"]},
        {**WHOLE, "subtask_type": "chain", "kwargs": {"tasks": [1, None]}},
        {**WHOLE, "subtask_type": "chord", "kwargs": {"header": "x", "body": 5}},
        {**WHOLE, "options": {"task_id": 5}},
        {**WHOLE, "options": {"task_id": "body", "chain": "text"}},
        {**WHOLE, "options": {"task_id": "body", "countdown": "soon"}},
        {**WHOLE, "options": {"task_id": "body", "link_error": ["x", 5, None, {}, {"task": [1]}]}},
        {**WHOLE, "options": {"task_id": "body", "chord": "x", "group_id": "g"}},
        {**WHOLE, "options": {"task_id": "body", "chord": {}, "group_id": 5, "group_index": "x"}},
        {**WHOLE, "options": {"task_id": "body", "root_id": [1], "link_error": {"task": "total"}}},
    ],
    ids=repr,
)
def test_bodies_that_nobody_should_have_written(
    joiner: Joiner, total: Any, body: Any, parts: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each ends its chord: one that raised would end the child, then the next, and each agent that sweeps."""
    with caplog.at_level(logging.CRITICAL):
        completion = joiner.conclude(complete(json.dumps(body).encode(), parts), Hold(LAST))
    assert completion.closes == Closing("g", "t")


# -- where results are signed --------------------------------------------------------------------------------------

SIGNER = Signer(b"a key of sixteen bytes")


@pytest.fixture
def signing(joiner: Joiner) -> Joiner:
    joiner._signer = SIGNER
    return joiner


def sealed(chord: Gathered, parts: Sequence[bytes] | None = None) -> Gathered:
    return replace(
        chord,
        body=SIGNER.seal("chord", "g", chord.body),
        parts=[SIGNER.seal("part", "g", part) for part in chord.parts] if parts is None else parts,
        shape=SIGNER.seal("shape", "g", chord.shape) if chord.shape else b"",
    )


def test_signed_members(signing: Joiner, total: Any) -> None:
    leaf = [["a", None], None], [["b", None], None]
    for shape in (None, [["g", None], [leaf[1], leaf[0]]]):
        completion = signing.conclude(sealed(complete(frozen(total.s()), shape=shape)), Hold(LAST))
        assert arguments(completion) == [[[1, 2] if shape is None else [2, 1]]]


def test_a_forged_member_fails_the_chord(signing: Joiner, total: Any) -> None:
    good = complete(frozen(total.s()))
    signed = [SIGNER.seal("part", "g", part) for part in good.parts]
    for parts in (
        [signed[0], good.parts[1]],
        [signed[0], SIGNER.seal("part", "another chord", good.parts[1])],
        [signed[0], signed[0]],
        [signed[0], b""],
    ):
        completion = signing.conclude(sealed(good, parts), Hold(LAST))
        assert completion.publish == []
        (message,) = stored(completion)["body"]
        assert "cannot be read" in message


def test_a_forged_body_is_never_sent(signing: Joiner, total: Any) -> None:
    good = complete(frozen(total.s()))
    for body in (good.body, SIGNER.seal("chord", "another", good.body), b"", b"\xff"):
        assert signing.conclude(replace(sealed(good), body=body), Hold(LAST)) is None
    shaped = complete(frozen(total.s()), shape=[["g", None], []])
    completion = signing.conclude(replace(sealed(shaped), shape=shaped.shape), Hold(LAST))
    assert completion.publish == []
