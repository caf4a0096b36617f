"""Removal of what need not be kept: request rows of old months, their raw pages. Every figure stays as it was."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from reconcile import ledger, pull
from reconcile.config import Config
from reconcile.errors import ConfigError, InvariantError
from reconcile.period import Period
from reconcile.register import standing
from reconcile.run import reports, restate
from reconcile.run.gates import settled_at, stamp
from reconcile.run.room import Room, file_sha256

REQUESTS = frozenset({("source", "request_row"), ("source", "iteration"), ("source", "removed_request")})
"""The tables whose rows are requests; every other one holds sums, and what the provider reported."""


@dataclass(frozen=True)
class Purged:
    """What was removed: revisions that lost their request rows, how many, and folders of raw pages."""

    revisions: tuple[str, ...]
    rows: int
    raw: tuple[str, ...]


def purge(config: Config, *, now: datetime) -> Purged:
    """Remove what ``retention`` of the config says, of months that ended long enough ago.

    Request rows go from every revision of such a month, raw pages of a month only once it is closed and nothing of it
    is left to be booked. What was removed stands in the register, so that `verify` holds.
    Raises ``ConfigError`` where nothing is configured, ``InvariantError`` where a figure would not be the same.
    """
    retention = config.retention
    if retention.requests_days is None and retention.raw_days is None:
        raise ConfigError("retention", "names neither requests_days nor raw_days", "Say how long each is to be kept")
    room = Room(config.data_dir)
    with room.locked():
        room.tidy()
        revisions: list[str] = []
        raw: list[str] = []
        removed = 0
        for period in _ended_before(room, now, retention.requests_days):
            for revision in room.shelf.revisions(period):
                if rows := _without_requests(room, period, revision, now):
                    revisions.append(revision.path.name)
                    removed += rows
        for period in _ended_before(room, now, retention.raw_days):
            raw += _without_raw(room, period, now)
        return Purged(tuple(revisions), removed, tuple(raw))


def _ended_before(room: Room, now: datetime, days: int | None) -> Iterator[Period]:
    if days is not None:
        yield from (one for one in room.shelf.periods() if settled_at(one, 0) + timedelta(days=days) <= now)


def _without_requests(room: Room, period: Period, revision: ledger.Revision, now: datetime) -> int:
    """Build the revision anew without its request rows, and let it take its place; returns how many there were."""
    with ledger.reading(revision.path) as published:
        figures = reports.view_digests(published)
        rows = sum(_count(published, table) for table in REQUESTS)
    if not rows:
        return 0
    aside = room.shelf.aside(period)
    with ledger.building(aside, room.scratch) as connection:
        _copy(connection, revision.path)
        if reports.view_digests(connection) != figures:
            raise InvariantError(
                f"purge {revision.path.name}", "would change a figure", "Nothing was removed; report this as a bug"
            )
    room.register.append(
        "purge",
        period=str(period),
        revision=revision.number,
        request_rows=rows,
        ledger_sha256=file_sha256(aside),
        at=stamp(now),
    )
    room.shelf.publish(period, revision.number)
    return rows


def _copy(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Copy a published ledger into an empty one: every table and view, the rows of all but the requests."""
    (name,) = connection.execute("select current_database()").fetchall()[0]
    quoted = str(path).replace("'", "''")
    connection.execute(f"attach '{quoted}' as published (read_only)")
    for schema in ledger.SCHEMAS:
        connection.execute(f'drop schema if exists "{schema}" cascade')
    connection.execute(f'copy from database published to "{name}" (schema)')
    tables = connection.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = 'published' and not internal"
    ).fetchall()
    for schema, table in tables:
        if (schema, table) not in REQUESTS:
            connection.execute(f'insert into "{schema}"."{table}" select * from published."{schema}"."{table}"')
    connection.execute("detach published")


def _count(connection: duckdb.DuckDBPyConnection, table: tuple[str, str]) -> int:
    held = "select 1 from duckdb_tables() where schema_name = ? and table_name = ?"
    if not connection.execute(held, list(table)).fetchall():
        return 0
    found: int = connection.execute(f'select count(*) from "{table[0]}"."{table[1]}"').fetchall()[0][0]
    return found


def _without_raw(room: Room, period: Period, now: datetime) -> list[str]:
    """Remove a month's pulls, unless it may still be closed or booked out of them; returns their folders."""
    entries = room.register.entries()
    rechecked = any(entry["event"] == "recheck" and entry["period"] == str(period) for entry in entries)
    is_pending = rechecked and restate.correction(room, entries, period) is not None
    if not standing(entries, period).is_closed or is_pending:
        return []
    folders = [folder for folder in pull.complete(room.raw) if folder.parent.name == str(period)]
    if folders:
        room.register.append(
            "purge", period=str(period), raw_removed=[folder.name for folder in folders], at=stamp(now)
        )
    for folder in folders:
        shutil.rmtree(folder)
    return [f"{period}/{folder.name}" for folder in folders]
