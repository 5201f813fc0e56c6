"""Signatures: whatever is changed on the way shows; whatever honest carriers do to a message does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from celeriac.client.sender import Sender
from celeriac.codec import envelope
from celeriac.codec.signing import SIGNATURE, Signer, control_signer_of, seal, signer_of, unseal
from celeriac.conf.settings import Settings
from celeriac.exceptions import ImproperlyConfigured, SecurityError
from celeriac.model.message import MARK, Marks, Message

OLD, NEW = b"the key of last year", b"the key of this year"
SIGNER = Signer(NEW)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def make(options: dict[str, Any] | None = None, *args: Any, **kwargs: Any) -> Message:
    sender = Sender(Settings({"broker_url": "memory://signing"}), default_url=lambda: "memory://signing")
    return sender.message("t.add", args or (1, 2), kwargs, options or {})


def carried(message: Message, **how: Any) -> Message:
    """The message as a worker gets it."""
    found = envelope.decode(envelope.encode(message, **how), queue=message.queue)
    assert isinstance(found, Message)
    return found


OPTIONS: list[dict[str, Any]] = [
    {},
    {"countdown": 60, "expires": 120, "priority": 7, "time_limit": 5, "soft_time_limit": 2.5},
    {"queue": "other", "shadow": "s", "ignore_result": True, "retries": 2},
    {"group_id": "g", "group_index": 3, "root_id": "r", "parent_id": "p", "reply_to": "q"},
    {"headers": {"tenant": 7, "nested": {"b": [1, {"a": None}], "a": 1.5}, "ü": "\ud800"}},
    {"headers": {"numbers as keys": {2: "b", 10: "a"}, "huge": 10**30}},
    {"stamped_headers": ["who"], "who": ["x", "y"]},
    {"argsrepr": "lone \ud800", "compression": "gzip"},
    {"delivery_mode": 1, "serializer": "msgpack"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_what_was_signed_is_accepted(options: dict[str, Any]) -> None:
    message = SIGNER.sign(make(options))
    assert SIGNER.refusal(message) is None
    assert SIGNER.refusal(carried(message)) is None


def test_values_that_travel_under_tags() -> None:
    from datetime import UTC, date, datetime
    from decimal import Decimal
    from uuid import UUID

    own = {
        "when": datetime(2030, 1, 2, tzinfo=UTC),
        "day": date(2030, 1, 2),
        "much": Decimal("1.50"),
        "who": UUID(int=7),
    }
    message = SIGNER.sign(make({"headers": own}))
    received = carried(message)
    assert received.headers["when"] == own["when"]
    assert SIGNER.refusal(received) is None


@given(headers=st.dictionaries(st.text(min_size=1, max_size=10).filter(lambda name: name != MARK), JSON, max_size=6))
def test_any_header_survives(headers: dict[str, Any]) -> None:
    message = make()
    message = SIGNER.sign(replace(message, headers={**headers, **message.headers}))
    received = envelope.decode(envelope.encode(message), queue=message.queue)
    if isinstance(received, Message):  # too deep, or a tag that nobody knows
        assert SIGNER.refusal(received) is None


def test_what_restores_write_is_not_signed() -> None:
    message = carried(SIGNER.sign(make({"countdown": 5})), marks=Marks(crashes=2, suspect=True), redelivered=True)
    assert message.headers["redelivered"] is True
    assert MARK in message.headers
    assert SIGNER.refusal(message) is None
    assert SIGNER.refusal(carried(message)) is None


CHANGES: dict[str, Any] = {
    "queue": "elsewhere",
    "body": b"[[1, 3], {}, {}]",
    "content_type": "application/x-python-serialize",
    "content_encoding": "binary",
    "exchange": "e",
    "routing_key": "k",
    "priority": 9,
    "correlation_id": "c",
    "reply_to": "somebody",
    "delivery_mode": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_field_is_found(name: str) -> None:
    message = carried(SIGNER.sign(make()))
    assert SIGNER.refusal(replace(message, **{name: CHANGES[name]})) == "signature invalid"


def test_a_changed_header_is_found_and_so_are_new_and_missing_ones() -> None:
    message = carried(SIGNER.sign(make({"headers": {"tenant": 7}})))
    for name in message.headers:
        if name != SIGNATURE:
            changed = {**message.headers, name: "changed"}
            assert SIGNER.refusal(replace(message, headers=changed)) == "signature invalid", name
            missing = {key: value for key, value in message.headers.items() if key != name}
            assert SIGNER.refusal(replace(message, headers=missing)) == "signature invalid", name
    assert SIGNER.refusal(replace(message, headers={**message.headers, "new": None})) == "signature invalid"


@pytest.mark.parametrize(
    "claimed",
    ["", "1:", "1:" + "0" * 64, "2:" + "0" * 64, "ü" * 66, 7, [], {}, True, b"1:", "1:" + "ü" * 64, "x" * 10**6],
)
def test_no_signature_that_is_none(claimed: Any) -> None:
    message = make()
    assert SIGNER.refusal(message) == "signature missing"
    assert SIGNER.refusal(replace(message, headers={**message.headers, SIGNATURE: claimed})) == "signature invalid"


def test_keys_are_changed_without_a_stop() -> None:
    before, both, after = Signer(OLD), Signer(NEW, OLD), Signer(NEW)
    old, new = before.sign(make()), both.sign(make())
    assert both.refusal(old) is None
    assert both.refusal(new) is None
    assert after.refusal(new) is None
    assert after.refusal(old) == "signature invalid"
    assert before.refusal(new) == "signature invalid"
    assert Signer(NEW, OLD).sign(old).headers[SIGNATURE] != old.headers[SIGNATURE]
    assert after.refusal(after.sign(old)) is None


# ---------------------------------------------------------------- stored bytes

RECORD = b'{"status":"SUCCESS","result":{"signature":"x"},"task_id":"i"}'
STORED = [RECORD, b'[1,"i","SUCCESS",5]', b"{}", b"", b"\0binary", b'{"a":1}', b"7", b'"text"', b"application/x\0{}"]


@pytest.mark.parametrize("data", STORED)
def test_stored_bytes_come_back_as_they_were(data: bytes) -> None:
    sealed = SIGNER.seal("result", "i", data)
    assert sealed != data
    assert SIGNER.unseal("result", "i", sealed) == data
    assert unseal(SIGNER, "result", "i", seal(SIGNER, "result", "i", data)) == data
    assert seal(None, "result", "i", data) == data
    assert unseal(None, "result", "i", data) == data


def test_a_sealed_record_is_json_that_others_read_and_starts_as_before() -> None:
    sealed = SIGNER.seal("result", "i", RECORD)
    assert sealed.startswith(RECORD[:-1])
    assert {**json.loads(RECORD), "signature": json.loads(sealed)["signature"]} == json.loads(sealed)
    part = SIGNER.seal("part", "c", b'[1,"i","SUCCESS",5]')
    assert unseal(None, "part", "c", part) == b'[1,"i","SUCCESS",5]'


@pytest.mark.parametrize("data", STORED)
def test_they_belong_to_one_purpose_and_one_place(data: bytes) -> None:
    sealed = SIGNER.seal("result", "i", data)
    for purpose, place in (("result", "j"), ("part", "i"), ("group", "i"), ("resulti", "")):
        with pytest.raises(SecurityError, match="invalid"):
            SIGNER.unseal(purpose, place, sealed)
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(SecurityError):
            SIGNER.unseal("result", "i", changed)
    with pytest.raises(SecurityError, match="missing"):
        SIGNER.unseal("result", "i", data)


@given(st.binary(max_size=300))
def test_bytes_of_anybody(data: bytes) -> None:
    with pytest.raises(SecurityError):
        SIGNER.unseal("result", "i", data)
    assert isinstance(unseal(None, "result", "i", data), bytes)


def test_an_error_is_one_line() -> None:
    with pytest.raises(SecurityError) as caught:
        SIGNER.unseal("result", "i\n[CRITICAL]" + "x" * 1000, b"{}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize(
    "claimed",
    [None, 5, {}, "1:" + "0" * 64, "1:" + "ä" * 64],
)
def test_no_signature_of_a_command_that_is_none(claimed: Any) -> None:
    assert not SIGNER.is_command({"method": "shutdown", SIGNATURE: claimed})


def test_a_command_with_anything_in_it() -> None:
    request: dict[str, Any] = {"method": "x", "arguments": {1: [float("nan"), "\ud800", 10**30]}}
    signed = {**request, SIGNATURE: SIGNER.command(request)}
    assert SIGNER.is_command(signed)
    assert SIGNER.is_command(json.loads(json.dumps(signed)))
    assert not SIGNER.is_command({**signed, "method": "y"})
    assert not SIGNER.is_command({"method": object(), SIGNATURE: "1:" + "0" * 64})
    loop: list[Any] = []
    loop.append(loop)
    assert not SIGNER.is_command({"method": loop, SIGNATURE: "1:" + "0" * 64})


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**4000)
    | st.floats()
    | st.text(st.characters())
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()) | st.integers(), inner),
    max_leaves=6,
)
_deep: Any = None
for _ in range(5000):
    _deep = [_deep]


@given(st.dictionaries(st.text(max_size=5) | st.just(SIGNATURE), ANYTHING | st.just(_deep), max_size=4))
def test_whatever_comes_in_is_refused_and_raises_nothing(fields: dict[str, Any]) -> None:
    message = make()
    received = replace(message, headers={**message.headers, **fields})
    assert SIGNER.refusal(received) in {"signature missing", "signature invalid"}
    assert not SIGNER.is_command(fields)


# ---------------------------------------------------------------- settings


def test_keys_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signer_of(Settings({})) is None
    assert control_signer_of(Settings({})) is None
    conf = Settings({"signing_key": [NEW.decode(), OLD]})
    assert signer_of(conf) is signer_of(conf)
    assert control_signer_of(conf) is signer_of(conf)
    assert control_signer_of(Settings({"signing_key": NEW, "control_key": OLD})) is not signer_of(conf)
    monkeypatch.setenv("CELERIAC_SIGNING_KEY", f"{NEW.decode()},{OLD.decode()}")
    from_environment = signer_of(Settings({"signing_key": "some other key of the file"}))
    assert from_environment is signer_of(conf)


@pytest.mark.parametrize("value", ["short", b"short", ["a long enough key", "short"], 7, [None], {"a": "b"}])
def test_unusable_keys(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="signing_key") as caught:
        signer_of(Settings({"signing_key": value}))
    assert "short" not in str(caught.value)


def test_keys_are_never_shown() -> None:
    conf = Settings({"signing_key": [NEW.decode(), OLD.decode()], "control_key": "a key for commands"})
    shown = repr(conf.table()) + conf.humanize(with_defaults=True) + repr(signer_of(conf))
    assert "signing_key" in shown
    assert not [key for key in (NEW.decode(), OLD.decode(), "a key for commands") if key in shown]
