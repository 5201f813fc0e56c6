"""What the tests of add-ons share: beats in the add-ons' own interpreter, snippets run there, and the sent messages.

Processes die with the test run (PDEATHSIG). Knows nothing of what tests check.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers import RedisServer, wait_until

__all__ = ["Addons", "Beat", "Sent"]

ROOT = Path(__file__).parents[3]
#: The queue, and its messages of priority 3.
_LISTS = ("celery", "celery\x06\x163")
_GUARD = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


class Sent:
    """A message as it lies in the queue."""

    def __init__(self, raw: bytes) -> None:
        envelope = json.loads(raw)
        self.headers: dict[str, Any] = envelope["headers"]
        self.task: str = self.headers["task"]
        self.priority = envelope["properties"]["priority"]
        self.args, self.kwargs, _ = json.loads(base64.b64decode(envelope["body"]))


class Beat:
    """A beat, or a worker with one, of its own process."""

    def __init__(self, addons: Addons, app: str, log: Path, command: Sequence[str]) -> None:
        self.path = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*_GUARD, addons.python, "-m", "celeriac", "--celery-names", "-A", app, *command],
                cwd=ROOT,
                env=addons.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str) -> None:
        """Wait for a line."""
        wait_until(lambda: text in self.log() or self.process.poll() is not None, 60, self.log)
        assert text in self.log(), self.log()

    def stop(self) -> None:
        """SIGTERM, and a clean exit."""
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            if kind is None:
                self.stop()
            else:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait(60)


class Addons:
    """The interpreter with the add-ons, a database of Redis and one of Django."""

    def __init__(self, python: Path, server: RedisServer, db: int, folder: Path) -> None:
        self.python = str(python)
        self.folder = folder
        self.server = server
        self.db = db
        self._beats = 0
        self._consoles: dict[str, subprocess.Popen[str]] = {}
        self._errors = folder / "console.log"
        #: Django's file.
        self.database = folder / "shop.sqlite3"
        self.environment = {
            **os.environ,
            "ADDONS_REDIS": server.url(db),
            "SHOP_DATABASE": str(self.database),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests/compat/project/addons'}",
        }

    def redis(self, *words: str | int) -> Any:
        """One command to the database of Redis."""
        return self.server.command(*words, db=self.db)

    def beat(self, app: str, *command: str) -> Beat:
        """Start one more beat for `shop` or `stall`, or another command."""
        self._beats += 1
        return Beat(self, app, self.folder / f"beat-{self._beats}.log", command or ("beat", "-l", "debug"))

    def run(self, code: str, *, django: bool = False) -> Any:
        """Run a snippet that may set `answer`; returns that."""
        kind = "django" if django else "plain"
        if kind not in self._consoles:
            self._consoles[kind] = self._console(kind)
        console = self._consoles[kind]
        assert console.stdin is not None
        assert console.stdout is not None
        console.stdin.write(json.dumps(textwrap.dedent(code)) + "\n")
        console.stdin.flush()
        line = console.stdout.readline()
        assert line, self._errors.read_text()
        said = json.loads(line)
        assert "error" not in said, said["error"]
        return said["answer"]

    def _console(self, kind: str) -> subprocess.Popen[str]:
        with self._errors.open("ab") as errors:
            return subprocess.Popen(
                [*_GUARD, self.python, "-m", "tests.compat.project.addons_console", kind],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def close(self) -> None:
        """End the consoles."""
        for console in self._consoles.values():
            with console:  # closes its pipes, which ends it, and waits
                pass

    def sent(self, *args: Any) -> list[Sent]:
        """Messages in the queue with these arguments, the oldest first."""
        found = [Sent(raw) for key in _LISTS for raw in reversed(self.redis("LRANGE", key, 0, -1))]
        return [each for each in found if each.args == list(args)]

    def fires(self, *args: Any, more: int = 1) -> Sent:
        """Wait for further messages with these arguments; returns the last."""
        before = len(self.sent(*args))
        wait_until(lambda: len(self.sent(*args)) >= before + more, 60, f"{args} fires {more} times")
        return self.sent(*args)[-1]
