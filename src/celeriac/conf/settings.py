"""``app.conf``: every setting, read as an attribute or an item, from wherever the user has put it.

Knows where values come from and how they are checked and shown; not what they mean. Made by the app, read by all.

Once loaded, the values lie in the instance's ``__dict__`` under their names: reading one costs what any attribute
costs. Everything that changes a value keeps it up to date.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from typing import Any

from celeriac.conf.broker_parts import url_of_parts
from celeriac.conf.check import check, in_seconds
from celeriac.conf.masking import mask_value
from celeriac.conf.remarks import CODE
from celeriac.conf.setting import Setting
from celeriac.conf.source import MISSING, Source, open_source
from celeriac.conf.state import Hook, Observer, State
from celeriac.conf.suggest import closest
from celeriac.conf.table import FOLLOWERS, SETTINGS, FoundSetting, find
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Settings"]

#: Settings that the environment overrides at each read, as in Celery.
_ENVIRONMENT = {
    "broker_url": "CELERY_BROKER_URL",
    "broker_read_url": "CELERY_BROKER_READ_URL",
    "broker_write_url": "CELERY_BROKER_WRITE_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
}
#: Settings that the environment overrides when the configuration is read: secrets need not stand in files.
_KEYS = {"signing_key": "CELERIAC_SIGNING_KEY", "control_key": "CELERIAC_CONTROL_KEY"}


class Settings(MutableMapping[str, Any]):
    """The settings of an app (``celery.app.utils.Settings``).

    Nothing is read before the first value is: ``config_from_object`` with a string imports nothing, and changes may be
    made before and after. Precedence, highest first: the environment (``CELERY_BROKER_URL``,
    ``CELERY_BROKER_READ_URL``, ``CELERY_BROKER_WRITE_URL``, ``CELERY_RESULT_BACKEND``, ``CELERIAC_SIGNING_KEY``,
    ``CELERIAC_CONTROL_KEY``); changes, among them the
    arguments of ``Celery(...)``; ``add_defaults``; the configuration object; the table's default.

    Args:
        changes: first changes, such as the constructor arguments of the app.
        namespace: prefix of settings in the configuration, ``CELERY`` for ``CELERY_TASK_ACKS_LATE``.
        source: configuration object, or its dotted name; None: what ``CELERY_CONFIG_MODULE`` names, if anything.
        silent: a name that cannot be imported is an empty configuration.
        before_load: called before the configuration is read (``app.on_configure``).
        after_load: called once it has been read (``app.on_after_configure``).

    Raises (where a value is read or written):
        ImproperlyConfigured: a value of the wrong kind, or old and new names mixed.
        ImportError: the configuration cannot be imported.
    """

    __slots__ = ("__dict__", "__weakref__", "_state")

    _state: State

    def __init__(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        source: Any = None,
        silent: bool = False,
        before_load: Hook | None = None,
        after_load: Hook | None = None,
    ) -> None:
        state = State(namespace, source, silent)
        object.__setattr__(self, "_state", state)
        state.before_load = before_load
        state.after_load = after_load
        if changes:
            self._write(changes)
            state.written.clear()

    # ------------------------------------------------------------ loading

    def config_from_object(
        self, source: Any, *, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Replace the configuration object; it is read at the next use, at once if ``force`` or already loaded.

        As in Celery, changes made after an earlier load are dropped then, and those made before it stay.
        """
        state = self._state
        state.target = source
        state.silent = silent
        if namespace:
            state.layers.set_namespace(namespace)
        if state.loaded:
            state.loaded = False
            state.layers.changes = dict(state.preset)
            self.__dict__.clear()
            force = True
        if force:
            self.finalize()
            self._notify(SETTINGS)

    def add_defaults(self, defaults: Any) -> None:
        """Put a mapping or object above the configuration and below changes; a function is called when loading."""
        state = self._state
        state.defaults.append(defaults)
        if state.loaded:
            added = self._add(defaults)
            self._refresh([state.layers.canonical(name) or name for name in added.names()])

    def finalize(self) -> Settings:
        """Load the configuration, unless that was done."""
        state = self._state
        if state.loaded:
            return self
        with state.lock:
            # Another thread may have loaded it; a read from a before_load hook sees what is known so far.
            if not state.settled:
                self._load_once()
        return self

    def _load_once(self) -> None:
        state = self._state
        state.loading = True
        try:
            self._load()
        except AttributeError as error:
            # Out of __getattr__ it would pass for a setting that does not exist.
            raise ImproperlyConfigured(f"the configuration could not be loaded: {error!r}") from error
        finally:
            state.loading = False
        if state.after_load is not None:
            state.after_load()

    def _load(self) -> None:
        state = self._state
        if state.before_load is not None:
            state.before_load()
        target = state.target
        if target is None:
            target = os.environ.get("CELERY_CONFIG_MODULE") or None
        layers = state.layers
        layers.source = None if target is None else open_source(target, silent=state.silent)
        layers.refuse_mixture(state.written)
        layers.added.clear()
        for defaults in state.defaults:
            self._add(defaults)
        state.preset = dict(layers.changes)
        self._fill()
        # Only now: a failed load is tried again at the next read, and fails again.
        state.loaded = True
        for key, origin in layers.other_names():
            state.remarks.on_unknown(key, layers.find_other(key), origin, layers.prefix)

    def _add(self, defaults: Any) -> Source:
        added = Source(defaults() if callable(defaults) else defaults, "the added defaults")
        self._state.layers.added.insert(0, added)
        return added

    def _fill(self) -> None:
        """Look every setting up; report all bad values at once."""
        values, problems = {}, []
        for name, setting in SETTINGS.items():
            try:
                values[name] = self._resolve(setting)
            except ImproperlyConfigured as error:
                problems.append(str(error))
        if problems:
            raise ImproperlyConfigured("; ".join(problems))
        self._keep(values)

    def _keep(self, values: dict[str, Any]) -> None:
        overridable = self._state.overridable
        for name in _ENVIRONMENT.keys() & values.keys():
            overridable[name] = values.pop(name)
        self.__dict__.update(values)

    def _resolve(self, setting: Setting) -> Any:
        value, origin = self._state.layers.find(setting)
        if setting.name in _KEYS and os.environ.get(_KEYS[setting.name]):
            value, origin = os.environ[_KEYS[setting.name]].split(","), "the environment"
        if value is MISSING:
            value = deepcopy(setting.default)
        else:
            try:
                value = check(setting, value)
            except ImproperlyConfigured as error:
                raise ImproperlyConfigured(f"{error} (in {origin})") from None
            self._state.remarks.on_value(setting, value)
        if value is None and setting.follows:
            return self._resolve(SETTINGS[setting.follows])
        if value is None and setting.name == "timezone":
            # Django's name for it.
            value = self._state.layers.find_other("TIME_ZONE")
            return None if value is MISSING else value
        return value

    # ------------------------------------------------------------ reading

    def __getattr__(self, name: str) -> Any:
        # Only for what is not in __dict__: before loading, old names, names of the user's own.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._find(name)
        except KeyError:
            guess = closest(name, self._state.layers.prefix)
        hint = f": did you mean {guess!r}?" if guess else ": set it in app.conf or in the configuration first"
        raise AttributeError(f"there is no setting {name!r}{hint}", name=name, obj=self)

    def __getitem__(self, key: str) -> Any:
        try:
            return self.__dict__[key]
        except KeyError:
            return self._find(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default`` when there is no such key."""
        try:
            return self.__dict__[key]
        except KeyError:
            pass
        try:
            return self._find(key)
        except KeyError:
            return default

    def _find(self, key: str) -> Any:
        self.finalize()
        state = self._state
        name = state.layers.canonical(key)
        if name is None:
            value = state.layers.find_other(key)
            if value is MISSING:
                raise KeyError(key)
            return value
        if name in _ENVIRONMENT:
            return getattr(self, name)
        if name in self.__dict__:
            return self.__dict__[name]
        # A before_load hook reads.
        return self._resolve(SETTINGS[name])

    def _overridable(self, name: str) -> Any:
        """A setting in _ENVIRONMENT."""
        from_environment = os.environ.get(_ENVIRONMENT[name])
        if from_environment:
            return from_environment
        self.finalize()
        overridable = self._state.overridable
        return overridable[name] if name in overridable else self._resolve(SETTINGS[name])

    @property
    def broker_url(self) -> Any:
        """Where messages go; None: nothing is configured."""
        return self._overridable("broker_url") or url_of_parts(self)

    @property
    def broker_read_url(self) -> Any:
        """Where workers read messages."""
        return self._overridable("broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        """Where producers write messages."""
        return self._overridable("broker_write_url") or self.broker_url

    @property
    def result_backend(self) -> Any:
        """Where results go; None: nothing is configured."""
        return self._overridable("result_backend")

    def seconds(self, name: str) -> float | None:
        """A setting of kind SECONDS as a number, whether it was given as one or as a timedelta."""
        return in_seconds(self[name])

    def first(self, *keys: str) -> Any:
        """The first value among ``keys`` that is not None."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    def find_option(self, name: str, namespace: str = "") -> FoundSetting:
        """Where the setting ``name`` is found, its family preferred: ``(namespace, key, setting)``."""
        return find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """The value of ``namespace_name``, or of the setting of that name in another family."""
        found = find(name, namespace)
        return self.get_by_parts(found.namespace or "", found.key)

    def get_by_parts(self, *parts: str) -> Any:
        """The value of the setting whose name is made of ``parts``."""
        return self["_".join(part for part in parts if part)]

    def value_set_for(self, key: str) -> bool:
        """Whether somebody has set it, rather than the table."""
        self.finalize()
        layers = self._state.layers
        name = layers.canonical(key)
        if name is None:
            return layers.find_other(key) is not MISSING
        if name in _ENVIRONMENT and os.environ.get(_ENVIRONMENT[name]):
            return True
        return layers.find(SETTINGS[name])[0] is not MISSING

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        layers = self._state.layers
        if key in layers.changes or layers.canonical(key) is not None:
            return True
        self.finalize()
        return layers.find_other(key) is not MISSING

    def __iter__(self) -> Iterator[str]:
        self.finalize()
        yield from SETTINGS
        for key, _origin in self._state.layers.other_names():
            yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return True

    # ------------------------------------------------------------ writing

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Change several settings; all of them are checked before the first is written."""
        self._refresh(self._write(dict(*args, **kwargs)))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set it unless somebody has; before loading, unless the program has, since the configuration is not read."""
        state = self._state
        name = state.layers.canonical(key) or key
        if not (self.value_set_for(key) if state.loaded else name in state.layers.changes):
            self[key] = default
            return default
        return self[key] if state.loaded else state.layers.changes[name]

    def _write(self, values: Mapping[str, Any]) -> list[str]:
        layers = self._state.layers
        names = {}
        for key, value in values.items():
            name = layers.canonical(key)
            if name is not None:
                check(SETTINGS[name], value)
            names[key] = name or key
        for key, value in values.items():
            layers.changes[names[key]] = value
        if not self._state.loaded:
            self._state.written.update(values)
        return list(names.values())

    def _refresh(self, names: Iterable[str]) -> None:
        """Look changed settings up again, and what follows them."""
        if not self._state.loaded:
            return
        state = self._state
        affected: set[str] = set()
        for name in names:
            affected.update((name, *FOLLOWERS.get(name, ())))
            if name in state.layers.changes and name not in SETTINGS:
                state.remarks.on_unknown(name, state.layers.changes[name], "app.conf", state.layers.prefix)
        self._keep({name: self._resolve(SETTINGS[name]) for name in affected if name in SETTINGS})
        self._notify(affected)

    def __delitem__(self, key: str) -> None:
        self.finalize()
        changes = self._state.layers.changes
        name = self._state.layers.canonical(key) or key
        if name not in changes:
            raise KeyError(key)
        del changes[name]
        self._refresh([name])

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"{name!r} was not changed, so the change cannot be undone", name=name) from None

    def pop(self, key: str, *default: Any) -> Any:
        """Undo a change and return it; the settings below it come to light."""
        changes = self._state.layers.changes
        name = self._state.layers.canonical(key) or key
        if name not in changes:
            if default:
                return default[0]
            raise KeyError(key)
        value = changes.pop(name)
        self._refresh([name])
        return value

    def clear(self) -> None:
        """Undo all changes, the constructor's too."""
        changes = self._state.layers.changes
        names = list(changes)
        changes.clear()
        self._refresh(names)

    def bind_to(self, callback: Observer) -> None:
        """Have ``callback(names)`` called after each change of a loaded configuration."""
        self._state.observers.append(callback)

    def _notify(self, names: Iterable[str]) -> None:
        for callback in self._state.observers:
            callback(frozenset(names))

    # ------------------------------------------------------------ showing

    @property
    def changes(self) -> dict[str, Any]:
        """What the program has set, under new names: enough to rebuild the app elsewhere."""
        return self._state.layers.changes

    @property
    def prefix(self) -> str:
        """The namespace with its underscore, or an empty string."""
        return self._state.layers.prefix

    def without_defaults(self) -> dict[str, Any]:
        """What anybody has set: settings under their new names, and the user's own keys."""
        return {key: self[key] for key in self if self.value_set_for(key) and not isinstance(self[key], CODE)}

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Settings as a dict; secrets are masked unless ``censored`` is off."""
        shown = self.without_defaults()
        if with_defaults:
            shown = {name: self[name] for name in SETTINGS} | shown
        return {key: mask_value(key, value) for key, value in shown.items()} if censored else shown

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """The same as lines ``name: value``."""
        from pprint import pformat

        table = self.table(with_defaults, censored)
        return "\n".join(f"{key}: {pformat(value, width=50)}" for key, value in table.items())

    def __repr__(self) -> str:
        state = "" if self._state.loaded else " not loaded,"
        return f"<Settings:{state} changes {mask_value('', self.changes)!r}>"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *SETTINGS})

    # ------------------------------------------------------------ copying

    def copy(self) -> Settings:
        """Settings of their own with the same configuration and changes; hooks and observers stay behind."""
        state = self._state
        copied = Settings(self.changes, namespace=self.prefix, source=state.target, silent=state.silent)
        copied._state.defaults.extend(state.defaults)
        return copied

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        state = self._state
        if (state.target is None or isinstance(state.target, str)) and not state.defaults:
            return _rebuild, (dict(self.changes), self.prefix, state.target, state.silent)
        # A module or class does not pickle: send what it says.
        return _rebuild, (dict(self.changes), "", self.without_defaults(), False)


def _rebuild(changes: dict[str, Any], namespace: str, source: Any, silent: bool) -> Settings:
    return Settings(changes, namespace=namespace, source=source, silent=silent)
