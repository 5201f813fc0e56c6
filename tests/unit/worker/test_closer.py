"""Bodies of complete chords: gathered, built aside, sent and closed; in one step where that can be; sent once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.message import Delivery
from celeriac.model.settle import Completion, Hold, StoredResult, Verdict
from celeriac.worker.closer import Closer
from tests.unit.worker.fakes import FakeBroker, FakeStore, delivery, message

LAST = delivery(token="owner:last")


class Store(FakeStore):
    """Chords by id, each under the token that may gather it; ``completes``: what a join completes."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, str] = {}
        self.completes: list[str] = []

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        self.faults.meet("gather")
        self.log.append(("gather", chord))
        return Gathered(chord=chord, token=token, parts=()) if self.held.get(chord) == token else None

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        self.faults.meet("join")
        self.log.append(("join", [part.id for part in parts]))
        self.held.update(dict.fromkeys(self.completes, token))
        return self.completes

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        self.faults.meet("open_chords")
        self.log.append(("open chords", [chord.id for chord in chords]))

    async def close_chord(self, closing: Closing) -> bool:
        self.faults.meet("close_chord")
        self.log.append(("close", closing.chord))
        return self.held.pop(closing.chord, None) == closing.token


class Unified(FakeBroker):
    """Answers ``finish`` from ``verdicts``, in order; then DONE."""

    def __init__(self) -> None:
        super().__init__()
        self.verdicts: list[Verdict] = []
        self.finished: list[Completion] = []

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        self.faults.meet("finish")
        self.log.append(("finish", [len(each.parts) for each in completions]))
        self.finished += completions
        return [self.verdicts.pop(0) if self.verdicts else Verdict.DONE for _ in completions]


class Bench:
    def __init__(self, *, unified: bool = False) -> None:
        self.broker, self.store = Unified(), Store()
        self.log = self.broker.log = self.store.log
        self.concluded: list[tuple[str, Hold]] = []
        self.with_parts: set[str] = set()
        self.failing = False
        self.closer = Closer(
            self.broker,
            self.store,  # type: ignore[arg-type]
            self.broker if unified else None,
            self.conclude,
        )

    def conclude(self, chord: Gathered, hold: Hold) -> Completion:
        self.concluded.append((chord.chord, hold))
        part = Part(chord="around", id=f"{chord.chord}'s body", value=b"")
        return Completion(
            settlement=hold,
            publish=[message(id=f"{chord.chord}'s body")],
            others=[StoredResult("x", b"failed", True)] if self.failing else (),
            opens=[NewChord(id="inner", size=1)] if self.failing else (),
            parts=[part] if chord.chord in self.with_parts else (),
            closes=Closing(chord.chord, chord.token),
        )

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            return await work()

        return asyncio.run(main())

    def close(self, *chords: str, delivery: Delivery | None = LAST) -> None:
        self.store.held.update(dict.fromkeys(chords, LAST.token))
        self.run(lambda: self.closer.close(chords, token=LAST.token, delivery=delivery))


def test_step_by_step_the_body_goes_before_the_chord_is_closed() -> None:
    bench = Bench()
    bench.failing = True
    bench.close("g")
    assert bench.log == [
        ("gather", "g"),
        ("open chords", ["inner"]),
        ("publish", ["g's body"]),
        ("put", [b"failed"]),
        ("close", "g"),
    ]
    assert bench.concluded == [("g", Hold(LAST))]


def test_each_of_several_once() -> None:
    bench = Bench()
    bench.close("g", "h", "g")
    assert [name for name, _ in bench.concluded] == ["g", "h"]


def test_one_that_somebody_else_holds_is_left_alone() -> None:
    bench = Bench()
    bench.store.held["g"] = "other"
    bench.run(lambda: bench.closer.close(["g"], token=LAST.token, delivery=LAST))
    assert (bench.log, bench.concluded) == ([("gather", "g")], [])


def test_on_one_server_in_one_step() -> None:
    bench = Bench(unified=True)
    bench.close("g")
    assert bench.log == [("gather", "g"), ("finish", [0])]
    assert bench.broker.finished[0].settlement == Hold(LAST)


def test_fenced_nothing_more_is_written() -> None:
    """But asked who holds the chord around it: it may be the second answer to a call whose first was lost."""
    bench = Bench(unified=True)
    bench.with_parts = {"g"}
    bench.broker.verdicts = [Verdict.FENCED]
    bench.close("g")
    assert bench.log == [("gather", "g"), ("finish", [1]), ("gather", "around")]
    assert [name for name, _ in bench.concluded] == ["g"]


def test_what_the_server_cannot_do_in_one_step() -> None:
    bench = Bench(unified=True)
    bench.with_parts = {"g"}
    bench.broker.verdicts = [Verdict.STEPWISE, Verdict.STEPWISE]
    bench.close("g")
    assert [name for name, _ in bench.log] == ["gather", "finish", "join", "finish", "publish", "close"]


def test_the_chord_around_it_is_closed_in_turn() -> None:
    bench = Bench()
    bench.with_parts, bench.store.completes = {"g"}, ["around"]
    bench.close("g")
    # Told before the inner one is closed: a crash in between tells it again.
    assert [what for name, what in bench.log if name in ("join", "close", "gather")] == [
        "g", ["g's body"], "g", "around", "around",
    ]  # fmt: skip
    assert [name for name, _ in bench.concluded] == ["g", "around"]


def test_on_one_server_it_is_closed_in_turn_too() -> None:
    bench = Bench(unified=True)
    bench.with_parts = {"g"}
    bench.store.held["around"] = LAST.token
    bench.broker.verdicts = [Verdict.COMPLETES]
    bench.close("g")
    assert bench.log == [("gather", "g"), ("finish", [1]), ("gather", "around"), ("finish", [0])]


def test_without_a_delivery_parts_are_told_apart() -> None:
    """A ``Hold`` without one completes nothing by itself."""
    bench = Bench(unified=True)
    bench.with_parts, bench.store.completes = {"g"}, ["around"]
    bench.close("g", delivery=None)
    assert bench.log == [
        ("gather", "g"),
        ("join", ["g's body"]),
        ("finish", [0]),
        ("gather", "around"),
        ("finish", [0]),
    ]
    assert bench.concluded[0] == ("g", Hold(None))


def test_work_of_the_user_is_done_aside() -> None:
    import threading

    bench, seen = Bench(), list[bool]()
    conclude = bench.conclude

    def noting(chord: Gathered, hold: Hold) -> Completion:
        seen.append(threading.current_thread() is threading.main_thread())
        return conclude(chord, hold)

    bench.closer = Closer(bench.broker, bench.store, None, noting)  # type: ignore[arg-type]
    bench.close("g")
    assert seen == [False]


def trying(bench: Bench, *chords: str) -> int:
    """As the completer does while a server is away; returns how often it failed."""

    async def main() -> int:
        bench.store.held.update(dict.fromkeys(chords, LAST.token))
        failures = 0
        while True:
            try:
                await bench.closer.close(chords, token=LAST.token, delivery=LAST)
                return failures
            except OperationalError:
                failures += 1

    return asyncio.run(main())


@pytest.mark.parametrize("call", ["gather", "open_chords", "publish", "put", "join", "close_chord"])
def test_an_outage_sends_nothing_twice(call: str) -> None:
    """Two messages are two runs of the body, and its errbacks would be called at each try."""
    bench = Bench()
    bench.failing, bench.with_parts = True, {"g"}
    (bench.broker if call == "publish" else bench.store).faults.away(call, 3)
    assert trying(bench, "g") == 3
    assert [what for name, what in bench.log if name == "publish"] == [["g's body"]]
    opened = [what for name, what in bench.log if name == "open chords"]
    # Opened anew it forgets who has joined; as long as nobody was sent, nobody has.
    assert opened == [["inner"]] or call == "publish"
    assert bench.concluded == [("g", Hold(LAST))]
    assert bench.log[-1] == ("close", "g")


def test_an_outage_of_the_one_server_calls_errbacks_once() -> None:
    bench = Bench(unified=True)
    bench.broker.faults.away("finish", 3)
    assert trying(bench, "g") == 3
    assert bench.concluded == [("g", Hold(LAST))]


def test_what_was_begun_is_dropped_with_the_token() -> None:
    bench = Bench()
    bench.store.faults.away("close_chord")

    async def main() -> None:
        bench.store.held["g"] = LAST.token
        with pytest.raises(OperationalError):
            await bench.closer.close(["g"], token=LAST.token, delivery=LAST)
        bench.store.held["g"] = "other"
        await bench.closer.close(["g"], token=LAST.token, delivery=LAST)

    asyncio.run(main())
    assert [name for name, _ in bench.log] == ["gather", "publish", "gather"]


def test_another_token_of_the_same_sweeper_goes_on_where_it_was() -> None:
    """The sweeper has a new one at each look."""
    bench = Bench()
    bench.store.faults.away("close_chord")

    async def main() -> None:
        for token in ("first", "second"):
            bench.store.held["g"] = token
            try:
                await bench.closer.send(Gathered(chord="g", token=token, parts=()))
            except OperationalError:
                pass

    asyncio.run(main())
    assert bench.log == [("publish", ["g's body"]), ("close", "g")]
    assert bench.store.held == {}
