from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac.app.discovery import find_app
from celeriac.exceptions import ImproperlyConfigured

APP = "from celeriac import Celery\n{name} = Celery({main!r}, broker='memory://', set_as_current=False)\n"
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("pkg"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "name", "wanted"),
    [
        ("pkg1.py", "app", "pkg1"),
        ("pkg1.py", "celery", "pkg1"),
        ("pkg1.py", "anything", "pkg1"),
        ("pkg1.py", "anything", "pkg1:anything"),
        ("pkg1.py", "anything", "pkg1.anything"),
        ("pkg1/__init__.py", "app", "pkg1"),
        ("pkg1/celery.py", "app", "pkg1"),
        ("pkg1/celery.py", "app", "pkg1.celery"),
        ("pkg1/celeriac.py", "queue", "pkg1"),
        ("pkg1/sub/celery.py", "app", "pkg1.sub"),
        ("pkg1/celery.py", "app", "pkg1.celery:app"),
        ("pkg1/celery.py", "app", "pkg1:celery"),
        ("pkg1.py", "app", "pkg1.py"),
        ("pkg1/celery.py", "app", "./pkg1/celery.py"),
        ("dir/pkg1.py", "app", "dir/pkg1.py:app"),
    ],
)
def test_found(write: Write, file: str, name: str, wanted: str) -> None:
    if file.startswith("pkg1/"):
        write("pkg1/__init__.py", "")
    if "sub" in file:
        write("pkg1/sub/__init__.py", "")
    if wanted == "pkg1:celery":
        write("pkg1/__init__.py", "from . import celery\n")
    write(file, APP.format(name=name, main="found"))
    assert find_app(wanted).main == "found"


def test_app_wins_over_others_and_aliases_are_one(write: Write) -> None:
    write("pkg1.py", APP.format(name="other", main="b") + APP.format(name="app", main="a") + "alias = app\n")
    assert find_app("pkg1").main == "a"
    write("pkg2.py", APP.format(name="one", main="a") + "two = one\n")
    assert find_app("pkg2").main == "a"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("pkgnot", r"cannot import 'pkgnot': there is no module 'pkgnot' .*start where it can be imported"),
        ("pkgg_main", r"did you mean -A pkg_main\?"),
        ("pkg_main.taskz", r"no module 'pkg_main.taskz' .*did you mean -A pkg_main.tasks\?"),
        ("pkg_main:ap", r"has no attribute 'ap': did you mean pkg_main:app[12]\?"),
        ("pkg_main:zzz", r"name the variable that holds the app"),
        ("pkg_main:number", r"pkg_main:number is a int, not an app"),
        ("pkg_main", r"has 2 apps: say which by -A pkg_main:app1 or -A pkg_main:app2"),
        ("pkg_main.tasks", r"has no app: define `app = Celery\(\.\.\.\)`"),
        ("pkg_main/nothing.py", r"there is no such file"),
        ("..", r"is no module"),
    ],
)
def test_errors_say_what_to_do(write: Write, wanted: str, message: str) -> None:
    write(
        "pkg_main/__init__.py", "number = 1\n" + APP.format(name="app1", main="a") + APP.format(name="app2", main="b")
    )
    write("pkg_main/tasks.py", "")
    with pytest.raises(ImproperlyConfigured, match=message) as caught:
        find_app(wanted)
    assert "\n" not in str(caught.value)


def test_errors_of_the_users_modules_pass(write: Write) -> None:
    write("pkg1.py", "import pkg_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="pkg_that_is_missing"):
        find_app("pkg1")
    write("pkg2.py", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        find_app("pkg2:app")


@pytest.mark.parametrize("wanted", ["pkg1", "pkg1:app"])
def test_an_app_of_the_installed_celery_is_named_as_such(write: Write, wanted: str) -> None:
    write("pkg1.py", "app = type('Celery', (), {'__module__': 'celery.app.base'})()\n")
    with pytest.raises(ImproperlyConfigured, match=r"pkg1:app is an app of the installed Celery: .* --celery-names"):
        find_app(wanted)
