"""Waking without polling: FIFOs in the directory ``<file>-bells``, rung after a commit (ADR 0003).

A *queue bell* stays: whoever reads its byte goes and claims. A *waiter's bell* has the name of what it waits for (a
result, an exchange, a reply) and exists as long as its waiter. A bell says only "look again": a ring that is lost, or a
file system without FIFOs, costs the time until the waiter's next look. Knows nothing of SQLite; uses no event loop.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import zlib
from collections.abc import Collection, Iterable

__all__ = ["ANY_RESULT", "Bell", "Bells", "exchange_topic", "reply_topic", "result_topic"]

#: Most rings a FIFO holds; one read takes them all.
_FULL = 65536
#: Seconds after which a waiter without FIFO looks again.
BLIND = 0.05
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
#: Rung with every result: for those who wait for many.
ANY_RESULT = "a"


def result_topic(task_id: str) -> str:
    """The topic of a result."""
    return f"r{_hash(task_id)}"


def exchange_topic(exchange: str) -> str:
    """The topic of all that is sent to an exchange."""
    return f"e{_hash(exchange)}"


def reply_topic(exchange: str, routing_key: str) -> str:
    """The topic of replies to one caller."""
    return f"p{_hash(f'{exchange} {routing_key}')}"


def _hash(name: str) -> str:
    return format(zlib.crc32(name.encode("utf-8", "surrogatepass")), "08x")


class Bell:
    """An end of a FIFO to wait at; ``fd`` is None where there are no FIFOs."""

    __slots__ = ("_folder", "_name", "fd")

    def __init__(self, fd: int | None, folder: int | None = None, name: str = "") -> None:
        self.fd = fd
        self._folder = folder
        self._name = name

    @property
    def gone(self) -> bool:
        """True when its name was removed, so that nobody can ring it."""
        return self.fd is None or not _exists(self.fd)

    def heard(self) -> bool:
        """Take all rings; False when there was none, or another waiter took it."""
        if self.fd is None:
            return True
        try:
            return bool(os.read(self.fd, _FULL))
        except BlockingIOError:
            return False

    def wait(self, seconds: float) -> bool:
        """Block until it rings, at most ``seconds``; True when it rang."""
        poll = select.poll()
        if self.fd is not None:
            poll.register(self.fd, select.POLLIN)
        else:
            seconds = min(seconds, BLIND)
        poll.poll(max(0.0, seconds) * 1000)
        return self.heard()

    def close(self) -> None:
        """Take a waiter's bell down. Idempotent."""
        fd, self.fd = self.fd, None
        if self._name:
            try:
                os.unlink(self._name, dir_fd=self._folder)
            except OSError:
                pass
            self._name = ""
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Bells:
    """The bells beside one file, as one process sees them. For one thread at a time."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}-bells"
        self._file = path
        self._folder: int | None = None
        self._queues: dict[str, int] = {}
        self._pid = os.getpid()

    def queue(self, name: str) -> Bell:
        """The bell of a queue, to wait at; the caller closes it."""
        folder = self._open_folder()
        return Bell(None if folder is None else self._open_queue(folder, name))

    def ring_queues(self, names: Iterable[str]) -> None:
        """Wake those who wait at these queues. Never raises: the work is done, waiters look again by themselves."""
        for name in names:
            fd = self._queue_fd(name)
            if fd is not None:
                _strike(fd)

    def hang(self, topic: str) -> Bell:
        """A bell that rings for ``topic`` until it is closed."""
        folder = self._open_folder()
        if folder is None:
            return Bell(None)
        name = f"{topic}.{os.getpid()}-{os.urandom(6).hex()}"
        hidden = f".{name}"
        try:
            # Under its name only once it is open: whoever rings takes a FIFO without a reader for a dead one's. Its own
            # writer as well: when the last writer leaves, a FIFO hangs up, and who waits would never sleep again.
            os.mkfifo(hidden, 0o600, dir_fd=folder)
            fd = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fchmod(fd, stat.S_IMODE(os.stat(self._file).st_mode))
                os.rename(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.close(fd)
                raise
        except OSError:
            self._drop_folder()
            return Bell(None)
        return Bell(fd, folder, name)

    def ring(self, topics: Collection[str]) -> None:
        """Wake those who wait for one of the topics. Never raises."""
        for name in self._names():
            if name.partition(".")[0] in topics:
                self._ring_name(name)

    def waiting(self, kinds: str) -> set[str]:
        """The topics that somebody waits for, of those whose first letter is in ``kinds``."""
        return {name.partition(".")[0] for name in self._names() if name[0] in kinds and "." in name}

    @property
    def blind(self) -> bool:
        """True where there are no FIFOs, so that waiters are not to be seen either."""
        return self._open_folder() is None

    def sweep(self) -> None:
        """Remove the bells of those who died."""
        for name in self._names():
            if "." in name:
                self._ring_name(name, silently=True)

    def close(self) -> None:
        """Close all descriptors. Idempotent; a later use opens them again."""
        self._drop_folder()

    def _names(self) -> list[str]:
        folder = self._open_folder()
        if folder is None:
            return []
        try:
            return os.listdir(folder)
        except OSError:
            self._drop_folder()
            return []

    def _ring_name(self, name: str, *, silently: bool = False) -> None:
        try:
            fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError as error:
            if error.errno == errno.ENXIO and not (name.startswith(".") and self._young(name)):
                self._unlink(name)
            return
        if not silently:
            _strike(fd)
        os.close(fd)

    def _young(self, name: str) -> bool:
        """It may be about to be opened by its waiter."""
        try:
            folder = os.fstat(self._folder) if self._folder is not None else None
            born = os.stat(name, dir_fd=self._folder).st_mtime
        except OSError:
            return True
        return folder is not None and folder.st_mtime - born < 60

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._folder)
        except OSError:
            pass

    def _queue_fd(self, name: str) -> int | None:
        if self._pid != os.getpid():
            self._drop_folder()
        known = self._queues.get(name)
        if known is not None:
            if _exists(known):
                return known
            self._drop_folder()
        folder = self._open_folder()
        if folder is None:
            return None
        fd = self._open_queue(folder, name)
        if fd is not None:
            self._queues[name] = fd
        return fd

    def _open_queue(self, folder: int, name: str) -> int | None:
        # A readable name that fits every file system, and a hash that tells queues apart.
        file = f"q-{_UNSAFE.sub('_', name)[:40]}-{_hash(name)}"
        try:
            try:
                os.mkfifo(file, 0o600, dir_fd=folder)
                os.chmod(file, stat.S_IMODE(os.stat(self._file).st_mode), dir_fd=folder)
            except FileExistsError:
                pass
            # Open for both, so that neither end needs the other to be there.
            return os.open(file, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            self._drop_folder()
            return None

    def _open_folder(self) -> int | None:
        if self._folder is not None and self._pid == os.getpid() and _exists(self._folder):
            return self._folder
        self._drop_folder()
        try:
            mode = stat.S_IMODE(os.stat(self._file).st_mode)
            try:
                os.mkdir(self.path, 0o700)
                os.chmod(self.path, mode | (mode & 0o444) >> 2)  # whoever may read the file may enter
            except FileExistsError:
                pass
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        return self._folder

    def _drop_folder(self) -> None:
        folder, self._folder = self._folder, None
        queues, self._queues = self._queues, {}
        self._pid = os.getpid()
        for fd in (folder, *queues.values()):
            if fd is not None:
                os.close(fd)


def _exists(fd: int) -> bool:
    """False when its name was removed: others have opened another one since."""
    return os.fstat(fd).st_nlink > 0


def _strike(fd: int) -> None:
    try:
        os.write(fd, b"\0")
    except OSError:
        pass  # full: it rings already; broken: nobody is there
