"""Values as parameters of PostgreSQL's functions."""

from __future__ import annotations

import json

import pytest

from celeriac.brokers.postgres import rows
from celeriac.brokers.postgres.statements import calls, functions, migration
from celeriac.model.chord import Closing, NewChord, Part
from celeriac.model.ledger import ANY, Change, Lock
from celeriac.model.message import Delivery, Marks
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Hold, Release, StoredResult
from celeriac.testing.conformance.tools import message


def _delivery(token: str = "owner:5:7", **fields: object) -> Delivery:
    return Delivery(message=message("a"), token=token, queue="q", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"), [("plain", "plain"), ("ü", "ü"), ("a\0b", "a\\x00b"), ("\ud800", "\\ud800"), ("", "")]
)
def test_texts_that_no_database_holds_are_escaped(text: str, expected: str) -> None:
    assert rows.clean(text) == expected


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("w1:5:7", (5, 7)),
        ("a:b:5:7", (5, 7)),
        ("foreign", (-1, -1)),
        ("x:-1:2", (-1, -1)),
        ("x:٣:2", (-1, -1)),
        (f"x:{'9' * 19}:1", (-1, -1)),
    ],
)
def test_tokens(token: str, expected: tuple[int, int]) -> None:
    assert rows.unpack(token) == expected


def test_messages() -> None:
    queues, steps, dues, envelopes = rows.message_columns([message("a", priority=5), message("b", "other", due=7.5)])
    assert (queues, steps, dues) == (["q", "other"], [3, 0], [None, 7.5])
    assert [json.loads(each)["headers"]["id"] for each in envelopes] == ["a", "b"]


def test_results() -> None:
    success = StoredResult("a", b'{"status":"SUCCESS"}', True, 60.0)
    columns = rows.result_columns([success, None, StoredResult("b", b'{"status": "SUCCESS", "x": 1}', False)])
    assert columns == (
        ["a", None, "b"],
        [success.body, None, b'{"status": "SUCCESS", "x": 1}'],
        [True, None, False],
        [True, None, True],
        [60.0, None, None],
    )


def test_changes() -> None:
    changes = [Change("a", b"1", ANY, 5.0), Change("b", None, b"2"), Change("c", b"3", None)]
    assert rows.change_columns(changes) == (
        ["a", "b", "c"],
        [b"1", None, b"3"],
        [True, False, False],
        [None, b"2", None],
        [5.0, None, None],
    )


def test_completions() -> None:
    chord = NewChord(id="c", size=2, body=b"body", expires=9.0)
    part = Part(chord="c", id="a", index=None, value=b"v", grows=1)
    everything = Completion(
        settlement=Accept(_delivery()),
        publish=[message("next")],
        result=StoredResult("a", b"r", True),
        others=[StoredResult("b", b"s", True)],
        opens=[chord],
        parts=[part],
        closes=Closing("d", "token"),
        frees=[Lock("key", "a")],
    )
    found = json.loads(rows.json_text([rows.completion(everything)]))[0]
    assert (found["claim"], found["id"], found["token"]) == (5, 7, "owner:5:7")
    assert found["end"] == {"kind": "accept"}
    assert [row["queue"] for row in found["rows"]] == ["q"]
    assert [row["id"] for row in found["results"]] == ["a", "b"]
    assert (found["opens"][0]["size"], found["opens"][0]["body"]) == (2, "Ym9keQ==")
    assert (found["parts"][0]["place"], found["parts"][0]["grows"]) == (2**63 - 1, 1)
    assert found["closes"] == {"chord": "d", "token": "token"}
    assert found["frees"][0]["key"] == "key"
    assert rows.completion(Completion(settlement=Hold())) == {}


def test_ends() -> None:
    back = rows.completion(Completion(settlement=Release(_delivery(), due=3.0)))["end"]
    assert back == {"kind": "release", "due": 3.0, "back": False, "alone": False, "envelope": None}
    marked = rows.completion(Completion(settlement=Release(_delivery(raw=b"{}"), marks=Marks(suspect=True))))["end"]
    assert marked["alone"] is True
    assert b'"suspect":true' in marked["envelope"]
    letter = DeadLetter(delivery=_delivery(), reason=DeadReason.FAILED, detail="a\0b", at=5.0)
    dead = rows.completion(Completion(settlement=letter))["end"]
    assert (dead["kind"], dead["reason"], dead["detail"], dead["at"]) == ("dead", "failed", "a\\x00b", 5.0)


def test_statements_name_the_schema_and_nothing_is_left_to_fill_in() -> None:
    name = "Jobs-2"
    for text in (functions(name), migration(1, name), *(each.text for each in calls(name).values())):
        assert b"{schema" not in text
        assert b"{chord_" not in text
    assert b'"Jobs-2".claim(' in calls(name)["claim"].text
    assert not any(b"?::" in each.text for each in calls(name).values())
