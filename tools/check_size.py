"""Keeps functions and files readable: at most 60 lines a function (1 % of a tree's may be longer), 500 lines a file.

Called by `./dev check`; knows nothing of the project but its folder names.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FUNCTION_LINES = 60
FILE_LINES = 500
SHARE_OVER = 0.01
TREES = ("src", "tests", "tools", "bench", "examples")
SOURCES = frozenset({".py", ".lua", ".sql"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function or method, its decorators left out, its docstring and inner functions counted."""

    path: Path
    line: int
    name: str
    length: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}() has {self.length} lines, the limit is {FUNCTION_LINES}"


def functions(path: Path, text: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = node.end_lineno or node.lineno
            yield Function(path=path, line=node.lineno, name=node.name, length=end - node.lineno + 1)


def problems(tree: Path) -> Iterator[str]:
    """One line for each thing in this tree that is too long. Long functions within the allowed share are no problem."""
    found: list[Function] = []
    for path in sorted(tree.rglob("*")):
        if path.suffix not in SOURCES or not path.is_file():
            continue
        text = path.read_text("utf-8")
        lines = text.count("\n")
        if lines > FILE_LINES:
            yield f"{path}: {lines} lines, the limit is {FILE_LINES}: cut it at a concept"
        if path.suffix == ".py":
            found += functions(path, text)
    over = [function for function in found if function.length > FUNCTION_LINES]
    if len(over) > len(found) * SHARE_OVER:
        yield from map(str, over)


def main(names: list[str]) -> int:
    trees = [Path(name) for name in names or TREES]
    found = [problem for tree in trees if tree.is_dir() for problem in problems(tree)]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
