"""How steps are put together, and what a chain of them becomes when it is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celeriac import Celery, Signature, chain, chord, group
from celeriac.canvas.steps import fold, link_all, running_order, unrolled


@pytest.fixture(autouse=True)
def task(app: Celery) -> Any:
    return app.task(name="t")(lambda *args: args)


def t(n: int) -> Signature[Any]:
    return Signature("t", (n,))


def g(*ns: int) -> group:
    return group(t(n) for n in ns)


def shown(value: Any) -> str:
    """``1 2 [3 4]>5``: steps, a group in brackets, a chord with its body behind ``>``."""
    if isinstance(value, list):
        return " ".join(map(shown, value))
    kind, kwargs = value["subtask_type"], value["kwargs"]
    if kind == "chain":
        return f"({shown(list(value.tasks))})"
    if kind == "group":
        return f"[{shown(list(value.tasks))}]"
    if kind == "chord":
        header = kwargs["header"]
        return f"[{shown(list(getattr(header, 'tasks', header)))}]>{shown(kwargs['body'])}"
    return str(value["args"][0])


TABLE = [
    # what is put together, how it is kept, how it is sent
    ([t(1), t(2)], "1 2", "1 2"),
    ([t(1), chain(t(2), t(3))], "1 2 3", "1 2 3"),
    ([t(1), group(), t(2)], "1 2", "1 2"),
    ([t(1), g(2), t(3)], "1 2 3", "1 2 3"),
    ([t(1), g(2, 3)], "1 [2 3]", "1 [2 3]"),
    ([t(1), g(2, 3), t(4)], "1 [2 3]>4", "1 [2 3]>4"),
    ([t(1), g(2, 3), t(4), t(5)], "1 [2 3]>(4 5)", "1 [2 3]>4 5"),
    ([t(1), g(2, 3), chain(t(4), t(5))], "1 [2 3]>(4 5)", "1 [2 3]>4 5"),
    ([t(1), g(2, 3), g(4, 5)], "1 [2 3] [4 5]", "1 [2 3]>[4 5]"),
    ([t(1), g(2, 3), g(4, 5), t(6)], "1 [2 3] [4 5]>6", "1 [2 3]>[4 5]>6"),
    ([t(1), chord([t(2)], t(3)), t(4)], "1 [2]>(3 4)", "1 [2]>3 4"),
    ([t(1), chord([t(2)], t(3)), chord([t(4)], t(5))], "1 [2]>3 [4]>5", "1 [2]>3 [4]>5"),
    ([t(1), chord([t(2)], g(3, 4)), t(5)], "1 [2]>[3 4]>5", "1 [2]>[3 4]>5"),
    ([g(1, 2), g(3, 4), g(5, 6), chord([t(7)], t(8))], "[1 2]>[3 4]>[5 6] [7]>8", "[1 2]>[3 4]>[5 6]>[7]>8"),
    (
        [t(1), chord([t(2)], chord([t(3)], g(4, 5))), chord([t(6)], t(7))],
        "1 [2]>[3]>[4 5] [6]>7",
        "1 [2]>[3]>[4 5]>[6]>7",
    ),
    (
        [t(1), chord([t(2)], chord([t(3)], chain(t(4), g(5, 6)))), chord([t(7)], t(8))],
        "1 [2]>[3]>(4 [5 6]) [7]>8",
        "1 [2]>[3]>(4 [5 6]>[7]>8)",
    ),
    ([g(1, 2), t(3)], "[1 2]>3", None),
    ([g(1, 2), g(3, 4)], "[1 2]>[3 4]", None),
    ([g(1, 2)], "[1 2]", None),
    ([t(1)], "1", "1"),
    ([], "", ""),
]


@pytest.mark.parametrize(("given", "kept", "sent"), TABLE, ids=[kept or "nothing" for _, kept, _ in TABLE])
def test_together(given: list[Signature[Any]], kept: str, sent: str | None) -> None:
    before = json.dumps(given)
    folded = fold(given)
    assert shown(folded) == kept
    if sent is not None:
        assert isinstance(folded, list)
        assert shown(running_order(folded)) == sent
        # As it would be if it had not been put together before.
        assert shown(running_order(given)) == sent
    assert json.dumps(given) == before


def test_a_chain_of_groups_is_put_together_and_copied() -> None:
    """What ``chain.__new__`` returns is put together; were it a chain, ``__init__`` would undo that."""
    given = [g(1, 2), t(3), g(4, 5), t(6)]
    made = chain(*given)
    assert shown(made) in ("[1 2]>(3 [4 5]>6)", "([1 2]>(3 [4 5]>6))")
    made.stamp(tenant=7)
    assert [task.options for task in (*given[0].tasks, given[1], *given[2].tasks)] == [{}] * 5


def test_groups_of_nothing_alone() -> None:
    assert shown(running_order([group()])) == "[]"
    assert shown(running_order([group(), group()])) == "[]"
    assert shown(running_order([group(), t(1), group()])) == "1"


def test_what_is_sent_is_a_copy() -> None:
    steps = [t(1), chain(t(2), t(3), queue="q"), chord([t(4)], chain(t(5), t(6))), group(t(7), t(8))]
    before = json.dumps(steps)
    order = running_order(steps)
    link_all(order, t(9), t(10))
    for step in order:
        step.freeze()
        step.set(queue="z")
    assert json.dumps(steps) == before


def test_callbacks_go_to_the_last_and_errbacks_to_all() -> None:
    steps = [t(1), t(2)]
    link_all(steps, [t(8), t(9)], t(10))
    assert [step.options.get("link") for step in steps] == [None, [t(8), t(9)]]
    assert [step.options.get("link_error") for step in steps] == [[t(10)], [t(10)]]


def test_a_group_of_one() -> None:
    assert unrolled(g(1)) == t(1)
    assert shown(unrolled(g(1, 2))) == "[1 2]"
    assert unrolled(3) == 3


@pytest.mark.parametrize("wrong", [3, "t", None, {"no": "task"}.keys()])
def test_what_is_no_signature(wrong: Any) -> None:
    with pytest.raises(TypeError, match="made of signatures"):
        fold([t(1), wrong])


def test_the_tail_of_a_body_keeps_options_of_the_chain_it_was() -> None:
    body = chain(t(2), t(3), queue="q")
    first, second = running_order([chord([t(1)], body)])
    assert (first["kwargs"]["body"].options, second.options) == ({"queue": "q"}, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda n: chain(t(k) for k in range(n)),
        lambda n: chain(g(1, 2), *(t(k) for k in range(n))),
        lambda n: chain(t(0), g(1, 2), *(t(k) for k in range(n))),
        lambda n: chain(step for k in range(n // 4) for step in (g(1, 2), t(k))),
    ],
    ids=["steps", "chord and steps", "step, chord and steps", "chords"],
)
def test_the_work_for_long_ones_is_linear(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were each step copied for each that follows, twice as many would be four times the work."""
    made = [0]
    init = Signature.__init__

    def counting(self: Signature[Any], *args: Any, **kwargs: Any) -> None:
        made[0] += 1
        init(self, *args, **kwargs)

    monkeypatch.setattr(Signature, "__init__", counting)
    counts = []
    for size in (64, 128):
        made[0] = 0
        make(size)
        counts.append(made[0])
    assert counts[1] < 2.5 * counts[0]


def test_many_steps_by_the_operator() -> None:
    chained: Any = t(0)
    for n in range(1, 200):
        chained = chained | t(n)
    assert [step.args for step in chained.tasks] == [(n,) for n in range(200)]
