"""Stage explain: every dollar of cleaning and difference gets one reason, and stands in one finding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb

from reconcile import ledger, money, reasons
from reconcile.config import SCOPES, Accepted, Invoice, like, pattern_matches

REASONS = tuple((reason.code, reason.leads_to, reason.title) for reason in reasons.BEFORE_BILLED)
"""The closed list in the bridge's order."""

ROOMS = ("own", "day", "route")
"""Where an iteration's entry can be found in the report: in its own cell, on another day, where its line belongs."""

BY_DAY = ("day", "cutoff", 3)
RELAXED = (
    # the dimension under whose other value the same quantity is looked for, its reason and position
    ("model", "model", 5),
    ("service_tier", "service_tier", 6),
    ("context_window", "context_window", 7),
    ("inference_geo", "inference_geo", 8),
    ("speed", "speed", 9),
    ("workspace_id", "workspace", 10),
)

_RELAXED_COLUMNS = {"dimension": "VARCHAR", "reason": "VARCHAR", "position": "INTEGER"}

SYSTEMATIC = (
    # what a whole log does: the passes that find it (none: known before), its reason and position
    ((), "time_zone", 1),
    (("fetched",), "cutoff", 3),
    (("cache_inclusive", "inclusive_anywhere", "inclusive_lines"), "cache_inclusive", 2),
    (("exchanged",), "cache_ttl", 4),
    (("exchanged",), "cache_ttl", 4),  # beside logs whose own are right by now
    ((), "workspace", 11),
)


def explain(connection: duckdb.DuckDBPyConnection, accepted: Sequence[Accepted], invoice: Invoice | None) -> None:
    """Fill schema explained from schema matched."""
    _write_reasons(connection)
    _run(connection, "cells")
    _correct(connection)
    _search(connection)
    _take_one_sided(connection)
    _run(connection, "price", "app_price", "findings")
    _accept(connection, accepted)
    _book_invoice(connection, invoice)
    _run(connection, "bridge", "evidence")


@dataclass(frozen=True)
class Behind:
    """The requests behind a finding: the rows that were asked for, and how many there are.

    ``rows`` are rows of ``explained.request``. Of ``requests`` in the finding's hours and places ``known`` are surely
    behind it; of the others the data does not tell which.
    """

    rows: tuple[dict[str, Any], ...]
    known: int
    requests: int


def requests_behind(connection: duckdb.DuckDBPyConnection, finding_id: str, limit: int) -> Behind:
    """The requests behind a finding, at most ``limit`` of them: the known ones first, then by dollars.

    None where the log side has none, as of what it never held, and where old request rows were purged.
    """
    found = ledger.rows(
        connection,
        """
        select * exclude (finding_id), count(*) over () as requests, count(*) filter (known) over () as known_requests
        from explained.request
        where finding_id = ?
        order by known desc, abs(coalesce(amount_usd, recorded_usd, 0)) desc, logged_at, request_id nulls last, log,
            note nulls last
        limit ?
        """,
        [finding_id, max(limit, 1)],
    )
    counted = [(row.pop("known_requests"), row.pop("requests")) for row in found]
    known, requests = counted[0] if counted else (0, 0)
    return Behind(tuple(found[:limit]), known, requests)


def _write_reasons(connection: duckdb.DuckDBPyConnection) -> None:
    """The closed list with its words, so that a ledger can be read without the program."""
    columns = ("reason", "leads_to", "title", "meaning", "to_do", "confirm")
    ledger.insert(
        connection,
        "explained.reason",
        {"position": "INTEGER"} | dict.fromkeys(columns, "VARCHAR"),
        [
            (position, one.code, one.leads_to, one.title, one.meaning, one.to_do, one.confirm)
            for position, one in enumerate(reasons.ALL, start=1)
        ],
    )


def _run(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    for name in names:
        ledger.run_sql(connection, f"explain/{name}")


def _correct(connection: duckdb.DuckDBPyConnection) -> None:
    """What a whole log does, and where it is wrong in all of its lines; last, the lines that nobody reported."""
    _run(connection, "silent", "workspace", "corrected")  # what the corrections start from
    _set_clocks(connection)
    _run(connection, "silent")  # by clocks that are right
    for names, reason, position in SYSTEMATIC:
        _run(connection, *names)
        connection.execute("delete from explained.step")
        connection.execute("insert into explained.step values (?, ?)", [reason, position])
        _run(connection, "corrected", "transit", "booked")
    _run(connection, "never_reported", "corrected", "residual")


def _search(connection: duckdb.DuckDBPyConnection) -> None:
    """What nets place by place, by the hour and then by the day."""
    ledger.insert(connection, "explained.relaxation", _RELAXED_COLUMNS, [BY_DAY, *RELAXED])
    for _ in range(2):  # what one pass nets uncovers what it hid from the others
        _run(connection, "cutoff", "iterations_back", "cache_ttl")
        for relaxed in RELAXED:
            _net(connection, "other_cell", *relaxed, by_day=False)
    _net(connection, "several", *BY_DAY, by_day=False)
    _run(connection, "balanced", "cutoff")
    _net(connection, "other_cell", "hour", "cutoff", 3, by_day=False)  # of one day: it changes no cell
    _run(connection, "transit", "slot_cell", "by_day", "cache_ttl")
    for relaxed in (BY_DAY, *RELAXED):
        _net(connection, "other_cell", *relaxed, by_day=True)
    _net(connection, "several", *BY_DAY, by_day=True)
    _run(connection, "transit", "slot_cell", "moved")


def _take_one_sided(connection: duckdb.DuckDBPyConnection) -> None:
    """What only one side saw: each pass takes what the ones before it leave."""
    _run(connection, "too_much", "unlogged_key", "no_key", "iterations")
    for kind in ROOMS if _count(connection, "explained.entry") else ():
        ledger.insert(connection, "explained.room_kind", {"kind": "VARCHAR"}, [(kind,)])
        _run(connection, "iterations_in")
    _run(connection, "cut_stream", "log_gap", "one_side")


def _set_clocks(connection: duckdb.DuckDBPyConnection) -> None:
    """Find the clocks that are off; what is known of one log's hours tells of those who write for the same keys."""
    found: list[tuple[object, ...]] = []
    for _ in range(5):
        _run(connection, "time_zone")
        before, found = found, connection.execute("select log, minutes from explained.shift order by log").fetchall()
        if found == before:
            return


def _net(
    connection: duckdb.DuckDBPyConnection, name: str, dimension: str, reason: str, position: int, *, by_day: bool
) -> None:
    """Net what stands under another value of one dimension, or of several, until no more is found."""
    ledger.insert(
        connection,
        "explained.relaxed",
        _RELAXED_COLUMNS | {"by_day": "BOOLEAN"},
        [(dimension, reason, position, by_day)],
    )
    found = -1
    while _count(connection, "explained.opposite") and found != (found := _count(connection, "explained.moved")):
        _run(connection, name)


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    found: int = connection.execute(f"select count(*) from {table}").fetchall()[0][0]
    return found


def _accept(connection: duckdb.DuckDBPyConnection, accepted: Sequence[Accepted]) -> None:
    """Mark what is known and signed for.

    The entry that accepts a finding is kept beside it with the standing ``holds``; beside a finding that counts, every
    entry that is about it, ``exceeded`` or ``expired``. These are warned of, like an entry that is about nothing.
    """
    applied = _apply(
        accepted,
        ledger.rows(
            connection,
            """
            select finding.id, finding.reason, finding.log, finding.workspace_id, finding.model, finding.day_to,
                finding.moved_usd, workspace.name
            from explained.finding as finding
            left join source.workspace as workspace on workspace.workspace_id = finding.workspace_id
            order by finding.id
            """,
        ),
    )
    accepted_by = {finding_id: one.entry.who for one in applied if one.holds for finding_id in one.covered}
    warnings = [warning for one in applied if (warning := _warning(one, accepted_by))]
    ledger.insert(
        connection,
        "explained.accepted",
        {
            "finding_id": "VARCHAR",
            "position": "INTEGER",
            "standing": "VARCHAR",
            "who": "VARCHAR",
            "why": "VARCHAR",
            "until_on": "DATE",
            "up_to_usd": "DECIMAL(38, 12)",
        },
        [
            (finding_id, position, standing, one.entry.who, one.entry.why, one.entry.until, one.entry.up_to_usd)
            for position, one in enumerate(applied, start=1)
            for finding_id, standing in one.standings()
            if standing == "holds" or finding_id not in accepted_by
        ],
    )
    ledger.insert(
        connection,
        "explained.warning",
        {"position": "INTEGER", "warning": "VARCHAR"},
        list(enumerate(warnings, start=1)),
    )
    connection.execute("""
        update explained.finding set accepted = true
        where id in (select finding_id from explained.accepted where standing = 'holds')
    """)


@dataclass(frozen=True)
class _Applied:
    """An entry of the config, and the ids of the findings that it is about: those that are left to it, by its dates."""

    entry: Accepted
    is_about_any: bool
    covered: tuple[str, ...]
    covered_usd: Decimal
    expired: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it accepts what it covers: all of it, or nothing where that is above its amount."""
        return self.covered_usd <= self.entry.up_to_usd

    def standings(self) -> Iterator[tuple[str, str]]:
        """Each finding with what the entry is to it."""
        yield from ((finding_id, "holds" if self.holds else "exceeded") for finding_id in self.covered)
        yield from ((finding_id, "expired") for finding_id in self.expired)


def _apply(accepted: Sequence[Accepted], findings: Sequence[Mapping[str, Any]]) -> list[_Applied]:
    """The entries in the config's order: what one accepts is not counted against the next."""
    applied: list[_Applied] = []
    accepted_ids = set[str]()
    for entry in accepted:
        about = [row for row in findings if _is_about(entry, row)]
        left = [row for row in about if row["id"] not in accepted_ids]
        covered = [row for row in left if row["day_to"] < entry.until]
        one = _Applied(
            entry,
            bool(about),
            tuple(row["id"] for row in covered),
            sum((row["moved_usd"] for row in covered), Decimal(0)),
            tuple(row["id"] for row in left if row["day_to"] >= entry.until),
        )
        applied.append(one)
        if one.holds:
            accepted_ids.update(one.covered)
    return applied


def _warning(one: _Applied, accepted_by: Mapping[str, str]) -> str | None:
    """What to say of an entry that is about nothing or does not hold; ``accepted_by`` are the signers by finding."""
    entry = one.entry
    scope = f"accepted {entry.reason}" + "".join(
        f" {part}" for part in (entry.log, entry.workspace, entry.model) if part
    )
    if not one.is_about_any:
        lacking = [
            key for key in ("log", "workspace", "model") if getattr(entry, key) and key not in SCOPES[entry.reason]
        ]
        why = f": no finding of {entry.reason} has a {' or a '.join(lacking)}" if lacking else " in this period"
        return f"{scope} (until {entry.until}, {entry.who}) matches nothing{why}"
    if not one.holds:
        up_to, found = (f"${money.cents(usd):,.2f}" for usd in (entry.up_to_usd, one.covered_usd))
        what = f"is for up to {up_to}, found {found if found != up_to else 'less than a cent more'}"
    elif one.expired and not one.covered:
        what = f"expired on {entry.until}"
    else:
        return None
    meant = one.covered or one.expired
    signers = ", ".join(dict.fromkeys(accepted_by[finding_id] for finding_id in meant if finding_id in accepted_by))
    if not signers:
        outcome = "it is not accepted"
    elif accepted_by.keys() >= set(meant):
        outcome = f"accepted by {signers}"
    else:
        outcome = f"only in part accepted, by {signers}"
    return f"{scope} ({entry.who}) {what}: {outcome}"


def _is_about(entry: Accepted, finding: Mapping[str, Any]) -> bool:
    """Whether an entry names this finding's reason and place, whatever its dates and dollars."""
    return (
        finding["reason"] == entry.reason
        and (entry.workspace is None or pattern_matches(entry.workspace, finding["workspace_id"], finding["name"]))
        and all(
            pattern is None or (value is not None and like(pattern, value))
            for pattern, value in ((entry.log, finding["log"]), (entry.model, finding["model"]))
        )
    )


_AFTER_BILLED = {reason.code: reason.title for reason in reasons.AFTER_BILLED}


def _book_invoice(connection: duckdb.DuckDBPyConnection, invoice: Invoice | None) -> None:
    """Lay the invoice's lines behind billed, and what earlier months were restated by; without both it ends at billed.

    Where the invoice has a line for earlier months, that is the step: it holds what was restated.
    """
    restated_usd: Decimal = connection.execute(
        "select coalesce(sum(amount_usd), 0)::decimal(38, 12) from source.restatement"
    ).fetchall()[0][0]
    amounts = dict.fromkeys(_AFTER_BILLED, Decimal(0))
    for line in invoice.lines if invoice else ():
        amounts[line.reason] += line.amount_usd
    if all(line.reason != "earlier_period" for line in (invoice.lines if invoice else ())):
        amounts["earlier_period"] = restated_usd
    if invoice is not None:
        amounts["contract_discount"] += _contract_discount(connection)
    steps = [
        (
            position,
            reason,
            _AFTER_BILLED[reason],
            amount_usd,
            restated_usd if reason == "earlier_period" else Decimal(0),
        )
        for position, (reason, amount_usd) in enumerate(amounts.items())
        if amount_usd or (reason == "earlier_period" and restated_usd)
    ]
    if invoice is not None:
        billed_usd: Decimal = connection.execute("select coalesce(sum(billed_usd), 0) from explained.cell").fetchall()[
            0
        ][0]
        open_usd = invoice.amount_usd - billed_usd - sum(amounts.values(), Decimal(0))
        if open_usd:
            steps.append(
                (len(amounts), "residual", "Nothing explains it, between billed and invoiced", open_usd, Decimal(0))
            )
    ledger.insert(
        connection,
        "explained.invoice_step",
        {
            "position": "INTEGER",
            "reason": "VARCHAR",
            "title": "VARCHAR",
            "amount_usd": "DECIMAL(38, 12)",
            "restated_usd": "DECIMAL(38, 12)",
        },
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
