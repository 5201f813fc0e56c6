"""Ids in texts that are not decoded."""

from __future__ import annotations

import json

import pytest

from celeriac.codec.envelope import encode
from celeriac.codec.seeking import may_be_one, written
from tests.unit.worker.fakes import message


@pytest.mark.parametrize("task_id", ["plain-1", "a b", "ü", "日本", "back\\slash", "tab\t", ""])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_as_ours_and_as_kombu_writes_it(task_id: str, ascii_only: bool) -> None:
    text = json.dumps({"headers": {"lang": "py", "id": task_id, "task": "t"}}, ensure_ascii=ascii_only)
    assert may_be_one(text.encode(), written([task_id, "other"]))


@pytest.mark.parametrize("task_id", ['quo"te', "\ud800"])
def test_odd_ones_are_left_to_whoever_claims_them(task_id: str) -> None:
    text = json.dumps({"headers": {"id": task_id}})
    assert may_be_one(text.encode(), written([task_id])) is ('"' not in task_id)


def test_an_envelope_of_ours() -> None:
    raw = encode(message(id="task-1"))
    assert may_be_one(raw, written(["task-1"]))
    assert not may_be_one(raw, written(["task-2"]))
    assert not may_be_one(raw, written([]))


@pytest.mark.parametrize("raw", [b"", b'"id"', b'"id": 5', b'"id":', b'{"headers": {"id": "other", "parent_id": "a"}}'])
def test_others(raw: bytes) -> None:
    assert not may_be_one(raw, written(["a"]))
