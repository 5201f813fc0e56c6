"""Start a worker, send it one task per file, show how far it is, sum up. Options: `./dev run --help`."""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from celeriac import exceptions
from examples.stdlib_report.tasks import analyse, app

ROOT = Path(sysconfig.get_path("stdlib"))
WORKER = [sys.executable, "-m", "celeriac", "-A", "examples.stdlib_report.tasks", "worker", "--loglevel=warning", "-q"]


def python_files() -> list[str]:
    """Every file of the standard library; what is installed beside it does not belong to it."""
    found = (path for path in ROOT.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts))
    return sorted(str(path) for path in found if path.is_file())


def outcome(result: Any, worker: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for one result, as long as there is a worker to wait for."""
    while True:
        try:
            value = result.get(timeout=2, propagate=False)
        except exceptions.TimeoutError:
            if worker.poll() is not None:
                sys.exit(f"the worker ended with code {worker.returncode}")
        else:
            return {"problem": repr(value)} if isinstance(value, Exception) else value


def summary(facts: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The report."""
    longest = max((fact for fact in facts if fact.get("longest")), key=lambda fact: fact["longest"][0], default=None)
    return {
        "root": str(ROOT),
        "files": len(facts),
        "lines": sum(fact.get("lines", 0) for fact in facts),
        "functions": sum(fact.get("functions", 0) for fact in facts),
        "longest": longest and {"file": longest["file"], "lines": longest["longest"][0], "name": longest["longest"][1]},
        "problems": {fact.get("file", "?"): fact["problem"] for fact in facts if "problem" in fact},
        "seconds": round(seconds, 3),
        "files_per_second": round(len(facts) / seconds, 1),
    }


def run(files: list[str], processes: int) -> dict[str, Any]:
    """The job itself."""
    started = time.perf_counter()
    worker = subprocess.Popen([*WORKER, "-c", str(processes)])
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    try:
        with Progress(*columns, transient=True) as progress:
            results = analyse.delay_many((path,) for path in files)
            facts = [outcome(result, worker) for result in progress.track(results, description="files")]
        return summary(facts, time.perf_counter() - started)
    except KeyboardInterrupt:
        app.control.purge()
        raise
    finally:
        worker.terminate()
        worker.wait()


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(prog="./dev run", description="Analyse the standard library by tasks.")
    parser.add_argument("--broker", metavar="URL", help="where messages and results go (default: a SQLite file)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report to this file, too")
    parser.add_argument("--limit", metavar="N", type=int, help="analyse only the first N files")
    parser.add_argument("--processes", metavar="N", type=int, default=2, help="child processes of the worker (2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="celeriac-") as folder:
        url = options.broker or f"sqlite:///{folder}/report.db"
        os.environ.update(CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)
        report = run(python_files()[: options.limit], options.processes)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    table = Table(show_header=False)
    for name, value in report.items():
        table.add_row(name, str(len(value) if name == "problems" else value))
    Progress().console.print(table)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the worker has stopped, nothing is left behind")
