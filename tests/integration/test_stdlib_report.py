"""The showcase: its report is what a direct computation says, on each broker; it ends tidily."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from celeriac import Celery
from tests.servers import wait_until

ROOT = Path(__file__).parents[2]
LIMIT = 60


def start(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "examples.stdlib_report", *options],
        cwd=ROOT,
        env={**env, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts what runs in the background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, no lock
    )


def expected(limit: int) -> dict[str, object]:
    """The same, by other means and without tasks."""
    root = sysconfig.get_path("stdlib")
    found = []
    for folder, _, names in os.walk(root):
        if not {"site-packages", "dist-packages"} & set(folder.split(os.sep)):
            found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    lines = functions = 0
    longest: tuple[int, str, str] = (0, "", "")
    for name in sorted(found)[:limit]:
        data = Path(name).read_bytes()
        lines += len(data.splitlines())
        for node in ast.walk(ast.parse(data)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions += 1
                longest = max(longest, ((node.end_lineno or 0) - node.lineno + 1, node.name, name))
    names = dict(zip(("lines", "function", "file"), longest, strict=True))
    return {"root": root, "files": limit, "lines": lines, "functions": functions, "longest": names}


@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_the_report_is_true(broker: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    options = [] if broker == "sqlite" else ["--broker", request.getfixturevalue("redis_url")]
    report_file = tmp_path / "report.json"
    process = start(tmp_path, "--limit", str(LIMIT), "--json", str(report_file), *options)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    report = json.loads(report_file.read_text())
    wanted = expected(LIMIT)
    assert {name: report[name] for name in wanted} == wanted
    assert report["problems"] == {}
    assert 0 < report["seconds"] < 120
    assert f"{LIMIT} files, {report['lines']:,} lines" in output
    assert os.listdir(tmp_path) == ["report.json"]


def test_files_that_do_not_parse_are_counted(tmp_path: Path) -> None:
    from examples.stdlib_report.tasks import analyse, report

    bad = {
        "syntax.py": b"def (:\n",
        "encoding.py": b"# coding: no-such\n",
        "bytes.py": b"x = '\xff'\n",
        "null.py": b"\0",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        facts = analyse(str(tmp_path / name))
        assert facts["problem"].startswith(("SyntaxError", "ValueError")), (name, facts)
        assert (facts["lines"], facts["functions"], facts["longest"]) == (1, 0, None)
    found = report([analyse(str(tmp_path / name)) for name in bad], "here")
    assert (found["files"], found["lines"], found["longest"]["lines"]) == (len(bad), len(bad), 0)
    assert [Path(file).name for file in found["problems"]] == list(bad)
    assert "FileNotFoundError" in analyse(str(tmp_path / "missing.py"))["problem"]


def files_done(folder: Path) -> int:
    """How many files the worker says it has analysed."""
    for file in folder.glob("celeriac-*/report.db"):
        with Celery("watcher", broker=f"sqlite:///{file}") as app:
            answers = app.control.inspect(timeout=2, limit=1).stats() or {}
        return sum(int(answer["total"].get("analyse", 0)) for answer in answers.values())
    return 0


@pytest.mark.parametrize("wanted", ["1", "2"])
def test_few_files(wanted: str, tmp_path: Path) -> None:
    process = start(tmp_path, "--limit", wanted)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"{wanted} files, " in output


def test_without_a_broker_it_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start(tmp_path, "--broker", "redis://localhost:1/0")
    output, _ = process.communicate(timeout=60)  # ends when all that holds the pipe has ended: a worker would, too
    assert process.returncode == 1
    assert output.startswith("./dev run: cannot reach Redis at redis://localhost:1/0"), output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_is_interrupted_tidily(sign: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_until(lambda: files_done(tmp_path) > 0, timeout=60, describe="the worker has analysed a file")
    process.send_signal(sign)
    output, _ = process.communicate(timeout=60)
    assert "interrupted; the worker has stopped" in output
    assert "Traceback" not in output
    assert process.returncode == 1
    assert os.listdir(tmp_path) == []
