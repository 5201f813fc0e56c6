"""A server in use on trial: runs the conformance suite in places of its own there, and tells what breaks.

Called by ``celeriac broker test``. Runs pytest in this process, without the user's configuration and plug-ins; what it
makes on the server has a name of its own and is taken away after each test.
"""

from __future__ import annotations

import inspect
import logging
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from celeriac.client import resolver
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.ports import AdapterOptions, Scratch

__all__ = ["Broken", "Group", "Trial", "running", "unreachable"]

#: Longest text of what was expected and what came, in characters.
_LONGEST = 600
#: Fields of ``AdapterOptions`` that say how to get in, and what is declared there.
_ENTRANCE = ("ssl", "alternates", "login_method", "connect_timeout", "heartbeat", "delay_queue_type")
#: Not imported here: pytest has to rewrite its assertions, so that they show their values.
_SUITE = Path(__file__).parent / "conformance" / "yours.py"


class Broken(Struct, frozen=True):
    """A sentence that does not hold: the test's name, the sentence, what was expected and what came instead."""

    test: str
    sentence: str
    got: str


class Group(Struct):
    """The sentences of one theme."""

    name: str
    held: int = 0
    broken: list[Broken] = []
    #: Why sentences were skipped → how many.
    skipped: dict[str, int] = {}


class Trial:
    """One run on ``url``, with the ledger at ``ledger`` beside it if that is given. Raises ``ImproperlyConfigured`` for
    what cannot be put to the test."""

    def __init__(self, url: str, options: AdapterOptions, *, ledger: str | None = None, late: float = 0.5) -> None:
        """``late``: seconds by which the server may be late."""
        if ledger is not None and resolver.keeps_ledger(url):
            raise ImproperlyConfigured(f"{resolver.mask(url)} keeps its own ledger: test it without --ledger")
        if ledger is not None and not resolver.keeps_ledger(ledger):
            raise ImproperlyConfigured(f"{resolver.mask(ledger)} keeps no ledger: name a server that does")
        self.name = f"celeriac-test-{secrets.token_hex(3)}"
        self.urls = [url] if ledger is None else [url, ledger]
        self.late = late
        #: What adapters are told of the app's settings, at each URL.
        self._options = [options, options.ledger_options or AdapterOptions()]
        self._number = 0
        self.places = self._places(0)

    def _places(self, number: int) -> list[Scratch]:
        name = f"{self.name}-{number}"
        return [_place(url, told, name) for url, told in zip(self.urls, self._options, strict=False)]

    def entrance(self, which: int) -> dict[str, Any]:
        """Fields of ``AdapterOptions`` that lead into a server, without the name of the place there."""
        told = self._options[which]
        transport = {name: value for name, value in told.transport.items() if name != "global_keyprefix"}
        return {**{name: getattr(told, name) for name in _ENTRANCE}, "transport": transport}

    def run(self, done: Callable[[Group], None], only: Collection[str] = ()) -> int:
        """Run the suite, or ``only`` groups of it; ``done`` hears of each group when it is over. Returns pytest's exit
        code: 0 when all held, 1 when something broke, more when it could not be run. Raises ``ImproperlyConfigured``
        when there is no such group."""
        reporter = _Reporter(done, only)
        before = os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        # What a test has left alone when it was over is no news.
        asyncio_logger = logging.getLogger("asyncio")
        level = asyncio_logger.level
        asyncio_logger.setLevel(logging.CRITICAL)
        global running
        running = self
        try:
            arguments = ["-p", "no:cacheprovider", "-p", "no:terminal", "-c", os.devnull, "--rootdir", os.getcwd()]
            arguments += ["--noconftest", "--capture", "sys", "-W", "ignore", str(_SUITE)]
            code = pytest.main(arguments, plugins=[reporter])
        finally:
            running = None
            asyncio_logger.setLevel(level)
            if before is None:
                del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
            else:
                os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = before
        reporter.end()
        if reporter.unknown:
            known = ", ".join(reporter.groups)
            raise ImproperlyConfigured(f"there is no group {reporter.unknown[0]!r} of sentences: there are {known}")
        return int(code)

    @contextmanager
    def place(self) -> Iterator[list[Scratch]]:
        """Places for one test."""
        self._number += 1
        places = self._places(self._number)
        try:
            yield places
        finally:
            for each in places:
                each.clear()


def _place(url: str, options: AdapterOptions, name: str) -> Scratch:
    make = getattr(resolver.adapter(url), "scratch", None)
    if make is None:
        raise ImproperlyConfigured(
            f"{resolver.mask(url)} cannot be put to the test while in use: its adapter makes no place of its own"
        )
    place: Scratch = make(url, options, name)
    return place


#: The one that runs, for ``conformance/yours.py``.
running: Trial | None = None


class _Reporter:
    """Hears of each test, and makes a group of those of one theme."""

    def __init__(self, done: Callable[[Group], None], only: Collection[str]) -> None:
        self._done = done
        self._only = only
        self._themes: dict[str, str] = {}
        self._group: Group | None = None
        #: Names of all groups, and those of ``only`` that are none.
        self.groups: list[str] = []
        self.unknown: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Theme by theme."""
        self._themes = _themes(items)
        order = {name: place for place, name in enumerate(self._themes)}
        items.sort(key=lambda item: order[_test(item)])
        self.groups = list(dict.fromkeys(self._themes.values()))
        self.unknown = [name for name in self._only if name not in self.groups]
        if self.unknown:
            items.clear()
        elif self._only:
            items[:] = [item for item in items if self._themes[_test(item)] in self._only]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What became of one test."""
        name = report.nodeid.rpartition("::")[2]
        group = self._of(self._themes.get(name.partition("[")[0], "others"))
        if report.when == "call" and report.passed:
            group.held += 1
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reason = reason.removeprefix("Skipped: ")
            group.skipped[reason] = group.skipped.get(reason, 0) + 1
        elif report.failed:
            group.broken.append(_broken(name, report))

    def _of(self, theme: str) -> Group:
        if self._group is None or self._group.name != theme:
            self.end()
            self._group = Group(theme)
        return self._group

    def end(self) -> None:
        """No more tests of this group."""
        if self._group is not None:
            self._done(self._group)
        self._group = None


def _test(item: pytest.Item) -> str:
    return item.name.partition("[")[0]


def _themes(items: list[pytest.Item]) -> dict[str, str]:
    """Test → name of its theme, in the suite's order."""
    themes: dict[str, str] = {}
    for kind in items[0].cls.__mro__ if items else ():  # type: ignore[attr-defined]
        for name in vars(kind):
            if name.startswith("test_"):
                themes[name] = kind.__module__.rpartition(".")[2].replace("_", " ")
    return themes


def _broken(name: str, report: pytest.TestReport) -> Broken:
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else str(report.longrepr)
    sentence, _, rest = inspect.cleandoc(message).partition("\n")
    sentence = sentence.removeprefix("AssertionError: ")
    got = " ".join(rest.split()).removesuffix(" Use -v to get more diff")
    return Broken(name, sentence, got if len(got) <= _LONGEST else got[:_LONGEST] + "…")


def unreachable(trial: Trial) -> str:
    """Why the server cannot be put to the test, or nothing: it is not there, or refuses."""
    for place in trial.places:
        try:
            place.clear()
        except OperationalError as error:
            return str(error)
    return ""
