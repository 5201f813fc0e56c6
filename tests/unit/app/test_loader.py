from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celery, signals
from celeriac.exceptions import ImproperlyConfigured

TASK = "from celeriac import shared_task\n@shared_task(name={name!r})\ndef f(): pass\n"


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("pkga", "pkgb", "pkgc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    for name in ("pkga", "pkgb"):
        (tmp_path / name / "tasks.py").write_text(TASK.format(name=f"{name}.f"))
    (tmp_path / "pkgc" / "jobs.py").write_text(TASK.format(name="pkgc.f"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    receivers = list(signals.import_modules.receivers)
    yield tmp_path
    signals.import_modules.receivers = receivers
    for name in [name for name in sys.modules if name.startswith("pkg")]:
        del sys.modules[name]


def test_include_and_imports(app: Celery) -> None:
    app.conf.update(include=["pkga.tasks"], imports="pkgb.tasks")
    app.loader.import_default_modules()
    assert {"pkga.f", "pkgb.f"} <= set(app.tasks)
    assert app.loader.task_modules == {"pkga.tasks", "pkgb.tasks"}


def test_include_argument() -> None:
    app = Celery(include=["pkga.tasks"])
    app.loader.init_worker()
    assert "pkga.f" in app.tasks


def test_missing_module_names_the_setting(app: Celery, packages: Path) -> None:
    app.conf.include = ["pkga.nope"]
    with pytest.raises(ImproperlyConfigured, match=r"cannot import 'pkga.nope' from `include`"):
        app.loader.import_default_modules()
    (packages / "pkga" / "broken.py").write_text("import pkg_missing\n")
    app.conf.include = ["pkga.broken"]
    with pytest.raises(ModuleNotFoundError, match="pkg_missing"):
        app.loader.import_default_modules()


@pytest.mark.parametrize("packages_argument", [["pkga", "pkgb", "pkgc"], lambda: ["pkga", "pkgb", "pkgc"]])
def test_autodiscover_is_lazy(app: Celery, packages_argument: object) -> None:
    app.autodiscover_tasks(packages_argument)
    app.finalize()
    assert "pkga.tasks" not in sys.modules
    app.loader.import_default_modules()
    assert {"pkga.f", "pkgb.f"} <= set(app.tasks)
    assert "pkgc.f" not in app.tasks


def test_autodiscover_now_and_by_another_name(app: Celery) -> None:
    app.autodiscover_tasks(["pkgc"], related_name="jobs", force=True)
    assert "pkgc.f" in app.tasks
    app.autodiscover_tasks(["pkga.tasks"], related_name=None, force=True)
    assert "pkga.f" in app.tasks


def test_autodiscover_of_a_django_style_class_and_of_a_missing_package(app: Celery) -> None:
    app.autodiscover_tasks(["pkga.AppConfig"], force=True)
    assert "pkga.f" in app.tasks
    with pytest.raises(ModuleNotFoundError, match="pkgz"):
        app.autodiscover_tasks(["pkgz"], force=True)


def test_errors_of_discovered_modules_stop_the_worker(app: Celery, packages: Path) -> None:
    (packages / "pkga" / "tasks.py").write_text("import pkg_missing\n")
    app.autodiscover_tasks(["pkga"])
    with pytest.raises(ModuleNotFoundError, match="pkg_missing"):
        app.loader.import_default_modules()


def test_autodiscover_without_packages_asks_fixups() -> None:
    class Fixup:
        def __init__(self, app: Celery) -> None:
            self.app = app

        def autodiscover_tasks(self) -> list[str]:
            return ["pkga"]

    app = Celery(fixups=[Fixup])
    app.autodiscover_tasks()
    app.loader.import_default_modules()
    assert "pkga.f" in app.tasks


def test_another_app_does_not_discover(app: Celery) -> None:
    app.autodiscover_tasks(["pkga"])
    Celery("other", set_as_current=False).loader.import_default_modules()
    assert "pkga.tasks" not in sys.modules
