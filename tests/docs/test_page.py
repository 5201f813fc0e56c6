"""The tester of the docs sees what is wrong with a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.page import Shell, blocks

GOOD = """
```python file=some.py
value = 3
```
```python
from some import value
print(value, "and more")
```
```text output
3 and ...
```
```pycon
>>> from some import value
>>> value
3
```
```console
$ echo one
one
$ echo two; true
two
```
```sh skip
exit 1
```
"""
BAD = {
    "script": "```python\nraise SystemExit(1)\n```\n",
    "output": "```python\nprint(1)\n```\n```text output\n2\n```\n",
    "session": "```pycon\n>>> 1 + 1\n3\n```\n",
    "command": "```sh\nfalse\ntrue\n```\n",
    "console": "```console\n$ echo one\ntwo\n```\n",
    "background": "```sh background\nfalse\n```\n```sh\nsleep 0.3\n```\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def run(text: str, folder: Path) -> None:
    page = folder.parent / "page.md"
    page.write_text(text)
    shell = Shell(folder)
    try:
        for block in blocks(page):
            shell.run(block)
    finally:
        shell.close()


def test_a_good_page(folder: Path) -> None:
    run(GOOD, folder)


@pytest.mark.parametrize("what", BAD)
def test_a_bad_page(what: str, folder: Path) -> None:
    with pytest.raises(AssertionError):
        run(BAD[what], folder)


def test_lines_are_counted(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(GOOD)
    assert [block.line for block in blocks(page)][:2] == [3, 6]
