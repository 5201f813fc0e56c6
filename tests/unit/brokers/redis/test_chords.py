"""What the chord scripts are told, and what is read from their answers."""

from __future__ import annotations

import pytest

from celeriac.brokers.redis.chords import gathered_from, join_args, life, member
from celeriac.brokers.redis.endings import Endings
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.urls import parse
from celeriac.model.chord import Part
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Accept, Completion, Hold, StoredResult
from celeriac.ports import AdapterOptions

LAYOUT = Layout(parse("redis://h/0", AdapterOptions()), AdapterOptions())


def part(index: int | None, chord: str = "c", body: bytes = b"{}") -> Part:
    return Part(chord=chord, id="i", index=index, value=b"[]", body=body, expires=1.5)


def delivery() -> Delivery:
    return Delivery(message=Message(id="i", task="t", headers={}, body=b""), raw=b"", token="celeriac:w:1", queue="q")


@pytest.mark.parametrize(("index", "name"), [(0, "i:0"), (12, "i:12"), (None, "i:+inf")])
def test_celerys_names_of_members(index: int | None, name: str) -> None:
    assert member(part(index)) == name


@pytest.mark.parametrize(("seconds", "told"), [(None, ""), (0, 1), (0.0001, 1), (1.5, 1500)])
def test_life_times_are_milliseconds(seconds: float | None, told: object) -> None:
    assert life(seconds) == told


def test_what_a_chord_has_in_common_is_told_once() -> None:
    parts = [part(0, body=b""), *(part(index, body=b"x" * 1000) for index in range(1, 100)), part(0, "d")]
    keys, args, chords = join_args(LAYOUT, parts, "t", 10.0)
    assert chords == ["c", "d"]
    assert keys == [LAYOUT.chords, LAYOUT.index, *LAYOUT.chord("c"), *LAYOUT.chord("d")]
    assert args.count(b"x" * 1000) == 1


def test_what_has_nothing_to_do_with_chords_is_told_as_ever() -> None:
    endings = Endings(LAYOUT, strict=False, now=0.0, chord_token=10.0)
    record = StoredResult("o", b"{}", True)
    endings.add(Completion(settlement=Accept(delivery()), others=[record]))
    keys, args = endings.keys_and_args()
    assert keys == [*LAYOUT.fixed, LAYOUT.result("o")]
    assert args == [0, 0, "each", 0, "", "celeriac:w:1", 1, "S", 7, b"{}", ""]


def test_a_hold_needs_no_delivery() -> None:
    endings = Endings(LAYOUT, strict=False, now=0.0, chord_token=10.0)
    endings.add(Completion(settlement=Hold(), parts=[part(3)]))
    keys, args = endings.keys_and_args()
    assert keys == [*LAYOUT.fixed, LAYOUT.chords, *LAYOUT.chord("c")]
    assert args[-10:] == ["", 2, "H", "stay", "1", "", "J", 0, "i:3", b"[]"]


@pytest.mark.parametrize(
    ("stored", "value"),
    [(b"[1]", b"[1]"), (b"[1]  ", b"[1]"), (b"", b""), (b" ", b" "), (b"\x94\x01 ", b"\x94\x01 ")],
)
def test_blanks_behind_json_are_not_the_values(stored: bytes, value: bytes) -> None:
    found = gathered_from("c", "t", [[stored], b"body", b""])
    assert found is not None
    assert list(found.parts) == [value]
    assert gathered_from("c", "t", None) is None
