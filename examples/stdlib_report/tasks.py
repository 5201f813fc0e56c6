"""The task: the lines, functions, longest function and digest of one Python file."""

import ast
import hashlib
import warnings
from pathlib import Path
from typing import Any

from celeriac import Celery

# Where messages and results go is told by the environment: CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
app = Celery("stdlib_report", task_default_queue="stdlib_report", result_expires=3600)


@app.task(name="analyse")
def analyse(path: str) -> dict[str, Any]:
    """What there is to say about a file. One that does not parse (test data, odd encodings) has a `problem`."""
    facts: dict[str, Any] = {"lines": 0, "functions": 0, "longest": None, "digest": "", "problem": ""}
    try:
        source = Path(path).read_bytes()
        facts.update(lines=len(source.splitlines()), digest=hashlib.sha256(source).hexdigest())
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        return {**facts, "problem": f"{type(error).__name__}: {error}"}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    longest = max(((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in found) if found else None
    return {**facts, "functions": len(found), "longest": longest}
