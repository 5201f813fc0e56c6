"""Redis Cluster: tags, slots, the map of nodes, URLs."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from celeriac.brokers.redis.cluster.address import at, parse_cluster, server_of
from celeriac.brokers.redis.cluster.slots import (
    BUCKETS,
    SLOTS,
    SlotMap,
    bucket_of,
    bucket_tags,
    queue_tag,
    slot_of,
    tagged,
)
from celeriac.brokers.redis.errors import Elsewhere, refused
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

OPTIONS = AdapterOptions()


@pytest.mark.parametrize(
    ("key", "slot"),
    # The specification's examples and CLUSTER KEYSLOT's answers.
    [
        ("123456789", 12739),
        ("foo", 12182),
        ("{user1000}.following", 3443),
        ("foo{}{bar}", 8363),
        ("foo{{bar}}zap", 4015),
    ],
)
def test_slots(key: str, slot: int) -> None:
    assert slot_of(key) == slot_of(key.encode()) == slot


@pytest.mark.parametrize("queue", ["celery", "a}b", "{a}", "", "%", "{", "}", "é", "a%7Db"])
def test_all_keys_of_a_queue_have_its_slot(queue: str) -> None:
    prefix = tagged("proj:", queue_tag(queue))
    assert slot_of(prefix + "unacked") == slot_of(f"{prefix}{queue}") == slot_of(f"{prefix}x{{y}}")
    assert slot_of(prefix) == slot_of(queue_tag(queue))


def test_tags_of_queues_are_their_own() -> None:
    names = ["a}b", "a{b", "a%7Db", "a%b", "%", "", "a"]
    assert len({queue_tag(name) for name in names}) == len(names)


def test_buckets_are_spread_evenly() -> None:
    slots = [slot_of(tagged("p:", tag)) for tag in bucket_tags()]
    assert [slot * BUCKETS // SLOTS for slot in slots] == list(range(BUCKETS))
    assert len({bucket_of(f"id-{number}") for number in range(2000)}) == BUCKETS
    assert bucket_tags()[:3] == bucket_tags()[:3]
    assert bucket_of("a lone \udc00 surrogate") < BUCKETS


NODES: list[Any] = [
    [0, 5460, [b"10.0.0.1", 7000, b"id"], [b"10.0.0.4", 7003, b"id"]],
    [5461, 16000, [b"", 7001, b"id"]],
    [16002, 16383, [b"h", 7002, b"id", [b"hostname", b"x"]]],
]


def test_the_map() -> None:
    found = SlotMap().read(NODES, "asked:7001")
    assert [found.owner(slot) for slot in (0, 5460, 5461, 16001, 16383)] == [
        "10.0.0.1:7000", "10.0.0.1:7000", "asked:7001", None, "h:7002",
    ]  # fmt: skip
    assert found.nodes == ("10.0.0.1:7000", "asked:7001", "h:7002")
    moved = found.with_moved(3, "new:1")
    assert (moved.owner(3), moved.owner(4)) == ("new:1", "10.0.0.1:7000")
    assert moved.read(NODES, "asked:7001").owner(3) == "10.0.0.1:7000"
    assert moved.version == found.version + 1 > 1


def test_urls() -> None:
    got = parse_cluster("redis+cluster://u:p%2Cw@h1:7000,h2,[::1]:7002/?client_name=me", OPTIONS)
    assert [got.place, *(each.place for each in got.others)] == ["h1:7000", "h2:6379", "::1:7002"]
    assert {(each.username, each.password, each.tls) for each in (got, *got.others)} == {("u", "p,w", None)}
    assert "p%2Cw" not in got.masked
    assert parse_cluster("rediss+cluster://h", OPTIONS).tls == {}
    assert parse_cluster("redis+cluster://h1:7000", AdapterOptions(alternates=("redis+cluster://h2:1",))).others
    assert at(got, "x:1").place == "x:1"
    assert server_of(got, "queues") != server_of(got, "results")


@pytest.mark.parametrize(
    ("url", "options", "part"),
    [
        ("redis+cluster://h/1", OPTIONS, "no database but 0"),
        ("redis+cluster://h", AdapterOptions(key_prefix="{x}:"), "braces"),
        ("redis+cluster://h:port", OPTIONS, "h:port"),
    ],
)
def test_what_makes_no_sense(url: str, options: AdapterOptions, part: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=part):
        parse_cluster(url, options)


@pytest.mark.parametrize(
    ("text", "word", "place"),
    [
        ("MOVED 3999 127.0.0.1:6381", "MOVED", "127.0.0.1:6381"),
        ("ASK 3999 h:1", "ASK", "h:1"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN", ""),
        ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN", ""),
    ],
)
def test_answers_that_send_elsewhere(text: str, word: str, place: str) -> None:
    error = refused(parse_cluster("redis+cluster://h", OPTIONS), hiredis.ReplyError(text))
    assert isinstance(error, Elsewhere)
    assert (error.word, error.place) == (word, place)
    assert not error.uncertain
