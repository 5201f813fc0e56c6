"""`celeriac beat` with `PersistentScheduler` on a Redis that goes away: nothing is left out, SIGTERM is obeyed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers import RedisServer, wait_until

GUARD = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
APP = """
import os
from celeriac import Celery

app = Celery("proj", broker=os.environ["PROJ_BROKER"])
app.conf.beat_schedule = {
    "second": {"task": "second", "schedule": 1.0},
    "hourly": {"task": "hourly", "schedule": 3600.0},
}
app.conf.beat_scheduler = "celery.beat:PersistentScheduler"
app.conf.broker_publish_timeout = 3
"""


class Program:
    """`celeriac beat` in a directory of its own."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.folder = folder
        self.server = server
        self.log_file = folder / "beat.log"
        self.file = folder / "celerybeat-schedule.json"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "proj.py").write_text(APP)

    def start(self) -> None:
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [*GUARD, sys.executable, "-m", "celeriac", "-A", "proj", "beat", "-l", "info"],
                cwd=self.folder,
                env={**os.environ, "PROJ_BROKER": self.server.url()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        return self.log_file.read_text("utf-8")

    def says(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.log().count(text) >= times, 60, self.log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(15) == 0, self.log()
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def sent(self, task: str) -> int:
        raw = self.server.command("LRANGE", "celery", 0, -1)
        return sum(json.loads(each)["headers"]["task"] == task for each in raw)

    def set_back(self, name: str, by: timedelta) -> None:
        """Let an entry have run so long ago."""
        kept = json.loads(self.file.read_text())
        kept["entries"][name]["last_run_at"] = (datetime.now(UTC) - by).isoformat()
        self.file.write_text(json.dumps(kept))

    def runs(self, name: str) -> int:
        count: int = json.loads(self.file.read_text())["entries"][name]["total_run_count"]
        return count


@pytest.fixture
def beat(make_redis: Callable[..., RedisServer], tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path, make_redis(appendonly=True))
    yield program
    program.kill()


def test_what_is_due_while_the_broker_is_away_is_sent_when_it_is_back(beat: Program) -> None:
    beat.start()
    wait_until(lambda: beat.sent("second") >= 2, 60, beat.log)
    beat.server.stop()
    beat.says("trying again until it is back")
    beat.server.start()
    beat.says("the broker is back")
    before = beat.sent("second")
    wait_until(lambda: beat.sent("second") >= before + 2, 60, beat.log)
    beat.stop()
    assert beat.log().count("trying again until it is back") == 1
    assert beat.runs("second") == beat.sent("second")
    assert beat.sent("hourly") == 0


def test_a_stop_while_the_broker_is_away_forgets_no_run(beat: Program) -> None:
    beat.start()
    wait_until(lambda: beat.sent("second") >= 1, 60, beat.log)
    beat.stop()
    beat.set_back("hourly", timedelta(hours=2))
    beat.server.stop()
    beat.start()
    beat.says("trying again until it is back")
    beat.stop()
    assert beat.runs("hourly") == 0
    beat.server.start()
    beat.start()
    wait_until(lambda: beat.sent("hourly") == 1, 60, beat.log)
    before = beat.sent("second")
    wait_until(lambda: beat.sent("second") >= before + 2, 60, beat.log)
    beat.stop()
    assert beat.sent("hourly") == beat.runs("hourly") == 1
    assert "Traceback" not in beat.log()
