"""Lets code that imports ``celery`` and ``kombu`` find Celeriac: ``import celeriac.contrib.celery_names`` before it.

For add-ons that are written against Celery and run unmodified: django-celery-beat, celery-redbeat. What is listed here
is there under Celery's names, in this process, whether Celery is installed or not; anything else of ``celery`` and
``kombu`` raises ``ModuleNotFoundError`` or ``ImportError`` naming it. Processes that do not import this stay as they
are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["CELERY_VERSION", "MODULES", "NAMES", "install"]

#: What ``celery.__version__`` says: the release whose interface is there.
CELERY_VERSION = (5, 7, 0)

#: Modules of Celery's and ours that is the same object.
MODULES = {
    "celery.app": "celeriac.app",
    "celery.app.base": "celeriac.app.base",
    "celery.app.control": "celeriac.client.control",
    "celery.app.log": "celeriac.app.log",
    "celery.app.task": "celeriac.app.task",
    "celery.beat": "celeriac.beat",
    "celery.canvas": "celeriac.canvas",
    "celery.contrib": "celeriac.contrib",
    "celery.contrib.abortable": "celeriac.contrib.abortable",
    "celery.contrib.django": "celeriac.contrib.django",
    "celery.contrib.django.task": "celeriac.contrib.django.task",
    "celery.contrib.testing": "celeriac.contrib.testing",
    "celery.contrib.testing.app": "celeriac.contrib.testing.app",
    "celery.contrib.testing.mocks": "celeriac.contrib.testing.mocks",
    "celery.contrib.testing.tasks": "celeriac.contrib.testing.tasks",
    "celery.contrib.testing.worker": "celeriac.contrib.testing.worker",
    "celery.exceptions": "celeriac.exceptions",
    "celery.platforms": "celeriac.utils.platforms",
    "celery.result": "celeriac.result",
    "celery.schedules": "celeriac.schedules",
    "celery.signals": "celeriac.signals",
    "celery.states": "celeriac.states",
    "celery.utils": "celeriac.utils",
    "celery.utils.functional": "celeriac.utils.functional",
    "celery.utils.imports": "celeriac.utils.imports",
    "celery.utils.log": "celeriac.utils.log",
    "celery.utils.nodenames": "celeriac.utils.nodenames",
    "celery.utils.time": "celeriac.utils.time",
}
_HERE = __name__
_CACHED = "functools:cached_property"
_SYMBOL = "celeriac.utils.imports:symbol_by_name"
_UUID = "celeriac.codec.envelope:new_id"
#: Modules that hold these names alone, and where they come from. ``celery`` itself has all of ``celeriac``'s too.
NAMES: dict[str, dict[str, str]] = {
    "celery": {},
    "celery._state": {
        name: f"celeriac.app.state:{name}"
        for name in ("app_or_default", "current_app", "current_task", "get_current_app", "get_current_task")
    },
    "celery.loaders": {"get_loader_cls": "celeriac.app.loader:loader_class"},
    "celery.loaders.app": {"AppLoader": "celeriac.app.loader:AppLoader"},
    "celery.loaders.base": {"BaseLoader": "celeriac.app.loader:BaseLoader"},
    "celery.worker": {},
    "celery.worker.control": {
        name: f"celeriac.worker.commands:{name}" for name in ("Panel", "control_command", "inspect_command")
    },
    "kombu": {"Exchange": "celeriac.client.queues:Exchange", "Queue": "celeriac.client.queues:Queue"},
    "kombu.exceptions": {
        name: f"celeriac.exceptions:{name}"
        for name in ("ContentDisallowed", "DecodeError", "EncodeError", "OperationalError")
    },
    "kombu.utils": {"cached_property": _CACHED, "symbol_by_name": _SYMBOL, "uuid": _UUID},
    "kombu.utils.encoding": {"safe_repr": f"{_HERE}:_safe_repr", "safe_str": f"{_HERE}:_safe_str"},
    "kombu.utils.imports": {"symbol_by_name": _SYMBOL},
    "kombu.utils.json": {"dumps": f"{_HERE}:_dumps", "loads": f"{_HERE}:_loads"},
    "kombu.utils.objects": {"cached_property": _CACHED},
    "kombu.utils.url": {"maybe_sanitize_url": f"{_HERE}:_maybe_sanitize_url"},
    "kombu.utils.uuid": {"uuid": _UUID},
}
_ROOTS = ("celery", "kombu")
_LIST = "docs/how-to/beat-add-ons.md lists what is there"


class _Names(ModuleType):
    """A module with the names of the table, loaded when they are used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        child = f"{self.__name__}.{name}"
        if child in MODULES or child in NAMES:
            return import_module(child)
        home = NAMES[self.__name__].get(name)
        if home is not None:
            module, _, attribute = home.partition(":")
            value = getattr(import_module(module), attribute)
        elif self.__name__ == "celery" and name in import_module("celeriac").__all__:
            value = getattr(import_module("celeriac"), name)
        else:
            raise AttributeError(f"celeriac has no {self.__name__}.{name}: {_LIST}")
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *NAMES[self.__name__]})


class _Finder(MetaPathFinder, Loader):
    """Answers for ``celery`` and ``kombu``, before anybody else may."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, where it is one of Celery's. Raises ``ModuleNotFoundError`` where it is not in the tables."""
        if fullname.partition(".")[0] not in _ROOTS:
            return None
        if fullname in MODULES or fullname in NAMES:
            spec = ModuleSpec(fullname, self, origin=__file__, is_package=True)
            spec.has_location = True
            return spec
        raise ModuleNotFoundError(
            f"No module named {fullname!r}: celeriac stands in for Celery here and has none of that name; {_LIST}",
            name=fullname,
        )

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """A module of names; None: Python makes an empty one, which ``exec_module`` puts ours in place of."""
        return _Names(spec.name) if spec.name in NAMES else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill it."""
        name = module.__name__
        if name in MODULES:
            sys.modules[name] = import_module(MODULES[name])
            return
        namespace = vars(module)
        namespace["__all__"] = list(import_module("celeriac").__all__) if name == "celery" else list(NAMES[name])
        if name == "celery":
            namespace["VERSION"] = namespace["version_info"] = CELERY_VERSION
            namespace["__version__"] = ".".join(map(str, CELERY_VERSION))


_finder = _Finder()


def install() -> None:
    """Take the names over, once. Raises ``ImportError`` where Celery's own modules were imported before."""
    if _finder in sys.meta_path:
        return
    imported = sorted(name for name in sys.modules if name.partition(".")[0] in _ROOTS)
    if imported:
        raise ImportError(
            f"{imported[0]!r} was imported already, from {getattr(sys.modules[imported[0]], '__file__', 'elsewhere')}: "
            f"import {__name__} before anything that needs Celery's names"
        )
    sys.meta_path.insert(0, _finder)


# ---------------------------------------------------------------- what kombu has and Celeriac needs not


def _safe_str(value: Any, errors: str = "replace") -> str:
    """Text; what cannot be decoded or shown is replaced."""
    return value.decode("utf-8", errors) if isinstance(value, bytes) else _shown(str, value)


def _safe_repr(value: Any, errors: str = "replace") -> str:
    """As ``repr``, which may fail."""
    return _shown(repr, value)


def _shown(show: Any, value: Any) -> str:
    try:
        return str(show(value))
    except Exception as error:  # noqa: BLE001 - a __repr__ of the user's
        return f"<Unrepresentable {type(value)!r}: {type(error).__name__}>"


def _dumps(value: Any, **kwargs: Any) -> str:
    """JSON with kombu's tags, as text. Raises ``TypeError`` for options of the encoder, which is not Python's."""
    if kwargs:
        raise TypeError(f"kombu.utils.json.dumps: {', '.join(kwargs)} cannot be honoured here")
    from celeriac.codec.json import dumps

    return dumps(value).decode()


def _loads(text: str | bytes, **kwargs: Any) -> Any:
    """The value. Raises ``ValueError`` for what is no JSON, as Python's decoder does."""
    if kwargs:
        raise TypeError(f"kombu.utils.json.loads: {', '.join(kwargs)} cannot be honoured here")
    from celeriac.codec.json import loads
    from celeriac.exceptions import DecodeError

    try:
        return loads(text)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _maybe_sanitize_url(url: Any, mask: str = "**") -> Any:
    """A URL without its password; what is no URL as it is."""
    from celeriac.conf.masking import MASK, mask_url

    return mask_url(url).replace(MASK, mask) if isinstance(url, str) else url


install()
