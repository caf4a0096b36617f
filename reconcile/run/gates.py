"""What must hold before a month is closed for good: each gate that fails says what it saw and when it would hold."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import duckdb

from reconcile import ledger
from reconcile.config import Accepted, Config, like
from reconcile.errors import NotReadyError
from reconcile.period import Period

DISCREPANCIES = "discrepancies"
"""The gate that ends a close with exit 1; every other one ends it with exit 5."""


class GateError(NotReadyError):
    """A gate that does not hold."""

    def __init__(self, period: Period, gate: str, saw: str, do: str) -> None:
        super().__init__(f"close --final {period}: {gate}", saw, do)
        self.gate = gate


class GatesError(NotReadyError):
    """The gates that do not hold, a line each; where, what and do are the first's."""

    def __init__(self, problems: Sequence[GateError]) -> None:
        super().__init__(problems[0].where, problems[0].what, problems[0].do)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def settled_at(period: Period, settle_hours: int) -> datetime:
    """The instant from which on a month may be closed for good."""
    return datetime.combine(period.end_on, time(), UTC) + timedelta(hours=settle_hours)


def refuse_early(period: Period, now: datetime, *, final: bool, settle_hours: int) -> None:
    """Raise ``NotReadyError`` for a month without a complete day, and before it has settled where it must have."""
    if period.through_on(now) is None:
        raise NotReadyError(
            str(period),
            f"has no complete day at {stamp(now)}",
            "A day is complete an hour after its end in UTC: close the month later, or an earlier month",
        )
    settled = settled_at(period, settle_hours)
    if final and now < settled:
        over = datetime.combine(period.end_on, time(), UTC)
        gate, ends = (
            ("month over", f"the month ends at {stamp(over)} and ") if now < over else ("settled", "the month ")
        )
        raise GateError(
            period,
            gate,
            f"it is {stamp(now)}, {ends}settles at {stamp(settled)} (settle_hours {settle_hours})",
            "Close again then, or without --final for a provisional revision",
        )


def refuse_old_pull(period: Period, data_refreshed_at: datetime, settle_hours: int) -> None:
    """Raise ``GateError`` for a pull from before the month had settled."""
    settled = settled_at(period, settle_hours)
    if data_refreshed_at < settled:
        raise GateError(
            period,
            "pull",
            f"the last pull is of {stamp(data_refreshed_at)}, the month settles at {stamp(settled)}",
            "Close again, without --offline",
        )


def unmet(connection: duckdb.DuckDBPyConnection, config: Config, period: Period) -> tuple[GateError, ...]:
    """The gates that a built revision does not pass. Raises ``InvariantError`` where a check is broken."""
    ledger.check(connection)
    found = [
        *_coverage(connection, config.accepted),
        *_unallocated(connection),
        *_discrepancies(connection),
    ]
    return tuple(GateError(period, *one) for one in found)


def _coverage(connection: duckdb.DuckDBPyConnection, accepted: Sequence[Accepted]) -> list[tuple[str, str, str]]:
    """Logs without a line in the month, and logs with days that they do not cover and nobody signed for.

    Such a day has no line of the log, what the log serves was used on it at a time of which no log has any of it, and
    either the log's own habit lets lines expect there (``explained.gap``) or the dollars of these days are beyond
    tolerance.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in ledger.rows(connection, _UNCOVERED):
        if row["day"] is None or not any(_accepts(entry, row) for entry in accepted):
            rows.setdefault(row["log"], []).append(row)
    (run,) = ledger.rows(
        connection,
        "select tolerance_usd, tolerance_percent, billed_usd from report.run cross join report.summary",
    )
    found = []
    for log, missing in rows.items():
        days = sorted({row["day"] for row in missing if row["day"] is not None})
        if not days:
            do = "Bring its files, or take it out of request_logs"
            found.append((f"log {log}", "has no line in the month", do))
            continue
        usd = sum((row["reported_usd"] for row in missing), Decimal(0))
        if any(row["is_gap"] for row in missing) or (
            usd > run["tolerance_usd"] or usd * 100 > run["billed_usd"] * run["tolerance_percent"]
        ):
            shown = ", ".join(map(str, days[:5])) + (f" and {len(days) - 5} more days" if days[5:] else "")
            saw = f"has no line on {shown}, while the provider reports {usd.normalize():f} USD there"
            do = "Bring its files and close again, or accept a log_gap of this log in the config"
            found.append((f"log {log}", saw, do))
    return found


_UNCOVERED = """
    with naming as (
        select log, 100 * count(api_key_id) >= 95 * count(*) as names_keys from source.request group by log
    ),
    served as (
        select distinct request.log, request.workspace_id,
            if(naming.names_keys, request.api_key_id, null) as api_key_id,
        from source.request as request
        join naming on naming.log = request.log
        where request.workspace_id is not null and (request.api_key_id is not null or not naming.names_keys)
    ),
    missing as (
        select log, unnest(days_without_lines) as day from source.log_coverage where hours_with_lines > 0
    ),
    recorded as (
        select distinct hour, workspace_id, api_key_id from source.request
    ),
    unlogged as (
        select distinct missing.log, missing.day, usage.workspace_id, usage.api_key_id
        from missing
        join served on served.log = missing.log
        join source.usage as usage
            on usage.day = missing.day and usage.in_period and usage.quantity > 0 and usage.api_key_id is not null
            and usage.workspace_id = served.workspace_id
            and (served.api_key_id is null or usage.api_key_id = served.api_key_id)
        where not exists (
            select 1
            from recorded
            where recorded.workspace_id = served.workspace_id
                and (served.api_key_id is null or recorded.api_key_id = served.api_key_id)
                -- logged where it began, reported where it ended: within the hour, or of a batch within the day
                and abs(date_diff('hour', recorded.hour, usage.hour)) <= if(usage.service_tier = 'batch', 24, 1)
        )
    )
    select log, null::date as day, null::decimal(38, 12) as reported_usd, false as is_gap,
    from source.log_coverage
    where hours_with_lines = 0
    union all
    select unlogged.log, unlogged.day, coalesce(sum(usage.reported_usd), 0)::decimal(38, 12),
        bool_or(exists (
            from explained.gap
            where gap.log = unlogged.log and gap.from_at::date <= unlogged.day and gap.until_at > unlogged.day
        )),
    from unlogged
    join matched.usage as usage
        on usage.day = unlogged.day and usage.workspace_id = unlogged.workspace_id
        and usage.api_key_id = unlogged.api_key_id and usage.in_period
    group by unlogged.log, unlogged.day
    order by all
"""


def _accepts(entry: Accepted, row: Mapping[str, Any]) -> bool:
    """Whether somebody signed for a gap of the log on that day."""
    return entry.reason == "log_gap" and row["day"] < entry.until and (entry.log is None or like(entry.log, row["log"]))


def _unallocated(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    (row,) = ledger.rows(connection, "select * from report.unallocated")
    if not row["beyond_tolerance"]:
        return []
    saw = (
        f"{row['unallocated_usd'].normalize():f} USD of {row['billed_usd'].normalize():f} have no cost center, expected"
        f" at most {row['tolerance_percent'].normalize():f} %"
    )
    return [("unallocated", saw, "Give it a rule or a pool, or raise tolerance.unallocated_percent")]


def _discrepancies(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    rows = ledger.rows(
        connection,
        "select id, reason, moved_usd from report.finding where state = 'discrepancy' order by moved_usd desc, id",
    )
    if not rows:
        return []
    largest = rows[0]
    noun = "1 discrepancy is" if len(rows) == 1 else f"{len(rows)} discrepancies are"
    saw = (
        f"{noun} beyond tolerance, the largest is {largest['reason']} of {largest['moved_usd'].normalize():f} USD"
        f" ({largest['id']}), expected none that is not accepted"
    )
    return [(DISCREPANCIES, saw, f"Settle or accept each: `reconcile explain {largest['id']}`")]


def stamp(at: datetime) -> str:
    """An instant in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
