"""Claims that bring what limits have put off, before its time."""

from __future__ import annotations

from celeriac.model.backoff import Fruitless


def test_to_ask_again_in_time_is_no_fault() -> None:
    claims = Fruitless()
    for now in (0.0, 0.6, 1.6):  # more than half of the wait is over: servers round
        claims.put_off({"a": 1.0, "b": 1.0}, now)
    assert claims.pause == 0


def test_what_comes_back_at_once_slows_claims_down() -> None:
    claims = Fruitless()
    pauses = []
    for now in (0.0, 0.001, 0.002):
        claims.put_off({"a": 1.0}, now)
        pauses.append(claims.pause)
    assert pauses[0] == 0 < pauses[1] < pauses[2]
    claims.put_off({"b": 1.0}, 0.003)
    assert claims.pause == pauses[2], "others are put off, too: nothing has run"
    claims.reset()
    claims.put_off({"a": 1.0}, 0.004)
    assert claims.pause == 0, "something has run in between"
