"""Stage explain: every dollar of cleaning and difference gets one reason, and stands in one finding."""

from collections.abc import Sequence
from decimal import Decimal
from fnmatch import fnmatchcase

import duckdb

from reconcile import ledger
from reconcile.config import Accepted, Invoice, pattern_matches

REASONS = (
    # reason, the total that its step leads to, its title on the page
    ("duplicate", "recorded", "Requests logged more than once"),
    ("stream_sum", "recorded", "Stream usage counted once per event"),
    ("app_price", "recorded", "The application's own prices"),
    ("time_zone", "reported", "Log clock off by whole hours"),
    ("cutoff", "reported", "Counted on an adjacent day"),
    ("cache_inclusive", "reported", "Cached tokens counted in the input too"),
    ("cache_ttl", "reported", "5-minute and 1-hour cache writes confused"),
    ("model", "reported", "Recorded under another model"),
    ("service_tier", "reported", "Recorded under another service tier"),
    ("context_window", "reported", "Recorded under another context window"),
    ("inference_geo", "reported", "Recorded under another inference geography"),
    ("speed", "reported", "Recorded under another speed"),
    ("workspace", "reported", "Recorded under another workspace"),
    ("unlogged_key", "reported", "Keys that no log names"),
    ("no_key", "reported", "Use without an API key"),
    ("iterations", "reported", "Iterations outside the top-level counters"),
    ("cut_stream", "reported", "Streams cut before their last usage"),
    ("log_gap", "reported", "Hours in which a log is silent"),
    ("unlogged", "reported", "Reported, not logged"),
    ("unreported", "reported", "Logged, not reported"),
    ("discount", "billed", "Discount that the config does not know"),
    ("price_book", "billed", "Billed at another rate than the price book"),
    ("price_interval", "billed", "Price step that the report cannot show"),
    ("uncharged", "billed", "Used, not charged"),
    ("unpriced", "billed", "No known price"),
    ("code_execution", "billed", "Code execution"),
    ("session_usage", "billed", "Managed agent sessions"),
    ("rounding", "billed", "Rounding"),
    ("residual", "billed", "Nothing explains it"),
)
"""The closed list in the bridge's order."""

ONE_SIDED = (
    "explain/unlogged_key",
    "explain/no_key",
    "explain/iterations",
    "explain/cut_stream",
    "explain/log_gap",
    "explain/one_side",
)
"""Passes over what only one side saw: each takes what the ones before it leave."""

RELAXED = (
    # the dimension under whose other value the same quantity is looked for, its reason and position
    ("model", "model", 5),
    ("service_tier", "service_tier", 6),
    ("context_window", "context_window", 7),
    ("inference_geo", "inference_geo", 8),
    ("speed", "speed", 9),
    ("workspace_id", "workspace", 10),
)

SEARCHED = frozenset(reason for reason, _, _ in REASONS)
"""Reasons that a pass looks for; the dollars of the others stand in `unlogged` and `unreported`."""


def explain(
    connection: duckdb.DuckDBPyConnection, accepted: Sequence[Accepted], invoice: Invoice | None
) -> tuple[str, ...]:
    """Fill schema explained from schema matched; returns warnings about accepted differences that match nothing."""
    ledger.insert(
        connection,
        "explained.reason",
        {"position": "INTEGER", "reason": "VARCHAR", "leads_to": "VARCHAR", "title": "VARCHAR"},
        [(position, *reason) for position, reason in enumerate(REASONS, start=1)],
    )
    ledger.run_sql(connection, "explain/cells")
    _search(connection)
    for name in (*ONE_SIDED, "explain/price", "explain/app_price"):
        ledger.run_sql(connection, name)
    ledger.run_sql(connection, "explain/findings")
    warnings = _accept(connection, accepted)
    _book_invoice(connection, invoice)
    ledger.run_sql(connection, "explain/bridge")
    return warnings


def _search(connection: duckdb.DuckDBPyConnection) -> None:
    """What both sides saw, in different cells: first what a whole log does, then what nets place by place."""
    ledger.run_sql(connection, "explain/silent")
    ledger.run_sql(connection, "explain/corrected")
    connection.execute("delete from explained.claim")  # the first version is only what the corrections start from
    for reason, position in (("time_zone", 1), ("cache_inclusive", 2)):
        ledger.run_sql(connection, f"explain/{reason}")
        connection.execute("delete from explained.step")
        connection.execute("insert into explained.step values (?, ?)", [reason, position])
        ledger.run_sql(connection, "explain/corrected")
    ledger.run_sql(connection, "explain/residual")
    for _ in range(2):  # what one pass nets uncovers what it hid from the others
        ledger.run_sql(connection, "explain/cutoff")
        ledger.run_sql(connection, "explain/cache_ttl")
        for relaxed in RELAXED:
            _relax(connection, *relaxed)
    ledger.run_sql(connection, "explain/moved")


def _relax(connection: duckdb.DuckDBPyConnection, dimension: str, reason: str, position: int) -> None:
    """Net what stands under another value of one dimension, until no more is found."""
    ledger.insert(
        connection,
        "explained.relaxed",
        {"dimension": "VARCHAR", "reason": "VARCHAR", "position": "INTEGER"},
        [(dimension, reason, position)],
    )
    found = -1
    while found != (found := _count(connection, "explained.moved")):
        ledger.run_sql(connection, "explain/other_cell")


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    found: int = connection.execute(f"select count(*) from {table}").fetchall()[0][0]
    return found


def _accept(connection: duckdb.DuckDBPyConnection, accepted: Sequence[Accepted]) -> tuple[str, ...]:
    """Mark what is known and signed for, as long as all that one entry covers stays below its amount."""
    found = ledger.rows(
        connection,
        """
        select finding.id, finding.reason, finding.workspace_id, finding.model, finding.day_to, finding.moved_usd,
            workspace.name
        from explained.finding as finding
        left join source.workspace as workspace on workspace.workspace_id = finding.workspace_id
        order by finding.id
        """,
    )
    warnings = []
    for entry in accepted:
        covered = [
            row
            for row in found
            if row["reason"] == entry.reason
            and row["day_to"] < entry.until
            and (entry.workspace is None or pattern_matches(entry.workspace, row["workspace_id"], row["name"]))
            and (entry.model is None or fnmatchcase(row["model"] or "", entry.model))
        ]
        scope = f"accepted {entry.reason}" + "".join(f" {part}" for part in (entry.workspace, entry.model) if part)
        moved_usd = sum((row["moved_usd"] for row in covered), Decimal(0))
        if not covered:
            warnings.append(f"{scope} (until {entry.until}, {entry.who}) matches nothing in this period")
        elif moved_usd > entry.up_to_usd:
            warnings.append(f"{scope} is for up to ${entry.up_to_usd}, found ${moved_usd:f}: it is not accepted")
        else:
            connection.execute(
                "update explained.finding set accepted = true where list_contains(?, id)",
                [[row["id"] for row in covered]],
            )
    return tuple(warnings)


_AFTER_BILLED = {
    "contract_discount": "The contract's discount",
    "credit": "Credits",
    "commitment": "Commitment",
    "tax": "Tax",
    "earlier_period": "Corrections of earlier periods",
    "invoice_rounding": "Rounding of the invoice",
}


def _book_invoice(connection: duckdb.DuckDBPyConnection, invoice: Invoice | None) -> None:
    """Lay the invoice's lines behind billed; without an invoice the bridge ends at billed."""
    steps: list[tuple[object, ...]] = []
    if invoice is not None:
        billed_usd: Decimal = connection.execute("select coalesce(sum(billed_usd), 0) from explained.cell").fetchall()[
            0
        ][0]
        amounts = dict.fromkeys(_AFTER_BILLED, Decimal(0))
        amounts["contract_discount"] = _contract_discount(connection)
        for line in invoice.lines:
            amounts[line.reason] += line.amount_usd
        steps = [
            (position, reason, _AFTER_BILLED[reason], amount_usd)
            for position, (reason, amount_usd) in enumerate(amounts.items())
            if amount_usd
        ]
        open_usd = invoice.amount_usd - billed_usd - sum(amounts.values(), Decimal(0))
        if open_usd:
            steps.append((len(amounts), "residual", "Nothing explains it, between billed and invoiced", open_usd))
    ledger.insert(
        connection,
        "explained.invoice_step",
        {"position": "INTEGER", "reason": "VARCHAR", "title": "VARCHAR", "amount_usd": "DECIMAL(38, 12)"},
        steps,
    )
    ledger.insert(
        connection,
        "explained.invoice",
        {"number": "VARCHAR", "on_day": "DATE", "invoiced_usd": "DECIMAL(38, 12)"},
        [(invoice.number, invoice.on, invoice.amount_usd)] if invoice else [],
    )


def _contract_discount(connection: duckdb.DuckDBPyConnection) -> Decimal:
    """What the contract takes off amounts that are billed at list, USD; 0 where they are net."""
    found: Decimal = connection.execute("""
        select coalesce(sum(
            (matched.value_usd(reported_quantity, contract_price_usd, price_unit)
            - matched.value_usd(reported_quantity, list_price_usd, price_unit))::decimal(38, 12)
        ), 0)
        from explained.cell
        cross join source.run as run
        where run.amounts = 'list' and billed_usd is not null and contract_price_usd <> list_price_usd
    """).fetchall()[0][0]
    return found
