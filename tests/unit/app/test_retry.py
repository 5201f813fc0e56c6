from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac import Celery
from celeriac.app.request import Request
from celeriac.app.trace import tracer_for
from celeriac.exceptions import MaxRetriesExceededError, Retry
from celeriac.model.message import Message
from celeriac.model.outcome import Embed, Failure, Outcome, RetryAsked, Success

HEADERS = {
    "task": "n",
    "id": "i",
    "root_id": "r",
    "parent_id": "p",
    "group": "g",
    "group_index": 2,
    "timelimit": [10, 5],
    "expires": "2030-01-01T00:00:00+00:00",
    "shadow": "s",
    "tenant": 7,
    "ignore_result": True,
}


def attempt(task: Any, *args: Any, retries: int = 0, embed: Embed | None = None, **kwargs: Any) -> Outcome:
    message = Message(id="i", task="n", headers=HEADERS, body=b"", queue="q", priority=4, retries=retries)
    return tracer_for(task).run(Request.from_message(message, list(args), kwargs, embed))


def asked(outcome: Outcome) -> Any:
    assert isinstance(outcome, RetryAsked), outcome
    return outcome.send


def retrying(app: Celery, call: Any, **options: Any) -> Any:
    @app.task(name="n", bind=True, **options)
    def f(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(self)

    return f


def test_next_attempt_has_everything_of_this_one(app: Celery) -> None:
    embed = Embed(callbacks=[{"task": "c"}], errbacks=[{"task": "e"}], chain=[{"task": "d"}], chord={"task": "b"})
    send = asked(attempt(retrying(app, lambda self: self.retry(countdown=9)), 1, embed=embed, key=2))
    assert (send.task, list(send.args), send.kwargs) == ("n", [1], {"key": 2})
    expected = {
        "task_id": "i", "retries": 1, "countdown": 9, "root_id": "r", "parent_id": "p", "group_id": "g",
        "group_index": 2, "time_limit": 10, "soft_time_limit": 5, "expires": HEADERS["expires"], "shadow": "s",
        "headers": {"tenant": 7}, "ignore_result": True, "queue": "q", "priority": 4, "link": [{"task": "c"}],
        "link_error": [{"task": "e"}], "chain": [{"task": "d"}], "chord": {"task": "b"},
    }  # fmt: skip
    assert {key: send.options[key] for key in expected} == expected


def test_eta_and_options(app: Celery) -> None:
    eta = datetime(2030, 1, 1, tzinfo=UTC)
    send = asked(attempt(retrying(app, lambda self: self.retry(eta=eta, queue="other", priority=None, expires=5))))
    assert (send.options["eta"], send.options["countdown"]) == (eta, None)
    assert (send.options["queue"], send.options["expires"]) == ("other", 5)


def test_delay_is_the_declared_one_else_backoff_with_jitter(app: Celery) -> None:
    assert asked(attempt(retrying(app, lambda self: self.retry(), default_retry_delay=7))).options["countdown"] == 7
    with Celery(set_as_current=False) as other:
        task = retrying(other, lambda self: self.retry(), max_retries=None)
        delays = [asked(attempt(task, retries=3)).options["countdown"] for _ in range(20)]
    assert all(0 <= delay < 8 for delay in delays)
    assert len(set(delays)) > 1


def test_exhausted_raises_the_cause_or_max_retries_exceeded(app: Celery) -> None:
    def with_cause(self: Any) -> None:
        try:
            raise KeyError("k")
        except KeyError as error:
            raise self.retry(exc=error, countdown=1) from error

    outcome = attempt(retrying(app, with_cause), retries=3)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.exc, KeyError)
    with Celery(set_as_current=False) as other:
        outcome = attempt(retrying(other, lambda self: self.retry(countdown=1)), 5, retries=3)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.exc, MaxRetriesExceededError)
    assert str(outcome.exc) == "Can't retry n[i] args:(5,) kwargs:{}"
    assert list(outcome.exc.task_args) == [5]


def test_max_retries_of_the_call_wins_and_none_never_ends(app: Celery) -> None:
    task = retrying(app, lambda self: self.retry(countdown=1, max_retries=5), max_retries=0)
    assert isinstance(attempt(task, retries=4), RetryAsked)
    assert isinstance(attempt(task, retries=5), Failure)
    with Celery(set_as_current=False) as other:
        assert isinstance(
            attempt(retrying(other, lambda self: self.retry(), max_retries=None), retries=999), RetryAsked
        )


def test_retry_carries_cause_and_time(app: Celery) -> None:
    caught: list[Retry] = []

    def body(self: Any) -> None:
        try:
            self.retry(exc=KeyError("k"), countdown=9)
        except Retry as retry:
            caught.append(retry)
            raise

    outcome = attempt(retrying(app, body))
    assert isinstance(outcome, RetryAsked)
    assert isinstance(outcome.exc, KeyError)
    assert (caught[0].when, caught[0].is_eager, caught[0].sig) == (9, False, outcome.send)
    assert str(caught[0]) == "Retry in 9s: KeyError('k')"


def test_throw_false_goes_on_and_leaves_the_signature_with_the_request(app: Celery) -> None:
    sends: list[Any] = []

    def body(self: Any) -> str:
        self.retry(countdown=1, throw=False)
        sends.extend(self.request.sends)
        return "done"

    assert attempt(retrying(app, body)) == Success("done")
    assert [send.options["retries"] for send in sends] == [1]


def test_called_as_a_function_the_cause_is_raised(app: Celery) -> None:
    task = retrying(app, lambda self: self.retry(exc=KeyError("k")))
    with pytest.raises(KeyError):
        task()
    with Celery(set_as_current=False) as other, pytest.raises(Retry, match="Task can be retried"):
        retrying(other, lambda self: self.retry())()


@pytest.mark.parametrize(
    ("args", "kwargs", "new", "expected"),
    [
        ([1, 2], {}, {"args": (9, 9)}, ((9, 9), {})),
        ([], {"x": 1, "y": 2}, {"args": (9,)}, ((9,), {"y": 2})),
        ([1, 2], {}, {"kwargs": {"y": 9}}, ((1, 9), {})),
        ([1], {"y": 2}, {"kwargs": {"y": 9}}, ((1,), {"y": 9})),
        ([1], {}, {"args": (3,), "kwargs": {"y": 4}}, ((3,), {"y": 4})),
    ],
)
def test_new_arguments_do_not_meet_inherited_ones(
    app: Celery, args: list[Any], kwargs: dict[str, Any], new: dict[str, Any], expected: Any
) -> None:
    @app.task(name="n", bind=True)
    def f(self: Any, x: int, y: int = 0) -> None:
        self.retry(countdown=1, **new)

    send = asked(attempt(f, *args, **kwargs))
    assert (tuple(send.args), dict(send.kwargs)) == expected
