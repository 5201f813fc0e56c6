"""Looks come in, a number comes out: on a virtual clock, with a fleet that takes a moment to come up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.model.autoscale import Bounds, Look, Scale, scale

BOUNDS = Bounds(most=10, fewest=2)


class Node:
    """``load`` tasks are there at any time; children come up one look after they are wanted."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.bounds = bounds
        self.state = Scale(wanted=bounds.fewest)
        self.now = 0.0
        self.up = bounds.fewest
        self.done = 0
        self.changes: list[tuple[float, int]] = []

    def live(self, seconds: float, load: int, oldest: float | None = None, runs: int = 0) -> None:
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.done += runs
            busy = min(load, self.up)
            look = Look(at=self.now, ready=load - busy, oldest=oldest, up=self.up, busy=busy, done=self.done)
            before, self.state = self.state.wanted, scale(self.state, look, self.bounds)
            if self.state.wanted != before:
                self.changes.append((self.now, self.state.wanted))
            self.up = self.state.wanted


def test_it_grows_by_doubling_while_tasks_wait() -> None:
    node = Node()
    node.live(10, load=100)
    assert [count for _, count in node.changes] == [4, 8, 10]
    assert node.changes[-1][0] <= 5.0


def test_no_more_than_what_waits() -> None:
    node = Node()
    node.live(10, load=3)
    assert node.state.wanted == 3


def test_a_short_queue_is_no_reason() -> None:
    node = Node()
    for _ in range(20):
        node.live(0.5, load=5)
        node.live(0.5, load=0)
    assert node.changes == []


def test_tasks_that_wait_beside_idle_children_are_no_reason() -> None:
    """A queue that is paused, or limited: more children would not take them."""
    state = Scale(wanted=2)
    for second in range(60):
        state = scale(state, Look(at=second, ready=50, oldest=60.0, up=2, busy=1), BOUNDS)
    assert state.wanted == 2


def test_children_that_have_not_come_up_are_waited_for() -> None:
    state = Scale(wanted=4, since=0.0)
    for second in range(20):
        state = scale(state, Look(at=second, ready=50, up=2, busy=2), BOUNDS)
    assert state.wanted == 4


def test_where_the_age_is_known_two_looks_are_enough() -> None:
    slow, fast = Node(), Node()
    slow.live(2, load=9)
    fast.live(2, load=9, oldest=3.0)
    assert fast.changes[0][0] < slow.changes[0][0]


def test_it_shrinks_to_what_was_needed_after_the_keepalive() -> None:
    node = Node()
    node.live(10, load=100)
    node.live(29, load=4)
    assert node.state.wanted == 10
    node.live(12, load=4)
    assert node.state.wanted == 4
    node.live(60, load=0)
    assert node.state.wanted == 2


def test_a_peak_within_the_keepalive_keeps_them() -> None:
    node = Node()
    node.live(10, load=100)
    for _ in range(10):
        node.live(20, load=0)
        node.live(1, load=10)
    assert node.state.wanted == 10
    assert len(node.changes) == 3, "no flapping"


def test_tasks_too_short_to_be_seen_keep_one() -> None:
    node = Node(Bounds(most=4, fewest=0))
    node.live(5, load=4)
    node.live(100, load=0, runs=1)
    assert node.state.wanted == 1
    node.live(40, load=0)
    assert node.state.wanted == 0
    node.live(2, load=1)
    assert node.state.wanted == 1


def test_the_bounds_may_change() -> None:
    state = scale(Scale(wanted=8), Look(at=1.0, ready=0, up=8, busy=8), Bounds(most=5, fewest=1))
    assert state.wanted == 5
    state = scale(state, Look(at=2.0, ready=0, up=5, busy=0), Bounds(most=9, fewest=7))
    assert state.wanted == 7


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30)), max_size=30), st.integers(0, 3), st.integers(3, 12))
def test_always_within_the_bounds_and_never_below_what_is_busy(
    phases: list[tuple[int, int]], fewest: int, most: int
) -> None:
    node = Node(Bounds(most=most, fewest=fewest))
    for seconds, load in phases:
        node.live(seconds, load)
        assert fewest <= node.state.wanted <= most
        assert node.state.wanted >= min(load, most, node.up) or node.up < load
        assert len(node.state.needed) <= 32
    for (at, count), (later, other) in zip(node.changes, node.changes[1:], strict=False):
        assert other > count or later - at >= 30.0, "two changes down, or up and down, are a keep-alive apart"
