"""The command line as users run it: real processes, on SQLite and Redis."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import HOST

_PROJECT = """
import time
from celeriac import Celery
from celeriac.app.log import get_task_logger

app = Celery("proj")
app.conf.broker_connection_timeout = 1
logger = get_task_logger(__name__)

@app.task
def add(x, y):
    print("adding", x, y)
    logger.info("in the task")
    return x + y

@app.task
def fail():
    raise ValueError("on purpose")

@app.task
def nap(seconds):
    with open("napping", "w"):
        time.sleep(seconds)
    return "rested"
"""
_DEADLINE = 60.0


class Project:
    """A directory with an app, and the command line in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        (folder / "proj.py").write_text(_PROJECT)
        self.environment = {**os.environ, "CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        self._workers: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "celeriac", *arguments],
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )

    def call(self, name: str, *args: object) -> str:
        """Send a task; returns its id."""
        done = self.run("-A", "proj", "call", name, "-a", json.dumps(args))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def worker(self, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready."""
        with (self.folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celeriac", "-A", "proj", "worker", "-l", "info", *options],
                cwd=self.folder,
                env={**self.environment, **(env or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._workers.append(process)
        self.wait(lambda: " ready.\n" in self.log or process.poll() is not None)
        assert process.poll() is None, self.log
        return process

    @property
    def log(self) -> str:
        """What the newest worker has written."""
        return (self.folder / "worker.log").read_text()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds."""
        end = time.monotonic() + _DEADLINE
        while not condition():
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def close(self) -> None:
        """End what is left."""
        for process in self._workers:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def project(tmp_path: Path, url: str) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder, url)
    yield made
    made.close()


@pytest.fixture
def redis_project(tmp_path: Path, redis_url: str) -> Iterator[Project]:
    made = Project(tmp_path, redis_url)
    yield made
    made.close()


def test_a_worker_from_start_to_end(project: Project) -> None:
    worker = project.worker("-c", "2", "-n", "w1@%h", "--pidfile", "w.pid")
    task_id = project.call("proj.add", 1, 2)
    assert project.run("-A", "proj", "result", task_id, "--timeout", "10").stdout == "3\n"
    failed = project.run("result", project.call("proj.fail"), "-A", "proj", "--timeout", "10")
    assert failed.returncode == 1
    assert "is FAILURE: ValueError('on purpose')" in failed.stderr
    # To one by name they wait until it has answered.
    whom = ("-d", f"w1@{socket.gethostname()}", "-t", "30")
    status = project.run("-A", "proj", "status", *whom)
    assert (status.returncode, status.stdout.count("w1@")) == (0, 1), status.stderr
    answers = json.loads(project.run("inspect", "-A", "proj", *whom, "registered", "-j").stdout)
    assert list(answers.values()) == [["proj.add", "proj.fail", "proj.nap"]]
    assert project.run("-A", "proj", "worker", "--pidfile", "w.pid").returncode == 73
    assert project.run("-A", "proj", "control", "shutdown").returncode == 0
    assert worker.wait(_DEADLINE) == 0
    assert not (project.folder / "w.pid").exists()
    assert re.search(r"INFO/child-\d\] Task proj.add\[[-\w]+\] succeeded in", project.log)
    assert re.search(r"WARNING/child-\d\] adding 1 2\n", project.log)
    assert f"proj.add[{task_id}]: in the task" in project.log
    assert project.run("-A", "proj", "status", "-t", "0.2").returncode == 69


def test_purge(project: Project) -> None:
    for _ in range(3):
        project.call("proj.add", 1, 1)
    assert project.run("-A", "proj", "purge").returncode == 2
    done = project.run("-A", "proj", "purge", "-f")
    assert (done.returncode, done.stdout) == (0, "Purged 3 messages from 1 queue.\n")


def test_a_worker_may_purge_first(redis_project: Project) -> None:
    redis_project.call("proj.fail")
    worker = redis_project.worker("--purge")
    task_id = redis_project.call("proj.add", 1, 1)
    assert redis_project.run("-A", "proj", "result", task_id, "--timeout", "10").stdout == "2\n"
    worker.terminate()
    assert worker.wait(_DEADLINE) == 0
    assert "Erased 1 messages" in redis_project.log
    assert "proj.fail[" not in redis_project.log


def napping(project: Project, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A worker in the middle of a task."""
    worker = project.worker(*options, env=env)
    project.call("proj.nap", 60)
    project.wait((project.folder / "napping").exists)
    return worker


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_warm_shutdown(pool: str, redis_project: Project) -> None:
    worker = redis_project.worker("-P", pool, "-c", "2")
    redis_project.call("proj.nap", 1)
    redis_project.wait((redis_project.folder / "napping").exists)
    worker.terminate()
    assert worker.wait(_DEADLINE) == 0
    assert "worker: Warm shutdown (MainProcess)" in redis_project.log
    assert re.search(r"Task proj.nap\[[-\w]+\] succeeded", redis_project.log)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_second_signal_is_cold(pool: str, redis_project: Project) -> None:
    worker = napping(redis_project, "-P", pool, "-c", "2")
    worker.terminate()
    redis_project.wait(lambda: "Warm shutdown" in redis_project.log)
    worker.terminate()
    assert worker.wait(_DEADLINE) == 1


@pytest.mark.parametrize("how", ["sigquit", "remapped"])
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_cold_shutdown(pool: str, how: str, redis_project: Project) -> None:
    worker = napping(redis_project, "-P", pool, env={"REMAP_SIGTERM": "SIGQUIT"} if how == "remapped" else None)
    worker.send_signal(signal.SIGTERM if how == "remapped" else signal.SIGQUIT)
    assert worker.wait(_DEADLINE) == 1
    # The task is back: it did not end, so it will run again.
    assert redis_project.run("-A", "proj", "purge", "-f").stdout == "Purged 1 message from 1 queue.\n"


def test_a_broker_that_is_away_at_the_start(tmp_path: Path) -> None:
    away = Project(tmp_path, f"redis://:secret@{HOST}:1/0")
    source = (tmp_path / "proj.py").read_text()
    (tmp_path / "proj.py").write_text(source + "\napp.conf.broker_connection_retry_on_startup = False\n")
    done = away.run("-A", "proj", "worker")
    assert done.returncode == 3
    assert "secret" not in done.stdout + done.stderr
    *dangers, error = done.stderr.splitlines()
    assert error.startswith("Error: ")
    assert all("runs as root" in line for line in dangers)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ("-A porj worker", 2, "there is no module 'porj'"),
        ("-A wrong worker", 2, "SyntaxError"),
        ("-A empty worker", 2, "module 'empty' has no app"),
        ("-A proj wroker", 2, "did you mean worker?"),
        ("-A proj worker --concurency=2", 2, "Did you mean '--concurrency'?"),
        ("-A proj worker --autoscale=3,1,2", 2, "--autoscale takes MAX,MIN"),
        ("-A proj worker -f no/such/place.log", 2, "cannot write the log file"),
        ("-A proj worker -I missing_tasks", 2, "there is no module 'missing_tasks'"),
        ("-A proj call proj.add", 1, "cannot reach"),
    ],
)
def test_mistakes_cost_one_line(arguments: str, code: int, expected: str, tmp_path: Path) -> None:
    project = Project(tmp_path, f"redis://{HOST}:1/0")
    (tmp_path / "wrong.py").write_text("def x(:\n")
    (tmp_path / "empty.py").write_text("")
    done = project.run(*arguments.split())
    assert done.returncode == code
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_events_are_printed(redis_project: Project) -> None:
    redis_project.worker("-E")
    command = [sys.executable, "-u", "-m", "celeriac", "-A", "proj", "events", "-j"]
    with subprocess.Popen(
        command, cwd=redis_project.folder, env=redis_project.environment, stdout=subprocess.PIPE, text=True
    ) as events:
        assert events.stdout is not None
        first = json.loads(events.stdout.readline())
        assert first["type"] in {"worker-heartbeat", "worker-online"}
        task_id = redis_project.call("proj.add", 1, 1)
        kinds = []
        while "task-succeeded" not in kinds:
            event = json.loads(events.stdout.readline())
            if event.get("uuid") == task_id:
                kinds.append(event["type"])
        events.send_signal(signal.SIGINT)
        assert events.wait(_DEADLINE) == 0
    assert kinds == ["task-received", "task-started", "task-succeeded"]


def test_a_log_file_for_each_process(redis_project: Project) -> None:
    command = [
        sys.executable,
        "-m",
        "celeriac",
        "-A",
        "proj",
        "worker",
        "-q",
        "-l",
        "INFO",
        "-c",
        "1",
        "-f",
        "%n%I.log",
    ]
    with subprocess.Popen([*command, "-n", "w1@%h"], cwd=redis_project.folder, env=redis_project.environment) as worker:
        redis_project.run("-A", "proj", "result", redis_project.call("proj.add", 1, 2), "--timeout", "10")
        worker.terminate()
        assert worker.wait(_DEADLINE) == 0
    assert " ready.\n" in (redis_project.folder / "w1.log").read_text()
    assert "INFO/child-1] Task proj.add" in (redis_project.folder / "w1-1.log").read_text()
