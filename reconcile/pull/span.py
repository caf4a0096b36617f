"""What a pull asks for: the reports of a period, as far as they are over."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from reconcile.errors import NotReadyError
from reconcile.period import Period
from reconcile.pull.client import FAST_MODE
from reconcile.pull.pages import DAY, HOUR, NEVER_NULL, Report, instant

API = "/v1/organizations"
_GRAIN = (
    "workspace_id", "model", "service_tier", "context_window", "inference_geo", "api_key_id", "account_id",
    "service_account_id",
)  # fmt: skip
_SETTLES = timedelta(hours=1)  # an hour is over for us an hour after its end, as a day is


@dataclass(frozen=True)
class Span:
    """What is asked for: the period's complete days, and the hours around them up to ``usage_until`` (exclusive)."""

    period: Period
    through_on: date
    usage_until: datetime

    @classmethod
    def of(cls, period: Period, now: datetime) -> "Span":
        """The span at ``now``. Raises ``NotReadyError`` for a period without a complete day."""
        through_on = period.through_on(now)
        if through_on is None:
            raise NotReadyError(
                str(period),
                f"has no complete day at {instant(now)}",
                "A day is complete an hour after its end in UTC: close the month later, or an earlier month",
            )
        end = _midnight(through_on) + DAY
        over = (now.astimezone(UTC) - _SETTLES).replace(minute=0, second=0, microsecond=0)
        return cls(period, through_on, min(over, end + DAY))

    def hours(self, *, by_speed: bool = True) -> Iterator[Report]:
        """Usage at full grain, one listing a day: a day is a page, so that it alone can be fetched again."""
        group_by = (*_GRAIN, "speed") if by_speed else _GRAIN
        start = _midnight(self.period.start_on) - DAY
        while start < self.usage_until:
            yield Report(
                kind="usage_hour",
                stem=f"usage_hour-{start.date()}",
                path=f"{API}/usage_report/messages",
                start=start,
                end=min(start + DAY, self.usage_until),
                width=HOUR,
                limit=24,
                group_by=group_by,
                grouped=tuple(field for field in group_by if field in NEVER_NULL),
                beta=FAST_MODE if by_speed else None,
            )
            start += DAY

    def usage_days(self) -> Report:
        """The ungrouped control total of the complete days."""
        return self._days("usage_day", f"{API}/usage_report/messages")

    def cost_days(self) -> Report:
        """What was billed on the complete days; the running day has no bucket and is not asked for."""
        fields = ("workspace_id", "description")
        return replace(
            self._days("cost_day", f"{API}/cost_report"), group_by=fields, grouped=("description", "cost_type")
        )

    def _days(self, kind: str, path: str) -> Report:
        start, end = _midnight(self.period.start_on), _midnight(self.through_on) + DAY
        return Report(kind, kind, path, start, end, DAY, limit=31)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
