"""``gathered``: what a complete chord's body is called with, or why it never is."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.exceptions import ChordError
from celeriac.model.chord import PartValue, gathered


def ok(task_id: str, value: Any) -> PartValue:
    return PartValue(task_id, "SUCCESS", value)


def leaf(task_id: str) -> Any:
    return [[task_id, None], None]


def nest(*members: Any) -> Any:
    return [["g", None], list(members)]


class Nasty(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def test_values_in_the_order_of_the_parts() -> None:
    assert gathered([ok("a", 1), ok("b", None), ok("a", [2])]) == [1, None, [2]]
    assert gathered([]) == []


@pytest.mark.parametrize("state", ["FAILURE", "REVOKED", "REJECTED", "anything else"])
def test_the_first_that_did_not_succeed_is_named(state: str) -> None:
    cause = ValueError("no")
    error = gathered([ok("a", 1), PartValue("b", state, cause), PartValue("c", state, KeyError())])
    assert isinstance(error, ChordError)
    assert str(error) == "Dependency b raised ValueError('no')"
    assert error.__cause__ is cause


@pytest.mark.parametrize(
    ("result", "text"),
    [("just text", "'just text'"), (None, "None"), (Nasty(), "Nasty"), ({"exc_type": 5}, "{'exc_type': 5}")],
)
def test_whatever_a_member_says_of_its_failure(result: Any, text: str) -> None:
    assert str(gathered([PartValue("a", "FAILURE", result)])) == f"Dependency a raised {text}"


def test_the_shape_nests_the_values_by_the_members_ids() -> None:
    parts = [ok("c", 3), ok("a", 1), ok("b", 2)]
    assert gathered(parts, nest(leaf("a"), nest(leaf("b"), nest(leaf("c")), nest()))) == [1, [2, [3], []]]
    # A result tuple may have ids without parents, as old ones do.
    assert gathered(parts[:1], nest(["c", None])) == [3]


def test_a_failure_goes_before_a_shape_that_does_not_fit() -> None:
    error = gathered([PartValue("a", "FAILURE", ValueError())], nest(leaf("zz")))
    assert str(error) == "Dependency a raised ValueError()"


@pytest.mark.parametrize(
    "shape",
    [nest(leaf("zz")), nest([]), nest([["a"]]), nest(5), nest([[], None]), nest([["a", None], 5]), [1], 5],
    ids=repr,
)
def test_a_shape_that_does_not_fit_fails_the_chord(shape: Any) -> None:
    error = gathered([ok("a", 1)], shape)
    assert isinstance(error, ChordError)
    assert "does not fit" in str(error)


def test_members_added_later_come_behind_those_of_the_shape() -> None:
    """``add_to_chord`` says so; the shape was written before it."""
    assert gathered([ok("a", 1), ok("b", 2), ok("new", 3)], nest(leaf("a"), nest(leaf("b")))) == [1, [2], 3]
