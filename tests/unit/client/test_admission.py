"""Which remote commands come in where there is a key."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.client import admission, requests
from celeriac.client.admission import Admission
from celeriac.client.requests import LIFE, signed
from celeriac.codec.signing import SIGNATURE, Signer

SIGNER = Signer(b"a key of sixteen bytes")


class Clock:
    now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of sender and node."""
    clock = Clock()
    monkeypatch.setattr(requests, "time", clock)
    return clock


def command(**fields: Any) -> dict[str, Any]:
    return signed({"method": "shutdown", "arguments": {}, **fields}, SIGNER, reply=False)


def again(request: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Signed anew, with other fields."""
    changed = {key: value for key, value in {**request, **fields}.items() if key != SIGNATURE}
    return {**changed, SIGNATURE: SIGNER.command(changed)}


def test_without_a_key_all_come_in() -> None:
    assert Admission(None).refusal({"method": "shutdown"}) is None


def test_signed_ones_come_in_once(clock: Clock) -> None:
    door = Admission(SIGNER, clock.time)
    request = command()
    assert door.refusal(request) is None
    assert door.refusal(request) == "it came before"
    assert door.refusal(command()) is None


def test_others_do_not(clock: Clock) -> None:
    door = Admission(SIGNER, clock.time)
    request = command()
    for bad in ({"method": "shutdown"}, {**request, "method": "revoke"}, {**request, "destination": ["x"]}):
        assert door.refusal(bad) == "it is not signed with control_key"
    other = signed({"method": "shutdown"}, Signer(b"another key of sixteen"), reply=False)
    assert door.refusal(other) == "it is not signed with control_key"


def test_late_ones_do_not_and_nothing_from_before_the_start(clock: Clock) -> None:
    before = command()
    clock.now += 1
    door = Admission(SIGNER, clock.time)
    assert door.refusal(before) == "it was sent before this node started"
    request = command()
    clock.now += LIFE + 1
    assert "too old" in (door.refusal(request) or "")
    ahead = again(command(), issued=clock.now + 60, until=clock.now + 90)
    assert "clocks differ" in (door.refusal(ahead) or "")


def test_a_signer_cannot_ask_for_a_longer_life(clock: Clock) -> None:
    door = Admission(SIGNER, clock.time)
    assert "too old" in (door.refusal(again(command(), until=clock.now + 10 * LIFE)) or "")


@pytest.mark.parametrize("fields", [{"ticket": None}, {"ticket": "x" * 1000}, {"issued": "now"}, {"until": True}])
def test_signed_nonsense(clock: Clock, fields: dict[str, Any]) -> None:
    assert Admission(SIGNER, clock.time).refusal(again(command(), **fields)) is not None


def test_what_is_remembered_is_bounded_and_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "TICKETS", 3)
    door = Admission(SIGNER, clock.time)
    assert [door.refusal(command()) for _ in range(3)] == [None] * 3
    assert "within a minute" in (door.refusal(command()) or "")
    clock.now += LIFE + 1
    assert door.refusal(command()) is None
    assert len(door._seen) == 1
