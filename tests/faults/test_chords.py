"""Chords while children and whole nodes are killed: every body is sent once, with all results in order."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from celeriac import chord
from tests.faults.fleet import Fleet
from tests.faults.hurting import hurt, pace
from tests.faults.journal import report
from tests.faults.place import Place
from tests.faults.scenario import scenario

CLUSTER = True

CHORDS, MEMBERS = 24, 20


def send_chord(place: Place, number: int, rng: random.Random) -> tuple[list[int], Any]:
    """A chord of `work`, some of it in chains, one task that is tried again; a step behind every other body."""
    tasks: Any = place.app.tasks
    work, step, again = (tasks[f"faults.{name}"] for name in ("work", "step", "again"))
    header, values = [], []
    for index in range(MEMBERS):
        value = number * 100 + index
        member = work.s(value, rng.uniform(5, 50))
        if index == 3:
            member = again.s(value)
        elif index % 7 == 0:
            member, value = member | step.s(), value + 1
        header.append(member)
        values.append(value)
    return values, chord(header)(tasks["faults.collect"].s())


def sent_twice(fleet: Fleet, bodies: list[str]) -> list[str]:
    """Bodies that started as the first delivery of a message more than once."""
    return [body for body in bodies if sum(not start.redelivered for start in fleet.journal.started(body)) > 1]


@pytest.mark.slow
@scenario(
    "processes",
    fault="children and workers are killed while chords run",
    promise="each body is sent once, with all results",
)
def test_chords_under_kills(place: Place, rng: random.Random, fault_scale: float) -> None:
    expected: dict[str, list[int]] = {}
    kills = {"child": 0, "node": 0}
    began = time.monotonic()
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "3", wait=False)
        for number in range(round(CHORDS * fault_scale)):
            values, result = send_chord(place, number, rng)
            expected[str(result.id)] = values
            if number % 6 == 5:
                pace(fleet, list(expected), rng.uniform(0.5, 0.9))
                kills[hurt(fleet, rng)] += 1
        bodies = list(expected)
        while not pace(fleet, bodies, rng.uniform(0.8, 1.0)) and kills["node"] < 8 * fault_scale:
            kills[hurt(fleet, rng)] += 1
        last = time.monotonic()
        place.wait_all(fleet, bodies, 40.0)
        wrong = [
            body
            for body, record in zip(bodies, place.records(bodies), strict=True)
            if record is None or record["status"] != "SUCCESS" or record["result"] != expected[body]
        ]
        report(
            place=place.kind,
            sent=len(bodies),
            lost=len(wrong),
            doubled=len(sent_twice(fleet, bodies)),
            **kills,
            recovery=time.monotonic() - last,
            seconds=time.monotonic() - began,
        )
        assert (wrong, sent_twice(fleet, bodies)) == ([], [])
        place.wait_empty(20.0)
