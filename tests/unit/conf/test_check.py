"""What each kind of setting accepts."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.conf.check import check, in_seconds
from celeriac.conf.setting import ANY, BOOL, DICT, FLOAT, INT, LIST, SECONDS, SILENT, STR, Kind, Setting, refused
from celeriac.conf.table import SETTINGS
from celeriac.exceptions import ImproperlyConfigured


def row(kind, default=None, **kwargs):
    return Setting("some_setting", kind, default, "A setting.", **kwargs)


@pytest.mark.parametrize(
    ("kind", "given_value", "read"),
    [
        (BOOL, True, True),
        (BOOL, 0, False),
        (BOOL, 1, True),
        (BOOL, "False", False),
        (BOOL, " yes ", True),
        (BOOL, "", False),
        (INT, 3, 3),
        (INT, 3.0, 3),
        (INT, "3", 3),
        (INT, "3.0", 3),
        (INT, False, None),
        (INT, "", None),
        (FLOAT, "1.5", 1.5),
        (FLOAT, float("inf"), float("inf")),
        (SECONDS, 2, 2),
        (SECONDS, "2", 2),
        (SECONDS, timedelta(minutes=1), timedelta(minutes=1)),
        (STR, "text", "text"),
        (STR, Path("a") / "b", "a/b"),
        (LIST, "proj.tasks", ("proj.tasks",)),
        (LIST, ["a", "b"], ["a", "b"]),
        (LIST, {"a": 1}.keys(), ("a",)),
        (DICT, {"a": 1}, {"a": 1}),
        (ANY, print, print),
    ],
)
def test_accepted(kind, given_value, read):
    result = check(row(kind), given_value)
    assert result == read
    assert type(result) is type(read)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (BOOL, "maybe"),
        (BOOL, 2),
        (BOOL, []),
        (INT, "many"),
        (INT, 1.5),
        (INT, True),
        (INT, timedelta(1)),
        (FLOAT, float("nan")),
        (FLOAT, timedelta(1)),
        (SECONDS, "soon"),
        (SECONDS, [1]),
        (STR, 3),
        (STR, b"bytes"),
        (LIST, 3),
        (LIST, {"a": 1}),
        (LIST, b"json"),
        (DICT, [("a", 1)]),
    ],
)
def test_refused_with_name_value_and_expectation_on_one_line(kind, value):
    with pytest.raises(ImproperlyConfigured) as caught:
        check(row(kind), value)
    message = str(caught.value)
    assert "some_setting" in message
    assert type(value).__name__ in message
    assert "must be" in message
    assert "\n" not in message


def test_none_means_not_set_unless_it_is_a_value():
    assert check(row(INT, 10), None) == 10
    assert check(row(INT, 10, optional=True), None) is None
    assert check(row(INT), None) is None
    assert check(row(INT, 10), False) == 0


def test_secrets_are_not_in_the_message():
    with pytest.raises(ImproperlyConfigured) as caught:
        check(Setting("broker_password", STR, None, "A password."), 12345)
    assert "12345" not in str(caught.value)


def test_choices():
    setting = row(STR, "fork", choices=("fork", "spawn"))
    assert check(setting, "spawn") == "spawn"
    with pytest.raises(ImproperlyConfigured, match="'fork' or 'spawn', not 'forkserver'"):
        check(setting, "forkserver")


def test_refused_accepts_the_default_only():
    setting = row(INT, 2, status=refused("only version 2 is written"))
    assert check(setting, 2) == 2
    assert check(setting, "2") == 2
    with pytest.raises(ImproperlyConfigured, match="cannot be 1: only version 2 is written; remove it"):
        check(setting, 1)


def test_silent_settings_are_not_checked():
    assert check(row(INT, status=SILENT), "anything") == "anything"


@pytest.mark.parametrize(("value", "seconds"), [(None, None), (2, 2.0), (timedelta(minutes=2), 120.0)])
def test_in_seconds(value, seconds):
    assert in_seconds(value) == seconds


@settings(max_examples=50)
@given(st.sampled_from(Kind), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()))
def test_a_value_is_read_or_refused_and_reading_is_stable(kind, value):
    setting = row(kind)
    try:
        read = check(setting, value)
    except ImproperlyConfigured:
        return
    assert check(setting, read) == read or read != read


def test_yes_no_or_a_word() -> None:
    setting = SETTINGS["worker_enable_remote_control"]
    assert [check(setting, value) for value in ("inspect", True, "no", 1)] == ["inspect", True, False, True]
    for value in ("Inspect", "write", 2):
        with pytest.raises(ImproperlyConfigured):
            check(setting, value)


def test_celerys_certificates_are_refused_with_the_way_out() -> None:
    for name in ("security_key", "security_certificate", "security_cert_store"):
        with pytest.raises(ImproperlyConfigured, match="signing_key"):
            check(SETTINGS[name], "/some/file")
        assert check(SETTINGS[name], None) is None
