"""Split the bill over cost centers: every charge to the last decimal, the chargeback to the cent."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import duckdb

from reconcile import ledger, money
from reconcile.allocate.budgets import write_budgets
from reconcile.allocate.mistakes import refuse, warnings
from reconcile.allocate.movement import write_movement
from reconcile.allocate.rules import write_rules
from reconcile.allocate.scope import Scope
from reconcile.config import UNALLOCATED, Allocation, Budget
from reconcile.errors import SourceError

_LARGEST_BILL_USD = Decimal("1e12")
"""What the exact arithmetic of the SQL holds: 1e24 units of 1e-12 USD."""

_TEMPORARY = (
    *("charge", "place", "candidate", "catch", "claim", "key_split", "recorded_key", "recorded_use", "slice"),
    *("measured", "label_split", "portion", "direct_weight", "outside"),
)


def allocate(
    connection: duckdb.DuckDBPyConnection,
    allocation: Allocation,
    *,
    budgets: Sequence[Budget] = (),
    unallocated_percent: Decimal | None = None,
) -> None:
    """Write schema ``allocated`` and its views in ``checks``, from ``source``, ``matched`` and ``explained``.

    ``part`` has the columns of ``report.allocation``, ``chargeback`` those of ``report.chargeback``: a row a cost
    center in order of its name, then ``unallocated``, whose dollars stand in ``direct_usd`` (they were not shared).
    ``other`` holds what comes from outside the cost report. ``warning`` holds what the config's author should know;
    nothing in it stops a run.

    Rules come in order, then pools (design.md section 8). A rule for API keys takes their portion of a charge and
    leaves the rest to later rules; every other rule takes what is left of it. Raises ``ConfigError`` for a rule that
    can never match, ``SourceError`` for a bill too large to be split exactly. (That every receiver is a cost center
    was looked at when the config was read.)
    """
    _refuse_too_large(connection)
    scope = Scope.read(connection)
    refuse(allocation, scope)
    write_rules(connection, allocation, scope)
    for script in ("slice", "portion", "pools"):
        ledger.run_sql(connection, f"allocate/{script}")
    for turn in _turns(allocation):
        ledger.insert(connection, "allocated.turn", {"position": "int"}, [(position,) for position in turn])
        ledger.run_sql(connection, "allocate/pool_turn")
    connection.execute("drop table if exists allocated.turn")
    ledger.run_sql(connection, "allocate/part")
    _write_chargeback(connection)
    _write_unallocated(connection, unallocated_percent)
    write_budgets(connection, budgets)
    write_movement(connection)
    ledger.insert(
        connection,
        "allocated.warning",
        {"position": "int", "warning": "varchar"},
        enumerate(warnings(connection, allocation, scope, unallocated_percent), start=1),
    )
    _drop_temporary(connection)


def _refuse_too_large(connection: duckdb.DuckDBPyConnection) -> None:
    billed_usd = _value(connection, "select coalesce(sum(abs(billed_usd)), 0) from matched.cell where in_period")
    if billed_usd >= _LARGEST_BILL_USD:
        raise SourceError(
            "cost_report",
            f"the charges add up to {billed_usd} USD, expected less than {_LARGEST_BILL_USD:f}",
            "Look at the amounts in the raw pages: a bill of this size is not one",
        )


def _value(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _turns(allocation: Allocation) -> list[list[int]]:
    """The pools in turns: each after every pool that feeds it."""
    index = {pool.name: n for n, pool in enumerate(allocation.shared)}
    turn = dict.fromkeys(index.values(), 0)
    for n in allocation.pool_order():
        for fed in (index[name] for name in allocation.shared[n].receivers() if name in index):
            turn[fed] = max(turn[fed], turn[n] + 1)
    return [[n for n in turn if turn[n] == place] for place in sorted(set(turn.values()))]


def _write_chargeback(connection: duckdb.DuckDBPyConnection) -> None:
    """Apportion the direct and shared dollars of all cost centers to the cent, together.

    What comes from outside is apportioned so that, with the bill, it adds up to the rounded sum of both: the invoice.
    """
    charged = connection.execute(
        """
        with part as (
            select
                cost_center,
                sum(amount_usd) filter (basis <> 'shared') as direct_usd,
                sum(amount_usd) filter (basis = 'shared') as shared_usd,
            from allocated.part
            group by cost_center
        ),
        other as (
            select cost_center, sum(amount_usd) as other_usd from allocated.other group by cost_center
        ),
        receiver as (
            select cost_center, name, false as last from allocated.cost_center
            union all
            select $1, 'Unallocated', true
        )
        select
            receiver.cost_center, receiver.name,
            coalesce(part.direct_usd, 0)::decimal(38, 12), coalesce(part.shared_usd, 0)::decimal(38, 12),
            coalesce(other.other_usd, 0)::decimal(38, 12),
        from receiver
        left join part on part.cost_center = receiver.cost_center
        left join other on other.cost_center = receiver.cost_center
        order by receiver.last, receiver.cost_center
        """,
        [UNALLOCATED],
    ).fetchall()
    cents = iter(money.footing([amount_usd for row in charged for amount_usd in row[2:4]]))
    billed_usd = sum((amount_usd for row in charged for amount_usd in row[2:4]), Decimal(0))
    others = _outside_cents([row[4] for row in charged], billed_usd)
    for (cost_center, name, *_), other_usd in zip(charged, others, strict=True):
        direct_usd, shared_usd = next(cents), next(cents)
        total_usd = direct_usd + shared_usd
        connection.execute(
            "insert into allocated.chargeback values (?, ?, ?, ?, ?, ?, ?)",
            [cost_center, name, direct_usd, shared_usd, total_usd, other_usd, total_usd + other_usd],
        )


def _outside_cents(amounts_usd: Sequence[Decimal], billed_usd: Decimal) -> list[Decimal]:
    printed = money.footing(amounts_usd)
    wanted = money.cents(billed_usd + sum(amounts_usd, Decimal(0))) - money.cents(billed_usd)
    cent = wanted - sum(printed, Decimal(0))  # none, or one cent
    if cent:
        largest = max(range(len(printed)), key=lambda n: abs(amounts_usd[n]))
        printed[largest] += cent
    return printed


def _write_unallocated(connection: duckdb.DuckDBPyConnection, percent: Decimal | None) -> None:
    """One row: what has no cost center, and whether it is more than the tolerance allows."""
    connection.execute(
        """
        create or replace table allocated.unallocated as
        select
            coalesce(sum(amount_usd) filter (cost_center = 'unallocated'), 0)::decimal(38, 12) as unallocated_usd,
            coalesce(sum(amount_usd), 0)::decimal(38, 12) as billed_usd,
            $percent::decimal(9, 4) as tolerance_percent,
        from allocated.part
        """,
        {"percent": percent},
    )
    connection.execute(
        """
        alter table allocated.unallocated add column beyond_tolerance boolean;
        update allocated.unallocated set beyond_tolerance = coalesce(
            abs(unallocated_usd) * 100 > abs(billed_usd) * tolerance_percent, false
        )
        """
    )


def _drop_temporary(connection: duckdb.DuckDBPyConnection) -> None:
    """What only this stage needs goes: a ledger holds what answers questions."""
    for name in _TEMPORARY:
        connection.execute(f"drop table temp.{name}")
