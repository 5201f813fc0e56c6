"""Conformance: chords in the result store, and groups that are saved. What ``finish`` does with chords: joining.py."""

from __future__ import annotations

import asyncio
import time

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.ports import CHORD_DONE, ResultStore
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import ample, asynchronous, gathered

__all__ = ["BODY", "Chords", "chord", "part", "value"]

BODY = b'{"task": "conformance.body", "args": []}'
SHAPE = b'{"result": [["c", null], [[["m-0", null], null]]]}'


def chord(size: int, chord_id: str = "c", *, expires: float | None = 3600.0, **fields: bytes) -> NewChord:
    """A chord as its sender opens it."""
    return NewChord(id=chord_id, size=size, expires=expires, **{"body": BODY, **fields})


def value(number: object) -> bytes:
    """What a member ends with."""
    return f'[1, "m-{number}", "SUCCESS", "{number}"]'.encode()


def part(
    index: int | None,
    chord_id: str = "c",
    *,
    member: str = "",
    expires: float | None = 3600.0,
    grows: int = 0,
    **fields: bytes,
) -> Part:
    """A member's end: ``m-0`` has the index 0 and so on."""
    known = {"value": value(index), "body": BODY, **fields}
    return Part(chord=chord_id, id=member or f"m-{index}", index=index, expires=expires, grows=grows, **known)


async def _joined(store: ResultStore, *parts: Part, token: str = "t") -> list[str]:
    return list(await store.join(parts, token=token))


async def _members(store: ResultStore, chord_id: str = "c", *, token: str = "t") -> list[bytes]:
    found = await store.gather(chord_id, token=token)
    assert found is not None, "gather: a complete chord, when the token holds it"
    assert (found.chord, found.token) == (chord_id, token), "gather: says which chord and token it is"
    return list(found.parts)


class Chords:
    """``ResultStore`` and ``Reader``: chords."""

    @asynchronous
    async def test_a_chord_is_complete_when_all_have_joined(self, harness: Harness) -> None:
        store, other = await harness.open_store(), await harness.open_store()
        await store.open_chords([chord(3, shape=SHAPE)])
        assert await _joined(store, part(0)) == [], "join: one of three"
        assert await _joined(other, part(2)) == [], "join: two of three"
        assert await store.gather("c", token="t") is None, "gather: the complete chord only"
        assert await _joined(store, part(1)) == ["c"], "join: returns the chords that are complete now"
        found = await other.gather("c", token="t")
        assert found == Gathered(chord="c", token="t", parts=[value(0), value(1), value(2)], body=BODY, shape=SHAPE), (
            "gather: the members in the order of their places, the body and the shape as they were opened"
        )

    @asynchronous
    async def test_a_chord_of_another_id_is_another_chord(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(1, "c"), chord(2, "c1", body=b"other"), chord(1, "C")])
        parts = [part(0, "c1"), part(0, "c"), part(1, "c1", value=b"x"), part(1, "nobody", body=b"")]
        assert sorted(await store.join(parts, token="t")) == ["c", "c1"], "join: parts of any chords in one call"
        found = await store.gather("c1", token="t")
        assert found is not None
        assert (list(found.parts), found.body) == ([value(0), b"x"], b"other"), "gather: of this chord alone"
        assert list(await store.join([], token="t")) == [], "join: nothing is nothing"

    @asynchronous
    async def test_members_come_in_the_order_of_their_places(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(6)])
        for index in (11, 2, None, 1000, 0):
            assert await _joined(store, part(index)) == []
        assert await _joined(store, part(1)) == ["c"]
        expected = [value(index) for index in (0, 1, 2, 11, 1000, None)]
        assert await _members(store) == expected, "gather: in the order of the places, gaps or not, without one last"

    @asynchronous
    async def test_a_member_joins_once(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(4)])
        assert await _joined(store, part(0), part(0, value=b"second"), part(None, member="n")) == []
        assert await _joined(store, part(0, value=b"third"), part(None, member="n", value=b"fourth")) == [], (
            "join: each (id, index) once, also when it was there before"
        )
        assert await _joined(store, part(1, member="m-0")) == [], "join: one id at two places is two members"
        assert await _joined(store, part(1, member="x", value=b"x")) == ["c"], "join: two ids at one place are two"
        members = await _members(store)
        assert members[0] == value(0), "join: a later value of the same member is dropped"
        assert sorted(members[1:3]) == sorted([value(1), b"x"]), "join: two ids at one place are two members"
        assert members[3:] == [value(None)], "join: a later value of the same member is dropped"

    @asynchronous
    async def test_ten_thousand_members(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(10_000)])
        complete: list[str] = []
        begin = time.monotonic()
        for start in range(9_900, -1, -100):
            assert complete == [], "join: complete when the last one has joined"
            complete = await _joined(store, *(part(index) for index in range(start, start + 100)))
        assert complete == ["c"], "join: any number of members"
        assert await _members(store) == [value(index) for index in range(10_000)], "gather: any number, in order"
        assert time.monotonic() - begin <= 10 * harness.late + 5, "join: a member costs the same however many there are"

    @pytest.mark.parametrize(
        "payload",
        [b"", b"\0", bytes(range(256)), b"\x80\x04\x95 pickle \xff", b"x" * 1_000_000],
        ids=["empty", "nul", "every byte", "pickle", "1 MB"],
    )
    @asynchronous
    async def test_chords_are_opaque(self, harness: Harness, payload: bytes) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(2, body=b"{" + payload, shape=payload)])
        complete = await _joined(store, part(0, value=payload), part(1, value=payload + b"1"))
        assert complete == ["c"], "join: a value is opaque bytes"
        found = await store.gather("c", token="t")
        assert found is not None
        assert list(found.parts) == [payload, payload + b"1"], "gather: values are opaque bytes"
        assert (found.body, found.shape) == (b"{" + payload, payload), "gather: body and shape are opaque bytes"

    @pytest.mark.parametrize("odd", ["x" * 300, "ü😀", "a b:c*[d]{e}", "'\"\\;--", "a/b"])
    @asynchronous
    async def test_chords_of_odd_ids(self, harness: Harness, odd: str) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(2, odd)])
        assert await _joined(store, part(0, odd, member=odd), part(0, odd, member=odd), token=odd) == []
        assert await _joined(store, part(1, odd, member=odd), token=odd) == [odd], "join: any text is an id"
        assert await _members(store, odd, token=odd) == [value(0), value(1)], "gather: any text is an id"
        assert await store.close_chord(Closing(odd, odd)), "close_chord: any text is an id"

    # -- before it is opened, and anew ------------------------------------------------------------------------------

    @asynchronous
    async def test_members_may_come_before_their_chord_is_opened(self, harness: Harness) -> None:
        store = await harness.open_store()
        assert await _joined(store, part(0), part(1)) == [], "join: nobody knows yet how many there are"
        assert await store.gather("c", token="t") is None, "gather: not before it is opened"
        await store.open_chords([chord(3)])
        assert await _joined(store, part(1, value=b"second")) == [], "join: an early member is one as well"
        assert await _joined(store, part(2)) == ["c"], "join: parts that come early are kept"
        assert await _members(store) == [value(0), value(1), value(2)], "join: parts that come early are kept"

    @asynchronous
    async def test_a_part_without_a_body_leaves_nothing_behind(self, harness: Harness) -> None:
        store = await harness.open_store()
        assert await _joined(store, part(0, body=b"")) == []
        await store.open_chords([chord(2)])
        assert await _joined(store, part(1, body=b"")) == [], "join: dropped without a body when nobody opened it"
        assert await _joined(store, part(2, body=b"")) == ["c"], "join: without a body into a chord that is known"
        assert await _members(store) == [value(1), value(2)], "join: dropped without a body when nobody opened it"

    @pytest.mark.parametrize("early", [False, True], ids=["after", "before"])
    @asynchronous
    async def test_a_member_may_bring_the_body(self, harness: Harness, early: bool) -> None:
        store = await harness.open_store()
        if early:
            await _joined(store, part(0))
        await store.open_chords([NewChord(id="c", size=2, expires=60.0)])
        await _joined(store, part(0), part(1))
        found = await store.gather("c", token="t")
        assert found is not None
        assert found.body == BODY, "gather: the body that a member brought, for a chord that was opened without"

    @asynchronous
    async def test_a_chord_that_is_opened_again_begins_anew(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(2, body=b"old", shape=SHAPE)])
        await _joined(store, part(0, value=b"old"))
        await store.open_chords([chord(2)])
        assert await _joined(store, part(1)) == [], "open_chords: whatever was joined is forgotten"
        assert await _joined(store, part(0)) == ["c"]
        found = await store.gather("c", token="t")
        assert found is not None
        assert (list(found.parts), found.body) == ([value(0), value(1)], BODY), "open_chords: begins anew"
        assert found.shape == b"", "open_chords: begins anew"

    @asynchronous
    async def test_a_call_that_is_late_changes_nothing(self, harness: Harness) -> None:
        store = await harness.open_store()
        for joins, complete in ((part(0), []), (part(1), ["c"])):
            await store.open_chords([chord(2)])
            assert await _joined(store, joins) == complete, "open_chords: repeated, it forgets no member"
        await store.open_chords([chord(2)])
        assert await _members(store) == [value(0), value(1)], "open_chords: repeated, it forgets no token"

    @asynchronous
    async def test_a_chord_that_is_opened_again_has_no_holder(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(1)])
        assert await _joined(store, part(0), token="old") == ["c"]
        await store.open_chords([chord(1, body=b"new")])
        assert await store.gather("c", token="old") is None, "open_chords: the token is forgotten"
        assert not await store.close_chord(Closing("c", "old")), "open_chords: the token is forgotten"
        assert await _joined(store, part(0), token="new") == ["c"], "open_chords: its token is free"

    # -- growing ----------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_a_chord_grows(self, harness: Harness) -> None:
        store, reader = await harness.open_store(), harness.reader()
        await store.grow_chord("c", 1)
        await store.open_chords([chord(1)])
        assert await _joined(store, part(0)) == [], "grow_chord: before it is opened"
        await store.grow_chord("c", 2)
        reader.grow_chord("c", 1, timeout=5.0)
        assert await _joined(store, part(1), part(2), part(3)) == [], "grow_chord: after it is opened, any number"
        assert await _joined(store, part(4)) == ["c"], "grow_chord: waits for so many members more"
        assert await _members(store) == [value(index) for index in range(5)]
        reader.close()

    @asynchronous
    async def test_a_grown_chord_is_opened_again(self, harness: Harness) -> None:
        store = await harness.open_store()
        for _ in range(2):
            await store.open_chords([chord(1)])
            await store.grow_chord("c", 1)
        await store.open_chords([chord(1)])
        assert await _joined(store, part(0), part(1)) == [], "open_chords: does not forget how much it has grown"
        assert await _joined(store, part(2)) == ["c"], "open_chords: does not forget how much it has grown"

    @asynchronous
    async def test_a_member_grows_its_chord(self, harness: Harness) -> None:
        store = await harness.open_store()
        assert await _joined(store, part(0, grows=1)) == []
        await store.open_chords([chord(2)])
        again = [part(0, grows=1), part(1, grows=2), part(1, grows=2)]
        assert await _joined(store, *again) == [], "join: grows when the member is counted, and only then"
        assert await _joined(store, part(2), part(3)) == [], "join: waits for so many members more"
        assert await _joined(store, part(4)) == ["c"], "join: waits for so many members more"

    # -- the token --------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_one_holds_a_complete_chord(self, harness: Harness) -> None:
        store, other = await harness.open_store(), await harness.open_store()
        await store.open_chords([chord(1)])
        assert await _joined(store, part(0), token="a") == ["c"], "join: takes the token when it is free"
        assert await _joined(other, part(0), token="b") == [], "join: somebody else holds it"
        assert await _joined(other, part(0), token="a") == ["c"], "join: who holds it already gets it again"
        assert await _joined(store, part(1), token="b") == [], "join: a member more changes no holder"
        assert await other.gather("c", token="b") is None, "gather: when the token holds it"
        assert not await other.close_chord(Closing("c", "b")), "close_chord: when the token holds it"
        assert await _members(store, token="a") == [value(0), value(1)], "close_chord: else nothing changes"

    @asynchronous
    async def test_many_race_for_the_last_place(self, harness: Harness) -> None:
        stores = [await harness.open_store() for _ in range(3)]
        names = [f"c-{number}" for number in range(20)]
        await stores[0].open_chords([chord(3, name) for name in names])
        for name in names:
            tokens = ["a", "b", "d"]
            won = await gathered(
                *(_joined(store, part(index, name), token=tokens[index]) for index, store in enumerate(stores))
            )
            assert sorted(won) == [[], [], [name]], "join: exactly one of them gets the token"
            winner = tokens[won.index([name])]
            assert await _members(stores[0], name, token=winner) == [value(0), value(1), value(2)]

    @asynchronous
    async def test_a_token_is_over_after_its_time(self, harness: Harness) -> None:
        wait = ample(harness)
        store = await harness.open_store(chord_token=wait)
        await store.open_chords([chord(1)])
        assert await _joined(store, part(0), token="late") == ["c"]
        await harness.lapse(wait * 0.6)
        assert await _joined(store, part(0), token="new") == [], "join: not before the holder's time is over"
        assert await _members(store, token="late") == [value(0)]
        await harness.lapse(wait * 0.6)
        assert await _joined(store, part(0), token="new") == [], "gather: renews the token's time"
        await harness.lapse(wait * 0.6)
        assert await _joined(store, part(0), token="new") == ["c"], "join: takes over when the holder's time is over"
        assert await store.gather("c", token="late") is None, "gather: when the token holds it"
        assert not await store.close_chord(Closing("c", "late")), "close_chord: False when the token was lost"
        assert await _members(store, token="new") == [value(0)], "close_chord: nothing changes then"

    @asynchronous
    async def test_a_late_holder_may_close_what_nobody_took(self, harness: Harness) -> None:
        store = await harness.open_store(chord_token=harness.lease)
        await store.open_chords([chord(1)])
        assert await _joined(store, part(0)) == ["c"]
        await harness.lapse(harness.lease * 1.2)
        assert await _members(store) == [value(0)], "gather: the token holds it until another takes it"
        await harness.lapse(harness.lease * 1.2)
        assert await store.close_chord(Closing("c", "t")), "close_chord: the token holds it until another takes it"

    @asynchronous
    async def test_what_nobody_holds_cannot_be_closed(self, harness: Harness) -> None:
        store = await harness.open_store()
        assert not await store.close_chord(Closing("none", "t")), "close_chord: of an unknown chord"
        assert await store.gather("none", token="t") is None, "gather: of an unknown chord"
        await store.open_chords([chord(2)])
        await _joined(store, part(0))
        assert not await store.close_chord(Closing("c", "t")), "close_chord: of an incomplete chord"
        assert await _joined(store, part(1)) == ["c"], "close_chord: False means that nothing changed"

    # -- done -------------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_a_closed_chord_refuses_late_members(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.open_chords([chord(1)])
        await _joined(store, part(0))
        assert await store.close_chord(Closing("c", "t")), "close_chord: when the token holds it"
        assert not await store.close_chord(Closing("c", "t")), "close_chord: once"
        assert await store.gather("c", token="t") is None, "close_chord: forgets the members"
        assert await _joined(store, part(0), part(1), part(None, body=b"")) == [], "join: dropped when it is done"
        assert await _joined(store, part(2), token="other") == [], "join: nobody gets the token of one that is done"
        await store.open_chords([chord(2)])
        assert await _joined(store, part(2)) == [], "open_chords: that it was done is forgotten, late members were"
        assert await _joined(store, part(0)) == ["c"], "open_chords: that it was done is forgotten"
        assert await _members(store) == [value(0), value(2)]

    @asynchronous
    async def test_a_closed_chord_is_remembered_for_a_while(self, harness: Harness) -> None:
        if not harness.leaps:
            harness.cannot("let minutes pass")
        store = await harness.open_store()
        await store.open_chords([chord(1, "a"), chord(1, "b")])
        await _joined(store, part(0, "a"), part(0, "b"))
        for name in ("a", "b"):
            assert await store.close_chord(Closing(name, "t"))
        await harness.elapse(CHORD_DONE - 1)
        await _joined(store, part(0, "a"))
        await harness.elapse(2)
        await _joined(store, part(0, "b"))
        await store.open_chords([chord(2, "a"), chord(2, "b")])
        complete = await _joined(store, part(1, "a"), part(1, "b"))
        assert complete == ["b"], "close_chord: remembers for CHORD_DONE seconds that it is done"

    # -- overdue ----------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_the_sweeper_finds_what_nobody_closes(self, harness: Harness) -> None:
        wait = ample(harness)
        store, other = await harness.open_store(chord_token=wait), await harness.open_store(chord_token=wait)
        await store.join([part(1), part(0)], token="t")
        await store.open_chords([chord(2, shape=SHAPE), chord(2, "incomplete")])
        await store.join([part(0, "incomplete")], token="t")
        assert list(await store.overdue(token="s")) == [], "overdue: the first look is chord_token seconds later"
        await harness.lapse(wait * 1.1)
        expected = Gathered(chord="c", token="?", parts=[value(0), value(1)], body=BODY, shape=SHAPE)
        for _ in range(2):
            pair: list[list[Gathered]] = await gathered(store.overdue(token="s1"), other.overdue(token="s2"))
            first, second = pair
            assert len(first) + len(second) == 1, "overdue: any number of sweepers, one of them finds it"
            (found,) = (*first, *second)
            assert found.token == ("s1" if first else "s2"), "overdue: takes the token"
            assert (found.chord, list(found.parts)) == (expected.chord, expected.parts), "overdue: all of the chord"
            assert (found.body, found.shape) == (expected.body, expected.shape), "overdue: all of the chord"
            assert await _joined(store, part(0), token="t") == [], "overdue: takes the token"
            assert list(await store.overdue(token="s3")) == [], "overdue: nobody is about to close it"
            await harness.lapse(wait * 1.1)
        (found,) = await store.overdue(token="s4")
        assert await store.close_chord(Closing(found.chord, "s4")), "overdue: takes the token"
        await harness.lapse(wait * 1.1)
        assert list(await store.overdue(token="s5")) == [], "overdue: not what is done"

    @asynchronous
    async def test_the_sweeper_leaves_a_holder_his_time(self, harness: Harness) -> None:
        wait = ample(harness)
        store = await harness.open_store(chord_token=wait)
        await store.open_chords([chord(1)])
        await harness.lapse(wait * 0.7)
        assert await _joined(store, part(0)) == ["c"]
        await harness.lapse(wait * 0.6)
        assert list(await store.overdue(token="s")) == [], "overdue: not what somebody is about to close"
        await harness.lapse(wait * 0.6)
        assert [each.chord for each in await store.overdue(token="s")] == ["c"], (
            "overdue: looks again chord_token seconds after the token was taken"
        )
        assert not await store.close_chord(Closing("c", "t")), "overdue: takes the token"

    @asynchronous
    async def test_the_sweeper_takes_as_many_as_it_is_told(self, harness: Harness) -> None:
        store = await harness.open_store(chord_token=harness.lease)
        names = [f"c-{number}" for number in range(7)]
        await store.join([part(0, name) for name in names], token="t")
        await store.open_chords([chord(1, name) for name in names])
        await harness.lapse(harness.lease * 1.2)
        patient = await harness.open_store(chord_token=3600.0)
        some = [each.chord for each in await patient.overdue(token="s", limit=3)]
        rest = [each.chord for each in await patient.overdue(token="s", limit=10)]
        assert (len(some), len(rest)) == (3, 4), "overdue: up to limit"
        assert sorted(some + rest) == names, "overdue: all of them, each once"

    # -- time -------------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_chords_expire(self, harness: Harness) -> None:
        life = harness.lease * 2
        store = await harness.open_store(chord_token=harness.lease)
        await store.open_chords(
            [chord(2, expires=life), chord(2, "ever", expires=None), chord(1, "whole", expires=life)]
        )
        for name, expires in (("c", life), ("ever", None), ("early", life)):
            await store.join([part(0, name, expires=expires)], token="t")
        assert await _joined(store, part(0, "whole", expires=life)) == ["whole"]
        await harness.lapse(life * 1.1)
        assert [each.chord for each in await store.overdue(token="s")] == [], "expires: an expired chord is gone"
        assert await store.gather("whole", token="t") is None, "expires: an expired chord is gone"
        await store.sweep()
        await store.open_chords([chord(2, "early")])
        parts = [part(1, name, expires=None) for name in ("c", "ever", "early")]
        assert await _joined(store, *parts) == ["ever"], "expires: the life time in seconds, None: for ever"
        await store.open_chords([chord(2)])
        assert await _joined(store, part(0)) == ["c"], "expires: what came after that time is kept"

    @asynchronous
    async def test_members_renew_the_life_of_a_chord(self, harness: Harness) -> None:
        life = ample(harness)
        store = await harness.open_store()
        await store.open_chords([chord(3, expires=life)])
        for index in range(2):
            await harness.lapse(life * 0.6)
            assert await _joined(store, part(index, expires=life)) == [], "expires: renewed by each member that joins"
            assert await store.sweep() == 0, "sweep: drops what is expired only"
        await harness.lapse(life * 0.6)
        assert await _joined(store, part(2, expires=life)) == ["c"], "expires: renewed by each member that joins"
        assert await _members(store) == [value(0), value(1), value(2)], "expires: renews all of it"

    # -- readers ----------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_a_reader_opens_chords(self, harness: Harness) -> None:
        store, reader = await harness.open_store(), harness.reader()
        reader.open_chords([chord(1, "a", shape=SHAPE), chord(1, "b")], timeout=5.0)
        reader.open_chords([], timeout=5.0)
        assert sorted(await store.join([part(0, "a"), part(0, "b")], token="t")) == ["a", "b"], "open_chords: opens"
        found = await store.gather("a", token="t")
        assert found is not None
        assert (found.body, found.shape) == (BODY, SHAPE), "open_chords: as that of the store"
        reader.close()

    @asynchronous
    async def test_a_chord_at_a_server_that_is_away(self, harness: Harness) -> None:
        if harness.unreachable is None:
            harness.cannot("be unreachable")
        reader = harness.reader(url=harness.unreachable)
        for act in (
            lambda: reader.open_chords([chord(1)], timeout=1.0),
            lambda: reader.grow_chord("c", 1, timeout=1.0),
            lambda: reader.save_group("g", b"", expires=60.0, timeout=1.0),
        ):
            begin = time.monotonic()
            with pytest.raises(OperationalError) as raised:
                await asyncio.to_thread(act)
            assert time.monotonic() - begin <= 1 + harness.late * 3, "none hangs"
            assert harness.password not in str(raised.value)
        reader.close()

    @pytest.mark.parametrize("body", [b'{"result": [["g", null], []]}', b"", b"\0\xff" * 500_000], ids=len)
    def test_a_group_is_kept(self, harness: Harness, body: bytes) -> None:
        reader, other = harness.reader(), harness.reader()
        assert reader.load_group("g", timeout=5.0) is None, "load_group: None where there is none"
        reader.save_group("g", b"old", expires=60.0, timeout=5.0)
        reader.save_group("g", body, expires=None, timeout=5.0)
        assert other.load_group("g", timeout=5.0) == body, "load_group: what save_group has kept"
        assert list(other.get(["g"], timeout=5.0)) == [None], "save_group: a group is no record of a task"
        other.forget(["g"], timeout=5.0)
        assert reader.load_group("g", timeout=5.0) == body, "save_group: a group is no record of a task"
        other.drop_group("g", timeout=5.0)
        other.drop_group("g", timeout=5.0)
        assert reader.load_group("g", timeout=5.0) is None, "drop_group: forgets"
        reader.close()
        other.close()

    @asynchronous
    async def test_a_kept_group_expires(self, harness: Harness) -> None:
        reader = harness.reader()
        reader.save_group("short", b"1", expires=harness.lease, timeout=5.0)
        reader.save_group("long", b"2", expires=3600.0, timeout=5.0)
        reader.save_group("ever", b"3", expires=None, timeout=5.0)
        assert reader.load_group("short", timeout=5.0) == b"1", "save_group: not before its time"
        await harness.lapse(harness.lease * 1.3)
        left = [reader.load_group(name, timeout=5.0) for name in ("short", "long", "ever")]
        assert left == [None, b"2", b"3"], "save_group: expires in seconds, None: for ever"
        reader.close()
