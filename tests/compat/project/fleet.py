"""Processes of a mixed fleet: Celery's workers and ours on one Redis, and a console with Celery's producer.

Every process dies with the test run (PDEATHSIG) and is ended by `Fleet.__exit__`. Knows nothing of what tests check.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.compat.project.tasks import FOLDER, SETTINGS, make_app
from tests.faults.fleet import alive, descendants, send_signal
from tests.servers import RedisServer, wait_until

__all__ = ["Console", "Fleet", "Worker"]

ROOT = Path(__file__).parents[3]
START_SECONDS = 60.0


class Worker:
    """One worker of either kind, and everything it forked."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.path = log
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*guard, *command],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._seen: set[int] = set()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")

    def log(self, lines: int = 40) -> str:
        return "\n".join(self.text().splitlines()[-lines:])

    def ready(self) -> Self:
        wait_until(lambda: " ready." in self.text() or not self.running, START_SECONDS, self.log)
        assert self.running, self.log()
        return self

    def tree(self) -> list[int]:
        below = descendants(self.process.pid)
        self._seen.update(below)
        return [self.process.pid, *below]

    def kill(self) -> None:
        """SIGKILL of all its processes at once."""
        send_signal(self.tree(), signal.SIGSTOP)
        send_signal(self.tree(), signal.SIGKILL)
        self.process.wait(60)

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; returns the exit code."""
        self.tree()
        if self.running:
            self.process.terminate()
        return self.process.wait(seconds)

    def end(self) -> None:
        if self.running:
            self.kill()
        send_signal([pid for pid in self._seen if alive(pid) and _is_worker(pid)], signal.SIGKILL)


def _is_worker(pid: int) -> bool:
    """A pid may have been given to somebody else since it was seen."""
    try:
        return b"tests.compat.project" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Console:
    """Real Celery in a process that runs what it is told."""

    def __init__(self, python: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "tests.compat.project.console"],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def run(self, code: str, **values: Any) -> Any:
        """The value of the last expression of `code`, which may use `values`, `app`, `t` (tasks), `cli` and `tasks`."""
        self.start(code, **values)
        return self.answer()

    def start(self, code: str, **values: Any) -> None:
        """`run` in two steps: `answer` waits."""
        given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"code": given + textwrap.dedent(code)}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Fleet:
    """One Redis, one set of settings, workers of both kinds, our app here and Celery's in the console."""

    def __init__(self, server: RedisServer, folder: Path, celery_python: Path, *, db: int = 0, **settings: Any) -> None:
        self.server = server
        self.db = db
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._python = celery_python
        self.settings: dict[str, Any] = {
            "broker_url": server.url(db),
            "result_backend": server.url(db),
            "broker_connection_retry_on_startup": True,
            "worker_unknown_task_park": 1.0,
            **settings,
        }
        self.app: Any = make_app(**self.settings)
        self.workers: list[Worker] = []
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """Celery's side; started at the first need."""
        if self._console is None:
            self._console = Console(self._python, self._environment({}), self.folder / "console.log")
        return self._console

    def _environment(self, settings: Mapping[str, Any]) -> dict[str, str]:
        mine = {SETTINGS: json.dumps({**self.settings, **settings}), FOLDER: str(self.folder)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "PYTEST"))}
        return {**kept, **mine, "PYTHONWARNINGS": "ignore", "C_FORCE_ROOT": "1"}

    def ours(self, name: str, *arguments: str, **settings: Any) -> Worker:
        """Start a worker of ours; call its `ready`."""
        return self._start(sys.executable, "celeriac", name, arguments, settings)

    def theirs(self, name: str, *arguments: str, **settings: Any) -> Worker:
        """Start a worker of Celery's; call its `ready`."""
        return self._start(str(self._python), "celery", name, arguments, settings)

    def _start(
        self, python: str, program: str, name: str, arguments: tuple[str, ...], settings: Mapping[str, Any]
    ) -> Worker:
        command = [python, "-m", program, "-A", "tests.compat.project.tasks", "worker", "-n", name, "-l", "info"]
        log = self.folder / f"{program}-{len(self.workers)}.log"
        worker = Worker(name, [*command, *arguments], self._environment(settings), log)
        self.workers.append(worker)
        return worker

    def send(self, name: str, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        """Our producer; returns our result object."""
        if name == "unknown":
            return self.app.send_task(f"compat.{name}", args, kwargs, **options)
        return self.app.tasks[f"compat.{name}"].apply_async(args, kwargs, **options)

    def outcome(self, result: Any, timeout: float = 60.0) -> dict[str, Any]:
        """What `get` brings: `value`, or `error` as module, class and arguments; and how the result looks then."""
        try:
            found: dict[str, Any] = {"value": result.get(timeout=timeout)}
        except Exception as error:  # noqa: BLE001 - whatever the task raised
            found = {"error": [type(error).__module__, type(error).__name__, list(error.args)]}
        return {**found, "state": result.state, "traceback": result.traceback, "id": result.id}

    def call(self, way: str, name: str, args: Any = (), kwargs: Any = None, **options: Any) -> dict[str, Any]:
        """Send a task from one side to a worker of the other, and wait: `way` names the worker's side."""
        options = {"queue": way, **options}
        if way == "theirs":
            return self.outcome(self.send(name, args, kwargs, **options))
        code = "outcome(send(name, args, kwargs, **options))"
        answer: dict[str, Any] = self.console.run(code, name=name, args=args, kwargs=kwargs, options=options)
        return answer

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    def journal(self, kind: str) -> list[list[str]]:
        """Lines of one kind: side and words."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split("\t")[1:] for line in lines if line.startswith(f"{kind}\t")]

    def command(self, *words: str | bytes | int | float) -> Any:
        """One command to this fleet's database."""
        return self.server.command(*words, db=self.db)

    def record(self, task_id: str) -> dict[str, Any] | None:
        """The result record as it is stored."""
        raw = self.command("GET", f"celery-task-meta-{task_id}")
        return None if raw is None else dict(json.loads(raw))

    def wait_state(self, task_id: str, state: str, seconds: float = 60.0) -> dict[str, Any]:
        def there() -> bool:
            record = self.record(task_id)
            return record is not None and record["status"] == state

        wait_until(there, seconds, lambda: f"{task_id} is {state}: {self.record(task_id)}\n{self.logs()}")
        return self.record(task_id) or {}

    def wait_for_answer(self, node: str) -> None:
        """Celery's workers say that they are ready a moment before they listen to remote control."""
        wait_until(lambda: self.app.control.ping([node], timeout=0.5, limit=1), 60, self.logs)

    def logs(self) -> str:
        return "\n".join(f"--- {worker.name}\n{worker.log(15)}" for worker in self.workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.end()
        if self._console is not None:
            self._console.close()
        self.app.close()
