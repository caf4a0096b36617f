"""Stage load: the provider's pages and the applications' request logs -> schema source."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from errno import EDQUOT, ENOSPC
from hashlib import file_digest, sha256
from pathlib import Path
from shutil import copyfileobj
from time import time

import duckdb

from reconcile import ledger
from reconcile.config import RequestLog
from reconcile.errors import SourceError
from reconcile.load import staging
from reconcile.load.pages import Pull, billed_total, days_that_disagree, load_pages
from reconcile.period import Period
from reconcile.prices import PriceBook

__all__ = ["LogFiles", "Pull", "billed_total", "days_that_disagree", "find_logs", "load_logs", "load_pages"]

DAY = timedelta(days=1)


HOT_SECONDS = 600
"""A file that was written to so lately may be written to now."""


@dataclass(frozen=True)
class LogFile:
    """A file of a log as it was fingerprinted; what is read is ``read_from``: itself, or a copy of just these bytes."""

    path: Path
    read_from: Path
    bytes: int
    modified_ns: int
    sha256: str

    def refuse_if_changed(self, log: str) -> None:
        """Raise ``SourceError`` where what was read cannot be what was fingerprinted."""
        if self.read_from != self.path:
            return
        try:
            now = self.path.stat()
        except OSError as error:
            raise _unreadable(log, self.path, error) from None
        if (now.st_size, now.st_mtime_ns) != (self.bytes, self.modified_ns):
            raise SourceError(
                f"request_logs: {log}",
                f"{self.path} was written to while it was read: it had {self.bytes} bytes, and has {now.st_size}",
                "Close again",
            )


@dataclass(frozen=True)
class LogFiles:
    """A configured log and the files that its path found for a period and the day either side."""

    log: RequestLog
    files: tuple[LogFile, ...]

    @property
    def bytes(self) -> int:
        """Size of the files as they lay on disk."""
        return sum(file.bytes for file in self.files)


def find_logs(logs: Sequence[RequestLog], period: Period, snapshots: Path | None = None) -> tuple[LogFiles, ...]:
    """Find and fingerprint the files of every configured log.

    ``{day}`` is expanded for the period and the day either side; a neighbor without a file is no error. Of a file that
    was just written to, the bytes of this moment are copied to ``snapshots`` and read from there, whatever is written
    to it later.
    Raises ``SourceError`` for a log without any file, or a file that cannot be read.
    """
    found = []
    for position, log in enumerate(logs):
        paths = log.files(period)
        if not paths:
            raise SourceError(
                f"request_logs: {log.name}",
                f"found no file for {log.path!r} in {period}, expected at least one",
                "Correct the path, or take the log out of the config",
            )
        files = []
        for number, path in enumerate(paths):
            copy = snapshots / str(position) / str(number) / path.name if snapshots else None
            try:
                files.append(_fingerprinted(path, copy))
            except OSError as error:
                if error.errno in {ENOSPC, EDQUOT}:  # of the copy: no matter of the log
                    raise
                raise _unreadable(log.name, path, error) from None
        found.append(LogFiles(log, tuple(files)))
    return tuple(found)


def _fingerprinted(path: Path, copy: Path | None) -> LogFile:
    seen = path.stat()
    if copy is not None and time() - seen.st_mtime < HOT_SECONDS:
        copy.parent.mkdir(parents=True)
        with path.open("rb") as source, copy.open("wb") as target:
            copyfileobj(source, target, 1 << 20)
        read_from, size = copy, copy.stat().st_size
    else:
        read_from, size = path, seen.st_size
    with read_from.open("rb") as stream:
        return LogFile(path, read_from, size, seen.st_mtime_ns, file_digest(stream, "sha256").hexdigest())


def _unreadable(log: str, path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"request_logs: {log}", f"{path} cannot be read ({error.strerror})", "Correct its owner or mode, or close again"
    )


def load_logs(  # noqa: PLR0917 - the stages' connection first, then what the run knows
    connection: duckdb.DuckDBPyConnection,
    logs: Sequence[LogFiles],
    book: PriceBook,
    period: Period,
    amounts: str,
    on_progress: Callable[[str, int, int | None], None],
) -> None:
    """Read, fold and value the request logs; needs the provider's pages in the ledger.

    Fills source.request (one row a kept request), origin, removed, iteration, rejected, default_used, log, log_hour,
    log_coverage, warning, key_named and price. ``amounts`` is billing.amounts; what ``auto`` measured stands in
    source.run.
    """
    files = [(found.log, [file.read_from for file in found.files]) for found in logs]
    with _naming_originals(logs):
        batches = staging.stage(connection, files, period, on_progress)
    _name_models(connection, book)
    ledger.insert(
        connection,
        "temp.log_setting",
        {"log": "VARCHAR", "workspace_id": "VARCHAR"},
        [(found.log.name, _workspace(connection, found.log.workspace_id)) for found in logs],
    )
    ledger.insert(
        connection,
        "temp.log_name",
        {"position": "USMALLINT", "log": "VARCHAR"},
        list(enumerate(sorted(found.log.name for found in logs))),
    )
    ledger.run_sql(connection, "load")
    with _naming_originals(logs):
        staging.read_tied(connection, batches)
    for found in logs:
        for file in found.files:
            file.refuse_if_changed(found.log.name)
    ledger.run_sql(connection, "load_fold")
    _price(connection, book, period)
    _decide_amounts(connection, amounts)
    ledger.run_sql(connection, "load_price")
    _describe_logs(connection, logs)
    ledger.run_sql(connection, "load_checks")


@contextmanager
def _naming_originals(logs: Sequence[LogFiles]) -> Iterator[None]:
    """An error about a copy is one about the file that it is of."""
    try:
        yield
    except SourceError as error:
        what = error.what
        for file in (file for found in logs for file in found.files):
            what = what.replace(str(file.read_from), str(file.path))
        raise SourceError(error.where, what, error.do) from None


def _workspace(connection: duckdb.DuckDBPyConnection, configured: str | None) -> str | None:
    found = connection.execute(
        "select workspace_id from source.workspace_alias where logged = ?", [configured]
    ).fetchone()
    return found[0] if found else configured


def _name_models(connection: duckdb.DuckDBPyConnection, book: PriceBook) -> None:
    """Map every model name that a log holds to the name that the reports use."""
    reported = {
        name
        for (name,) in connection.execute(
            "select model from source.usage where model is not null union select model from source.billed"
            " where model is not null"
        ).fetchall()
    }
    logged = connection.execute("""
        select distinct model_logged from origin
        union
        select distinct unnest(from_json(iterations, '["json"]')) ->> '$.model' from event where iterations is not null
    """).fetchall()
    named = []
    for (name,) in sorted(row for row in logged if row[0] is not None):
        model = book.report_name(name, reported)
        named.append((name, model, book.supports_geo(model), book.other_biller(name)))
    ledger.insert(
        connection,
        "temp.model_name",
        {"logged": "VARCHAR", "model": "VARCHAR", "has_geo": "BOOLEAN", "biller": "VARCHAR"},
        named,
    )


_PRICED = "model, service_tier, context_window, inference_geo, speed"


def _price(connection: duckdb.DuckDBPyConnection, book: PriceBook, period: Period) -> None:
    """Look up every price that this month's cells and requests need, and lay it out by day.

    With those of every mix of their dimensions: a quantity may pass such a place on its way from one cell to another.
    """
    combinations = connection.execute(f"""
        with needed as (
            select {_PRICED} from grain
            union
            select {_PRICED} from source.usage where meter <> 'web_search_requests'
            union
            select model, service_tier, context_window, inference_geo, coalesce(speed, 'standard')
            from source.billed where cost_type = 'tokens'
        )
        select * from needed
        union
        select *
        from (select distinct model from needed)
        cross join (select distinct service_tier from needed)
        cross join (select distinct context_window from needed)
        cross join (select distinct inference_geo from needed)
        cross join (select distinct speed from needed)
        order by all
    """).fetchall()
    first, last = period.start_on - DAY, period.end_on + DAY
    meters = [
        "uncached_input_tokens",
        "cache_creation.ephemeral_5m_input_tokens",
        "cache_creation.ephemeral_1h_input_tokens",
        "cache_read_input_tokens",
        "output_tokens",
    ]
    asked = [(*dimensions, meter) for dimensions in combinations for meter in meters]
    asked.append((None, None, None, None, None, "web_search_requests"))
    ledger.insert(
        connection,
        "source.price",
        {
            "model": "VARCHAR",
            "service_tier": "VARCHAR",
            "context_window": "VARCHAR",
            "inference_geo": "VARCHAR",
            "speed": "VARCHAR",
            "meter": "VARCHAR",
            "from_on": "DATE",
            "until_on": "DATE",
            "prompt_over": "BIGINT",
            "price_unit": "VARCHAR",
            "list_price_usd": "DECIMAL(38, 12)",
            "price_usd": "DECIMAL(38, 12)",
            "contract_price_usd": "DECIMAL(38, 12)",
            "source": "VARCHAR",
            "is_used": "BOOLEAN",
        },
        [
            (
                rate.model,
                rate.service_tier,
                rate.context_window,
                rate.inference_geo,
                rate.speed,
                rate.meter,
                rate.from_on,
                rate.until_on,
                rate.prompt_over,
                rate.price_unit,
                rate.list_price_usd,
                rate.price_usd,
                rate.price_usd,
                rate.source,
                False,
            )
            for model, tier, window, geo, speed, meter in asked
            for rate in book.rates(
                model=model,
                service_tier=tier,
                context_window=window,
                inference_geo=geo,
                speed=speed,
                meter=meter,
                start_on=first,
                end_on=last,
            )
        ],
    )


def _decide_amounts(connection: duckdb.DuckDBPyConnection, amounts: str) -> None:
    """Settle whether the cost report's amounts are net of the contract or at list, and price accordingly.

    ``auto`` measures it on the billed lines of models under contract: which price, times the reported quantity, a
    line equals. Raises ``SourceError`` with three lines where neither or both do.
    """
    if amounts == "auto":
        ledger.run_sql(connection, "load_amounts")
        net, as_list, neither = connection.execute(
            "select count(*) filter (fits = 'net'), count(*) filter (fits = 'list'), count(*) filter (fits is null)"
            " from source.contract_line"
        ).fetchall()[0]
        if (net and as_list) or (neither and not net and not as_list):
            shown = ledger.rows(
                connection,
                "select * from source.contract_line order by fits nulls first, day, workspace_id, model, meter limit 3",
            )
            raise SourceError(
                "billing.amounts: auto",
                f"{net} billed lines fit the contract's rate, {as_list} fit list, {neither} neither: "
                + "; ".join(
                    f"{row['day']} {row['workspace_id']} {row['model']} {row['meter']} billed {row['billed_usd']},"
                    f" at contract {row['net_usd']}, at list {row['list_usd']}"
                    for row in shown
                ),
                "Correct prices.contract, or set billing.amounts to net or list",
            )
        amounts = "list" if as_list else "net"
    connection.execute("update source.run set amounts = ?", [amounts])
    if amounts == "list":
        connection.execute("update source.price set price_usd = list_price_usd")
    ledger.run_sql(connection, "load_price_day")


def _describe_logs(connection: duckdb.DuckDBPyConnection, logs: Sequence[LogFiles]) -> None:
    ledger.insert(
        connection,
        "temp.log_file",
        {
            "position": "INTEGER",
            "log": "VARCHAR",
            "format": "VARCHAR",
            "path": "VARCHAR",
            "files": "BIGINT",
            "bytes": "BIGINT",
            "sha256": "VARCHAR",
        },
        [
            (
                position,
                found.log.name,
                found.log.format,
                Path(found.log.path).name,
                len(found.files),
                found.bytes,
                fingerprint(found),
            )
            for position, found in enumerate(logs)
        ],
    )
    connection.execute("""
        create or replace table source.log as
        select
            log_file.log, log_file.format, log_file.path, log_file.files, log_file.bytes,
            coalesce(counted.lines, 0)::bigint as lines,
            coalesce(counted.rejected, 0)::bigint as rejected,
            coalesce(counted.outside, 0)::bigint as outside,
            coalesce(counted.unused, 0)::bigint as unused,
            coalesce(kept.requests, 0)::bigint as requests,
            kept.first_at, kept.last_at, log_file.sha256,
        from log_file
        left join (
            select log, sum(lines) as lines, sum(rejected) as rejected, sum(outside) as outside,
                sum(unused) as unused
            from log_count group by log
        ) as counted on counted.log = log_file.log
        left join (
            select origin.log, sum(requests) as requests, min(first_at) as first_at, max(last_at) as last_at
            from (
                select origin, count(*) as requests, min(logged_at) as first_at, max(logged_at) as last_at
                from source.request_row
                group by origin
            ) as row
            join source.origin as origin on origin.origin = row.origin
            group by origin.log
        ) as kept on kept.log = log_file.log
        order by log_file.position
    """)


def fingerprint(found: LogFiles) -> str:
    """One SHA-256 over a log's file contents, whatever the files are called."""
    return sha256("\n".join(sorted(file.sha256 for file in found.files)).encode()).hexdigest()
