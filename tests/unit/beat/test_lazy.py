"""Arguments that are computed when a task is sent."""

from __future__ import annotations

from celeriac.beat.lazy import BeatLazyFunc, evaluated


def test_it_is_called_each_time() -> None:
    numbers = iter(range(9))
    lazy = BeatLazyFunc(lambda step, *, plus: next(numbers) * step + plus, 10, plus=1)
    assert [lazy(), lazy.delay(), lazy()] == [1, 11, 21]


def test_arguments_with_lazy_ones_among_them() -> None:
    args, kwargs = evaluated((1, BeatLazyFunc(int, "7")), {"a": BeatLazyFunc(dict), "b": [BeatLazyFunc]})
    assert args == [1, 7]
    assert kwargs == {"a": {}, "b": [BeatLazyFunc]}
