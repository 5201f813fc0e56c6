"""One chord, two kinds of workers: header and body on either side, sent by either producer."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import chain, chord, group
from tests.compat.project.fleet import Fleet

CODE = """
from celery import chain, chord, group
def mine(name, queue, *args): return t["compat." + name].s(*args).set(queue=queue)
"""
SIDES = ("ours", "theirs")


def run(fleet: Fleet, producer: str, expression: str, **names: Any) -> Any:
    """The value of an expression that may use `mine(task, queue, *args)` and the canvas, on the producer's side."""
    if producer == "theirs":
        return fleet.console.run(f"{CODE}\n{expression}", **names)

    def mine(name: str, queue: str, *args: Any) -> Any:
        return fleet.app.tasks[f"compat.{name}"].s(*args).set(queue=queue)

    return eval(expression, {"chain": chain, "chord": chord, "group": group, "mine": mine, **names})


@pytest.mark.parametrize("body", SIDES)
@pytest.mark.parametrize("producer", SIDES)
def test_a_header_on_both_sides(fleet: Fleet, producer: str, body: str) -> None:
    text = (
        "[chord([mine('add', ('ours', 'theirs', 'both')[i % 3], i, 1) for i in range(12)])"
        "(mine('tsum', body)).get(timeout=60) for _ in range(8)]"
    )
    assert run(fleet, producer, text, body=body) == [78] * 8


@pytest.mark.parametrize("producer", SIDES)
def test_a_failing_member_on_either_side(fleet: Fleet, producer: str) -> None:
    for side in SIDES:
        text = (
            "type(chord([mine('add', 'ours', 1, 1), mine('add', 'theirs', 1, 1), mine('fail', side)])"
            "(mine('tsum', 'both')).get(timeout=60, propagate=False)).__name__"
        )
        assert run(fleet, producer, text, side=side) == "ChordError"


@pytest.mark.parametrize("producer", SIDES)
def test_a_workflow_that_changes_sides(fleet: Fleet, producer: str) -> None:
    for first, second in (SIDES, SIDES[::-1]):
        text = (
            "chain(mine('add', first, 1, 1), group(mine('add', second, 10), mine('add', first, 20)),"
            " mine('tsum', second), mine('add', first, 5)).apply_async().get(timeout=60)"
        )
        assert run(fleet, producer, text, first=first, second=second) == 39


@pytest.mark.parametrize("producer", SIDES)
def test_groups_in_a_header(fleet: Fleet, producer: str) -> None:
    text = (
        "chord([chain(mine('add', 'ours', 1, 1), group(mine('add', 'theirs', 1), mine('add', 'ours', 2))),"
        " mine('add', 'theirs', 5, 5)])(mine('ident', 'both')).get(timeout=60)"
    )
    assert run(fleet, producer, text) == [[3, 4], 10]
