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


def run(code: str, names: dict[str, Any]) -> Any:
    """The value of the last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<console>", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<console>", "eval"), names)


def main() -> None:
    names: dict[str, Any] = {"app": tasks.app, "t": tasks.app.tasks, "tasks": tasks, "cli": cli}
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
