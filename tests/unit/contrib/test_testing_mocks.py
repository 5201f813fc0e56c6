"""Messages as mocks."""

from __future__ import annotations

import json

from celeriac.contrib.testing.app import TestApp
from celeriac.contrib.testing.mocks import ContextMock, TaskMessage, TaskMessage1, task_message_from_sig


def test_protocol_2() -> None:
    message = TaskMessage("proj.add", id="i", args=[1], kwargs={"y": 2}, retries=3)
    assert message.headers == {"id": "i", "task": "proj.add", "shadow": None, "retries": 3}
    assert message.content_type == "application/json"
    assert json.loads(message.body) == [[1], {"y": 2}, {"callbacks": None, "errbacks": None, "chain": None}]


def test_protocol_1() -> None:
    message = TaskMessage1("proj.add", args=[1], eta=None)
    assert message.headers == {}
    assert json.loads(message.body)["task"] == message.payload["task"] == "proj.add"
    assert message.payload["id"]


def test_of_a_signature() -> None:
    app = TestApp()
    sig = app.signature("proj.add", (1, 2), countdown=10)
    message = task_message_from_sig(app, sig)
    assert message.headers["task"] == "proj.add"
    assert message.headers["id"] == sig.id
    assert message.headers["eta"] > app.now().isoformat()
    assert message.payload[0] in ((1, 2), [1, 2])


def test_context_mock() -> None:
    mock = ContextMock()
    with mock as entered:
        assert entered is mock
    assert not mock.__exit__(KeyError, KeyError(), None)
