"""Rows of a view as they are printed: cents that add up to their totals."""

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass, replace
from decimal import Decimal
from typing import Any

import duckdb

from reconcile import money


@dataclass(frozen=True)
class Table:
    """Rows of a view as they are printed, and the line that they tie out to (their columns' sums)."""

    rows: tuple[Any, ...]
    total: Any


def fetch(connection: duckdb.DuckDBPyConnection, query: str, *parameters: object) -> list[Any]:
    """A query's rows, each a frozen value whose fields are the columns."""
    cursor = connection.execute(query, list(parameters))
    row = make_dataclass("Row", [column[0] for column in cursor.description or ()], frozen=True)
    return [row(*values) for values in cursor.fetchall()]


def footed(rows: Sequence[Any], **totals_usd: Decimal) -> Table:
    """Rows whose named columns are printed in cents and add up to the totals given."""
    for column, total_usd in totals_usd.items():
        printed = money.foot([getattr(row, column) for row in rows], total_usd)
        rows = [replace(row, **{column: usd}) for row, usd in zip(rows, printed, strict=True)]
    line = make_dataclass("Total", list(totals_usd), frozen=True)
    return Table(tuple(rows), line(**totals_usd))


def summed(rows: Sequence[Any], *columns: str) -> Table:
    """Rows whose cents stand already, with the sums of the named columns; what is not known counts as nothing."""
    line = make_dataclass("Total", columns, frozen=True)
    sums = [sum((getattr(row, column) or Decimal(0) for row in rows), Decimal("0.00")) for column in columns]
    return Table(tuple(rows), line(*sums))


def grouped(rows: Sequence[Any], column: str) -> dict[str, list[Any]]:
    """Rows by the value of a column, both in the order in which they come."""
    held: dict[str, list[Any]] = {}
    for row in rows:
        held.setdefault(getattr(row, column), []).append(row)
    return held
