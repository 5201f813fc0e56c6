"""Key names and the texts under them."""

from __future__ import annotations

import json

import pytest

from celeriac.brokers.redis.layout import Layout, envelope_of
from celeriac.brokers.redis.urls import parse
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.message import Message
from celeriac.ports import AdapterOptions


def layout(prefix: str = "", url: str = "redis://h/3", **transport: object) -> Layout:
    options = AdapterOptions(key_prefix=prefix, transport=transport)
    return Layout(parse(url, options), options)


def message(priority: int = 0) -> Message:
    return Message(id="i", task="t", headers={}, body=b"", priority=priority)


def test_kombus_names() -> None:
    names = layout()
    assert names.lists("q") == ("q", "q\x06\x163", "q\x06\x166", "q\x06\x169")
    assert (names.unacked, names.index, names.mutex) == ("unacked", "unacked_index", "unacked_mutex")
    assert names.topic("celery.pidbox") == "/3.celery.pidbox"
    assert names.topic("celeryev", "worker.heartbeat") == "/3.celeryev/worker.heartbeat"
    assert names.bindings("reply.celery.pidbox") == "_kombu.binding.reply.celery.pidbox"
    assert names.result("abc") == "celery-task-meta-abc"
    assert names.group("abc") == "celery-taskset-meta-abc"
    assert names.chord("abc") == (
        *(f"celery-taskset-meta-abc.{end}" for end in "stjdc"), "celery-taskset-meta-abc", "celeriac:chord:abc"
    )  # fmt: skip


def test_a_prefix_is_in_front_of_everything() -> None:
    names = layout("p")
    keys = [*names.fixed, *names.lists("q"), names.schedule("q"), names.topic("x"), names.bindings("x")]
    keys += [names.mutex, names.binding_deadlines, names.result("i"), names.chords, *names.chord("c")]
    assert all(key.startswith("p") for key in keys)


@pytest.mark.parametrize(("prefix", "key"), [("p", "p_celery-task-meta-i"), ("p:", "p:celery-task-meta-i")])
def test_celerys_separator_of_result_prefixes(prefix: str, key: str) -> None:
    assert layout(prefix).result("i") == key
    assert layout(prefix).result_id(key) == "i"
    assert layout(prefix).group("i") == key.replace("task", "taskset")


@pytest.mark.parametrize(("priority", "step"), [(0, 0), (2, 0), (3, 3), (5, 3), (8, 6), (9, 9), (200, 9), (-1, 0)])
def test_priorities_are_rounded_down(priority: int, step: int) -> None:
    assert layout().ready("q", message(priority)) == (f"q\x06\x16{step}" if step else "q")
    assert layout().scheduled(message(priority), b"{}") == b"%d:{}" % step


def test_other_steps_and_separators() -> None:
    names = layout(priority_steps=[0, 5], sep=":")
    assert names.lists("q") == ("q", "q:5")
    with pytest.raises(ImproperlyConfigured, match="priority_steps"):
        layout(priority_steps="high")


def test_fanout_prefixes() -> None:
    assert layout(fanout_prefix=False).topic("e") == "e"
    assert layout(fanout_prefix="x{db}-").topic("e") == "x3-e"
    assert layout(fanout_patterns=False).topic("e", "k") == "/3.e"


@pytest.mark.parametrize("queue", ["q", 'with "quotes"', "ü\x06", ',"","'])
@pytest.mark.parametrize("envelope", [b'{"body":""}', b"not json", b"", b'x,"","y"]'])
def test_entries_come_apart_again(queue: str, envelope: bytes) -> None:
    entry = b"[" + envelope + Layout.tail(queue)
    assert envelope_of(entry) == (envelope, queue)


def test_entries_are_kombus() -> None:
    entry = b'[{"body":"x"}' + Layout.tail("q")
    assert json.loads(entry) == [{"body": "x"}, "", "q"]


@pytest.mark.parametrize("entry", [b"", b"[]", b"{}", b'[{}, "", "q"]', b'[{},"",7]', b'{},"","q"]'])
def test_foreign_entries_are_not_ours(entry: bytes) -> None:
    assert envelope_of(entry) is None


def test_tokens_are_long_enough_for_a_skip_list() -> None:
    form = Layout.token_form("w%1")
    assert (form % 12).startswith("celeriac:w%1:0")
    assert (form % 12).endswith("12")
    assert len(form % 12) == 65
    assert Layout.token_form("x" * 100) % 7 == f"celeriac:{'x' * 100}:7"
