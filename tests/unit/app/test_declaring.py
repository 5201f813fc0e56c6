from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from celeriac import Celery, Task, current_app, shared_task
from celeriac.app.proxy import Proxy
from celeriac.client import current
from celeriac.exceptions import DuplicateTaskNameWarning, NotRegistered


def test_task_is_made_at_once_and_is_callable(app: Celery) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        """Adds."""
        return x + y

    assert isinstance(add, Task)
    assert isinstance(add, app.Task)
    assert add(2, 3) == 5
    assert add.name == f"{__name__}.add"
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds."
    assert app.tasks[add.name] is add
    assert repr(add) == f"<@task: {add.name} of proj>"


def test_declaring_reads_no_configuration() -> None:
    read = []
    app = Celery(config_source=type("Conf", (), {"task_serializer": "json"}))
    app.on_configure.connect(lambda **_: read.append(1), weak=False)

    @app.task(max_retries=7)
    def f() -> None: ...

    assert not read
    assert not app.configured
    assert f.serializer == "json"
    assert read


def test_unknown_keywords_become_attributes(app: Celery) -> None:
    @app.task(verbose_name="A task", max_retry=3)
    def f() -> None: ...

    assert f.verbose_name == "A task"  # type: ignore[attr-defined]
    assert f.max_retries == 3


def test_name_in_a_script_is_that_of_the_app(app: Celery) -> None:
    assert app.gen_task_name("add", "__main__") == "proj.add"
    assert app.gen_task_name("add", "proj.tasks") == "proj.tasks.add"
    assert Celery(set_as_current=False).gen_task_name("add", "__main__") == "__main__.add"


def test_gen_task_name_can_be_overridden() -> None:
    class Named(Celery):
        def gen_task_name(self, name: str, module: str | None) -> str:
            return f"x.{name}"

    app = Named(set_as_current=False)
    assert app.task(lambda: 1).name == "x.<lambda>"


def test_bind_base_and_class_attributes(app: Celery) -> None:
    class Base(app.Task):
        abstract = True
        max_retries = 9
        made = 0

        def __init__(self) -> None:
            type(self).made += 1

    @app.task(bind=True, base=Base)
    def f(self: Any, x: int) -> tuple[Any, int]:
        return self, x

    assert f(1) == (f, 1)
    assert f.max_retries == 9
    assert f.made == 1  # type: ignore[attr-defined]


def test_second_task_of_a_name_warns_once_and_is_the_first(app: Celery) -> None:
    first = app.task(name="n")(lambda: 1)
    with pytest.warns(DuplicateTaskNameWarning, match="'n' is already registered"):
        second = app.task(name="n")(lambda: 2)
    assert second is first
    assert app.task(name="n")(lambda: 3) is first


def test_the_same_function_twice_does_not_warn(app: Celery) -> None:
    def f() -> None: ...

    assert app.task(f) is app.task(f)


def test_decorator_needs_a_function(app: Celery) -> None:
    with pytest.raises(TypeError, match="takes a function"):
        app.task("name")  # type: ignore[call-overload]


def test_filter_takes_the_functions_place(app: Celery) -> None:
    assert app.task(filter=lambda task: task.name, name="n")(lambda: 1) == "n"


def test_register_task_class_and_instance(app: Celery) -> None:
    class Mine(Task):  # type: ignore[type-arg]
        def run(self, x: int) -> int:
            return x * 2

    task = app.register_task(Mine)
    assert task.name == f"{__name__}.Mine"
    assert task.app is app
    assert task(4) == 8
    assert app.register_task(task) is task

    class Named(Task):  # type: ignore[type-arg]
        name = "n"

    assert app.register_task(Named()).name == "n"
    with pytest.raises(NotImplementedError, match="'n' must define run"):
        app.tasks["n"]()


def test_tasks_declared_before_app_task_is_replaced_get_the_new_base(app: Celery) -> None:
    @app.task
    def f() -> str:
        return "ran"

    class ContextTask(app.Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "in context", super().__call__(*args, **kwargs)

    app.Task = ContextTask
    assert f() == ("in context", "ran")
    assert isinstance(f, ContextTask)


def test_unknown_task(app: Celery) -> None:
    with pytest.raises(NotRegistered):
        app.tasks["nope"]
    with pytest.raises(NotRegistered):
        app.tasks.unregister("nope")


def test_builtin_tasks(app: Celery) -> None:
    names = {"celery.accumulate", "celery.backend_cleanup", "celery.chain", "celery.map", "celery.starmap"}
    assert names <= set(app.tasks)
    pair = app.task(name="pair")(lambda x, y=0: (x, y))
    assert app.tasks["celery.accumulate"](1, 2, index=1) == 2
    assert app.tasks["celery.starmap"](pair.s(), [(1, 2), (3, 4)]) == [(1, 2), (3, 4)]
    assert app.tasks["celery.map"](dict(pair.s()), [1]) == [(1, 0)]


def test_finalize_once_and_signal(app: Celery) -> None:
    seen = []
    app.on_after_finalize.connect(lambda sender, **_: seen.append(sender), weak=False)
    app.finalize()
    app.finalize()
    assert seen == [app]


def test_autofinalize_off() -> None:
    app = Celery(autofinalize=False, set_as_current=False)
    with pytest.raises(RuntimeError, match=r"app\.finalize\(\) first"):
        len(app.tasks)
    app.finalize()
    assert app.tasks


def test_task_of_one_app_is_in_later_ones(app: Celery) -> None:
    @app.task(name="n", max_retries=5)
    def f() -> Any:
        return f.app

    @app.task(name="own", shared=False)
    def own() -> None: ...

    other = Celery("other", set_as_current=False)
    assert other.tasks["n"].max_retries == 5
    assert other.tasks["n"].app is other
    assert "own" not in other.tasks


def test_shared_task_before_any_app() -> None:
    @shared_task(name="n")
    def double(x: int) -> int:
        return x * 2

    one, two = Celery("one"), Celery("two")
    assert "n" in one.tasks
    assert "n" in two.tasks
    assert double.app is two
    one.set_current()
    assert double.app is one
    assert double(4) == 8
    assert isinstance(double, Task)
    assert double.s(1).apply().get() == 2
    assert pickle.loads(pickle.dumps(double)) is one.tasks["n"]


def test_shared_task_reaches_finalized_apps(app: Celery) -> None:
    app.finalize()
    task = shared_task(lambda: 1)
    assert task.name in app.tasks


def test_shared_task_twice_is_an_error() -> None:
    with pytest.raises(TypeError, match="more than once"):
        shared_task(shared_task(lambda: 1))


def test_current_app_in_another_thread(app: Celery) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(current_app._get_current_object()))
    thread.start()
    thread.join()
    assert found == [app]
    assert current_app == app


def test_default_app_is_made_when_there_is_none() -> None:
    assert current._latest is None
    assert current_app.main == "default"
    assert current_app.default_url().endswith("/celeriac.db")


def test_closed_app_is_not_current(app: Celery) -> None:
    app.close()
    assert current_app.main == "default"


def test_app_and_task_pickle(app: Celery) -> None:
    app.conf.task_always_eager = True
    copy = pickle.loads(pickle.dumps(app))
    assert copy.main == "proj"
    assert copy.conf.task_always_eager
    assert copy.conf.broker_url == "memory://"
    app.set_current()
    task = app.tasks["celery.accumulate"]
    assert pickle.loads(pickle.dumps(task)) is task


def test_proxy_reads_and_writes_the_object() -> None:
    target = type("T", (), {"x": 1})()
    proxy = Proxy(lambda: target)
    proxy.x = 5
    assert target.x == 5
    assert proxy == target
    assert isinstance(proxy, type(target))
    assert not Proxy(lambda: None)


@pytest.mark.parametrize(
    ("setting", "value", "attribute"),
    [
        ("task_serializer", "msgpack", "serializer"),
        ("task_time_limit", 30, "time_limit"),
        ("task_ignore_result", True, "ignore_result"),
        ("task_acks_late", False, "acks_late"),
    ],
)
def test_attributes_follow_settings_unless_set(setting: str, value: Any, attribute: str) -> None:
    app = Celery(set_as_current=False, **{setting: value})
    assert getattr(app.task(name="a")(lambda: 1), attribute) == value
    own = app.task(name="b", **{attribute: "own"})(lambda: 1)
    assert getattr(own, attribute) == "own"
    none = app.task(name="c", **{attribute: None})(lambda: 1)
    assert getattr(none, attribute) == value


def test_annotations() -> None:
    app = Celery(set_as_current=False, task_annotations={"a": {"rate_limit": "1/s", "x": 1}, "*": {"x": 2}})
    a, b = app.task(name="a")(lambda: 1), app.task(name="b")(lambda: 1)
    app.finalize()
    assert (a.rate_limit, a.x, b.rate_limit, b.x) == ("1/s", 2, None, 2)  # type: ignore[attr-defined]


def test_annotation_around_a_method() -> None:
    app = Celery(set_as_current=False, task_annotations={"*": {"@run": lambda run: lambda *a: ("around", run(*a))}})
    task = app.task(name="a")(lambda x: x)
    app.finalize()
    assert task.apply((1,)).get()[0] == "around"


def test_a_slip_in_an_option_is_told(app: Celery) -> None:
    with pytest.warns(UserWarning, match="no option 'autoretry_fot' of a task.* did you mean 'autoretry_for'"):
        app.task(name="slip", autoretry_fot=(OSError,))(lambda: 1)
    assert app.task(name="own", tenant_header="x")(lambda: 1).tenant_header == "x"
