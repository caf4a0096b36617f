"""What the provider corrected of a month after it was closed, and the month that books it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb

from reconcile import ledger
from reconcile.config import UNALLOCATED
from reconcile.money import SCALE, apportion
from reconcile.period import Period
from reconcile.register import Entry, standing
from reconcile.run.room import Room

DIMENSIONS = {
    "day": "DATE",
    "workspace_id": "VARCHAR",
    "model": "VARCHAR",
    "service_tier": "VARCHAR",
    "context_window": "VARCHAR",
    "inference_geo": "VARCHAR",
    "speed": "VARCHAR",
    "meter": "VARCHAR",
}
_AMOUNT = "DECIMAL(38, 12)"
RESTATEMENT = {
    "period_of_charge": "VARCHAR",
    **DIMENSIONS,
    "before_usd": _AMOUNT,
    "after_usd": _AMOUNT,
    "amount_usd": _AMOUNT,
}
"""A row a cell of an earlier month that moved."""
PART = {"period_of_charge": "VARCHAR", **DIMENSIONS, "cost_center": "VARCHAR", "amount_usd": _AMOUNT}
"""A row a moved cell and the cost center that gets or gives it."""

BuildPages = Callable[[duckdb.DuckDBPyConnection, Period, Path], None]
"""Fills an empty ledger from a pull's folder, up to `match`."""


@dataclass(frozen=True)
class Correction:
    """A closed month whose recheck another month books, and the later closed months that may have booked some of it."""

    period: Period
    folder: Path
    pages_digest: str
    revision: ledger.Revision
    booked: tuple[ledger.Revision, ...]


@dataclass(frozen=True)
class Moved:
    """What moved of a month: rows of ``RESTATEMENT`` and of ``PART``, and whether it differs from what was closed."""

    rows: tuple[tuple[object, ...], ...] = ()
    parts: tuple[tuple[object, ...], ...] = ()
    is_restated: bool = False

    @property
    def amount_usd(self) -> Decimal:
        """What is to be booked, USD."""
        return sum((Decimal(str(row[-1])) for row in self.rows), Decimal(0))


# Which month books what -----------------------------------------------------------------------------------------------


def to_book(room: Room, entries: Sequence[Entry], period: Period) -> tuple[Correction, ...]:
    """The rechecked months whose corrections a period books: it is the first one after them that is not closed.

    A closed period goes on booking what it did when it was closed.
    """
    if standing(entries, period).is_closed:
        entries = entries[: _closed_at(entries, period)]
    rechecked = {Period.parse(entry["period"]) for entry in entries if entry["event"] == "recheck"}
    found = (correction(room, entries, month) for month in sorted(rechecked) if month < period)
    return tuple(one for one in found if one is not None and open_after(entries, one.period, period) == period)


def open_after(entries: Sequence[Entry], period: Period, until: Period | None = None) -> Period | None:
    """The first month after a period that was published and is not closed; ``until`` counts as published."""
    months = {Period.parse(entry["period"]) for entry in entries if entry["event"] == "close"} | ({until} - {None})
    later = sorted(month for month in months if month is not None and month > period)
    return next((month for month in later if not standing(entries, month).is_closed), None)


def correction(room: Room, entries: Sequence[Entry], period: Period) -> Correction | None:
    """What a month's last recheck is compared with; None where a later closed month has booked it, or it is open."""
    if not standing(entries, period).is_closed:
        return None
    rechecks = [n for n, entry in enumerate(entries) if _is(entry, "recheck", period)]
    since = max(rechecks[-1], _closed_at(entries, period))
    after = [month for month in room.shelf.periods() if month > period and standing(entries, month).is_closed]
    if any(_closed_at(entries, month) > since for month in after):
        return None
    last = entries[rechecks[-1]]
    revision = room.shelf.newest(period)
    if revision is None:
        return None
    return Correction(
        period=period,
        folder=room.raw / str(period) / last["folder"],
        pages_digest=last["pages_digest"],
        revision=revision,
        booked=_closed_after(room, entries, period),
    )


def against_closed(
    room: Room, period: Period, folder: Path, pages_digest: str, revision: ledger.Revision
) -> Correction:
    """A recheck that was just pulled, beside the closed revision and every later closed month."""
    return Correction(period, folder, pages_digest, revision, _closed_after(room, room.register.entries(), period))


def books(room: Room, period: Period, earlier: Period) -> bool:
    """Whether a published month holds corrections of an earlier one."""
    revision = room.shelf.newest(period)
    return revision is not None and bool(_booked(revision, earlier))


def _closed_after(room: Room, entries: Sequence[Entry], period: Period) -> tuple[ledger.Revision, ...]:
    later = (month for month in room.shelf.periods() if month > period and standing(entries, month).is_closed)
    return tuple(revision for month in later if (revision := room.shelf.newest(month)) is not None)


def _is(entry: Entry, event: str, period: Period) -> bool:
    return (entry["event"], entry["period"]) == (event, str(period))


def _closed_at(entries: Sequence[Entry], period: Period) -> int:
    """Where in the register a month was closed that is closed."""
    at = standing(entries, period).closed_at
    return max(n for n, one in enumerate(entries) if _is(one, "close", period) and one["final"] and one["at"] == at)


# What moved -----------------------------------------------------------------------------------------------------------


def moved(room: Room, one: Correction, build_pages: BuildPages) -> Moved:
    """Compare the pages of a recheck with the closed revision, cell by cell, less what later months have booked."""
    aside = room.scratch / f"{one.period}.recheck"  # goes with that folder
    with ledger.building(aside, room.scratch) as connection:
        build_pages(connection, one.period, one.folder)
        booked = [row for revision in one.booked for row in _booked(revision, one.period)]
        ledger.insert(connection, "temp.booked", {**DIMENSIONS, "amount_usd": _AMOUNT}, booked)
        path = str(one.revision.path).replace("'", "''")
        connection.execute(f"attach '{path}' as closed (read_only)")
        ledger.run_sql(connection, "restate")
        rows = connection.execute("select * from moved order by cell").fetchall()
        weights: dict[int, dict[str, Decimal]] = {}
        for cell, cost_center, weight_usd in connection.execute("select * from weight").fetchall():
            weights.setdefault(cell, {})[cost_center] = weight_usd
        connection.execute("detach closed")
    restated = [(row[0], row[1:9], *row[10:]) for row in rows if row[-1]]
    return Moved(
        rows=tuple((str(one.period), *cell, before, after, usd) for _, cell, before, after, usd in restated),
        parts=tuple(
            (str(one.period), *cell, cost_center, part_usd)
            for number, cell, _, _, usd in restated
            for cost_center, part_usd in _parts(usd, weights.get(number))
        ),
        is_restated=any(closed_usd != after_usd for *_, closed_usd, _, after_usd, _ in rows),
    )


def _booked(revision: ledger.Revision, period: Period) -> list[tuple[object, ...]]:
    with ledger.reading(revision.path) as published:
        columns = ", ".join(DIMENSIONS)
        return published.execute(
            f"select {columns}, amount_usd from source.restatement where period_of_charge = ? order by all",
            [str(period)],
        ).fetchall()


def _parts(amount_usd: Decimal, weights: dict[str, Decimal] | None) -> Iterator[tuple[str, Decimal]]:
    parts = apportion(amount_usd, weights, unit=SCALE) if weights else {UNALLOCATED: amount_usd}
    yield from ((cost_center, part_usd) for cost_center, part_usd in sorted(parts.items()) if part_usd)
