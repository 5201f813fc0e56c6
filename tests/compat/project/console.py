"""A console in the peer's interpreter: reads `{"code": …}` lines, runs them with `app` at hand, answers in JSON.

Run by `fleet.Console` with real Celery's Python; one process answers for all tests, as its start takes a second.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
import traceback
from typing import Any

from tests.compat.project import tasks


def cli(*arguments: str) -> dict[str, Any]:
    """The real command line of Celery, in this process: `{"code", "output"}`."""
    from celery.bin.celery import celery

    output = io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            celery.main(["-A", "tests.compat.project.tasks", *arguments], standalone_mode=True)
        except SystemExit as end:
            code = end.code
    return {"code": code, "output": output.getvalue()}


def outcome(result: Any, timeout: float = 60.0) -> dict[str, Any]:
    """What `get` brings, in the form of `Fleet.outcome`."""
    try:
        found: dict[str, Any] = {"value": result.get(timeout=timeout)}
    except Exception as error:  # noqa: BLE001 - whatever the task raised
        found = {"error": [type(error).__module__, type(error).__name__, list(error.args)]}
    return {**found, "state": result.state, "traceback": result.traceback, "id": result.id}


def send(name: str, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
    """Celery's producer."""
    if name == "unknown":
        return tasks.app.send_task(f"compat.{name}", args, kwargs, **options)
    return tasks.app.tasks[f"compat.{name}"].apply_async(args, kwargs, **options)


def run(code: str, names: dict[str, Any]) -> Any:
    """The value of the last expression."""
    tree = ast.parse(code)
    last = tree.body.pop()
    if not isinstance(last, ast.Expr):
        raise SyntaxError("the last statement is no expression: it has no value to answer")
    exec(compile(tree, "<console>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<console>", "eval"), names)


def main() -> None:
    names: dict[str, Any] = {
        "app": tasks.app,
        "t": tasks.app.tasks,
        "tasks": tasks,
        "cli": cli,
        "send": send,
        "outcome": outcome,
    }
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        try:
            answer = {"value": run(json.loads(line)["code"], names)}
        except BaseException as error:  # noqa: BLE001 - the test wants to know whatever it is
            answer = {"error": "".join(traceback.format_exception(error))}
        print(json.dumps(answer, default=repr), file=answers, flush=True)


if __name__ == "__main__":
    main()
