"""The tasks: what there is to say about one Python file, then about all of them, then how long it took."""

import ast
import hashlib
import time
import warnings
from pathlib import Path
from typing import Any

from celeriac import Celery

# Where messages and results go is told by the environment: CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
app = Celery("stdlib_report", task_default_queue="stdlib_report", result_expires=3600)


@app.task(name="analyse")
def analyse(file: str) -> dict[str, Any]:
    """Lines, functions, longest function, digest. What does not parse (test data, odd encodings) has a `problem`."""
    facts: dict[str, Any] = {"file": file, "lines": 0, "functions": 0, "longest": None, "digest": "", "problem": ""}
    try:
        source = Path(file).read_bytes()
        facts.update(lines=len(source.splitlines()), digest=hashlib.sha256(source).hexdigest())
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {**facts, "problem": f"{type(error).__name__}: {error}"}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max((((node.end_lineno or 0) - node.lineno + 1, node.name) for node in found), default=None)
    return {**facts, "functions": len(found), "longest": longest}


@app.task(name="report")
def report(found: list[dict[str, Any]], root: str) -> dict[str, Any]:
    """All files summed up."""
    size, name, file = max(((*each["longest"], each["file"]) for each in found if each["longest"]), default=(0, "", ""))
    return {
        "root": root,
        "files": len(found),
        "lines": sum(each["lines"] for each in found),
        "functions": sum(each["functions"] for each in found),
        "longest": {"function": name, "lines": size, "file": file},
        "problems": {each["file"]: each["problem"] for each in found if each["problem"]},
    }


@app.task(name="rate")
def rate(report: dict[str, Any], began: float) -> dict[str, Any]:
    """The report, with the seconds since `began` and the files a second."""
    seconds = time.time() - began
    return {**report, "seconds": round(seconds, 3), "files_per_second": round(report["files"] / seconds, 1)}
