"""Stamps: where they go, who decides, and which value counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celeriac import Celery, StampingVisitor, chain, chord, group, signature
from celeriac.worker.follow_ups import Sent


@pytest.fixture
def add(app: Celery) -> Any:
    return app.task(name="add")(lambda x, y=0: x + y)


@pytest.fixture
def tsum(app: Celery) -> Any:
    return app.task(name="tsum")(lambda values: sum(values))


class Everywhere(StampingVisitor):
    """Writes down who is asked, with the stamps that come from around; stamps each with its own name."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def _note(self, name: str, headers: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((name, sorted(headers.get("stamped_headers", ()))))
        return {f"by_{name}": 1}

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        return self._note("signature", headers)

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        return self._note("group", headers)

    def on_group_end(self, group: Any, **headers: Any) -> None:
        self._note("group over", headers)

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        return self._note("chain", headers)

    def on_chain_end(self, chain: Any, **headers: Any) -> None:
        self._note("chain over", headers)

    def on_chord_body(self, sig: Any, **header: Any) -> dict[str, Any]:
        return self._note("body", header)

    def on_callback(self, callback: Any, **header: Any) -> dict[str, Any]:
        return self._note("callback", header)

    def on_errback(self, errback: Any, **header: Any) -> dict[str, Any]:
        return self._note("errback", header)


class Says(StampingVisitor):
    def __init__(self, said: Any) -> None:
        self.said = said

    def on_signature(self, sig: Any, **headers: Any) -> Any:
        return self.said


def stamps(sig: Any) -> dict[str, Any]:
    return {name: sig.options.get(name) for name in sig.options.get("stamped_headers", ())}


def test_in_the_messages_of_all_tasks(add: Any, tsum: Any) -> None:
    workflow = group(add.s(1), chain(add.s(2), add.s(3)), chord([add.s(4)], tsum.s()))
    assert workflow.stamp(tenant=7, tags=["a", "b"]) is workflow
    sent = Sent()
    workflow.apply_async(producer=sent)
    for message in sent.messages:
        assert message.headers["stamps"] == {"tenant": 7, "tags": ["a", "b"]}
        assert message.headers["stamped_headers"] == ["tenant", "tags"]
    (step,) = json.loads(sent.messages[1].body)[2]["chain"]
    assert step["options"]["tenant"] == 7
    # As in Celery: the body only when a visitor says how.
    assert "tenant" not in json.loads(sent.messages[2].body)[2]["chord"]["options"]


def test_who_is_asked(add: Any) -> None:
    visitor = Everywhere()
    one = add.s(1)
    one.link(add.s(2))
    one.link_error(add.s(3))
    one.stamp(visitor, tenant=7)
    assert visitor.asked == [
        ("callback", []),
        ("signature", ["by_callback", "tenant"]),
        ("errback", []),
        ("signature", ["by_errback", "tenant"]),
        ("signature", []),
    ]
    assert stamps(one) == {"tenant": 7, "by_signature": 1}
    assert stamps(one.options["link"][0]) == {"tenant": 7, "by_callback": 1, "by_signature": 1}
    assert stamps(one.options["link_error"][0]) == {"tenant": 7, "by_errback": 1, "by_signature": 1}


def test_who_is_asked_about_what_is_made_of_several(add: Any, tsum: Any) -> None:
    visitor = Everywhere()
    chain(add.s(1), chord([add.s(2)], tsum.s())).stamp(visitor)
    assert visitor.asked == [
        ("chain", []),
        ("signature", ["by_chain"]),
        ("group", ["by_chain"]),
        ("signature", ["by_chain", "by_group"]),
        ("group over", ["by_chain", "by_group"]),
        ("body", ["by_chain", "by_group"]),
        ("signature", ["by_body", "by_chain", "by_group"]),
        ("chain over", ["by_chain"]),
    ]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2, "stamped_headers": ["a"]}, {"a": 1}),
        ({"a": 1, "stamped_headers": []}, {}),
        ({}, {}),
        (None, {}),
    ],
)
def test_what_a_visitor_says(add: Any, said: Any, expected: dict[str, Any]) -> None:
    assert stamps(add.s(1).stamp(Says(said))) == expected


@pytest.mark.parametrize(
    ("append", "expected"), [(False, {"a": 2, "b": 3, "c": 4}), (True, {"a": [2, 1], "b": 3, "c": 4})]
)
def test_stamped_again(add: Any, append: bool, expected: dict[str, Any]) -> None:
    one = add.s(1).stamp(a=1, c=4)
    assert stamps(one.stamp(append_stamps=append, a=2, b=3)) == expected


def test_what_comes_from_around_counts(add: Any) -> None:
    """Before the visitor's, and before its own: so it is in Celery 5.7."""
    assert stamps(add.s(1).stamp(a=0).stamp(Says({"a": 1}), a=2)) == {"a": 2}
    assert stamps(add.s(1).stamp(a=0).stamp(Says({"a": 1}), append_stamps=True, a=2)) == {"a": [2, 1, 0]}


def test_a_stamp_is_fixed_when_it_is_sent(add: Any) -> None:
    sent = Sent()
    add.s(1).stamp(tenant=7).apply_async(producer=sent, tenant=8)
    assert sent.messages[0].headers["stamps"] == {"tenant": 7}


def test_stamps_outlive_the_wire_and_copies(add: Any) -> None:
    stamped = chain(add.s(1), add.s(2)).stamp(tenant=7)
    for other in (signature(json.loads(json.dumps(stamped))), stamped.clone()):
        assert [stamps(step) for step in other.tasks] == [{"tenant": 7}] * 2


def test_maps_and_chunks(add: Any) -> None:
    sent = Sent()
    add.map([1]).stamp(tenant=7).apply_async(producer=sent)
    add.chunks([(1, 2), (3, 4)], 1).stamp(tenant=7).apply_async(producer=sent)
    assert [message.headers["stamps"] for message in sent.messages] == [{"tenant": 7}] * 3


def test_links_that_are_dicts_become_signatures(add: Any) -> None:
    one = add.s(1).set(link=[json.loads(json.dumps(add.s(2)))])
    one.stamp(tenant=7)
    assert stamps(one.options["link"][0]) == {"tenant": 7}


def test_visitors_must_say_what_a_signature_gets() -> None:
    with pytest.raises(TypeError, match="abstract"):
        StampingVisitor()  # type: ignore[abstract]
