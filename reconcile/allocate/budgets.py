"""Budgets of cost centers: the month, the year so far, and what the year comes to."""

from calendar import isleap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext

import duckdb

from reconcile import ledger, money
from reconcile.config import Budget

_MONTHS = 12
_RECENT = 3
"""How many months the daily mean of the forecast is taken from."""


@dataclass(frozen=True)
class _Month:
    """What every cost center pays for a month, over its complete days."""

    period: str
    days: int
    payable_usd: dict[str, Decimal]


def write_budgets(connection: duckdb.DuckDBPyConnection, budgets: Sequence[Budget]) -> None:
    """Write ``allocated.budget``: a row for each cost center that has a budget in the period's year, in cents.

    The forecast is what was paid for the days that were closed, and for every other day of the year, past or to come,
    the daily mean of the last three months that were closed. A month's budget is its own amount or a twelfth of the
    year's; a year's budget is known where it was given, or all twelve months were.
    """
    (run,) = ledger.rows(connection, "select period, start_on from source.run")
    months = _months(connection)
    names = dict(connection.execute("select cost_center, name from allocated.cost_center").fetchall())
    ledger.insert(
        connection,
        "allocated.budget",
        {
            "cost_center": "varchar",
            "name": "varchar",
            "month_budget_usd": "decimal(38, 2)",
            "month_actual_usd": "decimal(38, 2)",
            "month_variance_usd": "decimal(38, 2)",
            "year": "int",
            "year_budget_usd": "decimal(38, 2)",
            "year_actual_usd": "decimal(38, 2)",
            "forecast_usd": "decimal(38, 2)",
            "forecast_variance_usd": "decimal(38, 2)",
            "closed_days": "int",
            "year_days": "int",
        },
        list(_rows(run["start_on"], months, budgets, names)),
    )


def _months(connection: duckdb.DuckDBPyConnection) -> list[_Month]:
    """The months that are known, this one last."""
    rows = connection.execute(
        """
        select period, through_on, cost_center, payable_usd from source.earlier_chargeback
        union all
        select run.period, run.through_on, chargeback.cost_center, chargeback.payable_usd
        from source.run as run cross join allocated.chargeback as chargeback
        order by all
        """
    ).fetchall()
    months: dict[str, _Month] = {}
    for period, through_on, cost_center, payable_usd in rows:
        month = months.setdefault(period, _Month(period, through_on.day, {}))
        month.payable_usd[cost_center] = payable_usd
    return list(months.values())


def _rows(
    start_on: date, months: Sequence[_Month], budgets: Sequence[Budget], names: dict[str, str]
) -> Iterator[tuple[object, ...]]:
    year_days = 366 if isleap(start_on.year) else 365
    this_year = [month for month in months if month.period.startswith(f"{start_on.year}-")]
    recent = months[-_RECENT:]
    closed_days, recent_days = sum(month.days for month in this_year), sum(month.days for month in recent)
    for cost_center in sorted({budget.cost_center for budget in budgets if budget.year == start_on.year} & set(names)):
        own = [b for b in budgets if b.cost_center == cost_center and b.year == start_on.year]
        month_budget, year_budget = _month_budget(own, start_on.month), _year_budget(own)
        actual_usd = months[-1].payable_usd.get(cost_center, Decimal(0))
        year_usd = _sum(this_year, cost_center)
        with localcontext() as context:
            context.prec = 60
            mean_usd = _sum(recent, cost_center) / recent_days
            forecast_usd = money.cents(year_usd + mean_usd * (year_days - closed_days))
        yield (
            *(cost_center, names[cost_center]),
            *(month_budget, actual_usd, None if month_budget is None else actual_usd - month_budget),
            *(start_on.year, year_budget, year_usd),
            *(forecast_usd, None if year_budget is None else forecast_usd - year_budget),
            *(closed_days, year_days),
        )


def _sum(months: Sequence[_Month], cost_center: str) -> Decimal:
    return sum((month.payable_usd.get(cost_center, Decimal(0)) for month in months), Decimal(0))


def _month_budget(own: Sequence[Budget], month: int) -> Decimal | None:
    """The month's own amount, or its twelfth of the year's: twelve of them add up to it."""
    for budget in own:
        if budget.month == month:
            return money.cents(budget.amount_usd)
        if budget.month is None:
            through, before = (money.cents(budget.amount_usd * n / _MONTHS) for n in (month, month - 1))
            return through - before
    return None


def _year_budget(own: Sequence[Budget]) -> Decimal | None:
    if any(budget.month is None for budget in own) or len(own) == _MONTHS:
        return money.cents(sum((budget.amount_usd for budget in own), Decimal(0)))
    return None
