"""Who pays: the page for the controller, a statement for each cost center."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, make_dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

import duckdb

from reconcile import money
from reconcile.render.charts import Charts
from reconcile.render.flow import BASES, flow
from reconcile.render.tables import Table, fetch, footed, grouped, summed

UNALLOCATED = "unallocated"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def statement_names(cost_centers: Iterable[str]) -> dict[str, str]:
    """The file name of each cost center's statement, safe on every file system and each its own.

    An id of plain characters is the name; any other, and one that another differs from only in case, is
    shortened to them and told apart by a hash.
    """
    ids = list(cost_centers)
    folded = Counter(cost_center.casefold() for cost_center in ids)
    names = {}
    for cost_center in ids:
        if _PLAIN.fullmatch(cost_center) and folded[cost_center.casefold()] == 1:
            names[cost_center] = f"{cost_center}.html"
        else:
            slug = re.sub(r"[^A-Za-z0-9]+", "-", cost_center).strip("-")[:40] or "cost-center"
            names[cost_center] = f"{slug}-{hashlib.sha256(cost_center.encode()).hexdigest()[:10]}.html"
    return names


def chargeback_table(rows: Sequence[Any]) -> Table:
    """The chargeback, which is in cents already, with its total."""
    columns = ("direct_usd", "shared_usd", "total_usd", "other_usd", "payable_usd")
    return footed(rows, **{column: sum((getattr(row, column) for row in rows), Decimal("0.00")) for column in columns})


def allocation(connection: duckdb.DuckDBPyConnection, chargeback: Sequence[Any], billed_usd: Decimal) -> dict[str, Any]:
    """What the page for the controller shows."""
    (unallocated,) = [row for row in chargeback if row.cost_center == UNALLOCATED]
    nowhere = "select * from report.statement where cost_center = ? and dimension = 'workspace'"
    flows = fetch(connection, "select * from report.flow")
    other = fetch(connection, "select * from report.other")
    return {
        "unallocated": footed(fetch(connection, nowhere, UNALLOCATED), amount_usd=unallocated.total_usd),
        "tolerance": fetch(connection, "select * from report.unallocated")[0],
        "rules": _rules(fetch(connection, "select * from report.allocation_rule"), chargeback),
        "pools": _pools(fetch(connection, "select * from report.pool")),
        "other_pools": _other_pools(other, chargeback),
        "moved": _moved(fetch(connection, "select * from report.movement")),
        "budgets": _budgets(fetch(connection, "select * from report.budget")),
        "flow": flow(flows, {row.cost_center: row.total_usd for row in chargeback}),
        "bases": [basis for basis in BASES if any(row.basis == basis and row.amount_usd > 0 for row in flows)],
        "credits_usd": money.cents(sum((min(row.amount_usd, Decimal(0)) for row in flows), Decimal(0))),
        "billed_usd": billed_usd,
    }


_MOVED = ("price_usd", "volume_usd", "mix_usd", "rule_usd", "share_usd")


def _moved(rows: Sequence[Any]) -> Table:
    """Why each cost center pays another amount, in cents that add up across and down."""
    printed = []
    for row in rows:
        if row.price_usd is None:  # the month before is of a version that kept no more than its totals
            printed.append(row)
            continue
        effects = money.foot([getattr(row, name) for name in _MOVED], row.change_usd)
        printed.append(replace(row, **dict(zip(_MOVED, effects, strict=True))))
    return summed(printed, "before_usd", *_MOVED, "total_usd", "change_usd")


def _budgets(rows: Sequence[Any]) -> Table:
    """Each cost center's budget, in cents already; a total only of what every row has."""
    columns = [
        *("month_budget_usd", "month_actual_usd", "month_variance_usd"),
        *("year_budget_usd", "year_actual_usd", "forecast_usd", "forecast_variance_usd"),
    ]
    table = summed(rows, *columns)
    unknown = {column: None for column in columns if any(getattr(row, column) is None for row in rows)}
    return Table(table.rows, replace(table.total, **unknown))


def _pools(rows: Sequence[Any]) -> Table:
    """What each pool took and gave, in cents that add up across and down."""
    printed = []
    for row in rows:
        given = money.foot([row.passed_on_usd, row.amount_usd], money.cents(row.passed_on_usd + row.amount_usd))
        taken = money.foot([row.charges_usd, row.received_usd], sum(given, Decimal(0)))
        printed.append(
            replace(row, charges_usd=taken[0], received_usd=taken[1], passed_on_usd=given[0], amount_usd=given[1])
        )
    return summed(printed, "charges_usd", "received_usd", "passed_on_usd", "amount_usd")


def _other_pools(rows: Sequence[Any], chargeback: Sequence[Any]) -> Table:
    """The lines from outside the cost report, each as one sum, which add up to what the chargeback says."""
    lines: dict[tuple[Any, ...], Decimal] = {}
    for row in rows:
        line = (row.on_day, row.pool, row.what, row.driver)
        lines[line] = lines.get(line, Decimal(0)) + row.amount_usd
    names = ("on_day", "pool", "what", "driver", "amount_usd")
    made = make_dataclass("Row", names, frozen=True)
    total_usd = sum((row.other_usd for row in chargeback), Decimal("0.00"))
    return footed([made(*line, usd) for line, usd in lines.items()], amount_usd=total_usd)


def _rules(rows: Sequence[Any], chargeback: Sequence[Any]) -> list[tuple[Any, Table]]:
    """Each cost center with the rules that sent it something, which add up to its direct and its shared dollars."""
    centers = {row.cost_center: row for row in chargeback}
    return [(centers[name], _split(held, centers[name])) for name, held in grouped(rows, "cost_center").items()]


def _split(rows: Sequence[Any], center: Any) -> Table:
    """A cost center's rows in cents, direct and shared ones each adding up to what the chargeback says."""
    direct = footed([row for row in rows if row.basis != "shared"], amount_usd=center.direct_usd)
    shared = footed([row for row in rows if row.basis == "shared"], amount_usd=center.shared_usd)
    return Table(direct.rows + shared.rows, center)


@dataclass(frozen=True)
class Statements:
    """What the statements show, by cost center."""

    days: tuple[date, ...]
    seen: dict[str, list[Any]]
    rules: dict[str, list[Any]]
    other: dict[str, list[Any]]
    moved: dict[str, Any]
    budgets: dict[str, Any]
    units: dict[str, Any]

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection) -> "Statements":
        """Everything at once: there may be hundreds of cost centers."""

        def rows(view: str) -> dict[str, list[Any]]:
            return grouped(fetch(connection, f"select * from report.{view}"), "cost_center")

        def one(view: str) -> dict[str, Any]:
            return {name: held[0] for name, held in rows(view).items()}

        moved = {row.cost_center: row for row in _moved(fetch(connection, "select * from report.movement")).rows}
        days = connection.execute("select day from report.daily order by day").fetchall()
        return cls(
            tuple(day for (day,) in days),
            rows("statement"),
            rows("allocation_rule"),
            rows("other"),
            moved,
            one("budget"),
            one("unit_cost"),
        )

    def of(self, center: Any, page: str, charts: Charts) -> dict[str, Any]:
        """One cost center's statement: every table adds up to what the chargeback says of it."""
        name = center.cost_center
        tables = {}
        for dimension in ("workspace", "model", "service_tier", "meter", "day"):
            table = footed(
                [row for row in self.seen.get(name, []) if row.dimension == dimension],
                direct_usd=center.direct_usd,
                shared_usd=center.shared_usd,
            )
            rows = [replace(row, amount_usd=row.direct_usd + row.shared_usd) for row in table.rows]
            tables[f"by_{dimension}"] = Table(tuple(rows), center)
        own = {date.fromisoformat(row.item): row.direct_usd for row in tables["by_day"].rows if row.item}
        days = [(on, own.get(on, Decimal(0))) for on in self.days]
        return {
            "center": center,
            "rules": _split(self.rules.get(name, []), center),
            "other": footed(self.other.get(name, []), amount_usd=center.other_usd),
            "moved": self.moved.get(name),
            "reasons": _reasons(self.moved.get(name)),
            "budget": self.budgets.get(name),
            "unit": self.units.get(name),
            "chart": charts.days(days),
            "csv": f"{page.removesuffix('.html')}.csv",
            **tables,
        }


def _reasons(moved: Any) -> list[tuple[str, Decimal]]:
    """Why a cost center pays another amount than the month before, largest first."""
    if moved is None:
        return []
    found = [(name.removesuffix("_usd"), getattr(moved, name)) for name in _MOVED if getattr(moved, name)]
    return sorted(found, key=lambda effect: (-abs(effect[1]), effect[0]))
