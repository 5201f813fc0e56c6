"""``PersistentScheduler``: entries of the settings, and a file that remembers when each ran last. For one beat alone.

The file is JSON, replaced as a whole and readable by its owner only. Celery's own, which is pickled, is never read.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from celeriac.beat.interface import Scheduler
from celeriac.codec.escape import one_line
from celeriac.exceptions import ImproperlyConfigured

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: nobody guards the file there
    fcntl = None  # type: ignore[assignment]

__all__ = ["PersistentScheduler"]

_log = logging.getLogger("celery.beat")

_SUFFIX = ".json"
_VERSION = 1
#: What a shelve leaves under a name, by the libraries that Python may have been built with.
_SHELVE_SUFFIXES = ("", ".db", ".dat", ".dir", ".bak")


class PersistentScheduler(Scheduler):
    """Keeps last run times in ``schedule_filename`` with ``.json`` behind it (``beat_schedule_filename``, ``-s``).

    Raises ``ImproperlyConfigured`` where another scheduler uses the file, or it cannot be written.
    """

    def __init__(self, *args: Any, schedule_filename: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        self.schedule_filename = schedule_filename
        self._lock: IO[str] | None = None
        self._path: Path | None = None
        self._failing = False
        super().__init__(*args, schedule_filename=schedule_filename, **kwargs)

    # ------------------------------------------------------------ at the start

    def setup_schedule(self) -> None:
        """Read the file and merge the settings into it: entries keep when they ran, others go."""
        self._path = _path_of(self.schedule_filename or self.app.conf.beat_schedule_filename)
        self._lock = _locked(self._path)
        kept = self._read(self._path)
        self.merge_inplace(self.app.conf.beat_schedule or {})
        for name, (last_run_at, count) in kept.items():
            entry = self.schedule.get(name)
            if entry is not None:
                entry.last_run_at, entry.total_run_count = last_run_at.astimezone(self.app.timezone), count
        self.install_default_entries(self.schedule)
        try:
            self._write(self._path)
        except OSError as error:
            self._unlock()
            raise ImproperlyConfigured(
                f"beat: cannot write {self._path}: {error.strerror}; name another file by -s or beat_schedule_filename"
            ) from error

    def _read(self, path: Path) -> dict[str, tuple[datetime, int]]:
        """When entries ran last and how often; nothing where the file is not there, or of another time zone."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            _tell_of_shelve(path)
            return {}
        except OSError as error:
            raise ImproperlyConfigured(f"beat: cannot read {path}: {error.strerror}") from error
        try:
            found = json.loads(text)
            kept = {
                str(name): (datetime.fromisoformat(each["last_run_at"]), int(each["total_run_count"]))
                for name, each in found["entries"].items()
            }
            if any(last.utcoffset() is None for last, _ in kept.values()) or found["version"] != _VERSION:
                raise ValueError("not of this version")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            aside = path.with_name(f"{path.name}.broken")
            os.replace(path, aside)
            _log.error("beat: %s is not what it should be (%s): now %s, all entries count from now", path, error, aside)
            return {}
        for name, mine in self._settings().items():
            if found.get(name, mine) != mine:
                _log.warning(
                    "beat: %s was %r and is %r now: all entries count from now", name, found[name], mine
                )  # fmt: skip
                return {}
        return kept

    def _settings(self) -> dict[str, Any]:
        """What gives the kept times their meaning."""
        zone = self.app.conf.timezone
        return {"timezone": None if zone is None else str(zone), "enable_utc": bool(self.app.conf.enable_utc)}

    # ------------------------------------------------------------ later

    def sync(self) -> None:
        """Write the file. A disk that is full or gone is logged once, and tried again next time."""
        if self._path is None or self._lock is None:  # lazy, or closed
            return
        try:
            self._write(self._path)
        except OSError as error:
            if not self._failing:
                _log.error("beat: cannot write %s: %s; trying again", self._path, one_line(error))
            self._failing = True
        else:
            self._failing = False

    def _write(self, path: Path) -> None:
        entries = {
            name: {"last_run_at": _utc(entry.last_run_at).isoformat(), "total_run_count": entry.total_run_count}
            for name, entry in self.schedule.items()
        }
        _replace(path, json.dumps({"version": _VERSION, **self._settings(), "entries": entries}, indent=1))

    def close(self) -> None:
        """Write the file a last time and let others use it."""
        try:
            super().close()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def info(self) -> str:
        """The file, for the banner."""
        return f"       . file -> {self._path or _path_of(self.schedule_filename or '')}"


def _utc(moment: datetime) -> datetime:
    return (moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _path_of(name: str | os.PathLike[str]) -> Path:
    path = Path(name)
    return path if path.suffix == _SUFFIX else path.with_name(path.name + _SUFFIX)


def _tell_of_shelve(path: Path) -> None:
    """One line where Celery's file lies: its times are not taken over."""
    name = path.with_name(path.name.removesuffix(_SUFFIX))
    found = next((each for suffix in _SHELVE_SUFFIXES if (each := Path(f"{name}{suffix}")).is_file()), None)
    if found is not None:
        _log.warning(
            "beat: %s is Celery's and is not read, for it is pickled: entries count from now, in %s", found, path
        )


def _locked(path: Path) -> IO[str] | None:
    """A lock beside the file, for as long as the returned file is open: two schedulers would fire everything twice."""
    try:
        lock = open(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600), "w")  # noqa: SIM115 - closed with the scheduler
    except OSError as error:
        raise ImproperlyConfigured(
            f"beat: cannot write {path}.lock: {error.strerror}; name another file by -s or beat_schedule_filename"
        ) from error
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ImproperlyConfigured(
                f"beat: another beat uses {path}: stop it, name another file by -s, or let several share the work "
                "(-S celeriac.beat:SharedScheduler)"
            ) from error
    return lock


def _replace(path: Path, text: str) -> None:
    """Write the file as a whole: after a crash it is the old one or the new one."""
    fresh = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(fresh)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
