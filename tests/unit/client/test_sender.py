"""From a call to a message: options, routes, times, signals, retries of publishing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from celeriac import signals
from celeriac.client.current import request_var
from celeriac.client.queues import Exchange, Queue
from celeriac.client.sender import Sender
from celeriac.codec import envelope
from celeriac.codec.body import decode_body
from celeriac.conf.settings import Settings
from celeriac.exceptions import EncodeError, ImproperlyConfigured, MessageTooLarge, OperationalError, QueueNotFound
from celeriac.model.message import Message
from celeriac.model.outcome import Embed

ACCEPT = frozenset({"json"})


def make(**settings: Any) -> Sender:
    return Sender(Settings({"broker_url": f"memory://{uuid4()}", **settings}), default_url=lambda: "memory://default")


@pytest.fixture
def sender() -> Sender:
    return make()


def body(message: Message) -> Any:
    return decode_body(message, accept=ACCEPT, max_bytes=1 << 25)


class FakePublisher:
    """Raises the given errors, then takes everything."""

    def __init__(self, *errors: OperationalError | None) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[Sequence[Message], float]] = []

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        self.calls.append((messages, timeout))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    def close(self) -> None: ...


def with_publisher(sender: Sender, publisher: FakePublisher) -> Sender:
    sender._publisher._make = lambda: publisher  # type: ignore[assignment,return-value]
    return sender


# ---------------------------------------------------------------- messages


def test_a_plain_call(sender: Sender) -> None:
    message = sender.message("proj.add", (2, 3))
    assert message.task == message.headers["task"] == "proj.add"
    assert message.id == message.headers["id"] == message.headers["root_id"] == message.correlation_id
    assert message.queue == message.routing_key == "celery"
    assert message.headers["origin"].startswith(f"gen{os.getpid()}@")
    assert body(message) == ([2, 3], {}, Embed())


def test_messages_share_nothing_that_can_be_changed(sender: Sender) -> None:
    first, second = sender.message("t"), sender.message("t")
    assert first.id != second.id
    assert first.headers is not second.headers


def test_options_are_remembered_by_value_only(sender: Sender) -> None:
    assert sender.message("t", (), {}, {"priority": 5}).priority == 5
    assert sender.message("t", (), {}, {"priority": 6}).priority == 6
    assert sender.message("t").priority == 0
    assert sender.message("t", (), {}, {"headers": {"a": 1}}).headers["a"] == 1
    assert "a" not in sender.message("t").headers


def test_settings_are_heeded_when_they_change(sender: Sender) -> None:
    assert sender.message("t").queue == "celery"
    sender.conf.task_default_queue = "other"
    sender.conf.task_serializer = "msgpack"
    sender.conf.task_compression = "gzip"
    message = sender.message("t")
    assert message.queue == "other"
    assert message.content_type == "application/x-msgpack"
    assert message.headers["compression"] == "application/x-gzip"


def test_routes(sender: Sender) -> None:
    sender.conf.task_routes = {"a.*": {"queue": "q", "priority": 7}, "b": "r"}
    message = sender.message("a.x")
    assert (message.queue, message.priority) == ("q", 7)
    assert sender.message("b").queue == "r"
    assert sender.message("a.x", (), {}, {"queue": "mine"}).queue == "mine"


def test_function_routers_see_each_call(sender: Sender) -> None:
    sender.conf.task_routes = lambda name, args, kwargs, options, task=None, **_: {"queue": f"q{args[0]}"}
    assert [sender.message("t", (n,)).queue for n in (1, 2)] == ["q1", "q2"]


def test_an_exchange_leads_to_its_queues(sender: Sender) -> None:
    topic = Exchange("news", "topic")
    sender.conf.task_queues = [Queue("a", topic, "feed.#"), Queue("b", topic, "#"), Queue("c", topic, "x")]
    message = sender.message("t", (), {}, {"exchange": "news", "routing_key": "feed.new"})
    publisher = FakePublisher()
    with_publisher(sender, publisher).send(message)
    assert [copy.queue for copy in publisher.calls[0][0]] == ["a", "b"]
    with pytest.raises(QueueNotFound, match="no queue is bound to exchange 'nowhere'"):
        sender.message("t", (), {}, {"exchange": "nowhere", "routing_key": "k"})


def test_queues_may_be_closed() -> None:
    closed = make(task_create_missing_queues=False, task_queues=[Queue("a")], task_default_queue="a")
    assert closed.message("t").queue == "a"
    with pytest.raises(QueueNotFound, match="'b'"):
        closed.message("t", (), {}, {"queue": "b"})


def test_countdown_and_expires(sender: Sender) -> None:
    before = time.time()
    message = sender.message("t", (), {}, {"countdown": 10, "expires": 60})
    assert message.due is not None
    assert message.expires is not None
    assert 10 <= message.due - before < 11
    assert 60 <= message.expires - before < 61
    assert datetime.fromisoformat(message.headers["eta"]).timestamp() == pytest.approx(message.due, abs=1e-5)
    decoded = envelope.decode(envelope.encode(message), queue="celery")
    assert isinstance(decoded, Message)
    assert decoded.due == pytest.approx(message.due, abs=1e-5)


def test_times_in_all_their_forms(sender: Sender) -> None:
    moment = datetime(2036, 1, 2, 3, 4, 5, tzinfo=UTC)
    for eta in (moment, moment.isoformat(), moment.replace(tzinfo=None)):
        assert sender.message("t", (), {}, {"eta": eta}).due == moment.timestamp()
    assert sender.message("t", (), {}, {"expires": timedelta(hours=1)}).expires == pytest.approx(
        time.time() + 3600, abs=1
    )
    assert sender.message("t", (), {}, {"countdown": 0}).due is None
    berlin = make(timezone="Europe/Berlin")
    assert berlin.message("t", (), {}, {"eta": moment.replace(tzinfo=None)}).due == moment.timestamp() - 3600
    assert berlin.message("t", (), {}, {"countdown": 1}).headers["eta"][-6:] in ("+01:00", "+02:00")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eta": "tomorrow"}, "eta='tomorrow' is no ISO 8601 time"),
        ({"eta": 5}, "eta must be a datetime"),
        ({"countdown": "5"}, "countdown must be a number of seconds, not '5'"),
        ({"countdown": 1e20}, "countdown=1e[+]20 is out of range"),
        ({"expires": [1]}, "expires must be"),
    ],
)
def test_wrong_times_are_named(sender: Sender, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        sender.message("t", (), {}, options)


def test_wrong_arguments_are_refused(sender: Sender) -> None:
    with pytest.raises(TypeError, match="list or tuple"):
        sender.message("t", "ab")
    with pytest.raises(TypeError, match="must be a mapping"):
        sender.message("t", (), [("a", 1)])  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match=r"cannot send proj\.t: .*builtins\.set"):
        sender.message("proj.t", ({1},))
    with pytest.raises(EncodeError, match=r"cannot send proj\.t: headers: .*builtins\.set"):
        sender.message("proj.t", (), {}, {"headers": {"a": {1}}})
    with pytest.raises(ImproperlyConfigured, match="unknown serializer 'jsno'"):
        sender.message("t", (), {}, {"serializer": "jsno"})
    with pytest.raises(MessageTooLarge, match=r"cannot send proj\.t: .*max_message_bytes=1000"):
        make(max_message_bytes=1000).message("proj.t", ("x" * 1000,))


def test_typed_headers_are_written_under_tags(sender: Sender) -> None:
    message = sender.message("t", (), {}, {"headers": {"tenant": UUID(int=5)}})
    assert message.headers["tenant"]["__type__"] == "uuid"
    decoded = envelope.decode(envelope.encode(message), queue="q")
    assert isinstance(decoded, Message)
    assert decoded.headers["tenant"] == UUID(int=5)


def test_odd_texts_can_be_sent(sender: Sender) -> None:
    message = sender.message("t", ("\ud800",))
    decoded = envelope.decode(envelope.encode(message), queue="q")
    assert isinstance(decoded, Message)
    assert body(decoded)[0] == ["\ud800"]


def test_what_follows(sender: Sender) -> None:
    sig = {"task": "next", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    message = sender.message("t", (), {}, {"link": sig, "link_error": [sig], "chain": [sig], "chord": sig})
    assert body(message)[2] == Embed(callbacks=[sig], errbacks=[sig], chain=[sig], chord=sig)


def test_a_running_task_is_the_parent(sender: Sender) -> None:
    request = SimpleNamespace(
        id="p", root_id="r", called_directly=False, _previous=None, delivery_info={"priority": 3}, _task=None
    )
    token = request_var.set(request)
    try:
        message = sender.message("t")
        assert (message.headers["parent_id"], message.headers["root_id"], message.priority) == ("p", "r", 0)
        told = sender.message("t", (), {}, {"parent_id": "x", "root_id": "y"})
        assert (told.headers["parent_id"], told.headers["root_id"]) == ("x", "y")
        sender.conf.task_inherit_parent_priority = True
        assert sender.message("t").priority == 3
    finally:
        request_var.reset(token)
    message = sender.message("t")
    assert (message.headers["parent_id"], message.priority) == (None, 0)


def test_a_forked_process_signs_with_its_own_pid(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    sender.message("t")
    monkeypatch.setattr(os, "getpid", lambda: 12345)
    assert sender.message("t").headers["origin"].startswith("gen12345@")


# ---------------------------------------------------------------- signals


@pytest.fixture
def connected() -> Iterator[Callable[[signals.Signal, Callable[..., Any]], None]]:
    undo: list[tuple[signals.Signal, Callable[..., Any]]] = []

    def connect(signal: signals.Signal, receiver: Callable[..., Any]) -> None:
        signal.connect(receiver, weak=False)
        undo.append((signal, receiver))

    yield connect
    for signal, receiver in undo:
        signal.disconnect(receiver)


def test_before_publish_may_change_what_goes_out(sender: Sender, connected: Any) -> None:
    seen: dict[str, Any] = {}

    def receiver(**said: Any) -> None:
        seen.update(said)
        said["headers"]["trace"] = UUID(int=5)
        said["properties"]["priority"] = 9

    connected(signals.before_task_publish, receiver)
    message = sender.message("proj.add", (1,), {"a": 2}, {"queue": "q", "MessageGroupId": "g"})
    assert message.headers["trace"]["__type__"] == "uuid"
    assert message.priority == 9
    assert seen["sender"] == "proj.add"
    assert seen["body"][:2] == ((1,), {"a": 2})
    assert seen["routing_key"] == "q"
    assert seen["properties"]["correlation_id"] == message.id
    assert seen["properties"]["MessageGroupId"] == "g"
    assert seen["retry_policy"]["max_retries"] == 3


def test_after_publish_tells_what_went_out(sender: Sender, connected: Any) -> None:
    seen: list[dict[str, Any]] = []
    connected(signals.after_task_publish, lambda **said: seen.append(said))
    message = sender.message("proj.add", (1,))
    assert not seen
    sender.send([message, message])
    assert [said["sender"] for said in seen] == ["proj.add"] * 2
    assert seen[0]["headers"]["id"] == message.id
    assert seen[0]["body"][:2] == ([1], {})


# ---------------------------------------------------------------- sending


def test_many_messages_are_one_call(sender: Sender) -> None:
    publisher = FakePublisher()
    messages = [sender.message("t", (n,)) for n in range(5)]
    with_publisher(sender, publisher).send(messages)
    assert [len(sent) for sent, _ in publisher.calls] == [5]


def test_a_collecting_producer_gets_the_message(sender: Sender) -> None:
    publisher, taken = FakePublisher(), []
    with_publisher(sender, publisher).send(sender.message("t"), producer=SimpleNamespace(collect=taken.append))
    assert len(taken) == 1
    assert not publisher.calls


def failing(text: str = "memory:// is away", *, uncertain: bool = False) -> OperationalError:
    error = OperationalError(text)
    error.uncertain = uncertain
    return error


def test_publishing_is_tried_again_within_the_policy(sender: Sender) -> None:
    publisher = FakePublisher(failing(), failing())
    policy = {"max_retries": 2, "interval_start": 0.01, "interval_step": 0}
    with_publisher(sender, publisher).send(sender.message("t"), retry_policy=policy)
    assert len(publisher.calls) == 3
    assert publisher.calls[2][1] < publisher.calls[0][1] <= 5.0


def test_retries_end(sender: Sender) -> None:
    publisher = FakePublisher(*(failing() for _ in range(10)))
    with_publisher(sender, publisher)
    with pytest.raises(OperationalError):
        sender.send(sender.message("t"), retry_policy={"max_retries": 2, "interval_step": 0})
    assert len(publisher.calls) == 3
    with pytest.raises(OperationalError):
        sender.send(sender.message("t"), retry=False)
    assert len(publisher.calls) == 4
    started = time.monotonic()
    with pytest.raises(OperationalError):
        sender.send(sender.message("t"), retry_policy={"max_retries": None, "interval_start": 0.05}, timeout=0.2)
    assert time.monotonic() - started < 10


def test_what_may_have_been_sent_is_not_sent_again(sender: Sender) -> None:
    publisher = FakePublisher(failing(uncertain=True))
    with_publisher(sender, publisher)
    with pytest.raises(OperationalError) as caught:
        sender.send(sender.message("t"))
    assert caught.value.uncertain
    assert len(publisher.calls) == 1


def test_errors_name_the_broker_without_its_password() -> None:
    sender = with_publisher(make(broker_url="redis://u:hunter2@host/0"), FakePublisher(failing("no route to host")))
    with pytest.raises(OperationalError) as caught:
        sender.send(sender.message("t"), retry=False)
    assert "host/0: no route to host" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_closed_sender_opens_again(sender: Sender) -> None:
    sender.send(sender.message("t"))
    sender.close()
    sender.close()
    sender.send(sender.message("t"))
    assert sender.publisher.depth(["celery"], timeout=1)["celery"].ready == 2


def test_a_slip_in_an_option_is_told(sender: Sender, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.warns(UserWarning, match="no option 'idempotancy_key' of apply_async.*did you mean 'idempotency_key'"):
        sender.message("t", options={"idempotancy_key": "x"})
    foreign = {"mandatory": True, "content_type": "x", "stamped_headers": ["tasks_id"], "tasks_id": "1"}
    sender.message("t", options=foreign)


@pytest.mark.parametrize("routes", [None, {"tasks.add": {"queue": "math", "headers": {"from": "route", "r": 1}}}])
def test_headers_of_a_call_come_over_those_of_its_route(routes: Any) -> None:
    """What else follows from the options is remembered, and must not change by it."""
    sender = make(task_routes=routes)
    plain = sender.message("tasks.add", (1,), {}, {"priority": 3})
    for number in (1, 2):
        own = {"shadow": "x", "mine": number, "when": [number]}
        message = sender.message("tasks.add", (1,), {}, {"priority": 3, "headers": own})
        differing = {key: value for key, value in message.headers.items() if plain.headers.get(key) != value}
        assert differing.items() >= own.items()
        assert differing.keys() - own.keys() == {"id", "root_id"}
        assert (message.queue, message.priority) == (plain.queue, plain.priority)
        assert "from" not in message.headers
    assert ("from" in plain.headers) == bool(routes)
    again = sender.message("tasks.add", (1,), {}, {"priority": 3})
    assert "mine" not in again.headers
    with pytest.raises(EncodeError, match=r"cannot send tasks\.add: headers"):
        sender.message("tasks.add", (1,), {}, {"headers": {"x": object()}})
