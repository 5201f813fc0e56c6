"""Exceptions as data: what is rebuilt, and what must never be."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import exceptions
from celeriac.codec import failures
from celeriac.codec.failures import data_to_exception, exception_to_data, format_traceback, register_exception
from celeriac.exceptions import RemoteError


class Refused(Exception):
    """Of the user's own."""


class Picky(Exception):
    """Its constructor must not be called."""

    def __init__(self, code: int) -> None:
        raise AssertionError("called")


class Nameless(OSError):
    """With a base that is picky about __new__."""


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(failures._registered)
    for cls in (Refused, Picky, Nameless):
        assert register_exception(cls) is cls
    yield
    failures._registered.clear()
    failures._registered.update(before)


def data(exc_type: Any, exc_module: Any = "builtins", exc_message: Any = ("a", 1)) -> dict[str, Any]:
    return {"exc_type": exc_type, "exc_message": list(exc_message), "exc_module": exc_module}


BUILTINS = [
    name
    for name, cls in vars(builtins).items()
    if isinstance(cls, type) and issubclass(cls, Exception) and not issubclass(cls, ExceptionGroup)
]


@pytest.mark.parametrize("name", BUILTINS)
def test_builtin_exceptions_come_back(name: str) -> None:
    exc = data_to_exception(data(name))
    assert isinstance(exc, getattr(builtins, name))
    assert exc.args == ("a", 1)
    str(exc), repr(exc)


def test_os_errors_come_back_as_what_they_were() -> None:
    try:
        open("/no/such/file")  # noqa: SIM115 - it fails
    except OSError as error:
        stored = json.loads(json.dumps(exception_to_data(error)))
    exc = data_to_exception(stored)
    assert type(exc) is FileNotFoundError
    assert exc.errno == 2


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException", "BaseExceptionGroup"]
)
@pytest.mark.parametrize("module", ["builtins", "exceptions", ""])
def test_nothing_that_ends_a_process_comes_back(name: str, module: str) -> None:
    exc = data_to_exception(data(name, module))
    assert type(exc) is RemoteError
    assert exc.exc_type == name


@pytest.mark.parametrize("name", ["WorkerShutdown", "WorkerTerminate", "annotations", "Any", "reraise"])
def test_of_our_module_only_exceptions_come_back(name: str) -> None:
    assert type(data_to_exception(data(name, "celery.exceptions"))) is RemoteError


@pytest.mark.parametrize(
    "target", [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("builtins", "open")]
)
def test_what_is_no_exception_is_not_called(target: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(os, "system", fail)
    monkeypatch.setattr(subprocess, "Popen", fail)
    exc = data_to_exception(data(target[1], target[0], ["echo"]))
    assert type(exc) is RemoteError
    assert str(exc) == f"{target[0]}.{target[1]}: echo"


def test_classes_that_are_not_registered_stay_text() -> None:
    exc = data_to_exception(exception_to_data(Refused("no", 5)))
    assert type(exc) is RemoteError
    assert (exc.exc_type, exc.exc_module, exc.args) == ("Refused", __name__, ("no", 5))
    assert exception_to_data(exc) == exception_to_data(Refused("no", 5))


@pytest.mark.usefixtures("registered")
def test_registered_classes_come_back_without_their_constructor() -> None:
    for name in ("Refused", "Picky", "Nameless"):
        exc = data_to_exception(data(name, __name__))
        assert type(exc).__name__ == name
        assert exc.args == ("a", 1)


def test_only_exceptions_are_registered() -> None:
    for wrong in (SystemExit, KeyboardInterrupt, BaseException, str):
        with pytest.raises(TypeError):
            register_exception(wrong)  # type: ignore[type-var]


OURS = [name for name in exceptions.__all__ if name not in ("reraise", "RemoteError")]


@pytest.mark.parametrize("name", OURS)
def test_our_exceptions_have_celerys_names(name: str) -> None:
    cls = getattr(exceptions, name)
    if not issubclass(cls, Exception):
        return
    stored = exception_to_data(cls.__new__(cls, "a"))
    assert stored["exc_type"] == name
    module = stored["exc_module"]
    if name == "MessageTooLarge":
        assert module == "celeriac.exceptions"
    else:
        assert module in ("celery.exceptions", "billiard.exceptions", "kombu.exceptions")
    assert type(data_to_exception(stored)) is cls


def test_time_limits_are_billiards() -> None:
    for name in ("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated"):
        assert exception_to_data(getattr(exceptions, name)())["exc_module"] == "billiard.exceptions"


def test_arguments_that_cannot_be_stored_become_text() -> None:
    stored = exception_to_data(ValueError("a", object, {1}, UUID(int=5), float("nan")))
    assert stored["exc_message"][:3] == ["a", "<class 'object'>", "{1}"]
    assert stored["exc_message"][3] == UUID(int=5)
    assert exception_to_data(ValueError(UUID(int=5)), "msgpack")["exc_message"] == [repr(UUID(int=5))]


def test_odd_exceptions_are_stored_all_the_same() -> None:
    class Odd(Exception):
        args = 5  # type: ignore[assignment]

    class Unrepresentable:
        def __repr__(self) -> str:
            raise RuntimeError

    assert exception_to_data(Odd())["exc_message"] == [5]
    assert "Unrepresentable" in exception_to_data(ValueError(Unrepresentable()))["exc_message"][0]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NAMES = st.sampled_from(["ValueError", "SystemExit", "ExceptionGroup", "UnicodeDecodeError", "Retry", "__class__"])
MODULES = st.sampled_from(["builtins", "celery.exceptions", "os", "", "celeriac.exceptions"])


@settings(max_examples=30)
@given(
    JUNK
    | st.fixed_dictionaries(
        {}, optional={"exc_type": JUNK | NAMES, "exc_module": JUNK | MODULES, "exc_message": JUNK | st.lists(JUNK)}
    )
)
def test_rebuilding_never_raises(stored: Any) -> None:
    exc = data_to_exception(stored)
    assert isinstance(exc, Exception)
    str(exc), repr(exc)


@pytest.mark.parametrize("name", [name for name in OURS if issubclass(getattr(exceptions, name), Exception)])
@pytest.mark.parametrize("message", [[None] * 6, True, "text", [], [["a"], {}]])
def test_ours_can_be_shown_whatever_their_arguments(name: str, message: Any) -> None:
    exc = data_to_exception({"exc_type": name, "exc_module": "celery.exceptions", "exc_message": message})
    assert type(exc).__name__ == name
    assert isinstance(str(exc), str)
    assert isinstance(repr(exc), str)


def test_pickled_instances_are_looked_at_too() -> None:
    assert type(data_to_exception(SystemExit(3))) is RemoteError
    exc = ValueError(1)
    assert data_to_exception(exc) is exc


def test_a_traceback_begins_with_the_tasks_frame() -> None:
    def task() -> None:
        raise ValueError("here")

    trampoline: dict[str, Any] = {"__name__": "celeriac.app.trace", "task": task}
    exec("def run():\n    task()", trampoline)
    try:
        trampoline["run"]()
    except ValueError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        text = format_traceback(error)
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ValueError: here\n")
    assert "in task" in text
    assert "in run" not in text


def test_a_failure_of_the_call_itself_keeps_a_frame() -> None:
    trampoline: dict[str, Any] = {"__name__": "celeriac.app.trace"}
    exec("def run():\n    (lambda x: x)()", trampoline)
    try:
        trampoline["run"]()
    except TypeError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        text = format_traceback(error)
    assert "in run" in text
