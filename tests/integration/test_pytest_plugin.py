"""The pytest plug-in, as a user's test suite meets it: a suite of its own, run by pytest inside pytest."""

from __future__ import annotations

import pytest

CONFTEST = """
import pytest

pytest_plugins = {plugins!r}

@pytest.fixture(scope="session")
def celery_config():
    return {{"result_extended": True}}

@pytest.fixture(scope="session")
def celery_includes():
    return ["some_tasks"]

@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {{"queues": ("celery", "more"), "shutdown_timeout": 5.0}}
"""
TASKS = """
from celeriac import shared_task

@shared_task
def double(n):
    return 2 * n
"""
TESTS = """
import pytest
from celeriac import current_app
from some_tasks import double

def test_app(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y
    result = mul.delay(4, 4)
    assert result.get(timeout=60) == 16
    assert result.args == [4, 4]
    assert celery_worker.queues == ("celery", "more")

@pytest.mark.celery(result_extended=False)
def test_mark(celery_app):
    assert celery_app.conf.result_extended is False

@pytest.mark.usefixtures("depends_on_current_app")
def test_current(celery_app):
    assert current_app.main == celery_app.main

def test_shared(celery_app, celery_worker):
    assert double.delay(4).get(timeout=60) == 8

def test_shared_again(celery_app, celery_worker):
    assert double.apply_async((4,), queue="more").get(timeout=60) == 8

def test_simulation(celeriac_simulation):
    celeriac_simulation.worker()
    result = double.apply_async((4,), countdown=86400)
    celeriac_simulation.advance("1d1m")
    assert result.get() == 8

def test_session(celery_session_app, celery_session_worker):
    assert double.delay(5).get(timeout=60) == 10
    assert current_app.main == celery_session_app.main
"""
TRAPPED = """
import pytest
from celeriac import current_app

@pytest.fixture(scope="session")
def use_celery_app_trap():
    return True

def test_trap(celery_app):
    with pytest.raises(RuntimeError, match="current app"):
        current_app.conf
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> pytest.Pytester:
    loaded = request.config.pluginmanager.hasplugin("celeriac")
    pytester.makeconftest(CONFTEST.format(plugins=[] if loaded else ["celeriac.contrib.pytest"]))
    pytester.makepyfile(some_tasks=TASKS)
    return pytester


def test_fixtures(suite: pytest.Pytester) -> None:
    suite.makepyfile(TESTS)
    suite.syspathinsert()
    suite.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", "--strict-markers").assert_outcomes(passed=7)


def test_trap(suite: pytest.Pytester) -> None:
    suite.makepyfile(TRAPPED)
    suite.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_no_worker(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_WORKER", "1")
    suite.makepyfile("def test_none(celery_worker): assert celery_worker is None")
    suite.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_mark_is_documented(suite: pytest.Pytester) -> None:
    suite.runpytest_subprocess("--markers").stdout.fnmatch_lines(["*@pytest.mark.celery(*settings*"])
