"""Start a worker, send it a task per file and one for the report, show how far it is. Options: `./dev run --help`."""

import argparse
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress

from celeriac import group
from celeriac.exceptions import OperationalError
from celeriac.result import GroupResult
from examples.stdlib_report.tasks import analyse, app, rate, report

ROOT = Path(sysconfig.get_path("stdlib"))


@contextmanager
def worker(processes: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker while the block runs. In a session of its own, so that Ctrl-C reaches us only."""
    command = ["celeriac", "-A", "examples.stdlib_report.tasks", "worker", "-c", str(processes), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", *command], start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def analyse_all(files: list[str], processes: int) -> dict[str, Any]:
    """The report: all files side by side, then the sum of what they gave, then the rate."""
    workflow = group(analyse.s(file) for file in files) | report.s(str(ROOT)) | rate.s(time.time())
    result = workflow.delay()
    members = result.parent if isinstance(result.parent, GroupResult) else None  # a group of one is a chain
    try:
        with worker(processes) as process, Progress(transient=True) as progress:
            bar = progress.add_task(f"{len(files):,} files", total=len(files))
            while not result.ready():
                progress.update(bar, completed=members.completed_count() if members else 0)
                if process.poll() is not None:
                    sys.exit(f"the worker ended with code {process.returncode}")
                time.sleep(0.1)
            return result.get()
    except KeyboardInterrupt:
        app.control.purge()  # what has not started
        raise


def show(report: dict[str, Any]) -> None:
    """Print the report."""
    print("\n{root}\n{files:,} files, {lines:,} lines, {functions:,} functions".format(**report))
    print("longest function: {function}, {lines} lines, in {file}".format(**report["longest"]))
    print(f"files that do not parse: {len(report['problems'])}")
    for file, problem in report["problems"].items():
        print(f"  {Path(file).relative_to(ROOT)}: {problem}")
    print("{seconds:.1f} s, {files_per_second:,.1f} files/s".format(**report))


def count(text: str) -> int:
    """A number of files or processes, from the command line."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def main() -> None:
    """Read the options, find the files, do the work."""
    parser = argparse.ArgumentParser(prog="./dev run", description="Analyse the standard library, one task a file.")
    parser.add_argument("--broker", metavar="URL", help="where messages and results go (default: a new SQLite file)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report there, too")
    parser.add_argument("--limit", metavar="N", type=count, help="analyse only the first N files")
    parser.add_argument("--processes", metavar="N", type=count, default=2, help="processes of the worker (default: 2)")
    options = parser.parse_args()
    installed = {"site-packages", "dist-packages"}  # may lie inside, but are not of the library
    files = sorted(str(path) for path in ROOT.rglob("*.py") if path.is_file() and not installed & set(path.parts))
    with tempfile.TemporaryDirectory(prefix="celeriac-") as folder:
        url = options.broker or f"sqlite:///{folder}/report.db"
        os.environ.update(CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)
        report = analyse_all(files[: options.limit], options.processes)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the worker has stopped")
    except OperationalError as error:
        sys.exit(f"./dev run: {error}")
