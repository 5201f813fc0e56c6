from __future__ import annotations

from datetime import timedelta

import pytest

from celeriac import Celery, Task


def test_defaults(app: Celery) -> None:
    options = app.task(name="n")(lambda: 1).options()
    assert options.name == "n"
    assert options.max_retries == 3
    assert options.default_retry_delay is None
    assert options.acks_late
    assert options.acks_on_failure
    assert options.result_expires == 86400


def test_default_retry_delay_counts_when_anybody_set_it(app: Celery) -> None:
    class Base(Task):  # type: ignore[type-arg]
        default_retry_delay = 180

    assert app.task(name="a", default_retry_delay=180)(lambda: 1).options().default_retry_delay == 180
    assert app.task(name="b", base=Base)(lambda: 1).options().default_retry_delay == 180
    task = app.task(name="c")(lambda: 1)
    assert task.default_retry_delay == 180
    task.default_retry_delay = 4
    assert task.options().default_retry_delay == 4


def test_autoretry(app: Celery) -> None:
    options = app.task(
        autoretry_for=[KeyError],
        dont_autoretry_for=ValueError,
        retry_backoff=True,
        retry_backoff_max=9,
        retry_jitter=False,
        retry_kwargs={"max_retries": 5, "countdown": timedelta(seconds=2)},
        throws=(KeyError,),
    )(lambda: 1).options()
    assert options.autoretry_for == (KeyError,)
    assert options.dont_autoretry_for == (ValueError,)
    assert (options.retry_backoff, options.retry_backoff_max, options.retry_jitter) == (1.0, 9.0, False)
    assert (options.retry_max_retries, options.retry_countdown) == (5, 2)
    assert options.throws == (KeyError,)


def test_old_name_for_acks_on_failure_and_timeout(app: Celery) -> None:
    options = app.task(acks_on_failure_or_timeout=False, acks_on_timeout=True)(lambda: 1).options()
    assert not options.acks_on_failure
    assert options.acks_on_timeout


def test_changed_attribute_is_seen(app: Celery) -> None:
    task = app.task(name="n")(lambda: 1)
    assert task.options() is task.options()
    task.time_limit = 5
    assert task.options().time_limit == 5
    assert task.send_defaults["time_limit"] == 5


def test_soft_limit_beyond_the_hard_one(app: Celery) -> None:
    task = app.task(name="n", soft_time_limit=20, time_limit=10)(lambda: 1)
    with pytest.raises(ValueError, match="task 'n': soft_time_limit"):
        task.delay()


def test_only_what_differs_from_settings_is_a_default_of_sends(app: Celery) -> None:
    assert app.task(name="a")(lambda: 1).send_defaults == {"ignore_result": False}
    declared = app.task(name="b", queue="q", priority=3, ignore_result=True)(lambda: 1).send_defaults
    assert declared == {"queue": "q", "priority": 3, "ignore_result": True}
