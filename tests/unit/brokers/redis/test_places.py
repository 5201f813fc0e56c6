"""Where the server is: whom a search visits, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hiredis
import pytest

from celeriac.brokers.redis.places import Places
from celeriac.brokers.redis.urls import parse
from celeriac.ports import AdapterOptions

MASTER: list[Any] = [b"master", 0, []]
REPLICA: list[Any] = [b"slave", b"h", 1, b"connected", 0]
AWAY = ConnectionRefusedError("refused")


def places(url: str) -> Places:
    return Places(parse(url, AdapterOptions(transport={"master_name": "m"})))


def visited(found: Places, answers: Mapping[str, Any]) -> list[str]:
    """Drive a search; an exception as an answer is that of connecting. Whom it has visited."""
    search = found.search()
    visits = [next(search)]
    while True:
        answer = answers[visits[-1].address.place]
        try:
            visits.append(search.throw(answer) if isinstance(answer, OSError) else search.send(answer))
        except StopIteration:
            assert visits[-1].stays
            return [visit.address.place for visit in visits]


def told(host: str, epoch: int = 1) -> Any:
    flat = [b"name", b"m", b"ip", host.encode(), b"port", b"6379", b"config-epoch", b"%d" % epoch]
    return flat if epoch % 2 else dict(zip(flat[::2], flat[1::2], strict=True))  # RESP2, RESP3


def test_one_server_is_asked_nothing() -> None:
    search = places("redis://a").search()
    assert next(search).words == ()
    with pytest.raises(ConnectionRefusedError):
        search.throw(AWAY)


def test_the_next_one_when_the_first_is_away_or_a_replica() -> None:
    found = places("redis://a;redis://b;redis://c")
    answers = {"a:6379": AWAY, "b:6379": REPLICA, "c:6379": MASTER}
    assert visited(found, answers) == ["a:6379", "b:6379", "c:6379"]
    assert visited(found, answers) == ["c:6379"], "what was right is tried first"


def test_one_that_may_not_be_asked_is_taken() -> None:
    assert visited(places("redis://a;redis://b"), {"a:6379": hiredis.ReplyError("NOPERM role")}) == ["a:6379"]


def test_nobody_is_there() -> None:
    with pytest.raises(ConnectionError, match=r"a:6379: refused; b:6379: is no master \(slave\)"):
        visited(places("redis://a;redis://b"), {"a:6379": AWAY, "b:6379": REPLICA})


def test_most_sentinels_are_asked_and_the_server_checked() -> None:
    found = places("sentinel://s1;sentinel://s2;sentinel://s3")
    answers = {"s1:26379": AWAY, "s2:26379": told("a"), "s3:26379": told("a"), "a:6379": MASTER}
    assert visited(found, answers) == ["s1:26379", "s2:26379", "s3:26379", "a:6379"]
    assert visited(found, answers) == ["s2:26379", "s3:26379", "a:6379"], "who was silent is asked last"
    answers["a:6379"] = REPLICA
    with pytest.raises(ConnectionError, match=r"a:6379: is no master"):
        visited(found, answers)


def test_the_latest_failover_counts() -> None:
    """Whoever missed it names the old master, which may still be one."""
    found = places("sentinel://s1;sentinel://s2;sentinel://s3")
    answers = {"s1:26379": told("old", 1), "s2:26379": told("new", 2), "s3:26379": AWAY}
    answers |= {"old:6379": MASTER, "new:6379": MASTER}
    assert visited(found, answers)[-1] == "new:6379"
    answers["new:6379"] = AWAY
    with pytest.raises(ConnectionError, match="new:6379: refused"):
        visited(found, answers)


def checked(found: Places, answer: Any) -> bool:
    check = found.check()
    next(check)
    with pytest.raises(StopIteration) as ended:
        check.throw(answer) if isinstance(answer, OSError) else check.send(answer)
    moved: bool = ended.value.value
    return moved


def test_a_check_finds_a_later_failover() -> None:
    found = places("sentinel://s1;sentinel://s2;sentinel://s3")
    assert found.move
    assert not places("redis://a;redis://b").move
    answers = {"s1:26379": told("a", 2), "s2:26379": told("a", 2), "a:6379": MASTER}
    visited(found, answers)
    for answer in (told("a", 2), told("old", 1), AWAY, hiredis.ReplyError("ERR No such master"), None):
        assert not checked(found, answer)
    assert checked(found, told("b", 3))


@pytest.mark.parametrize(
    "answer",
    [
        hiredis.ReplyError("ERR No such master with that name"),
        hiredis.ReplyError("ERR unknown command 'SENTINEL'"),
        b"?",
        [b"ip", b"a"],
    ],
)
def test_what_sentinels_say_wrong_is_told(answer: Any) -> None:
    with pytest.raises(ConnectionError, match=r"sentinel s1:26379: (knows no master 'm'|ERR unknown|b'\?'|\[b'ip')"):
        visited(places("sentinel://s1"), {"s1:26379": answer})
