"""``app.conf``: where values come from, when they are read, and which of them wins.

Behaviour that mirrors Celery was compared with Celery 5.7.
"""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from celeriac.conf import Settings
from celeriac.exceptions import ImproperlyConfigured


class TestLaziness:
    def test_a_name_is_imported_at_the_first_read(self, from_object, config_module):
        name = config_module("task_serializer = 'msgpack'\nMY_OWN = 5")
        conf = from_object(name)
        conf.task_ignore_result = True
        conf.update(result_expires=5)
        assert "broker_url" in conf
        assert name not in sys.modules
        assert conf.task_serializer == "msgpack"
        assert name in sys.modules
        assert conf.MY_OWN == conf["MY_OWN"] == 5
        assert conf.task_ignore_result is True
        assert conf.result_expires == 5

    def test_force_reads_at_once(self, config_module):
        with pytest.raises(ModuleNotFoundError, match="nowhere"):
            Settings().config_from_object("nowhere", force=True)

    def test_hooks_surround_loading_and_may_use_it(self):
        seen = []

        def before():
            seen.append(("before", conf.task_serializer, conf.get("unknown")))
            conf.task_serializer = "yaml"

        def after():
            seen.append(("after", conf.task_serializer, conf.task_compression))

        conf = Settings(before_load=before, after_load=after)
        conf.config_from_object({"task_compression": "gzip"})
        assert conf.task_serializer == "yaml"
        assert seen == [("before", "json", None), ("after", "yaml", "gzip")]
        assert conf.task_compression == "gzip"
        assert len(seen) == 2

    def test_a_broken_configuration_fails_at_each_read(self, from_object, config_module):
        conf = from_object(config_module("raise ValueError('inside')"))
        for _ in range(2):
            with pytest.raises(ValueError, match="inside"):
                _ = conf.task_serializer

    def test_an_attribute_error_does_not_pass_for_a_missing_setting(self, from_object, config_module):
        conf = from_object(config_module("import os\nos.no_such_thing"))
        with pytest.raises(ImportError, match="failed while it was imported"):
            hasattr(conf, "task_serializer")

        def before():
            raise AttributeError("in the hook")

        with pytest.raises(ImproperlyConfigured, match="in the hook"):
            hasattr(Settings(before_load=before), "broker_url")

    def test_threads_load_it_once(self):
        loads = []
        gate = threading.Barrier(4)

        def read():
            gate.wait()
            assert conf.task_serializer == "json"

        conf = Settings(before_load=lambda: loads.append(1))
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert loads == [1]

    def test_importing_it_is_cheap(self):
        script = "import sys, celeriac; before = {*sys.modules}; import celeriac.conf; print(*{*sys.modules} - before)"
        loaded = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        ).stdout.split()
        assert "celeriac.conf.settings" in loaded
        assert not {"asyncio", "logging", "inspect", "dataclasses", "difflib", "pprint", "urllib.parse"} & {*loaded}


class TestSources:
    @pytest.mark.parametrize("path", ["{}", "{}:inner", "{}.inner", "{}:inner.deeper"])
    def test_dotted_names(self, from_object, config_module, path):
        name = config_module(
            "task_compression = 'gzip'\n"
            "class inner:\n"
            "    task_compression = 'gzip'\n"
            "    class deeper:\n"
            "        task_compression = 'gzip'\n"
        )
        assert from_object(path.format(name)).task_compression == "gzip"

    @pytest.mark.parametrize("source", [{"task_compression": "gzip"}, SimpleNamespace(task_compression="gzip")])
    def test_objects(self, from_object, source):
        assert from_object(source).task_compression == "gzip"

    def test_a_class_has_no_private_names(self, from_object):
        class Config:
            task_compression = "gzip"
            _hidden = 1

        conf = from_object(Config)
        assert conf.task_compression == "gzip"
        assert not any(name.startswith("_") for name in conf)

    def test_objects_that_make_attributes_up(self, from_object):
        class Lazy:
            def __getattr__(self, name):
                if name == "task_compression":
                    return "gzip"
                raise AttributeError(name)

        assert from_object(Lazy()).task_compression == "gzip"

    def test_a_name_that_cannot_be_imported(self, from_object, config_module):
        name = config_module("")
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            _ = from_object("no_such_module").task_serializer
        with pytest.raises(ImportError, match="has no attribute 'nothing'"):
            _ = from_object(f"{name}:nothing").task_serializer
        with pytest.raises(ImportError, match="has no attribute 'nothing'"):
            _ = from_object(f"{name}.nothing").task_serializer

    def test_an_import_that_fails_within_the_module_is_shown_as_it_is(self, from_object, config_module):
        name = config_module("import missing_dependency")
        with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
            _ = from_object(f"{name}").task_serializer

    def test_silent_ignores_a_name_that_cannot_be_imported(self):
        conf = Settings()
        conf.config_from_object("no_such_module", silent=True)
        assert conf.task_serializer == "json"

    def test_the_environment_may_name_the_configuration(self, from_object, config_module, monkeypatch):
        monkeypatch.setenv("CELERY_CONFIG_MODULE", config_module("task_compression = 'gzip'"))
        assert Settings().task_compression == "gzip"
        assert from_object({}).task_compression is None

    def test_the_working_directory_does_not_stay_on_the_path(self, from_object, config_module, tmp_path):
        assert from_object(config_module("task_compression = 'gzip'")).task_compression == "gzip"
        assert str(tmp_path) not in sys.path


class TestPrecedence:
    def test_changes_before_added_defaults_before_the_configuration_before_the_table(self):
        conf = Settings({"task_serializer": "constructor"})
        conf.config_from_object({"task_serializer": "object", "task_compression": "object", "timezone": "object"})
        conf.add_defaults({"task_serializer": "added", "task_compression": "added"})
        assert conf.task_serializer == "constructor"
        assert conf.task_compression == "added"
        assert conf.timezone == "object"
        assert conf.result_serializer == "json"
        conf.task_serializer = "later"
        assert conf.task_serializer == "later"

    def test_added_defaults_may_be_functions_and_the_latest_wins(self):
        conf = Settings()
        conf.add_defaults(lambda: {"task_compression": "first", "task_serializer": "first"})
        conf.add_defaults({"task_compression": "second"})
        assert (conf.task_compression, conf.task_serializer) == ("second", "first")
        conf.add_defaults({"task_compression": "third", "own_key": 3})
        assert (conf.task_compression, conf.task_serializer, conf.own_key) == ("third", "first", 3)

    def test_the_environment_wins_at_each_read(self, monkeypatch):
        conf = Settings({"broker_url": "redis://conf"})
        assert conf.broker_url == conf["broker_url"] == conf.broker_read_url == conf.broker_write_url == "redis://conf"
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://env")
        monkeypatch.setenv("CELERY_BROKER_READ_URL", "redis://read")
        monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://results")
        assert conf.broker_url == conf["broker_url"] == conf.get("broker_url") == "redis://env"
        assert conf.broker_read_url == "redis://read"
        assert conf.broker_write_url == "redis://env"
        assert conf.result_backend == "redis://results"

    def test_a_second_configuration_drops_later_changes_as_in_celery(self):
        conf = Settings({"task_serializer": "constructor"})
        conf.config_from_object({"task_compression": "first", "timezone": "first"})
        assert conf.task_compression == "first"
        conf.task_compression = "changed"
        conf.config_from_object({"task_compression": "second"})
        assert conf.task_compression == "second"
        assert conf.timezone is None
        assert conf.task_serializer == "constructor"

    def test_a_second_configuration_that_fails_leaves_nothing_stale(self, from_object):
        conf = from_object({"task_compression": "first"})
        assert conf.task_compression == "first"
        with pytest.raises(ModuleNotFoundError):
            conf.config_from_object("no_such_module")
        with pytest.raises(ModuleNotFoundError):
            _ = conf.task_compression

    def test_settings_that_follow_others(self):
        conf = Settings()
        assert conf.task_default_exchange == conf["task_default_routing_key"] == "celery"
        conf.task_default_queue = "other"
        assert conf.task_default_exchange == conf.task_default_routing_key == "other"
        conf.task_default_exchange = "own"
        assert (conf.task_default_exchange, conf.task_default_routing_key) == ("own", "other")
        assert conf.broker_connection_retry_on_startup is True
        conf.broker_connection_retry = False
        assert conf.broker_connection_retry_on_startup is False

    def test_djangos_time_zone(self, from_object):
        assert from_object({"TIME_ZONE": "Europe/Oslo"}, "CELERY").timezone == "Europe/Oslo"
        both = {"TIME_ZONE": "Europe/Oslo", "CELERY_TIMEZONE": "UTC"}
        assert from_object(both, "CELERY").timezone == "UTC"

    def test_none_is_not_set_where_it_is_no_value(self, from_object):
        conf = from_object({"task_serializer": None, "task_acks_late": None, "broker_pool_limit": None})
        assert conf.task_serializer == "json"
        assert conf.task_acks_late is True
        assert conf.broker_pool_limit is None

    def test_broker_url_of_parts(self):
        conf = Settings({"broker_host": "h"})
        assert conf.broker_url == "amqp://h"
        conf.update(broker_transport="redis", broker_password="p/w", broker_port=6379, broker_vhost=0)
        assert conf.broker_url == conf.broker_read_url == "redis://:p%2Fw@h:6379/0"
        conf.update(broker_user="u", broker_vhost="/")
        assert conf.broker_url == "redis://u:p%2Fw@h:6379/"
        conf.broker_host = "redis://whole"
        assert conf.broker_url == "redis://whole"
        conf.broker_url = "redis://wins"
        assert conf.broker_url == "redis://wins"
        assert Settings().broker_url is None
