"""Queue, Exchange and the registry of queues, as kombu's and Celery's (compared with 5.7)."""

import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.client.queues import Binding, Exchange, Queue, delivery_mode_of, looks_like_queue, topic_matches
from celeriac.client.registry import Queues
from celeriac.conf import Settings
from celeriac.exceptions import CeleryWarning, ImproperlyConfigured, QueueNotFound


def foreign(name, **fields):
    """What kombu.Queue looks like from outside."""
    defaults = {
        "name": name,
        "exchange": SimpleNamespace(name="", type="direct", durable=True, delivery_mode=None, arguments=None),
        "routing_key": "",
        "queue_arguments": None,
        "durable": True,
        "bindings": set(),
        "alias": None,
        "max_priority": None,
    }
    return SimpleNamespace(**{**defaults, **fields})


class TestQueue:
    def test_positional_forms(self):
        queue = Queue("feed", Exchange("feeds", "topic"), "feed.#")
        assert (queue.name, queue.exchange.name, queue.exchange.type, queue.routing_key) == (
            "feed",
            "feeds",
            "topic",
            "feed.#",
        )
        assert Queue("a", "exchange name").exchange == Exchange("exchange name")
        assert Queue("a").exchange == Exchange("")
        assert Exchange().type == Exchange("x", "").type == Exchange("x", None).type == "direct"

    def test_defaults_are_kombus(self):
        assert Queue("a").as_dict() == {
            "name": "a",
            "exchange": Exchange(""),
            "routing_key": "",
            "queue_arguments": None,
            "binding_arguments": None,
            "consumer_arguments": None,
            "durable": True,
            "exclusive": False,
            "auto_delete": False,
            "no_ack": False,
            "alias": None,
            "bindings": (),
            "no_declare": False,
            "expires": None,
            "message_ttl": None,
            "max_length": None,
            "max_length_bytes": None,
            "max_priority": None,
        }
        assert Queue("a", exclusive=True).auto_delete is True
        assert Queue("a", durable=None).durable is True
        assert Exchange("x", delivery_mode="transient").delivery_mode == 1

    def test_as_plain_data(self):
        queue = Queue("a", [Binding(Exchange("x"), "k1"), Binding("y", "k2")])
        data = queue.as_dict(recurse=True)
        assert queue.exchange is None
        assert [binding["routing_key"] for binding in data["bindings"]] == ["k1", "k2"]
        assert data["bindings"][1]["exchange"]["name"] == "y"
        assert Queue("a", Exchange("x")).as_dict(recurse=True)["exchange"]["type"] == "direct"

    def test_values_are_frozen_equal_and_pickle(self):
        queue = Queue("a", Exchange("x"), "k", queue_arguments={"x-max-priority": 3})
        with pytest.raises(AttributeError, match=r"Queue\.durable cannot be changed.*use replace\(durable=…\)"):
            queue.durable = False
        assert queue.replace(durable=False).durable is False
        assert pickle.loads(pickle.dumps(queue)) == queue == queue.replace()
        assert hash(queue) == hash(queue.replace())
        assert queue != queue.replace(routing_key="other")
        assert queue != "a"
        assert Exchange("x") != Exchange("x", "topic")
        assert Exchange("x") != "x"
        assert repr(queue) == "<Queue 'a' -> <Exchange 'x' (direct)> -> 'k'>"
        assert "Binding" in repr(Queue("a", [Binding("x", "k")]))

    def test_subclasses_keep_their_fields(self):
        class Mine(Queue):
            pass

        assert Mine("a", routing_key="k").replace(durable=False).as_dict()["routing_key"] == "k"

    def test_unknown_options_are_ignored_with_a_warning(self):
        with pytest.warns(CeleryWarning, match="Queue 'a' ignores what it does not know: bogus, typ") as caught:
            assert Queue("a", typ="topic", bogus=3).name == "a"
        assert caught[0].filename == __file__

    def test_from_dict(self):
        queue = Queue.from_dict(
            "a", exchange="x", exchange_type="topic", binding_key="b.*", durable=False, max_priority=5, expires=3.0
        )
        assert (queue.exchange, queue.routing_key) == (Exchange("x", "topic", durable=False), "b.*")
        assert (queue.durable, queue.max_priority, queue.expires) == (False, 5, 3.0)
        assert Queue.from_dict("a", durable=False, exchange_durable=True).exchange.durable is True

    def test_kombus_queues_are_taken(self):
        exchange = SimpleNamespace(name="x", type="topic", durable=False, delivery_mode=1, arguments=None)
        binding = SimpleNamespace(exchange=exchange, routing_key="k", arguments=None, unbind_arguments=None)
        queue = Queue.of(foreign("a", exchange=exchange, routing_key="k.#", bindings=[binding], max_priority=4))
        assert queue == Queue(
            "a",
            Exchange("x", "topic", durable=False, delivery_mode=1),
            "k.#",
            bindings=[Binding(Exchange("x", "topic", durable=False, delivery_mode=1), "k")],
            max_priority=4,
        )
        assert Queue.of(queue) is queue
        assert looks_like_queue(foreign("a"))
        assert not any(map(looks_like_queue, ["a", {"name": "a"}, Exchange("a"), None, Queue]))

    @pytest.mark.parametrize(("value", "mode"), [(1, 1), (2, 2), ("2", 2), ("transient", 1), ("persistent", 2)])
    def test_delivery_modes(self, value, mode):
        assert delivery_mode_of(value) == mode

    def test_unknown_delivery_mode(self):
        with pytest.raises(ImproperlyConfigured, match="'often' is unknown"):
            delivery_mode_of("often")


class TestBindings:
    @pytest.mark.parametrize(
        ("pattern", "key", "matches"),
        [
            ("feed.#", "feed.import", True),
            ("feed.#", "feed", True),
            ("feed.#", "feed.a.b", True),
            ("feed.*", "feed.a.b", False),
            ("feed.*", "feed", False),
            ("#", "", True),
            ("#.end", "a.b.end", True),
            ("a.#.b", "a.b", True),
            ("*.stock.#", "usd.stock", True),
            ("*.stock.#", "eur.stock.db", True),
            ("*.stock.#", "stock.nasdaq", False),
            ("a", "b", False),
        ],
    )
    def test_topics(self, pattern, key, matches):
        assert topic_matches(pattern, key) is matches

    @settings(max_examples=50)
    @given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5), st.data())
    def test_a_key_with_words_replaced_by_wildcards_matches(self, words, data):
        pattern = [data.draw(st.sampled_from([word, "*", "#"])) for word in words]
        assert topic_matches(".".join(pattern), ".".join(words))

    def test_queues_bound_to_an_exchange(self):
        queues = Queues(
            [
                Queue("topic", Exchange("t", "topic"), "a.#"),
                Queue("direct", Exchange("d"), "key"),
                Queue("all", Exchange("f", "fanout")),
                Queue("many", [Binding(Exchange("t", "topic"), "*.b"), Binding(Exchange("d"), "key")]),
            ]
        )
        assert queues.bound_to("t", "a.b") == ("topic", "many")
        assert queues.bound_to("d", "key") == ("direct", "many")
        assert queues.bound_to("f", "whatever") == ("all",)
        assert queues.bound_to("", "direct") == ("direct",)
        assert queues.bound_to("unknown", "key") == ()


class TestQueues:
    def test_missing_queues_are_made(self):
        queues = Queues()
        assert "new" not in queues
        assert queues["new"] == Queue("new", Exchange("new"), "new")
        assert "new" in queues

    def test_missing_queues_are_refused(self):
        queues = Queues([Queue("a"), Queue("b")], create_missing=False)
        with pytest.raises(QueueNotFound, match=r"Queue 'new' missing from task_queues \(a, b\): add it there"):
            _ = queues["new"]
        with pytest.raises(KeyError):
            queues.select(["new"])

    def test_queues_without_exchange_and_key_get_the_defaults(self):
        queues = Queues([Queue("a"), Queue("b", Exchange("own"), "key")], Exchange("dx"), default_routing_key="dk")
        assert (queues["a"].exchange.name, queues["a"].routing_key) == ("dx", "dk")
        assert (queues["b"].exchange.name, queues["b"].routing_key) == ("own", "key")
        assert queues["new"].exchange.name == "new"

    def test_dicts_names_and_foreign_queues(self):
        queues = Queues(
            {"one": {"exchange": "e1", "exchange_type": "topic", "routing_key": "o.*"}, "two": {}, "three": None},
            Exchange("dx"),
        )
        assert (queues["one"].exchange.type, queues["one"].routing_key) == ("topic", "o.*")
        assert (queues["two"].exchange.name, queues["two"].routing_key) == ("dx", "two")
        assert queues["three"].routing_key == "three"
        assert list(Queues(["a", foreign("b"), Queue("c")])) == ["a", "b", "c"]
        with pytest.raises(ImproperlyConfigured, match="'task_queues' holds 3"):
            Queues([3])

    def test_kinds_of_missing_queues(self):
        queues = Queues(create_missing_queue_type="quorum", create_missing_queue_exchange_type="topic", max_priority=9)
        queue = queues["new"]
        assert queue.exchange == Exchange("new", "topic")
        assert queue.queue_arguments == {"x-queue-type": "quorum", "x-max-priority": 9}
        assert Queues(autoexchange=lambda name: None)["a"].exchange == Exchange("")
        with pytest.raises(ImproperlyConfigured, match="must be classic or quorum, not 'odd'"):
            Queues(create_missing_queue_type="odd")

    def test_max_priority_is_a_default(self):
        queues = Queues([Queue("a", queue_arguments={"x-max-priority": 3}), Queue("b")], max_priority=9)
        assert queues["a"].queue_arguments == {"x-max-priority": 3}
        assert queues["b"].queue_arguments == {"x-max-priority": 9}

    def test_aliases(self):
        queues = Queues([Queue("generated.123", alias="short")])
        assert queues["short"].name == "generated.123"
        queues.deselect("short")
        assert list(queues.consume_from) == []

    def test_selection(self):
        queues = Queues([Queue("a"), Queue("b"), Queue("c")])
        _ = queues["routed only"]
        assert list(queues.consume_from) == ["a", "b", "c"]
        queues.deselect("b")
        assert list(queues.consume_from) == ["a", "c"]
        queues.select(["c", "new"])
        assert list(queues.consume_from) == ["c", "new"]
        queues.deselect(["new", "unknown"])
        assert list(queues.consume_from) == ["c"]
        queues.select_add("added", exchange="x", routing_key="k")
        assert list(queues.consume_from) == ["c", "added"]
        queues.select([])
        assert list(queues.consume_from) == ["c", "added"]
        queues.select("a")
        assert list(queues.consume_from) == ["a"]
        assert set(queues) == {"a", "b", "c", "routed only", "new", "added"}

    def test_format_for_the_banner(self):
        queues = Queues([Queue("b", Exchange("x", "topic"), "k"), Queue("a", Exchange("y"), "a")])
        assert queues.format(indent=2).splitlines() == [
            "  .> a                exchange=y(direct) key=a",
            "  .> b                exchange=x(topic) key=k",
        ]
        assert queues.format(indent=2, indent_first=False).startswith(".> a")
        assert Queues().format() == ""

    def test_from_settings(self):
        queues = Queues.from_settings(Settings())
        assert dict(queues) == {"celery": Queue("celery", Exchange("celery"), "celery")}
        conf = Settings({"task_default_queue": "q", "task_queues": [Queue("a")], "task_create_missing_queues": False})
        queues = Queues.from_settings(conf)
        assert dict(queues) == {"a": Queue("a", Exchange("q"), "q")}
        with pytest.raises(QueueNotFound):
            _ = queues["q"]
