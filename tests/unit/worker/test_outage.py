"""Who of a node tells of an outage: one process, never none."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from celeriac.worker.outage import About, Outage, Word

logger = logging.getLogger("celery.worker.test")


class Shared:
    """The word of two processes in one: what ``Word`` is between real ones."""

    def __init__(self) -> None:
        self.holder: object | None = None

    def of(self, process: str) -> Word:
        return Mouth(self, process)


class Mouth(Word):
    def __init__(self, shared: Shared, process: str) -> None:
        self._shared = shared
        self._process = process

    def take(self, about: About) -> bool:
        self._shared.holder = self._shared.holder or self._process
        return self._shared.holder == self._process

    def give(self, about: About) -> None:
        assert self._shared.holder == self._process
        self._shared.holder = None


def outage(word: Word | None = None) -> Outage:
    return Outage(About.BROKER, rand=lambda: 0.0, word=word)


def fail(one: Outage, times: int = 1, name: str = "") -> None:
    for _ in range(times):
        one.next()
        one.tell(logger, "%s: away %d", name, one.failures)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING):
        yield caplog


def test_one_of_them_tells_and_that_it_is_over(errors: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    first, second = outage(shared.of("first")), outage(shared.of("second"))
    for _ in range(10):
        fail(first, name="first")
        fail(second, name="second")
    second.over(logger, "second: back after %d")
    first.over(logger, "first: back after %d")
    assert errors.messages == [*(f"first: away {count}" for count in (1, 2, 4, 8)), "first: back after 10"]
    assert shared.holder is None


def test_the_others_tell_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    first, second = outage(shared.of("first")), outage(shared.of("second"))
    with caplog.at_level(logging.DEBUG):
        fail(first, name="first")
        fail(second, name="second")
        second.over(logger, "second: back after %d")
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("ERROR", "first: away 1"),
        ("DEBUG", "second: away 1"),
        ("DEBUG", "second: back after 1"),
    ]


def test_one_that_alone_is_cut_off_tells_itself(errors: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    alone = outage(shared.of("alone"))
    outage(shared.of("another")).over(logger, "another: back after %d")
    fail(alone, name="alone")
    assert errors.messages == ["alone: away 1"]


def test_one_whose_server_stays_away_goes_on_telling_but_gives_it_a_try(errors: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    first, second = outage(shared.of("first")), outage(shared.of("second"))
    fail(first, 3, name="first")
    fail(second, 5, name="second")
    first.over(logger, "first: back after %d")
    errors.clear()
    fail(second, 1, name="second")  # it began before the server was back
    assert errors.messages == []
    fail(second, 3, name="second")
    second.over(logger, "second: back after %d")
    assert errors.messages == ["second: away 7", "second: away 9", "second: back after 9"]


def test_what_was_not_told_is_not_told_to_be_over(errors: pytest.LogCaptureFixture) -> None:
    one = outage()
    one.over(logger, "back after %d")
    one.next()
    one.over(logger, "back after %d")
    assert errors.messages == []


def test_the_same_words_without_anybody_else(errors: pytest.LogCaptureFixture) -> None:
    one = outage()
    fail(one, 200)
    assert [int(text.rsplit(" ", 1)[1]) for text in errors.messages] == [1, 2, 4, 8, 16, 32, 64, 128, 192]


_PROCESS = """
import fcntl, sys
try:
    fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
    print("y", flush=True)
except BlockingIOError:
    print("n", flush=True)
sys.stdin.read()
"""


class Elsewhere:
    """Takes the word in another process; ``got`` says whether that got it."""

    def __init__(self, word: Word, about: About) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _PROCESS, str(word._file), str(int(about))],
            pass_fds=(word._file,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.got = self._process.stdout.readline() == b"y\n"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def word() -> Iterator[Word]:
    made = Word()
    yield made
    made.close()


def test_a_process_keeps_the_word_until_it_gives_it(word: Word) -> None:
    assert word.take(About.BROKER)
    assert word.take(About.BROKER), "it has it already"
    other = Elsewhere(word, About.BROKER)
    other.end()
    assert not other.got
    word.give(About.BROKER)
    other = Elsewhere(word, About.BROKER)
    assert other.got
    assert not word.take(About.BROKER)
    assert word.take(About.WRITING), "another word"
    other.end()
    assert word.take(About.BROKER), "that of one that died is free"


def test_rather_twice_than_never() -> None:
    word = Word()
    other = Elsewhere(word, About.BROKER)
    try:
        assert other.got
        word.close()  # as a task may do
        assert word.take(About.BROKER)
        word.give(About.BROKER)
        file = os.memfd_create("another")
        if file != word._file:
            os.dup2(file, word._file)
            os.close(file)
        assert word.take(About.BROKER)
        word.give(About.BROKER)
        os.close(word._file)
    finally:
        other.end()
