"""Stage match: line up what was recorded, reported and billed, cell by cell."""

import duckdb

from reconcile import ledger
from reconcile.errors import InvariantError


def match(connection: duckdb.DuckDBPyConnection) -> None:
    """Fill schema matched from schema source.

    Raises ``InvariantError`` when more than half of the billed dollars look like an error of the unit: cents read as
    dollars, or dollars as cents.
    """
    ledger.run_sql(connection, "match")
    _guard_unit(connection)


def _guard_unit(connection: duckdb.DuckDBPyConnection) -> None:
    """Stop when more than half of the billed dollars lie within 5 % of 100 times, or 1/100 of, the price book."""
    billed, hundredfold, hundredth = connection.execute("""
        select
            coalesce(sum(billed_usd), 0),
            coalesce(sum(billed_usd) filter (billed_usd between 95 * reported_usd and 105 * reported_usd), 0),
            coalesce(sum(billed_usd) filter (100 * billed_usd between 0.95 * reported_usd and 1.05 * reported_usd), 0),
        from matched.cell
        where in_period and billed_usd > 0 and reported_usd > 0
    """).fetchall()[0]
    for wrong, factor in ((hundredfold, "100 times"), (hundredth, "1/100 of")):
        if 2 * wrong > billed:
            raise InvariantError(
                "cost_report: amount",
                f"${wrong:f} of ${billed:f} billed is {factor} what the price book says for the reported quantities",
                "The unit of the amounts is not cents any more, or the price book is wrong: nothing was published",
            )
