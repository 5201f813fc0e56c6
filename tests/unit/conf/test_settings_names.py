"""``app.conf``: the names under which a setting is found, and what is said about names and values.

Behaviour that mirrors Celery was compared with Celery 5.7; where we differ the test says so.
"""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.conf import SETTINGS, Settings
from celeriac.conf.table import NEW_NAMES
from celeriac.exceptions import CeleryWarning, ImproperlyConfigured


class TestNames:
    def test_old_names_read_and_write_the_same_value(self, from_object):
        conf = from_object({"CELERY_TASK_SERIALIZER": "yaml", "BROKER_URL": "redis://h", "CELERYD_CONCURRENCY": 3})
        assert conf.task_serializer == conf.CELERY_TASK_SERIALIZER == conf["CELERY_TASK_SERIALIZER"] == "yaml"
        assert conf.broker_url == conf.BROKER_URL == "redis://h"
        assert conf.worker_concurrency == 3
        # Celery keeps the value under the name it was written to, where the new name hides it.
        conf.CELERYD_CONCURRENCY = 4
        assert conf.worker_concurrency == conf.CELERYD_CONCURRENCY == 4
        conf["worker_concurrency"] = 5
        assert conf.get("CELERYD_CONCURRENCY") == 5
        assert conf.changes == {"worker_concurrency": 5}

    @pytest.mark.parametrize(
        ("source", "advice"),
        [
            ({"CELERY_ACKS_LATE": True, "task_track_started": True}, "rename CELERY_ACKS_LATE to task_acks_late"),
            (
                {"CELERY_ACKS_LATE": True, "BROKER_URL": "x", "task_track_started": True},
                "rename task_track_started to CELERY_TRACK_STARTED (or all the others to their new names)",
            ),
        ],
    )
    def test_mixed_names_are_refused_with_the_offenders(self, from_object, source, advice):
        with pytest.raises(ImproperlyConfigured) as caught:
            _ = from_object(source).task_serializer
        message = str(caught.value)
        assert advice in message
        assert "\n" not in message

    def test_mixed_names_in_changes_are_refused_when_there_is_no_configuration(self):
        conf = Settings({"broker_url": "constructor"})
        conf.CELERY_ACKS_LATE = True
        assert conf.task_acks_late is True
        conf = Settings()
        conf.CELERY_ACKS_LATE = True
        conf.task_track_started = True
        with pytest.raises(ImproperlyConfigured, match=r"app\.conf mixes old and new"):
            _ = conf.task_acks_late

    def test_what_is_no_mixture(self, from_object):
        # Both names of one setting: the new one wins.
        assert from_object({"CELERY_ACKS_LATE": True, "task_acks_late": False}).task_acks_late is False
        # Changes and configuration may differ in style.
        conf = from_object({"CELERY_ACKS_LATE": False})
        conf.task_track_started = True
        assert conf.task_acks_late is False
        assert conf.task_track_started is True
        # Settings that Celery does not have have no old name.
        assert from_object({"CELERY_ACKS_LATE": False, "worker_grace": 3}).worker_grace == 3

    def test_namespace(self, from_object):
        source = {
            "CELERY_TASK_ACKS_LATE": False,
            "CELERY_BROKER_URL": "redis://new",
            "BROKER_URL": "redis://old",
            "CELERY_RESULT_EXPIRES": 4,
            "CELERY_OWN_KEY": 1,
            "SECRET_KEY": "x",
            "task_track_started": True,
        }
        conf = from_object(source, "CELERY")
        assert conf.task_acks_late is conf.CELERY_TASK_ACKS_LATE is conf.CELERY_ACKS_LATE is False
        assert conf.broker_url == conf["CELERY_BROKER_URL"] == "redis://new"
        assert conf.result_expires == 4
        assert conf.own_key == conf.OWN_KEY == conf.CELERY_OWN_KEY == 1
        assert conf.task_track_started is True
        assert conf.SECRET_KEY == "x"
        conf.CELERY_TASK_ACKS_LATE = True
        assert conf.task_acks_late is True
        assert conf.prefix == "CELERY_"

    @pytest.mark.parametrize(
        ("source", "namespace"),
        [
            ({"celery_task_compression": "gzip"}, "celery"),
            ({"MY_TASK_COMPRESSION": "gzip"}, "MY_"),
            # Old names of Celery 3 are found too.
            ({"CELERY_MESSAGE_COMPRESSION": "gzip"}, "CELERY"),
        ],
    )
    def test_namespaces_of_all_sorts(self, from_object, source, namespace):
        assert from_object(source, namespace).task_compression == "gzip"

    def test_changes_made_under_a_namespace_before_it_was_known(self):
        conf = Settings()
        conf.CELERY_TASK_COMPRESSION = "gzip"
        conf.config_from_object({"CELERY_TASK_COMPRESSION": "zstd"}, namespace="CELERY")
        assert conf.task_compression == "gzip"
        assert conf.changes == {"task_compression": "gzip"}

    def test_keys_of_the_users_own_are_kept(self, from_object):
        conf = from_object({"MY_KEY": 1, "redbeat_redis_url": "redis://r"})
        conf.another = 2
        conf["with space"] = 3
        assert (conf.MY_KEY, conf.another, conf["with space"]) == (1, 2, 3)
        assert conf.first("missing", "redbeat_redis_url", "MY_KEY") == "redis://r"
        assert {"MY_KEY", "redbeat_redis_url", "another", "with space"} <= set(conf.keys())

    def test_a_dict_changed_later_is_read_for_own_keys(self, from_object):
        source = {"own": 1}
        conf = from_object(source)
        assert conf.own == 1
        source["own"] = 2
        assert conf.own == 2

    @settings(max_examples=50)
    @given(st.sampled_from(sorted(NEW_NAMES)), st.sampled_from(["new", "old", "prefixed"]))
    def test_every_name_reaches_its_setting(self, from_object, old, written):
        name = NEW_NAMES[old]
        key = {"new": name, "old": old, "prefixed": f"CELERY_{name.upper()}"}[written]
        row = SETTINGS[name]
        conf = Settings({key: row.default}, namespace="CELERY")
        assert list(conf.changes) == [name]
        conf = from_object({key: row.default}, "CELERY")
        if not row.follows:
            assert conf[name] == conf[old] == conf[f"CELERY_{name.upper()}"] == row.default


class TestChecks:
    def test_a_bad_change_is_refused_where_it_is_made(self):
        conf = Settings()
        with pytest.raises(ImproperlyConfigured, match="'task_time_limit' must be a number of seconds"):
            conf.task_time_limit = "soon"
        with pytest.raises(ImproperlyConfigured, match="'worker_concurrency'"):
            Settings({"CELERYD_CONCURRENCY": "many"})

    def test_all_bad_values_are_reported_at_once_with_their_place(self, from_object):
        conf = from_object({"task_time_limit": "soon", "worker_concurrency": []})
        with pytest.raises(ImproperlyConfigured) as caught:
            _ = conf.task_serializer
        message = str(caught.value)
        assert "task_time_limit" in message
        assert "worker_concurrency" in message
        assert "(in the configuration (dict))" in message
        assert "\n" not in message

    def test_text_from_the_environment_is_converted(self, from_object):
        conf = from_object({"task_always_eager": "False", "worker_concurrency": "4", "include": "proj.tasks"})
        assert conf.task_always_eager is False
        assert conf.worker_concurrency == 4
        assert conf.include == ("proj.tasks",)

    def test_refused_settings(self, from_object):
        assert from_object({"task_protocol": 2}).task_protocol == 2
        with pytest.raises(ImproperlyConfigured, match="only version 2 is written"):
            _ = from_object({"task_protocol": 1}).task_serializer


class TestWarnings:
    def test_a_setting_without_effect_is_named_once(self, from_object):
        conf = from_object({"worker_pool_putlocks": False})
        with pytest.warns(CeleryWarning, match="'worker_pool_putlocks' has no effect: children fetch") as caught:
            _ = conf.task_serializer
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            conf.worker_pool_putlocks = False
            conf.worker_pool_putlocks = True

    def test_the_warning_points_to_the_line_that_caused_it(self):
        conf = Settings().finalize()
        with pytest.warns(CeleryWarning) as caught:
            conf.worker_pool_putlocks = False
        assert caught[0].filename == __file__

    def test_cloud_settings_are_silent(self, from_object):
        assert from_object({"s3_bucket": "b", "elasticsearch_timeout": 3}).s3_bucket == "b"

    @pytest.mark.parametrize(
        ("source", "namespace", "guess"),
        [
            ({"task_ack_late": True}, None, "did you mean 'task_acks_late'"),
            ({"worker_prefetch_multiplyer": 1}, None, "'worker_prefetch_multiplier'"),
            ({"CELERYD_CONCURENCY": 1}, None, "'CELERYD_CONCURRENCY'"),
            ({"CELERY_TASK_ALWAYS_EAGER": True}, None, "'task_always_eager', or namespace='CELERY'"),
            ({"TASK_ALWAYS_EAGER": True}, None, "'task_always_eager'"),
            ({"CELERY_TASK_ALWAYS_EGER": True}, "CELERY", "'CELERY_TASK_ALWAYS_EAGER'"),
        ],
    )
    def test_names_that_look_like_settings(self, from_object, source, namespace, guess):
        conf = from_object(source, namespace)
        with pytest.warns(CeleryWarning) as caught:
            conf.finalize()
        assert guess in str(caught[0].message)
        assert len(caught) == 1
        # The value is kept all the same.
        ((key, value),) = source.items()
        assert conf[key] == value

    def test_a_change_that_looks_like_a_setting(self):
        conf = Settings().finalize()
        with pytest.warns(CeleryWarning, match="app.conf has 'task_seralizer'.*'task_serializer'"):
            conf.task_seralizer = "yaml"
        with pytest.raises(AttributeError, match="did you mean 'task_compression'"):
            _ = conf.task_compresion

    def test_what_projects_have_beside_their_settings_is_left_alone(self, from_object, config_module):
        name = config_module(
            "import os\nfrom datetime import timedelta\nREDIS_HOST = 'h'\nDATABASE_URL = 'x'\nTIME_ZONE = 'UTC'\n"
            "MY_QUEUE = 'q'\nredis_url = 'r'\ndef task_route(): pass\nDEBUG = True\nflower_port = 5555\n"
        )
        assert from_object(name).REDIS_HOST == "h"
        assert from_object({"REDIS_HOST": "h", "SECRET_KEY": "s", "TASKS": 1}, "CELERY").REDIS_HOST == "h"
