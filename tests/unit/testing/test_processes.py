"""Simulated processes: whose turn it is, what their clocks show, and what is left of the killed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from celeriac.testing.simulation.process import Process, ProcessClock, spawn
from celeriac.testing.simulation.timeline import Stuck, Timeline


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(Random(1))


def noting(process: Process, lines: list[Any], *spans: float) -> Any:
    async def sleeper() -> None:
        for span in spans:
            await asyncio.sleep(span)
            lines.append((process.name, round(process.timeline.time, 3)))

    return process.start(sleeper())


def test_time_jumps_to_whoever_wakes_next(timeline: Timeline) -> None:
    lines: list[Any] = []
    noting(spawn(timeline, "a"), lines, 1, 2)
    noting(spawn(timeline, "b"), lines, 2.5)
    assert not timeline.run(10)
    assert lines == [("a", 1), ("b", 2.5), ("a", 3)]
    assert timeline.time == 10


def test_between_processes_chance_rules_inside_one_the_order_holds() -> None:
    def course(seed: int) -> list[Any]:
        timeline, lines = Timeline(Random(seed)), []
        for name in "ab":
            process = spawn(timeline, name)
            for number in range(5):
                process.call_soon(lines.append, (name, number))
        timeline.run(0)
        return lines

    courses = [course(seed) for seed in range(5)]
    assert courses == [course(seed) for seed in range(5)]
    assert len({tuple(each) for each in courses}) > 1
    for each in courses:
        assert [number for name, number in each if name == "a"] == [0, 1, 2, 3, 4]


def test_the_killed_do_nothing_more_and_clean_up_nothing(timeline: Timeline) -> None:
    process, lines = spawn(timeline, "a"), []
    noting(process, lines, 1, 1)
    process.call_later(1.5, process.timeline.outside, process.kill)
    timeline.run(10)
    assert lines == [("a", 1)]
    assert timeline.processes == []
    assert process.is_closed()


def test_the_paused_go_on_late(timeline: Timeline) -> None:
    process, control, lines = spawn(timeline, "a"), spawn(timeline, "control"), []
    noting(process, lines, 1)
    timeline.run(0)
    process.pause()
    control.call_later(5, process.resume)
    timeline.run(10)
    assert lines == [("a", 5)]


def test_clocks_that_are_wrong(timeline: Timeline) -> None:
    machine = ProcessClock(timeline, wall=60, rate=2, boot=100)
    process, lines = spawn(timeline, "a", machine.twin()), []
    noting(process, lines, 4)
    timeline.run(10)
    assert lines == [("a", 2)]
    assert process.clock.monotonic() == 120
    machine.jump(-3600)
    assert process.clock.now() == timeline.epoch + 10 + 60 - 3600


def test_a_thread_is_a_step(timeline: Timeline) -> None:
    process, found = spawn(timeline, "a"), []

    async def main() -> None:
        found.append(await asyncio.to_thread(lambda: 5))
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    process.start(main())
    timeline.run(0)
    assert found == [5]


def test_what_fails_is_kept(timeline: Timeline) -> None:
    process = spawn(timeline, "a")

    async def main() -> None:
        raise ValueError("x")

    process.start(main())
    process.call_soon(lambda: 1 / 0)
    timeline.run(0)
    assert sorted(type(error).__name__ for error in process.errors) == ["ValueError", "ZeroDivisionError"]


def test_endless_steps_are_noticed(timeline: Timeline) -> None:
    process = spawn(timeline, "a")

    def again() -> None:
        process.call_soon(again)

    again()
    with pytest.raises(Stuck, match="a takes steps for ever"):
        timeline.run(1)
