"""The blocks of a page of the docs, and how each is run. Used by `test_examples.py`.

A page is run from top to bottom in a directory of its own. The word after a fence's language says what a block is:

- ```python file=NAME: a file, written; `app.py`, `test_app.py`
- ```python: a script, run; ```pycon: a session, run by doctest
- ```console: a session: lines with `$ ` are run, the lines below each are its output (`...` stands for anything)
- ```sh: commands, run by the shell; ```sh background: runs until the page ends, such as a worker
- ```text: the output of the block above, when it says `output`; else nothing, as a fence without a language
- any of them with `skip`: not run; the page says why, next to it

`redis://localhost:6379/0` is a private server in the tests.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
REDIS = "redis://localhost:6379/0"
_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Seconds for a command, and for a result that is waited for.
_LIMIT, _PATIENCE = 300, 60
_WAIT = re.compile(r"(\bget\(timeout=)(?:10|20)\b")


class Block(NamedTuple):
    """A fenced block: its language, the words after it, its text and its first line's number."""

    language: str
    words: list[str]
    text: str
    line: int

    @property
    def file(self) -> str | None:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in _FENCE.finditer(text):
        language, words, body = found.groups()
        yield Block(language, words.split(), body, text.count("\n", 0, found.start()) + 2)


class Shell:
    """Where the blocks of one page run."""

    def __init__(self, folder: Path, redis_url: str = "") -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.output = ""
        self._background: list[tuple[subprocess.Popen[bytes], Path]] = []
        commands = folder.parent / "bin"
        commands.mkdir(exist_ok=True)
        for name, module in (("celeriac", "celeriac"), ("pytest", "pytest"), ("python", "")):
            script = commands / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {f"-m {module}" if module else ""} "$@"\n')
            script.chmod(0o755)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "PYTEST_"))}
        self.env.update(
            PATH=f"{commands}:{os.environ['PATH']}",
            PYTHONPATH=f"{ROOT / 'src'}:{folder}",
            PYTHONUNBUFFERED="1",
            NO_COLOR="1",
        )

    def run(self, block: Block) -> None:
        """Run one block as its language and words say. Raises AssertionError when it does not do what the page says."""
        if "skip" in block.words:
            return
        text = block.text.replace(REDIS, self.redis_url) if self.redis_url else block.text
        # The reader's machine is at rest; that of the tests may take long to start a worker.
        text = _WAIT.sub(rf"\g<1>{_PATIENCE}", text)
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif block.language == "sh" and "background" in block.words:
            self._start(text)
        elif block.language in _RUNNERS:
            _RUNNERS[block.language](self, text, block)
        elif block.language == "text" and "output" in block.words:
            self._compare(text, self.output)

    def _start(self, command: str) -> None:
        log = self.folder.parent / f"background-{len(self._background)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                f"exec {command}", shell=True, cwd=self.folder, env=self.env, stdout=stream, stderr=stream
            )
        self._background.append((process, log))

    def _script(self, text: str, block: Block) -> None:
        path = self.folder / f"example_{block.line}.py"
        path.write_text(text)
        self._command(f"python {path.name}")

    def _doctest(self, text: str, block: Block) -> None:
        path = self.folder / f"session_{block.line}.txt"
        path.write_text(text)
        self._command(f"python -m doctest -o ELLIPSIS {path.name}")

    def _console(self, text: str, block: Block) -> None:
        command, wanted = "", ""
        for line in [*text.splitlines(keepends=True), "$ "]:
            if line.startswith("$ "):
                if command:
                    self._command(command)
                    if wanted.strip():
                        self._compare(wanted, self.output)
                command, wanted = line[2:].strip(), ""
            else:
                wanted += line

    def _sh(self, text: str, block: Block) -> None:
        self._command(text)

    def _command(self, command: str) -> None:
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=self.folder,
            env=self.env,
            timeout=_LIMIT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.output = done.stdout
        assert done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout}\n{self._logs()}"

    @staticmethod
    def _compare(wanted: str, got: str) -> None:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(wanted, got, flags), f"wanted:\n{wanted}\ngot:\n{got}"

    def _logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for _, log in self._background)

    def close(self) -> None:
        """End what runs in the background; it must still have been running, and end well."""
        ended = [process.poll() for process, _ in self._background]
        for process, _ in self._background:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        for process, _ in self._background:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        codes = [process.returncode for process, _ in self._background]
        assert all(code is None for code in ended), f"ended too early: {ended}\n{self._logs()}"
        assert not any(codes), f"exit codes {codes}\n{self._logs()}"


_RUNNERS = {"python": Shell._script, "pycon": Shell._doctest, "console": Shell._console, "sh": Shell._sh}
