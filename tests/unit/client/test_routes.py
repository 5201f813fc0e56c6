"""Routing: ``task_routes`` and the options of a call to an address, as Celery 5.7 does it.

``celery_routes.json`` holds what Celery published for random settings, routes and options.
"""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from celeriac.client.queues import Exchange, Queue
from celeriac.client.registry import Queues
from celeriac.client.routes import ROUTING_SETTINGS, MapRoute, Router, prepare
from celeriac.conf import SETTINGS, Settings
from celeriac.exceptions import ImproperlyConfigured, QueueNotFound

CASES = json.loads(Path(__file__).with_name("celery_routes.json").read_text())

ROUTES = {
    "a.b": "q1",
    "a.c": {"queue": "q2", "priority": 5, "routing_key": "rr"},
    "feed.*": {"queue": "qf"},
    re.compile(r"(video|image)\..*"): {"queue": "qre"},
    "f?ed.x": {"queue": "never"},
    "topic": {"exchange": "E", "routing_key": "K", "exchange_type": "topic"},
    "direct": {"exchange": "E"},
    "prio": {"priority": 9},
    "none": {"queue": None, "priority": None},
    "object": {"queue": Queue("obj", Exchange("oe"), "ok")},
}


def made(conf):
    """Settings of a case, with queues made of its plain data."""
    conf = dict(conf)
    if "task_queues" in conf:
        conf["task_queues"] = [
            Queue(queue["name"], Exchange(**queue["exchange"]) if queue["exchange"] else None, queue["routing_key"])
            for queue in conf["task_queues"]
        ]
    return Settings(conf)


@pytest.mark.filterwarnings("ignore::celeriac.exceptions.CeleryWarning")
def test_addresses_are_celerys():
    for case in CASES:
        router = Router.from_settings(made(case["conf"]))
        # The second time, what was worked out is remembered.
        for _ in range(2):
            options = dict(case["options"])
            try:
                address = router.resolve(options, case["name"])
            except QueueNotFound:
                assert case["expect"] == {"error": "QueueNotFound"}, case
                continue
            found = {
                "exchange": address.exchange,
                "routing_key": address.routing_key,
                "delivery_mode": address.delivery_mode,
                "priority": options.get("priority"),
                "gid": options.get("MessageGroupId"),
                "declare": [address.declare.name] if address.declare else [],
            }
            assert found == case["expect"], case


@pytest.mark.parametrize(
    ("name", "options", "address", "rest"),
    [
        ("a.b", {}, ("q1", "", "q1"), {}),
        # A direct exchange needs no key of its own.
        ("a.c", {}, ("q2", "", "q2"), {"priority": 5}),
        ("feed.x", {}, ("qf", "", "qf"), {}),
        ("feed.", {}, ("qf", "", "qf"), {}),
        ("video.z", {}, ("qre", "", "qre"), {}),
        ("xvideo.z", {}, ("celery", "", "celery"), {}),
        ("ffed.x", {}, ("celery", "", "celery"), {}),
        ("topic", {}, ("", "E", "K"), {}),
        ("direct", {}, ("", "E", ""), {}),
        ("prio", {}, ("celery", "", "celery"), {"priority": 9}),
        ("prio", {"queue": "zz"}, ("zz", "", "zz"), {"priority": 9}),
        ("none", {}, ("celery", "", "celery"), {"priority": None}),
        ("object", {}, ("obj", "", "obj"), {}),
        # The call and the task win over the route; None says nothing, 0 does.
        ("a.c", {"queue": "mine", "priority": 1}, ("mine", "", "mine"), {"priority": 1}),
        ("a.c", {"queue": None, "priority": None}, ("q2", "", "q2"), {"priority": 5}),
        ("a.c", {"priority": 0}, ("q2", "", "q2"), {"priority": 0}),
        ("a.b", {"serializer": "yaml"}, ("q1", "", "q1"), {"serializer": "yaml"}),
        ("topic", {"queue": Queue("t", Exchange("own", "topic"), "k.#")}, ("t", "E", "K"), {}),
        ("other", {"queue": Queue("t", Exchange("own", "topic"), "k.#")}, ("t", "own", "k.#"), {}),
        ("other", {"exchange": Exchange("x"), "routing_key": "y"}, ("celery", "x", "y"), {}),
    ],
)
def test_routes_and_options(name, options, address, rest):
    router = Router(ROUTES)
    found = router.resolve(options, name)
    assert found[:3] == address
    assert options == rest


def test_delivery_modes():
    router = Router(delivery_mode="transient")
    assert router.resolve({}, "a").delivery_mode == 1
    assert router.resolve({"delivery_mode": "persistent"}, "a").delivery_mode == 2
    assert router.resolve({"delivery_mode": 2, "queue": "q"}, "a").delivery_mode == 2
    assert router.resolve({"queue": Queue("q", Exchange("x", delivery_mode=2))}, "a").delivery_mode == 2


def test_pairs_directly_or_in_a_list():
    # Celery takes the nested form only.
    for routes in (
        [("a.*", {"queue": "A"}), ("a.b", "B")],
        [[("a.*", {"queue": "A"}), ("a.b", "B")]],
        [("a.*", {"queue": "A"}), ("a.b", "B"), {"zz": "never"}],
    ):
        router = Router(routes)
        assert router.resolve({}, "a.b").queue == "B"
        assert router.resolve({}, "a.c").queue == "A"
    assert Router(((re.compile("a"), "A"), ("b", Queue("B")))).resolve({}, "b").queue == "B"


class Old:
    """A router of Celery 3."""

    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": f"old-{len(args)}-{len(kwargs)}"} if task == "old" else None


def function(name, args, kwargs, options, task=None, **kw):
    assert kw == {}
    return {"fn": {"queue": "fn"}, "text": "strq", "empty": {}}.get(name)


@pytest.fixture
def module(monkeypatch):
    module = ModuleType("routers_of_a_test")
    module.Old, module.function, module.nothing = Old, function, None
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_routers_are_asked_in_order(module):
    for routes in (
        (function, Old(), {"m": "mm"}),
        [f"{module}:function", f"{module}.Old", {"m": "mm"}],
        (f"{module}.function", Old, {"m": "mm"}),
    ):
        router = Router(routes)
        expected = {"fn": "fn", "text": "strq", "old": "old-1-2", "m": "mm", "zz": "celery", "empty": "celery"}
        for name, queue in expected.items():
            assert router.resolve({}, name, (1,), {"a": 1, "b": 2}).queue == queue


def test_what_a_function_is_given():
    seen = []

    def router(name, args, kwargs, options, task=None, **kw):
        seen.append((name, args, kwargs, options, task))

    task = object()
    options = {"queue": "x", "priority": 3}
    assert Router(router).resolve(options, "proj.add", (1,), {"k": 2}, task=task).queue == "x"
    assert Router(router).resolve({}, "proj.add", None, None).queue == "celery"
    name, args, kwargs, given, given_task = seen[0]
    assert (name, args, kwargs, given_task) == ("proj.add", (1,), {"k": 2}, task)
    assert given["priority"] == 3
    assert given["queue"].name == "x"
    assert seen[1][2:] == ({}, {}, None)


def test_a_named_router_is_imported_when_it_is_asked(module):
    router = Router("no_such_module.router")
    with pytest.raises(ImproperlyConfigured, match=r"'task_routes' names 'no_such_module\.router'"):
        router.resolve({}, "a")
    with pytest.raises(ImproperlyConfigured, match="'task_routes' holds None"):
        Router(f"{module}:nothing").resolve({}, "a")


@pytest.mark.parametrize("routes", [3, [3], {"a": 3}, {"a": None}, [["a", "b", "c"]], {3: "q"}, [["ab", 3]]])
def test_routes_that_are_none(routes):
    with pytest.raises(ImproperlyConfigured, match="'task_routes'") as caught:
        Router(routes)
    assert "\n" not in str(caught.value)


def test_a_function_may_not_answer_anything():
    with pytest.raises(ImproperlyConfigured, match="sends 'a' to 3"):
        Router(lambda name, args, kwargs, options, task=None: 3).resolve({}, "a")


def test_queues_that_are_not_declared():
    router = Router({"a": "unknown"}, [Queue("q")], create_missing=False, default_queue="q")
    assert router.resolve({}, "b").queue == "q"
    for options, name in (({}, "a"), ({"queue": "other"}, "b")):
        with pytest.raises(QueueNotFound, match="missing from task_queues"):
            router.resolve(options, name)


def test_without_routes_nothing_is_worked_out_twice(monkeypatch):
    router = Router()
    first = router.resolve({}, "a")
    named = router.resolve({"queue": "q"}, "a")
    monkeypatch.setattr(router, "_work_out", None)
    assert router.resolve({"priority": 3}, "b") is first
    assert router.resolve({"queue": None, "exchange": None}, "b") is first
    assert router.resolve({"queue": "q", "routing_key": None}, "c") is named


def test_what_was_worked_out_is_forgotten_when_queues_change():
    queues = Queues()
    router = Router(None, queues)
    assert router.resolve({"queue": "q"}, "a")[:3] == ("q", "", "q")
    queues.add(Queue("q", Exchange("t", "topic"), "k"))
    assert router.resolve({"queue": "q"}, "a")[:3] == ("q", "t", "k")
    del queues["q"]
    assert router.resolve({"queue": "q"}, "a")[:3] == ("q", "", "q")


def test_names_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr("celeriac.client.routes._REMEMBERED", 2)
    router = Router({"a.*": "A"})
    for number in range(5):
        assert router.resolve({}, f"a.{number}").queue == "A"
    assert len(router._found) == 2


class TestCelerysNames:
    def test_route(self):
        router = Router(ROUTES)
        assert router.route({}, "other") == {"queue": router.queues["celery"]}
        assert router.route({"priority": 1}, "a.c") == {
            "queue": router.queues["q2"],
            "priority": 1,
            "routing_key": "rr",
        }
        assert router.route({"queue": "mine"}, "a.c")["queue"].name == "mine"
        assert router.route({"exchange": "foo"}, "x") == {"queue": router.queues["celery"], "exchange": "foo"}
        # The route itself is not touched.
        assert router.route({}, "a.c")["priority"] == 5
        assert ROUTES["a.c"] == {"queue": "q2", "priority": 5, "routing_key": "rr"}

    def test_expand_destination(self):
        router = Router()
        queue = Queue("own")
        assert router.expand_destination("q") == {"queue": router.queues["q"]}
        assert router.expand_destination({"queue": queue, "priority": 1}) == {"queue": queue, "priority": 1}
        assert router.expand_destination({"queue": None}) == {}
        with pytest.raises(QueueNotFound):
            Router(None, Queues(create_missing=False)).expand_destination("q")

    def test_lookup_route(self):
        router = Router(ROUTES)
        assert router.lookup_route("a.b") == {"queue": "q1"}
        assert router.lookup_route("other") is None

    def test_map_route(self):
        route = MapRoute({"a": "q", "b.*": {"queue": "w"}})
        assert route("a") == {"queue": "q"}
        assert route("b.c", (), {}) == {"queue": "w"}
        assert route("c") is None
        assert prepare(None) == []

    def test_settings_named_exist(self):
        assert set(SETTINGS) >= ROUTING_SETTINGS
