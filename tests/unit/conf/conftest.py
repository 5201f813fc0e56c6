"""What the tests of ``app.conf`` share: an environment without settings, modules to read them from."""

import os
import sys

import pytest

from celeriac.conf import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("CELERY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def config_module(tmp_path, monkeypatch):
    """Writes a module, found through the working directory as a user's is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    created = []

    def write(text, name="settings_under_test"):
        (tmp_path / f"{name}.py").write_text(text)
        created.append(name)
        return name

    yield write
    for name in created:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def from_object():
    """Makes settings that are read from an object."""

    def make(source, namespace=None):
        conf = Settings()
        conf.config_from_object(source, namespace=namespace)
        return conf

    return make
