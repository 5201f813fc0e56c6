"""Result records: Celery's keys in Celery's order; junk from the store."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celeriac.codec.results import decode_result, encode_result
from celeriac.exceptions import ContentDisallowed, DecodeError, EncodeError

ACCEPT = frozenset({"json"})
KEYS = ["status", "result", "traceback", "children", "date_done", "task_id"]


@pytest.mark.parametrize("value", [5, None, "text", [1, {"a": 2.5}], UUID(int=5), float("inf"), "\ud800", 2**70, (1,)])
def test_a_result_is_read_as_it_was(value: Any) -> None:
    data = encode_result(task_id="i", state="SUCCESS", result=value, date_done="2026-11-22T10:29:52+00:00")
    record = decode_result(data, accept=ACCEPT)
    assert list(record) == KEYS
    assert record["result"] == (list(value) if isinstance(value, tuple) else value)
    assert record["children"] == []


def test_further_keys_stand_where_celery_puts_them() -> None:
    extended = {"name": "n", "args": [1], "kwargs": {}, "worker": "w", "retries": 0, "queue": "q"}
    data = encode_result(
        task_id="i", state="SUCCESS", result=1, group_id="g", parent_id="p", extended=extended, children=None
    )
    assert list(json.loads(data)) == [*KEYS[:-1], "group_id", "parent_id", *extended, "task_id"]


def test_exceptions_are_stored_as_data() -> None:
    data = encode_result(task_id="i", state="FAILURE", result=ValueError("bad", UUID(int=5)), traceback="Traceback")
    record = decode_result(data, accept=ACCEPT)
    assert record["result"] == {
        "exc_type": "ValueError",
        "exc_message": ["bad", UUID(int=5)],
        "exc_module": "builtins",
    }


def test_a_value_that_cannot_be_stored_is_named() -> None:
    with pytest.raises(EncodeError, match=r"builtins\.set"):
        encode_result(task_id="i", state="SUCCESS", result={1})


def test_an_exception_that_cannot_be_pickled_is_stored_as_data() -> None:
    data = encode_result(task_id="i", state="FAILURE", result=ValueError(lambda: 1), serializer="pickle")
    record = decode_result(data, accept=frozenset({"pickle"}), serializer="pickle")
    assert record["result"]["exc_type"] == "ValueError"


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_other_serializers_must_be_accepted(serializer: str) -> None:
    data = encode_result(task_id="i", state="SUCCESS", result=5, serializer=serializer)
    with pytest.raises(ContentDisallowed):
        decode_result(data, accept=ACCEPT, serializer=serializer)
    assert decode_result(data, accept=frozenset({serializer}), serializer=serializer)["result"] == 5


@settings(max_examples=50)
@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda tree: json.dumps(tree).encode()))
@example(b'{"status": 5}')
@example(b'{"status": null}')
@example(b"{}")
def test_junk_raises_nothing_but_decode_error(data: bytes) -> None:
    for serializer in ("json", "msgpack"):
        try:
            decode_result(data, accept=frozenset({"json", "msgpack"}), serializer=serializer)
        except DecodeError:
            pass


def test_missing_keys_are_null() -> None:
    record = decode_result(b'{"status": "SUCCESS"}', accept=ACCEPT)
    assert record == {**dict.fromkeys(KEYS), "status": "SUCCESS"}
