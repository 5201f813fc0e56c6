"""Lines of events, which anybody may have sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.cli.events import _json_line, _line

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.sampled_from(["timestamp", "hostname", "type", "uuid", "name", "args"]) | st.text(max_size=5)


def test_an_event() -> None:
    line = _line({"type": "task-sent", "hostname": "w@h", "uuid": "i", "name": "t", "timestamp": 0.0, "args": "(1,)"})
    assert line.endswith("w@h task-sent t[i] args=(1,)")


@pytest.mark.parametrize("at", [float("nan"), 1e308, -1e308, 10**400, "now", None, [], True])
def test_times_that_are_none(at: Any) -> None:
    assert _line({"type": "x", "timestamp": at}).startswith("[")


@given(st.dictionaries(FIELDS, VALUES, max_size=6))
def test_any_event_is_one_line_that_a_terminal_takes(event: dict[str, Any]) -> None:
    line = _line(event)
    line.encode()
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    _json_line(event)
