"""What stands in the ledger of an entry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from celeriac.beat.state import State, running_key, short, slot_key, state_key

NOON = datetime(2026, 11, 30, 12, 0, 0, 123456, tzinfo=UTC)


def test_there_and_back() -> None:
    state = State(slot=NOON, fingerprint="f", id="i", at=1.5, count=3, next=NOON + timedelta(seconds=1), sending=True)
    assert State.decode(state.encode()) == state
    assert State.decode(State(slot=NOON, fingerprint="f").encode()) == State(slot=NOON, fingerprint="f")


def test_what_is_no_state_is_none() -> None:
    for raw in (None, b"", b"{}", b"[1]", b'{"slot":"2026-11-30T12:00:00","fingerprint":"f"}'):
        assert State.decode(raw) is None


def test_slots_are_in_utc_whoever_wrote_them() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=9)))
    state = State.decode(State(slot=there, fingerprint="f").encode())
    assert state is not None
    assert state.slot.isoformat() == "2026-11-30T12:00:00.123456+00:00"


def test_keys() -> None:
    assert state_key("x") == "beat:last:x"
    assert running_key("x") == "beat:running:x"
    assert slot_key("x", NOON) == "beat:slot:x:2026-11-30T12:00:00.123456+00:00"


def test_long_names_are_told_apart() -> None:
    names = ["ü" * 500, "ü" * 501, "x" * 201, "\udcff", "x" * 200]
    keys = [short(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(len(key.encode()) <= 240 for key in keys)
    assert keys[-1] == names[-1]
