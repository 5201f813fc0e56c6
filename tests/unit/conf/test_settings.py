"""``app.conf`` as a mapping: reading, changing, showing and copying it."""

import copy
import pickle
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.conf import SETTINGS, Settings
from celeriac.exceptions import CeleryWarning, ImproperlyConfigured


class TestMapping:
    def test_missing_keys(self):
        conf = Settings()
        assert conf.get("nothing") is None
        assert conf.get("nothing", 3) == 3
        assert "nothing" not in conf
        assert 3 not in conf
        assert getattr(conf, "nothing", 4) == 4
        with pytest.raises(KeyError, match="nothing"):
            _ = conf["nothing"]
        with pytest.raises(AttributeError, match="there is no setting 'nothing'"):
            _ = conf.nothing

    def test_first_passes_over_none(self):
        conf = Settings({"broker_url": "redis://h"})
        assert conf.first("task_compression", "nothing", "broker_url") == "redis://h"
        assert conf.first("task_compression") is None

    def test_find_value_for_key(self):
        conf = Settings({"result_extended": True})
        assert conf.find_value_for_key("extended", "result") is True
        assert conf.find_value_for_key("extended") is True
        assert conf.find_value_for_key("imports") == ()
        assert conf.find_option("disable_rate_limits")[:2] == ("worker", "disable_rate_limits")
        assert conf.get_by_parts("result", "extended") is True
        with pytest.raises(KeyError):
            conf.find_value_for_key("nonexistent")

    def test_iteration_length_and_truth(self, from_object):
        conf = from_object({"own": 1})
        assert len(conf) == len(list(conf)) == len(SETTINGS) + 1
        assert dict(conf.items())["own"] == 1
        assert bool(conf)
        assert "task_serializer" in dir(conf)

    def test_defaults_are_not_shared(self):
        one, two = Settings(), Settings()
        one.beat_schedule["x"] = 1
        assert one.beat_schedule == {"x": 1}
        assert two.beat_schedule == {}
        one.task_serializer = "yaml"
        assert one.beat_schedule == {"x": 1}

    def test_undoing_changes(self, from_object):
        conf = from_object({"task_compression": "gzip"})
        conf.update(task_compression="zstd", own=1)
        assert conf.pop("own") == 1
        with pytest.raises(KeyError):
            conf.pop("own")
        assert conf.pop("own", None) is None
        with pytest.raises(KeyError):
            conf.pop("task_serializer")
        del conf.task_compression
        assert conf.task_compression == "gzip"
        with pytest.raises(AttributeError):
            del conf.task_compression
        with pytest.raises(KeyError):
            del conf["task_compression"]
        conf.update(task_compression="zstd", own=1)
        conf.clear()
        assert conf.task_compression == "gzip"
        assert "own" not in conf

    def test_setdefault(self, from_object):
        conf = from_object({"task_compression": "gzip"})
        assert conf.setdefault("task_serializer", "yaml") == "yaml"
        assert conf.setdefault("task_serializer", "msgpack") == "yaml"
        assert conf.task_serializer == "yaml"
        assert conf.setdefault("task_compression", "zstd") == "gzip"
        assert conf.setdefault("own", 3) == 3
        assert conf.value_set_for("own")
        assert conf.value_set_for("CELERY_TASK_SERIALIZER")
        assert not conf.value_set_for("task_track_started")

    def test_an_update_is_all_or_nothing(self):
        conf = Settings()
        with pytest.raises(ImproperlyConfigured):
            conf.update(task_compression="gzip", task_time_limit="soon")
        assert conf.changes == {}
        assert conf.task_compression is None

    def test_observers_hear_of_changes(self):
        heard = []
        conf = Settings()
        conf.bind_to(heard.append)
        conf.task_serializer = "yaml"
        assert heard == []
        assert conf.task_serializer == "yaml"
        conf.update(task_default_queue="q", own=1)
        conf.pop("own")
        conf.config_from_object({})
        assert heard[0] == {"task_default_queue", "task_default_exchange", "task_default_routing_key", "own"}
        assert heard[1] == {"own"}
        assert heard[2] == set(SETTINGS)

    def test_monkeypatch_restores(self):
        conf = Settings()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conf, "task_always_eager", True)
            patch.setitem(conf, "task_compression", "gzip")
            assert conf.task_always_eager is True
        assert conf.task_always_eager is False
        assert conf.task_compression is None

    def test_seconds(self):
        conf = Settings({"task_time_limit": timedelta(minutes=1), "task_soft_time_limit": 5})
        assert conf.task_time_limit == timedelta(minutes=1)
        assert conf.seconds("task_time_limit") == 60.0
        assert conf.seconds("task_soft_time_limit") == 5.0
        assert conf.seconds("result_chord_expires") is None

    @settings(max_examples=50)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["write", "pop", "read"]),
                st.sampled_from(["task_serializer", "CELERY_TASK_SERIALIZER", "task_compression", "own"]),
                st.text("abc", min_size=1, max_size=2),
            ),
            max_size=12,
        )
    )
    def test_cached_values_are_those_of_the_layers(self, from_object, steps):
        conf = from_object({"task_serializer": "object"})
        model = {}
        for action, key, value in steps:
            name = "task_serializer" if key == "CELERY_TASK_SERIALIZER" else key
            if action == "write":
                conf[key] = model[name] = value
            elif action == "pop":
                assert conf.pop(key, None) == model.pop(name, None)
            else:
                assert conf.get(key) == {"task_serializer": "object", **model}.get(name)
        assert conf.changes == model


class TestShowing:
    SECRETS = {
        "broker_url": "redis://:hidden@h/0",
        "redis_password": "hidden",
        "broker_transport_options": {"sentinel_kwargs": {"password": "hidden"}, "visibility_timeout": 3},
        "MY_TOKEN": "hidden",
        "own": 3,
    }

    def test_secrets_are_masked(self):
        conf = Settings(self.SECRETS)
        with pytest.warns(CeleryWarning, match="redis_password"):
            assert "hidden" not in conf.humanize(with_defaults=True) + repr(conf)
        assert conf.table()["broker_url"] == "redis://:********@h/0"
        assert conf.table()["broker_transport_options"]["visibility_timeout"] == 3
        assert conf.table(censored=False)["redis_password"] == "hidden"

    def test_only_what_was_set_unless_defaults_are_asked_for(self, from_object):
        conf = from_object({"task_serializer": "yaml", "own": 3})
        conf.task_compression = "gzip"
        assert conf.table() == {"task_serializer": "yaml", "task_compression": "gzip", "own": 3}
        assert set(conf.table(with_defaults=True)) == {*SETTINGS, "own"}
        assert sorted(conf.humanize().splitlines()) == [
            "own: 3",
            "task_compression: 'gzip'",
            "task_serializer: 'yaml'",
        ]

    def test_modules_and_functions_are_not_shown(self, from_object, config_module):
        conf = from_object(config_module("import os\ndef helper(): pass\nown = 1\ntask_compression = 'gzip'"))
        assert conf.table() == {"own": 1, "task_compression": "gzip"}


class TestCopies:
    def test_pickle_by_name(self, from_object, config_module):
        conf = from_object(config_module("task_compression = 'gzip'"))
        conf.task_serializer = "yaml"
        again = pickle.loads(pickle.dumps(conf))
        assert (again.task_compression, again.task_serializer) == ("gzip", "yaml")
        assert again.changes == {"task_serializer": "yaml"}

    @pytest.mark.parametrize("namespace", [None, "CELERY"])
    def test_pickle_of_an_object_that_does_not_pickle(self, from_object, namespace):
        prefix = "CELERY_" if namespace else ""
        key = f"{prefix}task_compression".upper() if namespace else "task_compression"

        class Config:
            pass

        setattr(Config, key, "gzip")
        Config.own = 1
        conf = from_object(Config, namespace)
        conf.task_serializer = "yaml"
        again = pickle.loads(pickle.dumps(conf))
        assert (again.task_compression, again.task_serializer, again.own) == ("gzip", "yaml", 1)

    @pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, Settings.copy])
    def test_copies_are_apart(self, from_object, make):
        conf = from_object({"task_compression": "gzip"})
        conf.task_serializer = "yaml"
        other = make(conf)
        other.task_serializer = "msgpack"
        assert (conf.task_serializer, other.task_serializer) == ("yaml", "msgpack")
        assert other.task_compression == "gzip"
