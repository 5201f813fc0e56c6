"""Children that hand over to others, and more or fewer of them. Nothing is forked here."""

from __future__ import annotations

from typing import Any

from celeriac.worker.slot import EXPECTING, GO, LEAVING, LEFT, NO_ORDER, READY, RETIRE, STANDBY
from tests.unit.supervisor.bench import EXIT_1, KILLED, Bench

# -- successors ----------------------------------------------------------------------------------------------------


def heir_of(bench: Bench, child: Any, state: int) -> Any:
    """The child says that it leaves; its successor."""
    for place in (bench.first, *bench.others):
        place.slot.live(place.pid, READY)
    child.slot.live(child.pid, state)
    bench.made._fit()
    return child.heir


def test_a_successor_stands_by_until_the_other_has_left(bench: Bench) -> None:
    heir = heir_of(bench, bench.first, EXPECTING)
    assert (heir.standby, heir.slot.order, bench.first.slot.order) == (True, NO_ORDER, GO)
    assert (heir.serves, bench.first.serves) == (False, True)
    heir.slot.live(heir.pid, STANDBY)
    bench.made._fit()
    assert (heir.slot.order, bench.first.slot.order) == (NO_ORDER, GO), "it leaves by itself"
    bench.first.slot.live(bench.first.pid, LEFT)
    bench.made._fit()
    assert (heir.standby, heir.slot.order) == (False, GO)
    bench.dies(bench.first, 0)
    bench.made._fit()
    assert len(bench.started) == 4, "agent, two, and one successor"


def test_one_that_has_to_leave_does_when_its_successor_stands_by(bench: Bench) -> None:
    heir = heir_of(bench, bench.first, LEAVING)
    bench.made._fit()
    assert bench.first.slot.order == GO
    heir.slot.live(heir.pid, STANDBY)
    bench.made._fit()
    assert (bench.first.slot.order, bench.first.retiring, bench.first.serves) == (RETIRE, False, True)
    assert heir.slot.order == NO_ORDER


def test_a_successor_goes_when_the_other_dies(bench: Bench) -> None:
    heir = heir_of(bench, bench.first, EXPECTING)
    bench.dies(bench.first, KILLED)
    assert heir.slot.order == GO
    before = len(bench.started)
    bench.made._fit()
    assert len(bench.started) == before


def test_a_successor_that_dies_has_one_itself(bench: Bench) -> None:
    heir = heir_of(bench, bench.first, EXPECTING)
    bench.dies(heir, EXIT_1)
    bench.made._fit()
    assert bench.first.heir.pid == 0, "not before its time"
    bench.now = bench.made._starts.not_before
    bench.made._fit()
    assert bench.first.heir.pid


def test_who_left_without_a_successor_is_replaced_before_it_is_gone(bench: Bench) -> None:
    for place in (bench.first, *bench.others):
        place.slot.live(place.pid, READY)
    bench.first.slot.live(bench.first.pid, LEFT)
    bench.made._fit()
    (third,) = [place for place in bench.made._children if place not in (bench.first, *bench.others)]
    assert (third.slot.order, third.serves) == (GO, True)


def test_those_that_finish_what_is_long_do_not_pile_up(make: Any) -> None:
    bench = make(concurrency=1)
    for _ in range(5):
        for place in bench.made._children:
            if place.pid:
                place.slot.live(place.pid, LEFT)
        bench.made._fit()
    assert len(bench.made._children) == 3
    bench.first.slot.pulse(1.0, 9)
    bench.dies(bench.first, 0)
    bench.made._fit()
    assert bench.first.pid, "as soon as there is room"


# -- more and fewer ------------------------------------------------------------------------------------------------


def test_as_many_as_the_word_says(bench: Bench) -> None:
    bench.made._slots.words.wanted = 4
    bench.made._fit()
    assert sum(place.serves for place in bench.made._children) == 4


def test_only_idle_ones_leave(bench: Bench) -> None:
    first, second = bench.first, bench.others[0]
    for place in (first, second):
        place.slot.live(place.pid, READY)
    second.slot.pulse(1.0, 1, held=1)
    bench.made._slots.words.wanted = 0
    bench.made._fit()
    assert (first.retiring, first.slot.order) == (True, RETIRE)
    assert not second.retiring
    second.slot.pulse(2.0, 2, held=0)
    second.slot.begin("o:7", "id-7", 1.0, 0.0, 0.0)
    bench.made._fit()
    assert not second.retiring
    second.slot.end()
    bench.made._fit()
    assert second.retiring
    bench.dies(second, 0)
    bench.made._fit()
    assert bench.made._starts.failures == 0


def test_where_all_are_always_busy_one_finishes_and_leaves(bench: Bench) -> None:
    for place in (bench.first, *bench.others):
        place.slot.live(place.pid, READY)
        place.slot.pulse(1.0, 1, held=1)
    bench.made._slots.words.wanted = 1
    bench.made._fit()
    bench.now += 6
    bench.made._fit()
    assert [place.retiring for place in (bench.first, *bench.others)] == [False, True]
    bench.now += 6
    bench.made._fit()
    assert not bench.first.retiring
