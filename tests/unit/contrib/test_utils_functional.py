"""``celery.utils.functional`` and ``celery.utils.nodenames``, as their users know them."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.utils import functional as f
from celeriac.utils import nodenames as n


def counted(read: list[int]) -> Iterator[int]:
    for number in range(5):
        read.append(number)
        yield number


class TestFunctional:
    def test_lists(self) -> None:
        assert [f.is_list(each) for each in ([1], (1,), iter([1]), "a", b"a", {"a": 1}, 1)] == [True] * 3 + [False] * 4
        assert [f.maybe_list(each) for each in (None, 1, "ab", [1])] == [None, [1], ["ab"], [1]]
        assert list(f.chunks(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
        assert f.padlist(["a"], 3) == ["a", None, None]
        assert f.padlist("abc", 2, "x") == ["a", "b"]
        assert list(f.uniq([3, 1, 3, 2, 1])) == [3, 1, 2]

    def test_first(self) -> None:
        assert f.first(None, [None, 0, 1]) == 0
        assert f.first(lambda each: each > 1, [1, 2, 3]) == 2
        assert f.first(lambda each: each > 5, [1]) is None
        call = f.firstmethod("get")
        assert call([{}, f.lazy(dict, a=1), {"a": 2}], "a") == 1
        assert call([], "a") is None
        assert f.firstmethod("get", on_call=lambda get, *args: get(*args) or "none")([{}], "a") == "none"

    def test_values(self) -> None:
        assert (f.maybe(int, "5"), f.maybe(int, None)) == (5, None)
        assert (f.maybe_evaluate(f.lazy(int, "5")), f.maybe_evaluate(5)) == (5, 5)
        assert (f.lazy(int, "5") == 5, str(f.lazy(int, "5")), repr(f.lazy(str, "5"))) == (True, "5", "'5'")
        assert (f.noop(1, a=2), f.pass1(1, 2)) == (None, 1)
        assert f.dictfilter({"a": None, "b": 0}, c=None, e=1) == {"b": 0, "e": 1}
        assert f.mattrgetter("real", "nothing")(5) == {"real": 5, "nothing": None}
        assert f.fun_accepts_kwargs(lambda **rest: 0)
        assert not f.fun_accepts_kwargs(lambda a, *, b: 0)

    def test_regen_reads_what_is_needed_and_again(self) -> None:
        read: list[int] = []
        it = f.regen(counted(read))
        assert isinstance(it, list)
        assert it
        assert (it[1], read) == (1, [0, 1])
        assert next(iter(it)) == 0
        assert (2 in it, read) == (True, [0, 1, 2])
        assert list(it) == list(it) == it == [0, 1, 2, 3, 4]
        assert (len(it), it[-1], it[1:3], next(reversed(it)), repr(it)) == (5, 4, [1, 2], 4, "[0, 1, 2, 3, 4]")
        assert read == [0, 1, 2, 3, 4]
        assert pickle.loads(pickle.dumps(f.regen(iter("ab")))) == ["a", "b"]
        assert not f.regen(iter(()))
        given = [1]
        assert f.regen(given) is given
        assert f.regen(it) is it
        assert list(it) == [0, 1, 2, 3, 4]

    def test_memory(self) -> None:
        calls: list[Any] = []

        @f.memoize(maxsize=2)
        def double(number: int) -> int:
            calls.append(number)
            return 2 * number

        assert [double(each) for each in (1, 1, 2, 3, 1)] == [2, 2, 4, 6, 2]
        assert (calls, double.hits, double.misses) == ([1, 2, 3, 1], 1, 4)
        double.clear()
        assert (double(1), double.hits, double.misses, double.original_func(4)) == (2, 0, 1, 8)
        assert f.memoize(keyfun=lambda args, kwargs: 0, Cache=dict)(lambda each: each)(5) == 5

    def test_a_cache_forgets_what_was_not_used_for_longest(self) -> None:
        cache = f.LRUCache(2)
        cache["a"], cache["b"] = 1, 2
        assert cache["a"] == 1
        cache["c"] = 3
        assert list(cache) == ["a", "c"]
        assert (cache.incr("a"), cache["a"]) == (2, "2")
        with pytest.raises(KeyError):
            cache["b"]


class TestNodenames:
    def test_names(self) -> None:
        host = socket.gethostname()
        assert n.gethostname() == host
        assert n.nodename("w1", "box") == "w1@box"
        assert [n.nodesplit(each) for each in ("w1@box", "box")] == [("w1", "box"), (None, "box")]
        assert [n.default_nodename(each) for each in (None, "", "box", "w1@box", "w1@")] == [
            f"celery@{host}",
            f"celery@{host}",
            "celery@box",
            "w1@box",
            f"w1@{host}",
        ]
        assert n.anon_nodename("box") == f"gen{os.getpid()}@box"

    def test_letters(self) -> None:
        assert n.node_format("%n-%h-%p-%d-%%-%x", "w1@box.example.com", x="more") == (
            "w1-box.example.com-w1@box.example.com-example.com-%-more"
        )
        assert n.host_format("%n.%d", "box.example.com") == "box.example.com"
