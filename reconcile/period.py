"""Billing months in UTC: start inclusive, end exclusive."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import total_ordering

from reconcile.errors import ConfigError

_MONTH = re.compile(r"(2\d{3})-(0[1-9]|1[0-2])", re.ASCII)  # has a month before and after: no overflow of dates
_SETTLES = timedelta(hours=1)  # a day is complete an hour after its end


@total_ordering
@dataclass(frozen=True)
class Period:
    """One billing month, written ``2026-10``."""

    start_on: date

    @classmethod
    def parse(cls, text: str) -> "Period":
        """Read ``2026-10``. Raises ``ConfigError`` for anything else."""
        match = _MONTH.fullmatch(text)
        if match is None:
            raise ConfigError("month", f"got {text!r}, expected YYYY-MM", "Write a month like 2026-10")
        return cls(date(int(match[1]), int(match[2]), 1))

    @classmethod
    def holding(cls, day: date) -> "Period":
        """The month that a day lies in."""
        return cls(day.replace(day=1))

    @classmethod
    def last_complete(cls, now: datetime) -> "Period":
        """The last month whose days are all complete at ``now``."""
        return cls.holding((now.astimezone(UTC) - _SETTLES).date()).previous

    @property
    def end_on(self) -> date:
        """The first day after the month."""
        return (self.start_on + timedelta(days=31)).replace(day=1)

    @property
    def previous(self) -> "Period":
        """The month before."""
        return Period.holding(self.start_on - timedelta(days=1))

    @property
    def next(self) -> "Period":
        """The month after."""
        return Period(self.end_on)

    def days(self) -> Iterator[date]:
        """Every day of the month, in order."""
        for offset in range((self.end_on - self.start_on).days):
            yield self.start_on + timedelta(days=offset)

    def through_on(self, now: datetime) -> date | None:
        """The month's last complete day at ``now``, or None when it has none yet."""
        complete = (now.astimezone(UTC) - _SETTLES).date() - timedelta(days=1)
        last = min(complete, self.end_on - timedelta(days=1))
        return last if last >= self.start_on else None

    def __lt__(self, other: "Period") -> bool:
        return self.start_on < other.start_on

    def __str__(self) -> str:
        return f"{self.start_on:%Y-%m}"
