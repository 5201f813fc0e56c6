"""What real Celery wrote (`golden/*.json`, by `capture.py`) is read whole, and written back the same.

Left aside is what no two messages share (delivery tags) and what kombu leaves behind for itself in properties.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from celeriac import states
from celeriac.client.sender import Sender
from celeriac.codec import envelope
from celeriac.codec.body import decode_body, encode_body
from celeriac.codec.failures import data_to_exception, exception_to_data
from celeriac.codec.json import loads
from celeriac.codec.results import decode_result, encode_result
from celeriac.codec.saferepr import saferepr
from celeriac.codec.serializers import loads as deserialize
from celeriac.conf.settings import Settings
from celeriac.exceptions import RemoteError
from celeriac.model.message import Delivery, Marks, Message

GOLDEN = Path(__file__).parent / "golden"
ACCEPT = frozenset({"json", "msgpack", "yaml", "pickle"})
LIMIT = 1 << 25
PAYLOAD = (2, "grün", [1.5, None], {"k": [True]})
#: The publisher's options that kombu writes among the properties, and its delivery bookkeeping.
KOMBU_ONLY = {"delivery_tag", "expiration", "origin", "argsrepr", "kwargsrepr"}


def load(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def messages() -> Iterator[Any]:
    for file in ("messages", "workflows", "chords", "unacked"):
        yield from found(load(file), file)


def found(node: Any, path: str) -> Iterator[Any]:
    if isinstance(node, dict) and "raw" in node:
        raw = node["raw"]
        text = json.dumps(json.loads(raw)[0]) if raw.startswith("[") else raw
        yield pytest.param(text.encode(), id=path)
    elif isinstance(node, (dict, list)):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from found(child, f"{path}-{key}")


def records() -> Iterator[Any]:
    golden = load("results")
    for kind in ("records", "records_extended"):
        for name, entry in golden[kind].items():
            yield pytest.param(entry["raw"].encode(), id=f"{kind}-{name}")


def decoded(raw: bytes) -> Message:
    message = envelope.decode(raw, queue="celery")
    assert isinstance(message, Message), message
    return message


def without_volatile(text: bytes | str) -> dict[str, Any]:
    parts = json.loads(text)
    properties = {key: value for key, value in parts["properties"].items() if key not in KOMBU_ONLY}
    properties["delivery_info"] = {k: v for k, v in properties["delivery_info"].items() if k != "redelivered"}
    return {**parts, "properties": properties}


@pytest.mark.parametrize("raw", [*messages()])
def test_an_envelope_is_read_and_written_back_the_same(raw: bytes) -> None:
    before = without_volatile(raw)
    message = decoded(raw)
    after = without_volatile(envelope.encode(message))
    if before["headers"]:
        assert after == before
        assert list(after["headers"]) == list(before["headers"])
    else:  # protocol 1 comes back as protocol 2
        assert after["properties"] == before["properties"]
        assert after["headers"]["id"] == before["properties"]["correlation_id"]


@pytest.mark.parametrize("raw", [*messages()])
def test_a_body_is_read_and_written_back_the_same(raw: bytes) -> None:
    message = decoded(raw)
    if message.headers.get("compression") == "application/zstd":
        pytest.importorskip("zstandard")
    args, kwargs, embed = decode_body(message, accept=ACCEPT, max_bytes=LIMIT)
    parts = {key: getattr(embed, key) for key in ("callbacks", "errbacks", "chain", "chord")}
    again = encode_body(
        args,
        kwargs,
        parts if any(parts.values()) or parts["chain"] == [] else None,
        serializer=message.content_type,
        compression=message.headers.get("compression"),
    )
    assert again.content_type == message.content_type
    assert again.content_encoding == message.content_encoding
    assert again.compression == message.headers.get("compression")
    if again.compression is None and message.content_type == "application/json":
        # repr, for NaN differs from itself
        assert repr(json.loads(again.body)) == repr(json.loads(message.body))
    second = decode_body(
        Message(
            id=message.id,
            task=message.task,
            headers=message.headers,
            body=again.body,
            content_type=again.content_type,
            content_encoding=again.content_encoding,
        ),
        accept=ACCEPT,
        max_bytes=LIMIT,
    )
    assert repr(second) == repr((args, kwargs, embed))


@pytest.mark.parametrize("raw", [*messages()])
def test_marks_survive_a_restore(raw: bytes) -> None:
    message = decoded(raw)
    delivery = Delivery(message=message, token="t", queue="celery", raw=raw)
    restored = envelope.delivery(envelope.remark(delivery, Marks(crashes=2, suspect=True)), token="u", queue="celery")
    assert restored.marks == Marks(crashes=2, suspect=True)
    assert restored.redelivered
    assert isinstance(restored.message, Message)
    assert restored.message.body == message.body


def test_typed_values_are_read_as_what_they_were() -> None:
    (entry,) = load("messages")["messages"]["json_type_tags"]
    _, kwargs, _ = decode_body(decoded(entry["raw"].encode()), accept=ACCEPT, max_bytes=LIMIT)
    assert kwargs.pop("nan") != kwargs.get("nan")
    assert kwargs == {
        "datetime": datetime(2026, 11, 22, 8, 6, 45, 739516, tzinfo=UTC),
        "naive_datetime": datetime(2026, 11, 22, 8, 6, 45),
        "date": date(2026, 11, 22),
        "time": time(8, 6, 45),
        "decimal": Decimal("1.50"),
        "uuid": UUID(int=5),
        "bytes": b"text",
        "bytes_utf8": "grün".encode(),
        "base64": b"\xff\x00",
        "tuple": [1, [2, 3]],
        "infinity": float("inf"),
        "int_key": {"1": "one"},
        "text": 'grün 🥕 \x00 " \\ \u2028',
        "big": 2**70,
        "float": 1e-7,
        "none": None,
        "true": True,
    }


# ---------------------------------------------------------------- what the sender writes

ETA = datetime(2036, 11, 22, 8, 6, 45, 739516, tzinfo=UTC)


def signature(task: str, args: list[Any], **more: Any) -> dict[str, Any]:
    plain = {"task": task, "args": args, "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    return {**plain, **more}


CALLS: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "plain": ("golden.add", (2, 3), {}, {}),
    "kwargs": ("golden.add", (), {"x": 2, "y": 3}, {}),
    "long_arguments": ("golden.echo", ("x" * 5000, list(range(500))), {}, {}),
    "send_task": ("other.unknown", [1], {"a": 2}, {"ignore_result": None}),
    "task_id": ("golden.add", (2, 3), {}, {"task_id": "719f19a5-0000-4000-8000-000000000001"}),
    "countdown": ("golden.add", (2, 3), {}, {"countdown": 3600}),
    "eta": ("golden.add", (2, 3), {}, {"eta": ETA}),
    "eta_text": ("golden.add", (2, 3), {}, {"eta": ETA.isoformat(), "ignore_result": None}),
    "expires_seconds": ("golden.add", (2, 3), {}, {"expires": 600}),
    "expires_datetime": ("golden.add", (2, 3), {}, {"expires": ETA + timedelta(hours=1)}),
    **{f"priority_{p}": ("golden.add", (2, 3), {}, {"priority": p}) for p in (0, 1, 3, 5, 6, 9)},
    "queue": ("golden.add", (2, 3), {}, {"queue": "other"}),
    "exchange_and_routing_key": ("golden.add", (2, 3), {}, {"exchange": "celery", "routing_key": "celery"}),
    "headers": ("golden.echo", (1,), {}, {"headers": {"tenant": "acme", "nested": {"a": [1]}}}),
    "stamped": (
        "golden.add",
        (2, 3),
        {},
        {"stamped_headers": ["tenant", "many"], "tenant": "acme", "many": ["a", "b"]},
    ),
    "link": ("golden.add", (2, 3), {}, {"link": signature("golden.add", [10])}),
    "ignore_result": ("golden.add", (2, 3), {}, {"ignore_result": True}),
    "time_limits": ("golden.add", (2, 3), {}, {"time_limit": 60, "soft_time_limit": 50.5}),
    "shadow": ("golden.add", (2, 3), {}, {"shadow": "nice.name"}),
    "reply_to": ("golden.add", (2, 3), {}, {"reply_to": "my-replies"}),
    "argsrepr": ("golden.add", (2, 3), {}, {"argsrepr": "(***)", "kwargsrepr": "{***}"}),
    "not_persistent": ("golden.add", (2, 3), {}, {"delivery_mode": 1}),
    "retries": ("golden.add", (2, 3), {}, {"retries": 2}),
    "root_and_parent": ("golden.add", (2, 3), {}, {"root_id": "the-root", "parent_id": "the-parent"}),
    **{f"serializer_{s}": ("golden.echo", PAYLOAD, {}, {"serializer": s}) for s in ("json", "pickle", "msgpack")},
    "serializer_yaml": ("golden.echo", PAYLOAD, {}, {"serializer": "yaml"}),
    **{f"compression_{c}": ("golden.echo", PAYLOAD, {}, {"compression": c}) for c in ("gzip", "zlib", "bzip2", "lzma")},
    "compression_zstd": ("golden.echo", PAYLOAD, {}, {"compression": "zstd"}),
    "pickle_objects": ("golden.echo", (UUID(int=5), {1, 2}), {}, {"serializer": "pickle"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_sender_writes_what_celery_writes(name: str) -> None:
    (entry,) = load("messages")["messages"][name]
    theirs = without_volatile(entry["raw"])
    if "zstd" in name:
        pytest.importorskip("zstandard")
    sender = Sender(Settings({"broker_url": "memory://"}), default_url=lambda: "memory://")
    task, args, kwargs, options = CALLS[name]
    message = sender.message(task, args, kwargs, {"ignore_result": False, **options})
    ours = without_volatile(envelope.encode(message))

    assert list(ours["headers"]) == list(theirs["headers"])
    for key, value in theirs["headers"].items():
        if key == "origin":
            assert ours["headers"][key].startswith("gen")
        elif key in ("id", "root_id") and name != "task_id" and value != "the-root":
            assert len(ours["headers"][key]) == len(value)
        elif key in ("eta", "expires") and name in ("countdown", "expires_seconds"):
            assert (ours["headers"][key] is None) == (value is None)
            assert value is None or ours["headers"][key].endswith("+00:00")
        else:
            assert ours["headers"][key] == value, key
    assert ours["content-type"] == theirs["content-type"]
    assert ours["content-encoding"] == theirs["content-encoding"]
    volatile = {"correlation_id", "reply_to"} if name != "reply_to" else {"correlation_id"}
    assert {**ours["properties"], **dict.fromkeys(volatile)} == {**theirs["properties"], **dict.fromkeys(volatile)}
    assert ours["properties"]["correlation_id"] == ours["headers"]["id"]
    assert entry["key"].partition("\x06")[0] == message.queue
    theirs_decoded = decode_body(decoded(entry["raw"].encode()), accept=ACCEPT, max_bytes=LIMIT)
    assert repr(decode_body(message, accept=ACCEPT, max_bytes=LIMIT)) == repr(theirs_decoded)


def test_a_naive_eta_stays_naive_and_is_read_in_the_apps_zone() -> None:
    conf = Settings({"broker_url": "memory://", "enable_utc": False, "timezone": "Europe/Berlin"})
    (entry,) = load("messages")["messages"]["eta_not_utc"]
    message = Sender(conf, default_url=lambda: "").message("golden.add", (2, 3), {}, {"eta": ETA.replace(tzinfo=None)})
    assert message.headers["eta"] == json.loads(entry["raw"])["headers"]["eta"]
    assert message.due == ETA.timestamp() - 3600


def test_display_texts_of_odd_values_are_celerys() -> None:
    (entry,) = load("messages")["messages"]["json_type_tags"]
    values = {
        "datetime": datetime(2026, 11, 22, 8, 6, 45, 739516, tzinfo=UTC),
        "naive_datetime": datetime(2026, 11, 22, 8, 6, 45),
        "date": date(2026, 11, 22),
        "time": time(8, 6, 45),
        "decimal": Decimal("1.50"),
        "uuid": UUID(int=5),
        "bytes": b"text",
        "bytes_utf8": "grün".encode(),
        "base64": b"\xff\x00",
        "tuple": (1, (2, 3)),
        "nan": float("nan"),
        "infinity": float("inf"),
        "int_key": {1: "one"},
        "text": 'grün 🥕 \x00 " \\ \u2028',
        "big": 2**70,
        "float": 1e-7,
        "none": None,
        "true": True,
    }
    assert saferepr(values) == json.loads(entry["raw"])["headers"]["kwargsrepr"]


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("raw", [*records()])
def test_a_record_is_read_and_written_back_the_same(raw: bytes) -> None:
    record = decode_result(raw, accept=ACCEPT)
    extended = {key: record[key] for key in ("name", "args", "kwargs", "worker", "retries", "queue") if key in record}
    again = encode_result(
        task_id=record["task_id"],
        state=record["status"],
        result=record["result"],
        traceback=record["traceback"],
        children=record["children"],
        date_done=record["date_done"],
        group_id=record.get("group_id"),
        parent_id=record.get("parent_id"),
        extended=extended or None,
    )
    assert json.loads(again) == json.loads(raw)
    assert list(json.loads(again)) == list(json.loads(raw))


@pytest.mark.parametrize("raw", [*records()])
def test_a_failure_is_rebuilt_and_stored_again_the_same(raw: bytes) -> None:
    record = decode_result(raw, accept=ACCEPT)
    if record["status"] not in states.EXCEPTION_STATES:
        return
    data = record["result"]
    exc = data_to_exception(data)
    assert exception_to_data(exc) == data
    if data["exc_module"] == "tests.compat.golden.app":
        assert isinstance(exc, RemoteError)
        assert (exc.exc_type, exc.exc_module) == ("Refused", "tests.compat.golden.app")
    else:
        assert type(exc).__name__ == data["exc_type"]
        assert exc.args == tuple(data["exc_message"])


def test_records_of_other_serializers_are_read() -> None:
    for name, entry in load("results_by_serializer")["records"].items():
        serializer, _, state = name.partition("_")
        data = base64.b64decode(entry["base64"])
        record = decode_result(data, accept=frozenset({serializer}), serializer=serializer)
        assert record["status"] == state
        if state == "FAILURE":
            assert repr(data_to_exception(record["result"])) == "ValueError('bad input', 42)"
        else:
            assert record["result"] == 5


def test_pickled_failures_hold_the_exception_itself() -> None:
    stored = encode_result(task_id="t", state="FAILURE", result=ValueError("bad", 1), serializer="pickle")
    record = deserialize(stored, "pickle", "binary", frozenset({"pickle"}))
    assert repr(record["result"]) == "ValueError('bad', 1)"


def test_events_and_replies_are_plain_json() -> None:
    for event in load("events")["published"]:
        parts = loads(event["raw"])
        assert loads(binascii.a2b_base64(parts["body"])) is not None
