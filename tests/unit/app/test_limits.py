"""What a declaration says of limits, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celery
from celeriac.app.limits import check_limits
from celeriac.exceptions import ImproperlyConfigured


def declared(fun: Any = lambda tenant, n=3, *, kind="x": None, **options: Any) -> Any:
    conf = options.pop("conf", {})
    app = Celery(set_as_current=False, broker="memory://", **conf)
    return app.task(name="t", shared=False, **options)(fun)


def test_none_by_default() -> None:
    options = declared().options()
    assert (options.limited, options.rate, options.max_concurrency) == (False, None, None)
    assert not check_limits(declared().app)


def test_limits_of_a_task() -> None:
    options = declared(rate_limit="60/m", max_concurrency=4).options()
    assert (options.limited, options.rate, options.max_concurrency) == (True, 1.0, 4)


def test_the_setting_is_every_tasks_default_but_not_of_the_built_in_ones() -> None:
    task = declared(conf={"task_default_rate_limit": "10/s"})
    assert task.options().rate == 10.0
    assert task.app.tasks["celery.map"].options().limited is False
    assert declared(conf={"task_default_rate_limit": "10/s"}, rate_limit="0/s").options().limited is False


def test_rate_limits_can_be_disabled() -> None:
    conf = {"worker_disable_rate_limits": True}
    assert declared(conf=conf, rate_limit="10/s").options().limited is False
    assert declared(conf=conf, rate_limit="10/s", max_concurrency=1).options().limited is True


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "key"),
    [
        ("tenant", ("a",), {}, "a"), ("tenant", (), {"tenant": "b"}, "b"), ("n", ("a", 5), {}, 5), ("n", ("a",), {}, 3),
        ("kind", ("a", 1), {"kind": "k"}, "k"), ("kind", ("a", 1), {}, "x"),
    ],
)  # fmt: skip
def test_a_parameter_as_key(name: str, args: Any, kwargs: Any, key: Any) -> None:
    make = declared(rate_limit="1/s", rate_limit_key=name).options().rate_key
    assert make(*args, **kwargs) == key


def test_the_first_parameter_of_a_bound_task_is_the_callers() -> None:
    task = declared(lambda self, tenant: None, bind=True, max_concurrency=1, max_concurrency_key="tenant")
    assert task.options().concurrency_key("a") == "a"


def test_a_callable_as_key_gets_the_arguments_alone() -> None:
    task = declared(rate_limit="1/s", rate_limit_key=lambda tenant, **_: tenant.upper())
    assert task.options().rate_key("a", n=1) == "A"


def test_a_static_method_of_a_task_class_as_key() -> None:
    app = Celery(set_as_current=False, broker="memory://")

    class Mine(app.Task):  # type: ignore[misc,name-defined]
        name = "mine"
        max_concurrency = 1

        @staticmethod
        def max_concurrency_key(tenant: str) -> str:
            return tenant

        def run(self, tenant: str) -> None: ...

    assert app.register_task(Mine()).options().concurrency_key("a") == "a"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate_limit": "10/d"}, "task 't': rate limit '10/d' is not understood"),
        ({"max_concurrency": 0}, "task 't': max_concurrency is a whole number from 1 on, not 0"),
        ({"max_concurrency": True}, "not True"),
        ({"max_concurrency": "2"}, "not '2'"),
        ({"max_concurrency": 1, "acks_late": False}, "it needs acks_late=True"),
        ({"rate_limit": 1, "rate_limit_key": "nobody"}, "rate_limit_key='nobody' is none of its parameters"),
        ({"rate_limit": 1, "rate_limit_key": 5}, "a parameter's name or a callable, not 5"),
    ],
)
def test_what_makes_no_sense_names_task_and_option(options: dict[str, Any], text: str) -> None:
    task = declared(**options)
    with pytest.raises(ImproperlyConfigured, match=text):
        check_limits(task.app)
