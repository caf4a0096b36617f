"""The order of the stages: the only module that knows it."""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from reconcile import __version__, allocate, explain, ledger, load, match, pull, render
from reconcile.config import Billing, Config, Invoice, config_digest
from reconcile.errors import ConfigError, NotReadyError, SourceError
from reconcile.period import Period
from reconcile.prices import PriceBook

SEARCHED_REASONS = explain.SEARCHED
"""Reasons that a pass looks for, for those who compare with what was planted."""

Row = Mapping[str, Any]
OnProgress = Callable[[str, int, int | None], None]
"""Called with what is done now, how many steps are done, and of how many (None where it is not known)."""


@dataclass(frozen=True)
class Outcome:
    """What a close found: rows of the public views, exact."""

    exit_code: int
    period: str
    revision: int
    published: bool
    ledger: Path
    files: tuple[Path, ...]
    summary: Row
    bridge: tuple[Row, ...]
    chargeback: tuple[Row, ...]
    discrepancies: tuple[Row, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class OpenDiscrepancy:
    """A discrepancy of a period and for how many months in a row its cause has been there."""

    id: str
    reason: str
    amount_usd: Decimal
    age_months: int


@dataclass(frozen=True)
class PeriodStatus:
    """Where a period stands."""

    period: str
    state: str
    revision: int
    closed_at: str
    billed_usd: Decimal
    difference_usd: Decimal
    residual_usd: Decimal
    discrepancies: tuple[OpenDiscrepancy, ...]


@dataclass(frozen=True)
class _Room:
    """Where a run reads and writes: the folders of ``data_dir``."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def shelf(self) -> ledger.Shelf:
        return ledger.Shelf(self.root / "ledger")

    @property
    def register(self) -> ledger.Register:
        return ledger.Register(self.root / "register.jsonl")

    def reports(self, period: Period) -> Path:
        return self.root / "reports" / str(period)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run. Raises ``SourceError`` when another one holds it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise ConfigError(
                f"data_dir: {self.root}", f"cannot be written ({error.strerror})", "Correct its owner or mode"
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SourceError(
                    f"data_dir: {self.root}", "another run is writing there, expected none", "Wait until it has ended"
                ) from None
            yield


def directory(billing: Billing, *, key: str) -> pull.Directory:
    """Who is there: the organization, its workspaces and keys, for `init`."""
    return pull.directory(billing, key=key)


def reach(billing: Billing, *, key: str) -> pull.Organization:
    """Whose key it is, for `check`."""
    return pull.reach(billing, key=key)


def close(
    config: Config,
    *,
    period: Period | None,
    now: datetime,
    final: bool = False,
    offline: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Outcome:
    """Run every stage for a period, by default the last complete month, and publish a revision if anything changed.

    Raises ``ReconcileError``; nothing is published then.
    """
    period = period or Period.last_complete(now)
    if final:
        _refuse_unsettled(config, period, now)
    room = _Room(config.data_dir)
    with room.locked():
        logs = load.find_logs(config.request_logs, period)
        pulled = load.Pull.read(_pulled(config, room, period, now, offline, on_progress))
        book = PriceBook.read(config.prices.contract)
        digest = _digest(config, period, pulled, logs, book, room)
        revision = room.shelf.newest_revision(period)
        warnings = _stale(book, period)
        published = not (revision and _digest_of(room.shelf.current(period)) == digest)
        if published:
            revision += 1
            while True:
                try:
                    files = _build(config, room, period, pulled, logs, book, digest, revision, on_progress)
                    break
                except _DisagreeingDays as error:
                    pulled = _pull_days_again(config, room, period, pulled, error.days, now, offline)
                    digest = _digest(config, period, pulled, logs, book, room)
            room.shelf.publish(period, revision)
        else:
            files = _present(room, period)
        room.register.append(
            "close", period=str(period), revision=revision, final=final, input_digest=digest, at=_stamp(now)
        )
        return _outcome(room, period, files, published, warnings)


def status(config: Config, *, now: datetime) -> tuple[PeriodStatus, ...]:
    """Every published period, oldest first."""
    room = _Room(config.data_dir)
    closes = {entry["period"]: entry for entry in room.register.entries() if entry["event"] == "close"}
    found: list[PeriodStatus] = []
    ages: dict[str, int] = {}
    before: Period | None = None
    for period in room.shelf.periods():
        with ledger.reading(room.shelf.current(period)) as connection:
            summary = ledger.rows(connection, "select * from report.summary")[0]
            open_rows = _open(connection)
        follows = before is not None and before.next == period
        ages = {row["id"]: (ages.get(row["id"], 0) if follows else 0) + 1 for row in open_rows}
        entry = closes.get(str(period), {})
        over = period.through_on(now) == period.end_on - timedelta(days=1)
        found.append(
            PeriodStatus(
                period=str(period),
                state="closed" if entry.get("final") and over else "provisional",
                revision=summary["revision"],
                closed_at=str(entry.get("at", "")),
                billed_usd=summary["billed_usd"],
                difference_usd=summary["difference_usd"],
                residual_usd=summary["residual_usd"],
                discrepancies=tuple(
                    OpenDiscrepancy(row["id"], row["reason"], row["amount_usd"], ages[row["id"]]) for row in open_rows
                ),
            )
        )
        before = period
    return tuple(found)


class _DisagreeingDays(Exception):  # noqa: N818 - not an error yet: pulled once more, it may heal
    """Days on which the grouped usage does not sum to the ungrouped."""

    def __init__(self, days: tuple[date, ...]) -> None:
        super().__init__(days)
        self.days = days


def _refuse_unsettled(config: Config, period: Period, now: datetime) -> None:
    settled_at = datetime.combine(period.end_on, time(), UTC) + timedelta(hours=config.billing.settle_hours)
    if now < settled_at:
        raise NotReadyError(
            f"close --final {period}",
            f"it is {_stamp(now)}, the month settles at {_stamp(settled_at)}",
            "Close again then, or without --final for a provisional revision",
        )


def _pulled(config: Config, room: _Room, period: Period, now: datetime, offline: bool, on_progress: OnProgress) -> Path:
    if offline:
        found = pull.latest(room.raw, period)
        if found is None:
            raise SourceError(
                f"{room.raw / str(period)}",
                "holds no complete pull, --offline needs one",
                "Close once without --offline",
            )
        return found
    return pull.pull(
        config.billing,
        period,
        room.raw,
        now=now,
        key=config.billing.key.read(),
        organization_id=config.organization_id,
        on_progress=lambda progress: on_progress(f"pull: {progress.what}", progress.done, progress.total),
    )


def _pull_days_again(
    config: Config,
    room: _Room,
    period: Period,
    pulled: load.Pull,
    days: tuple[date, ...],
    now: datetime,
    offline: bool,
) -> load.Pull:
    """Give days whose control total differs one more try. Raises ``SourceError`` when it was the second."""
    marker = pulled.folder / "again"
    if offline or marker.exists():
        raise SourceError(
            f"usage_report/messages {days[0]}",
            "the hourly usage does not sum to the daily control total, also when pulled once more",
            "The provider may still be counting: close again in an hour",
        )
    folder = pulled.folder
    for day in days:
        folder = pull.repull_day(config.billing, period, folder, day, now=now, key=config.billing.key.read())
    (folder / "again").touch(mode=0o600)
    del room
    return load.Pull.read(folder)


def _digest(
    config: Config, period: Period, pulled: load.Pull, logs: tuple[load.LogFiles, ...], book: PriceBook, room: _Room
) -> str:
    """SHA-256 over everything that a result is a function of."""
    earlier = room.shelf.current(period.previous)
    lines = [
        f"period {period}",
        f"pages {pulled.digest()}",
        *(f"log {found.log.name} {digest}" for found in logs for digest in sorted(found.sha256)),
        f"config {config_digest(config)}",
        f"prices {book.digest}",
        f"version {__version__}",
        f"earlier {_digest_of(earlier)}",
    ]
    return sha256("\n".join(lines).encode()).hexdigest()


def _digest_of(path: Path) -> str | None:
    if not path.exists():
        return None
    with ledger.reading(path) as connection:
        found: str = connection.execute("select input_digest from source.run").fetchall()[0][0]
        return found


def _stale(book: PriceBook, period: Period) -> tuple[str, ...]:
    if book.checked_on >= period.end_on:
        return ()
    return (
        f"the price book was last checked on {book.checked_on}, before the end of {period}: a newer price is not in it",
    )


def _build(
    config: Config,
    room: _Room,
    period: Period,
    pulled: load.Pull,
    logs: tuple[load.LogFiles, ...],
    book: PriceBook,
    digest: str,
    revision: int,
    on_progress: OnProgress,
) -> tuple[Path, ...]:
    """Build a revision aside, check it, and render it."""
    with ledger.building(room.shelf.aside(period), room.root / "tmp") as connection:
        _describe_run(connection, config, period, pulled, digest, revision)
        _take_from_earlier(connection, room.shelf.current(period.previous))
        on_progress("load: pages", 0, 6)
        load.load_pages(connection, pulled)
        if days := load.days_that_disagree(connection):
            raise _DisagreeingDays(days)
        load.load_logs(
            connection, logs, book, period, config.billing.amounts,
            lambda what, done, total: on_progress(f"load: {what}", done, total),
        )  # fmt: skip
        on_progress("match", 2, 6)
        match.match(connection)
        on_progress("explain", 3, 6)
        warnings = explain.explain(connection, config.accepted, _invoice(config, period))
        on_progress("allocate", 4, 6)
        allocate.allocate(connection, config.allocation)
        _keep_warnings(connection, warnings)
        on_progress("render", 5, 6)
        render.publish_views(connection)
        ledger.check(connection)
        files = render.render(connection, room.reports(period))
        on_progress("render", 6, 6)
    return files


def _describe_run(
    connection: duckdb.DuckDBPyConnection, config: Config, period: Period, pulled: load.Pull, digest: str, revision: int
) -> None:
    ledger.insert(
        connection,
        "source.run",
        {
            "period": "VARCHAR",
            "start_on": "DATE",
            "end_on": "DATE",
            "through_on": "DATE",
            "organization": "VARCHAR",
            "organization_id": "VARCHAR",
            "revision": "INTEGER",
            "package_version": "VARCHAR",
            "input_digest": "VARCHAR",
            "tolerance_usd": "DECIMAL(38, 12)",
            "tolerance_percent": "DECIMAL(9, 4)",
            "amounts": "VARCHAR",
            "arrangement": "VARCHAR",
            "data_refreshed_at": "TIMESTAMP",
        },  # fmt: skip
        [
            (
                str(period),
                period.start_on,
                period.end_on,
                pulled.through_on,
                config.organization,
                pulled.organization_id,
                revision,
                __version__,
                digest,
                config.tolerance.usd,
                config.tolerance.percent,
                config.billing.amounts,
                config.billing.arrangement,
                pulled.data_refreshed_at.astimezone(UTC).replace(tzinfo=None),
            )  # fmt: skip
        ],
    )


def _take_from_earlier(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Copy what this period shows of the one before, so that the file answers alone; no earlier period, no rows."""
    taken: list[tuple[object, ...]] = []
    if path.exists():
        with ledger.reading(path) as earlier:
            taken = earlier.execute("""
                select summary.period, summary.revision, summary.input_digest, chargeback.cost_center, chargeback.name,
                    chargeback.direct_usd, chargeback.shared_usd, chargeback.total_usd
                from report.summary as summary cross join report.chargeback as chargeback
                order by chargeback.cost_center
            """).fetchall()
    ledger.insert(
        connection,
        "source.earlier_chargeback",
        {
            "period": "VARCHAR",
            "revision": "INTEGER",
            "input_digest": "VARCHAR",
            "cost_center": "VARCHAR",
            "name": "VARCHAR",
            "direct_usd": "DECIMAL(38, 2)",
            "shared_usd": "DECIMAL(38, 2)",
            "total_usd": "DECIMAL(38, 2)",
        },  # fmt: skip
        taken,
    )


def _keep_warnings(connection: duckdb.DuckDBPyConnection, warnings: tuple[str, ...]) -> None:
    """Add to what allocation warned of."""
    for warning in warnings:
        connection.execute(
            "insert into allocated.warning select coalesce(max(position), 0) + 1, ? from allocated.warning", [warning]
        )


def _invoice(config: Config, period: Period) -> Invoice | None:
    found = [invoice for invoice in config.invoices if invoice.period == str(period)]
    if len(found) > 1:
        raise ConfigError(
            "invoices", f"{period} has {len(found)} invoices, expected at most one", "Put their lines into one entry"
        )
    return found[0] if found else None


def _present(room: _Room, period: Period) -> tuple[Path, ...]:
    """The rendered files of the current revision, rendered again where they are gone."""
    folder = room.reports(period)
    if not (folder / "index.html").exists():
        with ledger.reading(room.shelf.current(period)) as connection:
            return render.render(connection, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(files, key=lambda path: (path.name != "index.html", str(path))))


def _open(connection: duckdb.DuckDBPyConnection) -> tuple[Row, ...]:
    return tuple(
        ledger.rows(
            connection,
            "select * from report.discrepancy where beyond_tolerance and not accepted"
            " order by abs(amount_usd) desc, moved_usd desc, id",
        )
    )


def _outcome(
    room: _Room, period: Period, files: tuple[Path, ...], published: bool, warnings: tuple[str, ...]
) -> Outcome:
    current = room.shelf.current(period)
    with ledger.reading(current) as connection:
        summary = ledger.rows(connection, "select * from report.summary")[0]
        kept = connection.execute("select warning from allocated.warning order by position").fetchall()
        return Outcome(
            exit_code=1 if summary["discrepancy_count"] else 0,
            period=str(period),
            revision=summary["revision"],
            published=published,
            ledger=current,
            files=files,
            summary=summary,
            bridge=tuple(ledger.rows(connection, "select * from report.bridge order by position")),
            chargeback=tuple(ledger.rows(connection, "select * from report.chargeback")),
            discrepancies=_open(connection),
            warnings=warnings + tuple(warning for (warning,) in kept),
        )


def _stamp(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
