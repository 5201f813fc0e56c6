"""A task that kills its process, on a server that gives back by itself: each crash is counted before the next start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac import Celery
from celeriac.exceptions import WorkerLostError

GUARD = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
#: An agent that is slow to tell what a child died of, as on a machine that has other things to do.
PROJECT = """
import asyncio, os, signal
from celeriac import Celery
from celeriac.worker.verdicts import Verdicts

at_once = Verdicts.leave

async def late(self, *args):
    await asyncio.sleep(0.4)
    await at_once(self, *args)

Verdicts.leave = late
app = Celery("proj", broker={broker!r}, backend={backend!r})

@app.task(name="dies")
def dies():
    with open("starts", "a") as starts:
        starts.write("started\\n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_whoever_runs_it_next_knows(rabbitmq_url: str, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(PROJECT.format(broker=rabbitmq_url, backend=redis_url))
    command = [*GUARD, sys.executable, "-m", "celeriac", "-A", "proj", "worker", "-c", "2", "-l", "warning"]
    app = Celery("client", broker=rabbitmq_url, backend=redis_url, set_as_current=False)
    worker = subprocess.Popen(command, cwd=tmp_path)
    try:
        with pytest.raises(WorkerLostError, match="3 times"):
            app.send_task("dies").get(timeout=60)
        assert (tmp_path / "starts").read_text().split() == ["started"] * 3
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
        app.close()
