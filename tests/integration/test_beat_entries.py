"""Periodic tasks edited while a beat runs, by the command line, as a user does it: on each kind of server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisCluster, wait_until

pytestmark = pytest.mark.slow

PROJECT = """
import os
from celeriac import Celery

app = Celery("edited", broker=os.environ["BROKER"], result_backend=os.environ.get("RESULTS") or None)
app.conf.beat_enable_remote_control = True
app.conf.beat_schedule = {"written": {"task": "edited.note", "schedule": 0.5, "args": ["written"]}}

@app.task(name="edited.note")
def note(word):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(word + "\\n")
"""


class Project:
    """One app, its beat with a worker in it, and the command line."""

    def __init__(self, folder: Path, broker: str, results: str) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        self.notes.touch()
        (folder / "edited.py").write_text(PROJECT)
        self.environment = {**os.environ, "BROKER": broker, "RESULTS": results, "NOTES": str(self.notes)}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celeriac", "-A", "edited", *words]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment)

    def call(self, *words: str, code: int = 0) -> str:
        return self.ask("beat", *words, code=code)

    def ask(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "celeriac", "-A", "edited", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def count(self, word: str) -> int:
        return self.notes.read_text().split().count(word)

    def grows(self, word: str, by: int = 2) -> None:
        before = self.count(word)
        wait_until(lambda: self.count(word) >= before + by, 60, f"{word} runs {by} times more")


EXTENDED = [pytest.param(name, marks=pytest.mark.extended) for name in ("sqlite", "postgres", "cluster")]


@pytest.fixture(params=["redis", "rabbitmq", *EXTENDED])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    if request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        cluster.flush()
        url = cluster.url()
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    results = request.getfixturevalue("redis_url") if request.param == "rabbitmq" else ""
    made = Project(tmp_path, url, results)
    nodes = [
        made.start("worker", "-B", "-c", "1", "-l", "warning"),
        made.start("beat", "-l", "warning", "-n", "sched@host"),
    ]
    try:
        yield made
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(60)


def test_entries_are_edited_at_run_time(project: Project) -> None:
    project.grows("written")
    project.call("add", "stored", "--task", "edited.note", "--every", "0.5", "--args", '["stored"]')
    project.grows("stored")
    project.call("pause", "written")
    # What was sent before the pause may still run: nothing is sent any more once both schedulers know.
    shown = json.loads(project.call("show", "written", "--json"))
    assert (shown["enabled"], shown["next"]) == (False, None)

    def still() -> bool:
        before = json.loads(project.call("show", "written", "--json"))["count"]
        project.grows("stored", 3)
        return bool(json.loads(project.call("show", "written", "--json"))["count"] == before)

    wait_until(still, 60, "the paused entry is not sent any more")
    project.call("change", "stored", "--args", '["changed"]')
    project.grows("changed")
    project.call("resume", "written")
    project.grows("written")
    project.call("run", "stored")
    project.call("delete", "stored")
    assert "there is no entry 'stored'" in project.call("show", "stored", code=1)
    names = [json.loads(line)["name"] for line in project.call("list", "--json").splitlines()]
    assert names == ["written"]

    def both() -> bool:
        seen = [json.loads(line) for line in project.call("status", "--json").splitlines()]
        return sorted(each["embedded"] for each in seen) == [False, True]

    wait_until(both, 60, "both schedulers are shown")
    pong = json.loads(project.ask("inspect", "ping", "-d", "sched@host", "-t", "10", "--json"))
    assert pong == {"sched@host": {"ok": "pong"}}


def test_no_scheduler_runs(tmp_path: Path, sqlite_url: str) -> None:
    project = Project(tmp_path, sqlite_url, "")
    assert "No scheduler" in project.call("status", code=69)
    assert "written" in project.call("list")
