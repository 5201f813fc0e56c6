"""Dead letters as people see them, and what they become when they are sent again."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.codec.body import decode_body, encode_body
from celeriac.codec.envelope import decode, delivery, encode
from celeriac.codec.letters import Edit, Letter, arguments, letter, message_of, replayed, unborn
from celeriac.codec.redaction import hides
from celeriac.exceptions import DecodeError, EncodeError
from celeriac.model.dead import REPLAY, DeadRecord
from celeriac.model.message import Marks, Message

JSON = frozenset({"json"})
LIMIT = 1_000_000


def sent(**fields: Any) -> Message:
    headers = {"lang": "py", "task": "t", "id": "one", "retries": 3, "eta": None, "expires": None, "root_id": "r"}
    body = fields.pop("body", b"[[1, 2], {}, {}]")
    return Message(id="one", task="t", headers={**headers, **fields.pop("headers", {})}, body=body, **fields)


def dead(message: Message | bytes, marks: Marks | None = None) -> Letter:
    raw = message if isinstance(message, bytes) else encode(message, marks=marks, redelivered=marks is not None)
    record = DeadRecord(
        key="k:q", id="one", task="t", queue="q", reason="failed", detail="d", exception="ValueError: x",
        traceback="tb", worker="w", at=1_000.0, crashes=2, raw=raw,
    )  # fmt: skip
    return letter(record, max_bytes=LIMIT)


def again(found: Letter, **edit: Any) -> Message:
    message = message_of(found, max_bytes=LIMIT)
    assert isinstance(message, Message)
    return replayed(found, message, Edit(**edit), now=2_000.0, accept=JSON, max_bytes=LIMIT)


def stored(message: Message) -> Message:
    """As a worker will get it."""
    read = decode(encode(message), queue=message.queue)
    assert isinstance(read, Message)
    return read


def test_a_letter_tells_what_its_message_says() -> None:
    found = dead(sent(headers={"retries": 3, "argsrepr": "(1, 2)", "group": 7}), Marks(crashes=2, expired_leases=4))
    assert (found.retries, found.crashes, found.expired_leases, found.replays) == (3, 2, 4, 0)
    assert (found.root_id, found.argsrepr, found.group_id, found.problem) == ("r", "(1, 2)", "", "")
    assert found.died.isoformat() == "1970-01-01T00:16:40+00:00"


def test_a_malformed_letter_says_why() -> None:
    found = dead(b"\xff not an envelope")
    assert found.problem.startswith("not an envelope")
    assert found.raw == b"\xff not an envelope"


@given(st.binary() | st.text().map(str.encode), st.floats())
def test_any_bytes_are_a_letter(raw: bytes, at: float) -> None:
    record = DeadRecord(
        key="k", id="", task="", queue="q", reason="", detail="", exception="", traceback="", worker="", at=at,
        crashes=0, raw=raw,
    )  # fmt: skip
    found = letter(record, max_bytes=LIMIT)
    assert found.raw == raw
    assert found.died.tzinfo is UTC


def test_it_starts_anew() -> None:
    headers = {"expires": "2020-01-01T00:00:00+00:00", "eta": "2020-01-01T00:00:00+00:00", "x-own": 1}
    found = dead(sent(headers=headers, priority=3, exchange="e", routing_key="rk"), Marks(crashes=2, suspect=True))
    message = again(found)
    read = delivery(encode(message), token="", queue="q")
    assert isinstance(read.message, Message)
    assert (read.marks, read.redelivered) == (Marks(), False)
    assert (read.message.retries, read.message.due, read.message.expires) == (0, None, None)
    assert (read.message.id, read.message.priority, read.message.headers["root_id"]) == ("one", 3, "r")
    assert (message.queue, message.exchange, message.routing_key, message.headers["x-own"]) == ("q", "e", "rk", 1)


def test_it_knows_where_it_comes_from() -> None:
    first = again(dead(sent()))
    lineage = {"key": "k:q", "reason": "failed", "died": 1_000.0, "at": 2_000.0, "times": 1}
    assert first.headers[REPLAY] == lineage
    found = dead(first)
    assert found.replays == 1
    assert again(found).headers[REPLAY] == {**lineage, "times": 2}
    assert again(dead(sent(headers={REPLAY: "anybody's"}))).headers[REPLAY] == lineage


def test_elsewhere_and_later() -> None:
    message = stored(again(dead(sent(exchange="e")), queue="other", countdown=60.0))
    assert (message.queue, message.exchange, message.routing_key, message.due) == ("other", "", "other", 2_060.0)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_other_arguments_in_the_same_form(serializer: str, compression: str | None) -> None:
    embed = {"chain": [{"task": "next", "options": {"task_id": "two"}}], "errbacks": [{"task": "err"}]}
    encoded = encode_body([1], {"a": 1}, embed, serializer=serializer, compression=compression)
    headers = {} if encoded.compression is None else {"compression": encoded.compression}
    before = sent(
        headers=headers,
        body=encoded.body,
        content_type=encoded.content_type,
        content_encoding=encoded.content_encoding,
    )
    found = dead(before)
    old = message_of(found, max_bytes=LIMIT)
    assert isinstance(old, Message)
    accept = frozenset({"json", "msgpack"})
    message = stored(replayed(found, old, Edit(args=["é"]), now=0.0, accept=accept, max_bytes=LIMIT))
    args, kwargs, follow = decode_body(message, accept=accept, max_bytes=LIMIT)
    assert (args, kwargs) == (["é"], {"a": 1})
    assert follow.errbacks == [{"task": "err"}]
    assert unborn(follow) == ["two"]
    assert message.content_type == before.content_type
    assert message.headers.get("compression") == encoded.compression
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("('é',)", "{'a': 1}")
    kept = replayed(found, old, Edit(kwargs={}), now=0.0, accept=accept, max_bytes=LIMIT)
    assert decode_body(kept, accept=accept, max_bytes=LIMIT)[:2] == ([1], {})


def test_what_is_not_decoded_here_goes_as_it_is() -> None:
    found = dead(sent(body=b"\x80\x04]", content_type="application/x-python-serialize"))
    message = message_of(found, max_bytes=LIMIT)
    assert isinstance(message, Message)
    assert arguments(message, accept=JSON, max_bytes=LIMIT) is None
    assert again(found).body == b"\x80\x04]"
    with pytest.raises(DecodeError):
        again(found, args=[])


def test_arguments_that_cannot_be_encoded() -> None:
    with pytest.raises(EncodeError):
        again(dead(sent()), args=[object()])


def test_nothing_behind_it() -> None:
    assert unborn(None) == []


def test_new_arguments_are_described_without_secrets() -> None:
    found, edit = dead(sent()), Edit(kwargs={"iban": "DE1", "token": "t"})
    message = message_of(found, max_bytes=LIMIT)
    assert isinstance(message, Message)
    new = replayed(found, message, edit, now=0.0, accept=JSON, max_bytes=LIMIT, hidden=hides(("iban",)))
    assert new.headers["kwargsrepr"] == "{'iban': '***', 'token': '***'}"
