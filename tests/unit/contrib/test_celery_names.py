"""The names of Celery's: in a process of its own each, for they are taken over for good."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from celeriac.cli.root import celeriac

ROOT = Path(__file__).parents[3]
NAMES = "import celeriac.contrib.celery_names\n"


def run(code: str, *, path: str = "") -> Any:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json; print(json.dumps(answer))"],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def said(statement: str, *, path: str = "", before: str = NAMES) -> str:
    text = f"{before}\ntry:\n    {statement}\n    answer = ''\nexcept ImportError as error:\n    answer = str(error)"
    answer: str = run(text, path=path)
    return answer


def test_everything_that_is_listed_is_there() -> None:
    answer = run(
        NAMES
        + """
import sys
from importlib import import_module
from celeriac.contrib.celery_names import MODULES, NAMES
answer = []
for name, ours in MODULES.items():
    if import_module(name) is not import_module(ours) or sys.modules[name] is not sys.modules[ours]:
        answer.append(name)
    if import_module(ours).__spec__.name != ours:
        answer.append("spec of " + ours)
for name, names in NAMES.items():
    answer += [f"{name}.{each}" for each in names if getattr(import_module(name), each, None) is None]
"""
    )
    assert answer == []


def test_the_ways_to_import() -> None:
    answer = run(
        NAMES
        + """
import celery, celery.schedules, celeriac
from celery import Celery, current_app, schedules, shared_task
from celery.schedules import crontab
import kombu.utils.json
import celery.utils.log as log
answer = [
    Celery is celeriac.Celery, schedules.crontab is celeriac.schedules.crontab, crontab is schedules.crontab,
    celery.beat.Scheduler.__module__, celery.__version__, celery.VERSION >= (5, 7), log.get_logger("x").name,
    kombu.utils.json.loads(kombu.utils.json.dumps({"a": [1]})), celeriac.__version__ != celery.__version__,
    "crontab" in dir(celery.schedules), "Celery" in celery.__all__,
]
"""
    )
    assert answer == [True, True, True, "celeriac.beat.interface", "5.7.0", True, "x", {"a": [1]}, True, True, True]


def test_names_that_add_ons_ask_for() -> None:
    answer = run(
        NAMES
        + """
import celeriac
from celery import platforms
from celery._state import current_app, get_current_task
from celery.contrib.abortable import AbortableAsyncResult, AbortableTask
from celery.loaders.app import AppLoader
from celery.loaders.base import BaseLoader
from celery.utils.functional import maybe_list
from celery.utils.nodenames import gethostname
from celery.worker.control import Panel, control_command

app = celeriac.Celery("x", broker="memory://", task_cls=AbortableTask)
app.set_current()
platforms.C_FORCE_ROOT = True
from celeriac.supervisor.privileges import dangers
app.conf.accept_content = ["pickle"]

@control_command()
def mine(state): ...

answer = [
    issubclass(AppLoader, BaseLoader), type(app.loader) is AppLoader, "mine" in Panel.data,
    type(app.task(lambda: 0, name="t").delay()) is AbortableAsyncResult, current_app.main, get_current_task() is None,
    isinstance(list(dangers(app.conf)), list), platforms.EX_UNAVAILABLE, maybe_list("a"), bool(gethostname()),
]
"""
    )
    assert answer == [True, True, True, True, "x", True, True, 69, ["a"], True]


def test_what_is_not_there_is_named() -> None:
    assert "No module named 'celery.bin'" in said("import celery.bin.celery")
    assert "docs/how-to/beat-add-ons.md" in said("import celery.worker.consumer")
    assert "No module named 'kombu.transport'" in said("from kombu.transport import redis")
    assert "cannot import name 'JSONEncoder' from 'kombu.utils.json'" in said(
        "from kombu.utils.json import JSONEncoder"
    )
    assert "cannot import name 'nothing'" in said("from celery.utils.time import nothing")
    assert "cannot import name 'nothing' from 'celery'" in said("from celery import nothing")
    assert "no kombu.Connection" in run(
        NAMES + "import kombu\ntry: kombu.Connection\nexcept AttributeError as error: answer = str(error)"
    )


def test_an_installed_celery_is_passed_over_unless_it_was_imported_before(tmp_path: Path) -> None:
    (tmp_path / "celery").mkdir()
    (tmp_path / "celery" / "__init__.py").write_text("real = True")
    (tmp_path / "celery" / "other.py").write_text("")
    path = str(tmp_path)
    assert run("import celery; answer = celery.real", path=path) is True
    assert "'real'" in said("from celery import real", path=path)
    assert "No module named 'celery.other'" in said("import celery.other", path=path)
    text = said("import celeriac.contrib.celery_names", path=path, before="import celery")
    assert "'celery' was imported already, from " in text
    assert "before anything that needs Celery's names" in text


def test_processes_that_do_not_ask_for_it_are_not_changed() -> None:
    code = "import sys, celeriac, celeriac.cli.root, celeriac.contrib\nfrom importlib.util import find_spec\n"
    assert (
        run(code + "celeriac.Celery('x'); answer = [type(each).__name__ for each in sys.meta_path]").count("_Finder")
        == 0
    )
    assert run(NAMES + "celeriac.contrib.celery_names.install()\nimport sys\n"
               "answer = [type(each).__name__ for each in sys.meta_path].count('_Finder')") == 1  # fmt: skip


def test_what_kombu_does_with_text() -> None:
    answer = run(
        NAMES
        + """
from kombu.utils.encoding import safe_repr, safe_str
from kombu.utils.json import dumps, loads
from kombu.utils.url import maybe_sanitize_url
from datetime import datetime
class Bad:
    def __repr__(self): raise RuntimeError("no")
def failure(call, *args, **kwargs):
    try: call(*args, **kwargs)
    except Exception as error: return type(error).__name__
answer = [
    safe_str(b"a\\xff"), safe_str(5), safe_repr(Bad()).startswith("<Unrepresentable"), loads('[1, "x"]'), loads(b"{}"),
    failure(loads, "["), failure(loads, "1", cls=1), failure(dumps, 1, cls=1), type(dumps({})).__name__,
    loads(dumps(datetime(2026, 1, 2))) == datetime(2026, 1, 2),
    maybe_sanitize_url("redis://u:secret@h:1/0"), maybe_sanitize_url(None),
]
"""
    )
    assert answer == [
        "a�", "5", True, [1, "x"], {}, "ValueError", "TypeError", "TypeError", "str", True, "redis://u:**@h:1/0", None,
    ]  # fmt: skip


def test_the_command_line_has_a_switch_for_it(tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text("from celery import Celery\napp = Celery('proj', broker='memory://')\n")
    assert any("--celery-names" in param.opts for param in celeriac.params)
    for arguments in (["--celery-names", "-A", "proj", "report"], ["-A", "proj", "report", "--celery-names"]):
        done = subprocess.run(
            [sys.executable, "-m", "celeriac", *arguments],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr


def test_the_docs_list_what_is_there() -> None:
    from ast import literal_eval

    source = (ROOT / "src/celeriac/contrib/celery_names.py").read_text()
    modules = literal_eval(re.search(r"^MODULES = (\{.*?^\})", source, re.DOTALL | re.MULTILINE).group(1))  # type: ignore[union-attr]
    text = (ROOT / "docs/how-to/beat-add-ons.md").read_text()
    for name in (*modules, *re.findall(r'^    "((?:kombu|celery)[._a-z]*)": ', source, re.MULTILINE)):
        assert f"`{name}`" in text, name
