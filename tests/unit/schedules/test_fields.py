"""What a crontab's fields may hold, and what is said of what they may not."""

from __future__ import annotations

import pytest

from celeriac.schedules import ParseException, crontab, crontab_parser


@pytest.mark.parametrize(
    ("size", "low", "text", "numbers"),
    [
        (60, 0, "*", set(range(60))),
        (60, 0, "*/15", {0, 15, 30, 45}),
        (60, 0, "7", {7}),
        (60, 0, "07", {7}),
        (60, 0, "1,13,30-45,50-59/2", {1, 13, *range(30, 46), 50, 52, 54, 56, 58}),
        (60, 0, "0, 30", {0, 30}),
        (60, 0, "*/59", {0, 59}),
        (60, 0, "*/100", {0}),
        (60, 0, "50-10/5", {50, 55, 0, 5, 10}),
        (24, 0, "22-4", {22, 23, 0, 1, 2, 3, 4}),
        (24, 0, "22-4/2", {22, 0, 2, 4}),
        (24, 0, "0,8-17/2", {0, 8, 10, 12, 14, 16}),
        (7, 0, "mon-fri", {1, 2, 3, 4, 5}),
        (7, 0, "sat-mon", {6, 0, 1}),
        (7, 0, "Sunday,WED", {0, 3}),
        (7, 0, "thurs", {4}),
        (7, 0, "*/2", {0, 2, 4, 6}),
        (7, 0, "mon-fri/2", {1, 3, 5}),
        (12, 1, "nov-feb", {11, 12, 1, 2}),
        (12, 1, "*/3", {1, 4, 7, 10}),
        (12, 1, "2-12/2", {2, 4, 6, 8, 10, 12}),
        (31, 1, "28-2", {28, 29, 30, 31, 1, 2}),
        (31, 1, "*/3", {1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31}),
        (5, 10, "*/2", {10, 12, 14}),
    ],
)
def test_patterns(size: int, low: int, text: str, numbers: set[int]) -> None:
    assert crontab_parser(size, low).parse(text) == numbers


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("minute", "", "minute: '' has an empty part between its commas"),
        ("minute", "1,,2", "minute: '1,,2' has an empty part between its commas"),
        ("minute", "-1", "minute: '-1' is negative; allowed is 0 to 59"),
        ("minute", "*/", "minute: '*/' has no number behind its slash"),
        ("minute", "1-5/", "minute: '1-5/' has no number behind its slash"),
        ("minute", "*/0", "minute: step '0' in '*/0' must be a number from 1 on"),
        ("minute", "*/mon", "minute: step 'mon' in '*/mon' must be a number from 1 on"),
        ("minute", "5/10", "minute: '5/10' has a step but no range: write '5-59/10'"),
        ("minute", "*-5", "minute: '*-5' mixes '*' with a range; allowed is 0 to 59"),
        ("minute", "1-5-9", "minute: '1-5-9' is no number, name, range or '*'; allowed is 0 to 59"),
        ("minute", "1.5", "minute: '1.5' is no number, name, range or '*'; allowed is 0 to 59"),
    ],
)
def test_no_patterns(field: str, value: str, said: str) -> None:
    with pytest.raises(ParseException) as caught:
        crontab(**{field: value})
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("minute", 60, "minute: 60 is out of range; allowed is 0 to 59"),
        ("minute", "0-60", "minute: 60 is out of range; allowed is 0 to 59"),
        ("hour", {3, 24}, "hour: 24 is out of range; allowed is 0 to 23"),
        ("day_of_week", 7, "day_of_week: 7 is out of range; allowed is 0 to 6 or sun to sat"),
        ("day_of_month", 0, "day_of_month: 0 is out of range; allowed is 1 to 31"),
        ("month_of_year", [13], "month_of_year: 13 is out of range; allowed is 1 to 12 or jan to dec"),
        (
            "day_of_week",
            "monkey",
            "day_of_week: 'monkey' is neither a number nor a name; allowed is 0 to 6 or sun to sat",
        ),
        ("day_of_week", "jan", "day_of_week: 'jan' is neither a number nor a name; allowed is 0 to 6 or sun to sat"),
        ("hour", "mon", "hour: 'mon' is neither a number nor a name; allowed is 0 to 23"),
        ("month_of_year", "ju", "month_of_year: 'ju' is neither a number nor a name; allowed is 1 to 12 or jan to dec"),
        ("hour", [], "hour: [] is empty, so it would never run; '*' means every"),
    ],
)
def test_out_of_range(field: str, value: object, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        crontab(**{field: value})
    assert str(caught.value) == said
    assert not isinstance(caught.value, ParseException)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "minute: None is no number, no text and no list of numbers"),
        (1.5, "minute: 1.5 is no number, no text and no list of numbers"),
        (["1-5"], "minute: '1-5' in ['1-5'] is no whole number; allowed is 0 to 59"),
        ([0, 1.5], "minute: 1.5 in [0, 1.5] is no whole number; allowed is 0 to 59"),
    ],
)
def test_other_types(value: object, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        crontab(minute=value)  # type: ignore[arg-type]
    assert str(caught.value) == said


def test_days_that_no_month_has() -> None:
    with pytest.raises(ValueError, match=r"^day_of_month: '30,31' is in no month of month_of_year 2$"):
        crontab(day_of_month="30,31", month_of_year=2)
    assert crontab(day_of_month="29-31", month_of_year=2).day_of_month == {29, 30, 31}
    assert crontab(day_of_month=31, month_of_year="feb-apr").month_of_year == {2, 3, 4}


def test_numbers_in_any_container() -> None:
    wanted = crontab(minute="0,30")
    for minute in ({0, 30}, [30, 0], (0, 30), frozenset({0, 30}), range(0, 60, 30), (n for n in (0, 30))):
        assert crontab(minute=minute) == wanted


def test_parse_exception_is_an_attribute_of_the_parser() -> None:
    assert crontab_parser.ParseException is ParseException
    assert issubclass(ParseException, ValueError)
