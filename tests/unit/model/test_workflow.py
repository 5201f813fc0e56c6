"""What an end means for the workflow around it: pure, and total over whatever is on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.model.message import Malformed, Message
from celeriac.model.outcome import Embed
from celeriac.model.workflow import Abandoned, Join, abandoned, joins_of, membership

BODY = {"task": "body"}
ERROR = ValueError("no")


def message(**headers: Any) -> Message:
    return Message(id="m", task="t", headers=headers, body=b"")


def task(task_id: str, **options: Any) -> dict[str, Any]:
    return {"task": "t", "args": [], "kwargs": {}, "options": {"task_id": task_id, **options}}


def chain(*steps: Any, **options: Any) -> dict[str, Any]:
    return {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": list(steps)}, "options": options}


def group(*tasks: Any, **options: Any) -> dict[str, Any]:
    return {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": list(tasks)}, "options": options}


def chord(header: Any, body: Any, **options: Any) -> dict[str, Any]:
    kwargs = {"header": header, "body": body}
    return {"task": "celery.chord", "subtask_type": "chord", "kwargs": kwargs, "options": options}


# -- membership ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "embed", "expected"),
    [
        ({"group": "g", "group_index": 3}, Embed(chord=BODY), ("g", 3)),
        ({"group": "g"}, Embed(chord=BODY), ("g", None)),
        ({"group": "g", "group_index": "3"}, Embed(chord=BODY), ("g", None)),
        ({"group": "g", "group_index": 3}, Embed(), None),
        ({"group": "g", "group_index": 3}, None, ("g", 3)),
        ({"group": None}, None, None),
        ({"group": ""}, Embed(chord=BODY), None),
        ({"group": 7}, Embed(chord=BODY), None),
        ({}, Embed(chord=BODY), None),
    ],
)
def test_membership(headers: dict[str, Any], embed: Embed | None, expected: Any) -> None:
    assert membership(message(**headers), embed) == expected


def test_what_could_not_be_read_at_all_is_no_member() -> None:
    assert membership(Malformed(reason="x", raw=b""), None) is None
    assert joins_of(Malformed(reason="x", raw=b""), None, "FAILURE", ERROR) == ()


# -- joins ---------------------------------------------------------------------------------------------------------


def test_a_member_joins_with_the_body_where_that_is_known() -> None:
    one = message(group="g", group_index=1)
    assert joins_of(one, Embed(chord=BODY), "SUCCESS", 5) == (Join("g", "m", 1, BODY, "SUCCESS", 5),)
    assert joins_of(one, None, "FAILURE", ERROR) == (Join("g", "m", 1, None, "FAILURE", ERROR),)
    assert joins_of(one, Embed(), "SUCCESS", 5) == ()


def test_the_steps_behind_a_failure_join_for_their_chords() -> None:
    behind = (
        Abandoned("plain"),
        Abandoned("in a group", "g1", 0),
        Abandoned("member", "g2", 4, BODY),
        Abandoned("lost", None, None, BODY),
    )
    assert joins_of(message(), Embed(), "FAILURE", ERROR, behind) == (Join("g2", "member", 4, BODY, "FAILURE", ERROR),)


# -- what will never run -------------------------------------------------------------------------------------------


def test_plain_steps() -> None:
    assert abandoned(None) == abandoned([]) == ()
    assert abandoned([task("a"), task("b", group_id="g", group_index=1)]) == (Abandoned("a"), Abandoned("b", "g", 1))


def test_a_member_at_the_end_of_a_chain() -> None:
    found = abandoned([task("last", group_id="g", group_index=2, chord=BODY), task("next")])
    assert found == (Abandoned("last", "g", 2, BODY), Abandoned("next"))


def test_a_chain_is_in_a_chord_by_its_last_step() -> None:
    steps = chain(task("a"), task("b"), chord=BODY, group_id="g", group_index=1)
    assert abandoned([steps]) == (Abandoned("a"), Abandoned("b", "g", 1, BODY))


def test_a_group_is_in_a_chord_by_all_its_tasks() -> None:
    tasks = [task("a", group_id="g", group_index=1), chain(task("b"), task("c", group_id="g", group_index=2))]
    found = abandoned([group(*tasks, chord=BODY, group_id="g", group_index=1)])
    assert found == (Abandoned("a", "g", 1, BODY), Abandoned("b"), Abandoned("c", "g", 2, BODY))


@pytest.mark.parametrize("as_group", [True, False])
def test_a_chord_is_in_a_chord_by_its_body(as_group: bool) -> None:
    header = [task("h1", group_id="inner"), task("h2", group_id="inner")]
    inner = chord(group(*header) if as_group else header, task("b"), chord=BODY, group_id="g", group_index=1)
    found = abandoned([inner])
    assert found == (Abandoned("h1", "inner"), Abandoned("h2", "inner"), Abandoned("b", "g", 1, BODY))


def test_a_chord_without_a_body_and_steps_without_ids() -> None:
    nameless = {"task": "t", "options": {}}
    assert abandoned([chord([task("a")], None), nameless, chain(), group(), chain(nameless)]) == (Abandoned("a"),)


def test_what_a_step_carries_with_it() -> None:
    assert abandoned([task("a", chain=[task("c"), task("b")])]) == (Abandoned("a"), Abandoned("c"), Abandoned("b"))


def test_own_options_go_before_those_from_around() -> None:
    own = {"task": "own"}
    assert abandoned([chain(task("a", chord=own, group_id="h", group_index=0), chord=BODY, group_id="g")]) == (
        Abandoned("a", "h", 0, own),
    )


#: Whatever JSON can hold, with the names that are looked at.
wire = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["chain", "group", "chord"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "args", "body", "chain", "chord", "group_id", "group_index", "header", "kwargs", "options",
                "subtask_type", "task", "task_id", "tasks",
            ]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.none() | wire.map(lambda value: value if isinstance(value, list) else [value]))
def test_nothing_on_the_wire_makes_it_raise(signatures: Any) -> None:
    for step in abandoned(signatures):
        assert isinstance(step.id, str)
        assert step.group is None or isinstance(step.group, str)
