"""Billing months in UTC."""

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile.errors import ConfigError
from reconcile.period import Period

OCTOBER = Period(date(2026, 10, 1))
days = st.dates(min_value=date(2000, 1, 1), max_value=date(2999, 12, 31))


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_a_month_is_written_and_read_the_same():
    """2026-10 is the first of October until the first of November, which is not in it."""
    october = Period.parse("2026-10")
    assert (str(october), october.start_on, october.end_on) == ("2026-10", date(2026, 10, 1), date(2026, 11, 1))


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "2026-13", "2026-00", "2026-1", "26-10", "2026-10-01", "2026-10\n", " 2026-10", "٢٠٢٦-10"),
        *("0000-10", "0001-01", "9999-12"),  # no calendar goes a month further
    ],
)
def test_what_is_no_month_is_refused_with_its_text(text):
    """The message shows what was got and how to write it."""
    with pytest.raises(ConfigError) as raised:
        Period.parse(text)
    assert str(raised.value) == f"month: got {text!r}, expected YYYY-MM. Write a month like 2026-10"


@settings(deadline=None)
@given(days)
def test_every_day_lies_in_exactly_its_month(day):
    """Months touch without a gap and without an overlap."""
    period = Period.holding(day)
    assert period.start_on <= day < period.end_on
    assert period.next.start_on == period.end_on
    assert period.previous.end_on == period.start_on
    assert period.previous.next == period
    assert period.previous < period < period.next
    assert Period.parse(str(period)) == period


@settings(deadline=None)
@given(days)
def test_the_days_of_a_month_are_all_of_its_days(day):
    """In order, from the first to the last."""
    period = Period.holding(day)
    listed = list(period.days())
    assert (listed[0], listed[-1] + timedelta(days=1)) == (period.start_on, period.end_on)
    assert all(after - before == timedelta(days=1) for before, after in pairwise(listed))


@pytest.mark.parametrize(("month", "length"), [("2026-02", 28), ("2028-02", 29), ("2100-02", 28), ("2026-12", 31)])
def test_february_knows_its_leap_years(month, length):
    """Also at the year's end."""
    assert len(list(Period.parse(month).days())) == length


@pytest.mark.parametrize(
    ("now", "month"),
    [
        (utc(2026, 11, 1, 0, 59, 59), "2026-09"),
        (utc(2026, 11, 1, 1, 0, 0), "2026-10"),
        (utc(2026, 11, 30, 23, 0, 0), "2026-10"),
        (utc(2027, 1, 1, 1, 0, 0), "2026-12"),
        (utc(2027, 1, 1, 0, 30, 0), "2026-11"),
        (datetime(2026, 10, 31, 20, 0, tzinfo=timezone(timedelta(hours=-5))), "2026-10"),
        (datetime(2026, 11, 1, 5, 30, tzinfo=timezone(timedelta(hours=5))), "2026-09"),
    ],
)
def test_the_last_complete_month_is_over_for_an_hour(now, month):
    """A day is complete an hour after its end, in UTC whatever the clock's zone."""
    assert str(Period.last_complete(now)) == month


@pytest.mark.parametrize(
    ("now", "through_on"),
    [
        (utc(2026, 9, 30, 12), None),
        (utc(2026, 10, 1, 23, 59), None),
        (utc(2026, 10, 2, 0, 59), None),
        (utc(2026, 10, 2, 1, 0), date(2026, 10, 1)),
        (utc(2026, 10, 17, 0, 30), date(2026, 10, 15)),
        (utc(2026, 11, 1, 0, 59), date(2026, 10, 30)),
        (utc(2026, 11, 1, 1, 0), date(2026, 10, 31)),
        (utc(2027, 6, 1), date(2026, 10, 31)),
        (datetime(2026, 10, 1, 20, 0, tzinfo=timezone(timedelta(hours=-5))), date(2026, 10, 1)),
    ],
)
def test_a_running_month_reaches_through_its_last_complete_day(now, through_on):
    """None before the first is complete, never a day after the month."""
    assert OCTOBER.through_on(now) == through_on


@settings(deadline=None)
@given(st.datetimes(datetime(2001, 1, 1), datetime(2998, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - made aware
def test_the_last_complete_month_is_complete_and_the_next_is_not(now):
    """`last_complete` and `through_on` agree."""
    period = Period.last_complete(now)
    assert period.through_on(now) == period.end_on - timedelta(days=1)
    assert period.next.through_on(now) != period.next.end_on - timedelta(days=1)
