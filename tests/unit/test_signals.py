"""Signals, as celery.utils.dispatch behaves (compared with Celery 5.7)."""

import functools
import gc
import logging
import os
import threading
from unittest.mock import Mock

import pytest

from celeriac import signals
from celeriac.exceptions import CDeprecationWarning, WorkerShutdown
from celeriac.signals import Signal

MUST = {
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_success",
    "task_unknown",
    "user_preload_options",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
}


class Recorder:
    """Receivers that write down what they are told."""

    def __init__(self):
        self.heard = []

    def method(self, sender=None, **kwargs):
        self.heard.append((sender, kwargs))
        return len(self.heard)


@pytest.fixture
def signal():
    return Signal(name="test", providing_args={"value"})


@pytest.fixture
def recorder():
    return Recorder()


def test_all_signals_are_there():
    assert set(signals.__all__) == MUST | {"Signal"}
    for name in MUST:
        assert getattr(signals, name).name == name


def test_receivers_get_signal_sender_and_arguments(signal):
    def receiver(sender, signal, value, **kwargs):
        assert kwargs == {}
        return sender, signal, value

    assert signal.connect(receiver) is receiver
    assert signal.send("me", value=3) == [(receiver, ("me", signal, 3))]
    assert signal.send(sender=None, value=4) == [(receiver, (None, signal, 4))]


def test_decorator_with_and_without_arguments(signal):
    @signal.connect
    def one(**kwargs):
        return 1

    @signal.connect(sender="me")
    def two(**kwargs):
        return 2

    @signal.connect("you")
    def three(**kwargs):
        return 3

    @signal.connect()
    def four(**kwargs):
        return 4

    assert [response for _, response in signal.send("me")] == [1, 2, 4]
    assert [response for _, response in signal.send("you")] == [1, 3, 4]
    assert [response for _, response in signal.send("them")] == [1, 4]


def test_senders_are_told_apart_by_identity_and_text_by_value(signal, recorder):
    class Task:
        def __eq__(self, other):
            return True

        __hash__ = None

    one, two = Task(), Task()
    signal.connect(recorder.method, sender=one)
    signal.connect(recorder.method, sender="proj.add")
    signal.send(two)
    assert recorder.heard == []
    signal.send(one)
    signal.send("PROJ.ADD".lower())
    assert len(recorder.heard) == 2
    assert signal.has_listeners(one)
    assert not signal.has_listeners(two)
    assert not signal.has_listeners()


def test_a_proxy_stands_for_its_object(signal, recorder):
    class Proxy:
        def __init__(self, target):
            self.target = target

        def _get_current_object(self):
            return self.target

    task = object()
    signal.connect(recorder.method, sender=Proxy(task))
    signal.send(task)
    signal.send(Proxy(task))
    assert len(recorder.heard) == 2
    assert signal.disconnect(recorder.method, sender=task)


def test_a_task_that_is_not_made_yet_is_connected_when_it_is(signal, recorder):
    class Promise:
        def __init__(self):
            self.waiting = []

        def __then__(self, function):
            self.waiting.append(function)

    promise, task = Promise(), object()
    signal.connect(recorder.method, sender=promise)
    assert signal.receivers == []
    promise.waiting[0](task)
    signal.send(task)
    assert len(recorder.heard) == 1


def test_connecting_twice_counts_once(signal, recorder):
    signal.connect(recorder.method)
    signal.connect(recorder.method)
    signal.connect(lambda **kwargs: None, weak=False, dispatch_uid="uid")
    signal.connect(recorder.method, dispatch_uid="uid")
    assert len(signal.receivers) == 2
    signal.connect(Recorder().method, weak=False)
    assert len(signal.receivers) == 3


def test_disconnect(signal, recorder):
    signal.connect(recorder.method)
    signal.connect(recorder.method, sender="me")
    signal.connect(recorder.method, dispatch_uid="uid")
    assert not signal.disconnect(recorder.method, sender="you")
    assert signal.disconnect(recorder.method)
    assert not signal.disconnect(recorder.method)
    assert signal.disconnect(recorder.method, sender="me")
    assert signal.disconnect(dispatch_uid="uid")
    assert signal.receivers == []
    with pytest.warns(CDeprecationWarning):
        signal.disconnect(recorder.method, weak=True)


def test_functions_and_methods_are_held_weakly(signal, recorder):
    def function(**kwargs):
        """Is gone before the signal is sent."""

    signal.connect(function)
    signal.connect(recorder.method)
    assert len(signal.receivers) == 2
    del function
    gc.collect()
    assert [receiver for receiver, _ in signal.send(None)] == [recorder.method]
    assert len(signal.receivers) == 1
    del recorder.heard[:]
    method = recorder.method
    assert signal.disconnect(method)
    signal.connect(Recorder().method)
    gc.collect()
    assert not signal.has_listeners()
    assert signal.send(None) == []
    assert not signal.receivers


def test_weak_false_keeps_the_receiver(signal):
    signal.connect(lambda **kwargs: 5, weak=False)
    gc.collect()
    assert [response for _, response in signal.send(None)] == [5]


def test_a_new_receiver_at_the_address_of_a_dead_one_is_connected(signal):
    for number in range(50):

        def receiver(number=number, **kwargs):
            return number

        signal.connect(receiver)
        assert [response for _, response in signal.send(None)] == [number]
        del receiver


def test_exceptions_are_logged_and_returned(signal, caplog):
    error = ValueError("in a receiver")

    def broken(**kwargs):
        raise error

    def fine(**kwargs):
        return "fine"

    signal.connect(broken)
    signal.connect(fine)
    with caplog.at_level(logging.ERROR):
        assert signal.send(None) == [(broken, error), (fine, "fine")]
    (record,) = caplog.records
    assert record.name == "celery.utils.dispatch.signal"
    assert "broken" in record.getMessage()
    assert record.exc_info[1] is error
    assert signal.send_robust(None)[0] == (broken, error)


def test_exits_pass_through(signal):
    def leave(**kwargs):
        raise WorkerShutdown(0)

    signal.connect(leave)
    with pytest.raises(WorkerShutdown):
        signal.send(None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda: None,
        lambda: lambda sender: None,
        lambda: functools.partial(lambda sender: None),
        lambda: type("Callable", (), {"__call__": lambda self, sender: None})(),
    ],
)
def test_receivers_have_to_take_keyword_arguments(signal, make):
    with pytest.raises(ValueError, match="must accept keyword arguments"):
        signal.connect(make(), weak=False)


@pytest.mark.parametrize(
    "receiver",
    [
        Mock(return_value=1),
        functools.partial(lambda value, **kwargs: 1, 0),
        functools.wraps(lambda sender: None)(lambda **kwargs: 1),
        type("Callable", (), {"__call__": lambda self, **kwargs: 1})(),
        type("Class", (), {"method": classmethod(lambda cls, **kwargs: 1)}).method,
        dict,
    ],
)
def test_anything_callable_may_receive(signal, receiver):
    signal.connect(receiver, weak=False)
    assert signal.send(None)[0][0] == receiver
    assert signal.disconnect(receiver)


def test_retry_calls_until_it_succeeds(caplog):
    slept, outcomes = [], [ConnectionError("one"), ConnectionError("two"), "done"]
    signal = Signal(sleep=slept.append)

    def receiver(**kwargs):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    signal.connect(receiver, retry=True)
    signal.connect(receiver, retry=True)
    assert [response for _, response in signal.send(None)] == ["done"]
    assert slept == [2.0, 4.0]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert signal.disconnect(receiver)


def test_retry_waits_no_longer_than_half_a_minute():
    slept = []
    signal = Signal(sleep=slept.append)

    def receiver(**kwargs):
        if len(slept) < 20:
            raise ConnectionError

    signal.connect(receiver, retry=True)
    signal.send(None)
    assert max(slept) == 30.0


def test_receivers_may_change_receivers(signal, recorder):
    def first(**kwargs):
        signal.disconnect(first)
        signal.connect(recorder.method)

    signal.connect(first)
    signal.send(None)
    assert recorder.heard == []
    signal.send(None)
    assert len(recorder.heard) == 1


def test_threads_connect_and_send_together(signal):
    stop, failures = threading.Event(), []

    def churn():
        while not stop.is_set():
            recorder = Recorder()
            signal.connect(recorder.method)
            signal.send(None)
            if not signal.disconnect(recorder.method):
                failures.append("lost a receiver")

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        signal.send(None)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    gc.collect()
    signal.send(None)
    assert signal.receivers == []


def test_a_child_forked_while_a_thread_connects_can_connect(signal, recorder):
    signal.connect(recorder.method)
    signals._guard.lock.acquire()
    try:
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            signal.connect(Recorder().method, weak=False)
            signal.send("child")
            os._exit(0 if len(signal.receivers) == 2 and len(recorder.heard) == 1 else 1)
    finally:
        signals._guard.lock.release()
    assert os.waitpid(child, 0)[1] == 0


def test_repr(signal):
    assert repr(signal) == "<Signal: test providing_args={'value'}>"
