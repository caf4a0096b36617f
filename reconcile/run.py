"""The order of the stages, and what one close publishes: the only module that knows it.

```
pull ──► load ──► match ──► explain ──► allocate ──► render
```

`export` writes a published revision for other systems, at any time after.

A revision is published by giving its file a name. What follows from it (the link to the newest revision, the reports,
the register's line) comes after, and is made good by the next close where a crash came in between.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from reconcile import __version__, allocate, explain, ledger, load, match, pull, render
from reconcile.config import Billing, Config, Invoice, config_digest
from reconcile.errors import ConfigError, NotReadyError, SourceError
from reconcile.export import Exported, FocusOptions, Kind
from reconcile.export import export as write_export
from reconcile.period import Period
from reconcile.prices import PriceBook

Row = Mapping[str, Any]
OnProgress = Callable[[str, int, int | None], None]
"""Called with what is done now, how many steps are done, and of how many (None where it is not known)."""


@dataclass(frozen=True)
class Outcome:
    """What a close found: rows of the public views, exact. ``files`` are the reports, pages before tables."""

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
    """Where a period stands: ``closed`` once its revision was closed with ``--final``, until then ``provisional``."""

    period: str
    state: str
    revision: int
    closed_at: str
    billed_usd: Decimal
    difference_usd: Decimal
    residual_usd: Decimal
    discrepancies: tuple[OpenDiscrepancy, ...]


@dataclass(frozen=True)
class Explanation:
    """One finding of a period's newest revision: rows of the report's views, and the requests behind it.

    ``requests`` are rows of ``explained.request``, at most as many as were asked for of ``requests_behind``.
    """

    period: str
    revision: int
    finding: Row
    reason: Row
    accepted: tuple[Row, ...]
    requests: tuple[Row, ...]
    requests_behind: int


def _silent(_what: str, _done: int, _total: int | None) -> None:
    return None


# What others ask for --------------------------------------------------------------------------------------------------


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
    on_progress: OnProgress = _silent,
) -> Outcome:
    """Run every stage for a period, by default the last complete month, and publish a revision if anything changed.

    Raises ``ReconcileError``; nothing is published then.
    """
    period = period or Period.last_complete(now)
    settled_at = datetime.combine(period.end_on, time(), UTC) + timedelta(hours=config.billing.settle_hours)
    _refuse_early(period, now, settled_at if final else None)
    room = _Room(config.data_dir)
    with room.locked():
        room.tidy()
        job = _Job(
            config=config,
            period=period,
            now=now,
            room=room,
            logs=load.find_logs(config.request_logs, period),
            book=PriceBook.read(config.prices.contract),
            on_progress=on_progress,
        )
        pulled = _last_pull(job) if offline else _new_pull(job)
        if final and pulled.data_refreshed_at < settled_at:
            raise NotReadyError(
                f"close --final {period}",
                f"the last pull is of {_stamp(pulled.data_refreshed_at)}, the month settles at {_stamp(settled_at)}",
                "Close again, without --offline",
            )
        try:
            return _close(job, pulled, final=final)
        except _DisagreementError as error:
            if offline:
                raise
            return _close(job, _pull_again(job, pulled, error.days), final=final)


def status(config: Config) -> tuple[PeriodStatus, ...]:
    """Every published period, oldest first."""
    room = _Room(config.data_dir)
    entries = room.register.entries()
    found: list[PeriodStatus] = []
    ages: dict[str, int] = {}
    before: Period | None = None
    for period in room.shelf.periods():
        revision = room.shelf.newest(period)
        if revision is None:  # removed just now
            continue
        with ledger.reading(revision.path) as connection:
            summary = ledger.rows(connection, "select * from report.summary")[0]
            open_rows = _open(connection)
        follows = before is not None and before.next == period
        ages = {row["id"]: (ages.get(row["id"], 0) if follows else 0) + 1 for row in open_rows}
        closes = _closes(entries, period, revision.number)
        final = next((entry for entry in closes if entry["final"]), None)
        found.append(
            PeriodStatus(
                period=str(period),
                state="closed" if final else "provisional",
                revision=revision.number,
                closed_at=(final or closes[-1])["at"] if closes else "",
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


def export(
    config: Config,
    kind: Kind,
    *,
    period: Period,
    out: Path | None = None,
    version: str = "1.4",
    draft: bool = False,
    parquet: bool = False,
) -> Exported:
    """Write a period's newest revision for other systems, by default to ``exports/<period>/``.

    ``version``, ``draft`` and ``parquet`` are for FOCUS. Raises ``SourceError`` for a period that was never closed,
    and what `reconcile.export.export` raises.
    """
    room = _Room(config.data_dir)
    revision = room.shelf.newest(period)
    if revision is None:
        raise SourceError(
            f"{room.shelf.folder}",
            f"holds no revision of {period}, expected one",
            f"Run `reconcile close --month {period}` first",
        )
    out = out or room.exports(period, kind)
    before = os.umask(0o077)
    try:
        with ledger.reading(revision.path) as connection:
            written = write_export(connection, kind, out, config, FocusOptions(version, draft, parquet))
    finally:
        os.umask(before)
    if any(entry["final"] for entry in _closes(room.register.entries(), period, revision.number)):
        return written
    return replace(written, notes=(*written.notes, f"r{revision.number} was not closed with --final: it may change"))


def explanation(config: Config, finding_id: str, *, period: Period | None, requests: int) -> Explanation:
    """One finding with its evidence, out of the newest revision of a period, by default the newest that holds it.

    Raises ``ConfigError`` where there is none of that id.
    """
    shelf = _Room(config.data_dir).shelf
    periods = [period] if period else shelf.periods()[::-1]
    for revision in filter(None, map(shelf.newest, periods)):
        with ledger.reading(revision.path) as connection:
            found = ledger.rows(connection, "select * from report.finding where id = ?", [finding_id])
            if found:
                return _explanation(connection, revision, found[0], requests)
    held = f"{period} holds none of that id" if period else "no month that was closed holds one of that id"
    raise ConfigError(f"finding {finding_id}", held, "`reconcile status` lists the open ones, discrepancy.csv all")


def _explanation(
    connection: duckdb.DuckDBPyConnection, revision: ledger.Revision, finding: Row, requests: int
) -> Explanation:
    shown, behind = explain.evidence_requests(connection, finding["id"], requests)
    return Explanation(
        period=connection.execute("select period from source.run").fetchall()[0][0],
        revision=revision.number,
        finding=finding,
        reason=ledger.rows(connection, "select * from report.reason where reason = ?", [finding["reason"]])[0],
        accepted=tuple(ledger.rows(connection, "select * from report.accepted where finding_id = ?", [finding["id"]])),
        requests=tuple(shown),
        requests_behind=behind,
    )


# The folder -----------------------------------------------------------------------------------------------------------

_UNWRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}
)
_LEFT_OVER = re.compile(r"(\d{4}-\d{2})\.(?:next|next\.partial|partial|former)")


@dataclass(frozen=True)
class _Room:
    """Where a run reads and writes: the folders of ``data_dir``."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def scratch(self) -> Path:
        return self.root / "tmp"

    @property
    def shelf(self) -> ledger.Shelf:
        return ledger.Shelf(self.root / "ledger")

    @property
    def register(self) -> ledger.Register:
        return ledger.Register(self.root / "register.jsonl")

    def reports(self, period: Period) -> Path:
        return self.root / "reports" / str(period)

    def exports(self, period: Period, kind: Kind) -> Path:
        """A folder a month; what is a file a view has one of its own in it."""
        folder = self.root / "exports" / str(period)
        return folder / kind if kind in {"csv", "parquet"} else folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run; what is new in it is for the owner only.

        Raises ``SourceError`` when another run holds it, ``ConfigError`` when it cannot be written.
        """
        before = os.umask(0o077)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise SourceError(
                        f"data_dir: {self.root}",
                        "another run is writing there, expected none",
                        "Wait until it has ended",
                    ) from None
                yield
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise ConfigError(
                f"data_dir: {self.root}",
                f"{error.filename or 'a file'} cannot be written ({error.strerror})",
                "Make room, or correct owner and mode",
            ) from None
        finally:
            os.umask(before)

    def tidy(self) -> None:
        """Make good what a run that was cut off left: half-built files go, links follow, reports stand in place."""
        self.register.entries()
        self.shelf.tidy()
        shutil.rmtree(self.scratch, ignore_errors=True)
        for path in sorted((self.root / "reports").glob("*")):
            if found := _LEFT_OVER.fullmatch(path.name):
                reports = path.with_name(found[1])
                if path.name.endswith(".former") and not reports.exists():
                    path.rename(reports)
                else:
                    shutil.rmtree(path)


# One close ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What one close works on, but for the provider's pages."""

    config: Config
    period: Period
    now: datetime
    room: _Room
    logs: tuple[load.LogFiles, ...]
    book: PriceBook
    on_progress: OnProgress

    @property
    def earlier(self) -> tuple[ledger.Revision, ...]:
        """The months before this one, of its year and the very last, as they were published last; oldest first."""
        shelf, previous = self.room.shelf, self.period.previous
        year = f"{self.period}"[:5]
        taken = [p for p in shelf.periods() if p == previous or (f"{p}".startswith(year) and p < self.period)]
        return tuple(revision for p in taken if (revision := shelf.newest(p)) is not None)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Tell that a stage begins, and that it has ended."""
        self.on_progress(what, 0, 1)
        yield
        self.on_progress(what, 1, 1)

    def load_progress(self, what: str, done: int, total: int | None) -> None:
        """Tell how far the stage `load` is."""
        self.on_progress(f"load: {what}", done, total)

    def digest(self, pulled: load.Pull) -> str:
        """SHA-256 over everything that a result is a function of."""
        lines = [
            f"period {self.period}",
            f"pages {pulled.digest()}",
            *(f"log {found.log.name} {digest}" for found in self.logs for digest in sorted(found.sha256)),
            f"config {config_digest(self.config)}",
            f"prices {self.book.digest}",
            f"version {__version__}",
            *(f"earlier {revision.path.stem} {_input_digest(revision)}" for revision in self.earlier),
        ]
        return sha256("\n".join(lines).encode()).hexdigest()


class _DisagreementError(SourceError):
    """Days on which the hourly usage does not sum to the daily control total: pulled once more, they may agree."""

    def __init__(self, offenders: Sequence[Row]) -> None:
        first = offenders[0]
        self.days: tuple[date, ...] = tuple(sorted({row["day"] for row in offenders}))
        super().__init__(
            f"usage_report/messages {first['day']}",
            f"{first['meter']} is {first['grouped']} by hour and {first['ungrouped']} in the day's control total"
            + (f"; {len(self.days) - 1} more days disagree" if self.days[1:] else ""),
            "The provider may still be counting: close again in an hour",
        )


def _refuse_early(period: Period, now: datetime, settled_at: datetime | None) -> None:
    """Raise ``NotReadyError`` for a month without a complete day, and before it has settled where it must have."""
    if period.through_on(now) is None:
        raise NotReadyError(
            str(period),
            f"has no complete day at {_stamp(now)}",
            "A day is complete an hour after its end in UTC: close the month later, or an earlier month",
        )
    if settled_at is not None and now < settled_at:
        raise NotReadyError(
            f"close --final {period}",
            f"it is {_stamp(now)}, the month settles at {_stamp(settled_at)}",
            "Close again then, or without --final for a provisional revision",
        )


def _last_pull(job: _Job) -> load.Pull:
    folder = pull.latest(job.room.raw, job.period)
    if folder is None:
        raise SourceError(
            str(job.room.raw / str(job.period)),
            "holds no complete pull, --offline needs one",
            "Close once without --offline",
        )
    return load.Pull.read(folder)


def _new_pull(job: _Job) -> load.Pull:
    config = job.config
    folder = pull.pull(
        config.billing,
        job.period,
        job.room.raw,
        now=job.now,
        key=config.billing.key.read(),
        organization_id=config.organization_id,
        on_progress=lambda progress: job.on_progress(f"pull: {progress.what}", progress.done, progress.total),
    )
    return _registered(job, folder)


def _pull_again(job: _Job, pulled: load.Pull, days: Sequence[date]) -> load.Pull:
    """The same pull with the usage of ``days`` and its control total fetched once more."""
    billing, folder = job.config.billing, pulled.folder
    for day in days:
        folder = pull.repull_day(
            billing,
            job.period,
            folder,
            day,
            now=job.now,
            key=billing.key.read(),
            on_progress=lambda progress: job.on_progress(f"pull again: {progress.what}", progress.done, progress.total),
        )
    return _registered(job, folder)


def _registered(job: _Job, folder: Path) -> load.Pull:
    pulled = load.Pull.read(folder)
    job.room.register.append(
        "pull", period=str(job.period), folder=folder.name, pages_digest=pulled.digest(), at=_stamp(job.now)
    )
    return pulled


def _close(job: _Job, pulled: load.Pull, *, final: bool) -> Outcome:
    """Publish what the inputs give unless the current revision is of the same ones; either way its reports stand.

    Raises ``_DisagreementError`` where the pages do not agree with each other.
    """
    shelf, reports, register = job.room.shelf, job.room.reports(job.period), job.room.register
    digest = job.digest(pulled)
    current = shelf.newest(job.period)
    if published := current is None or _input_digest(current) != digest:
        revision = _publish(job, pulled, digest, current.number + 1 if current else 1)
    else:
        revision = current
        closes = _closes(register.entries(), job.period, revision.number)
        if not closes or closes[-1]["reports_digest"] != _files_digest(reports):
            with ledger.reading(revision.path) as connection, job.step("render"):
                render.render(connection, reports)
    register.append(
        "close",
        period=str(job.period),
        revision=revision.number,
        final=final,
        input_digest=digest,
        reports_digest=_files_digest(reports),
        at=_stamp(job.now),
    )
    return _outcome(job, revision, published=published)


def _publish(job: _Job, pulled: load.Pull, digest: str, number: int) -> ledger.Revision:
    """Build a revision and its reports aside; when both stand, publish them."""
    shelf, reports = job.room.shelf, job.room.reports(job.period)
    rendered = reports.with_name(f"{job.period}.next")
    with ledger.building(shelf.aside(job.period), job.room.scratch) as connection:
        _build(connection, job, pulled, digest, number)
        with job.step("render"):
            render.render(connection, rendered)
    revision = shelf.publish(job.period, number)
    _swap_in(rendered, reports)
    return revision


def _build(connection: duckdb.DuckDBPyConnection, job: _Job, pulled: load.Pull, digest: str, number: int) -> None:
    """Run the stages from load to allocate in an empty ledger, and look at every check."""
    config = job.config
    _describe_run(connection, job, pulled, digest, number)
    _take_from_earlier(connection, job.earlier)
    with job.step("load"):
        load.load_pages(connection, pulled)
        if offenders := ledger.rows(
            connection, "select * from checks.reported_not_the_control_total order by day, meter"
        ):
            raise _DisagreementError(offenders)
        load.load_logs(connection, job.logs, job.book, job.period, config.billing.amounts, job.load_progress)
        _warn_of_old_prices(connection, job.book, job.period)
    with job.step("match"):
        match.match(connection)
    with job.step("explain"):
        explain.explain(connection, config.accepted, _invoice(config, job.period))
    with job.step("allocate"):
        allocate.allocate(
            connection,
            config.allocation,
            budgets=config.budgets,
            unallocated_percent=config.tolerance.unallocated_percent,
        )
    render.publish_views(connection)
    ledger.check(connection)


def _describe_run(
    connection: duckdb.DuckDBPyConnection, job: _Job, pulled: load.Pull, digest: str, number: int
) -> None:
    """Write the one row from which every stage takes the run's parameters."""
    config, period = job.config, job.period
    described: dict[str, tuple[str, object]] = {
        "period": ("VARCHAR", str(period)),
        "start_on": ("DATE", period.start_on),
        "end_on": ("DATE", period.end_on),
        "through_on": ("DATE", pulled.through_on),
        "organization": ("VARCHAR", config.organization),
        "organization_id": ("VARCHAR", pulled.organization_id),
        "revision": ("INTEGER", number),
        "package_version": ("VARCHAR", __version__),
        "input_digest": ("VARCHAR", digest),
        "tolerance_usd": ("DECIMAL(38, 12)", config.tolerance.usd),
        "tolerance_percent": ("DECIMAL(9, 4)", config.tolerance.percent),
        "amounts": ("VARCHAR", config.billing.amounts),
        "arrangement": ("VARCHAR", config.billing.arrangement),
        "data_refreshed_at": ("TIMESTAMP", pulled.data_refreshed_at.astimezone(UTC).replace(tzinfo=None)),
    }
    columns = {name: kind for name, (kind, _) in described.items()}
    ledger.insert(connection, "source.run", columns, [[found for _, found in described.values()]])


_CHARGEBACK = {
    "period": "VARCHAR",
    "revision": "INTEGER",
    "input_digest": "VARCHAR",
    "through_on": "DATE",
    "cost_center": "VARCHAR",
    "name": "VARCHAR",
    "direct_usd": "DECIMAL(38, 2)",
    "shared_usd": "DECIMAL(38, 2)",
    "total_usd": "DECIMAL(38, 2)",
    "other_usd": "DECIMAL(38, 2)",
    "payable_usd": "DECIMAL(38, 2)",
}
_KIND = {"workspace_id": "VARCHAR", "model": "VARCHAR", "service_tier": "VARCHAR", "meter": "VARCHAR"}
_MONTH_BEFORE = {
    "spend": {
        "cost_center": "VARCHAR",
        "basis": "VARCHAR",
        "route": "VARCHAR",
        "receiver": "VARCHAR",
        "conditional": "BOOLEAN",
        **_KIND,
        "amount_usd": "DECIMAL(38, 12)",
    },
    "kind": {**_KIND, "quantity": "BIGINT", "billed_usd": "DECIMAL(38, 12)"},
    "route": {"route": "VARCHAR"},
}
"""What is compared with the month before: tables of ``allocated`` there, ``source.earlier_*`` here."""


def _take_from_earlier(connection: duckdb.DuckDBPyConnection, earlier: Sequence[ledger.Revision]) -> None:
    """Copy what this period shows of earlier ones, so that the file answers alone; no earlier period, no rows."""
    (run,) = ledger.rows(connection, "select period from source.run")
    previous = str(Period.parse(run["period"]).previous)
    chargeback: list[tuple[object, ...]] = []
    before: dict[str, list[tuple[object, ...]]] = {name: [] for name in _MONTH_BEFORE}
    for revision in earlier:
        with ledger.reading(revision.path) as published:
            rows = published.execute("""
                select summary.period, summary.revision, summary.input_digest, summary.through_on,
                    chargeback.cost_center, chargeback.name, chargeback.direct_usd, chargeback.shared_usd,
                    chargeback.total_usd, chargeback.other_usd, chargeback.payable_usd
                from report.summary as summary cross join report.chargeback as chargeback
                order by chargeback.cost_center
            """).fetchall()
            chargeback += rows
            if rows and rows[0][0] == previous:
                held = "select table_name from duckdb_tables() where schema_name = 'allocated'"
                written = {name for (name,) in published.execute(held).fetchall()}
                for name in written & before.keys():  # a ledger of an older version has none of them
                    columns = ", ".join(_MONTH_BEFORE[name])
                    before[name] = published.execute(f"select {columns} from allocated.{name} order by all").fetchall()
    ledger.insert(connection, "source.earlier_chargeback", _CHARGEBACK, chargeback)
    for name, columns_of in _MONTH_BEFORE.items():
        ledger.insert(connection, f"source.earlier_{name}", columns_of, before[name])


def _warn_of_old_prices(connection: duckdb.DuckDBPyConnection, book: PriceBook, period: Period) -> None:
    if book.checked_on >= period.end_on:
        return
    warning = (
        f"the price book was last checked on {book.checked_on}, before the end of {period}: a newer price is not in it"
    )
    connection.execute(
        "insert into source.warning select coalesce(max(position), 0) + 1, 'prices', ? from source.warning", [warning]
    )


def _invoice(config: Config, period: Period) -> Invoice | None:
    found = [invoice for invoice in config.invoices if invoice.period == str(period)]
    if len(found) > 1:
        raise ConfigError(
            "invoices", f"{period} has {len(found)} invoices, expected at most one", "Put their lines into one entry"
        )
    return found[0] if found else None


# What is published ----------------------------------------------------------------------------------------------------


def _input_digest(revision: ledger.Revision) -> str:
    with ledger.reading(revision.path) as connection:
        found: str = connection.execute("select input_digest from source.run").fetchall()[0][0]
        return found


def _closes(entries: Sequence[Row], period: Period, number: int) -> list[Row]:
    """The register's closes of a revision, oldest first."""
    return [
        entry
        for entry in entries
        if entry["event"] == "close" and (entry["period"], entry["revision"]) == (str(period), number)
    ]


def _swap_in(rendered: Path, reports: Path) -> None:
    """Let new reports take the place of the former ones, as a whole."""
    former = reports.with_name(f"{reports.name}.former")
    if reports.exists():
        reports.rename(former)
    rendered.rename(reports)
    ledger.sync(reports.parent)
    shutil.rmtree(former, ignore_errors=True)


_FIRST = ("index.html", "discrepancy.html", "allocation.html")
"""The order in which people read: these pages, then the statements, then tables."""


def _files(folder: Path) -> tuple[Path, ...]:
    """What lies in a folder of reports, in the order in which people read."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    rank = {name: position for position, name in enumerate(_FIRST)}
    order = sorted(found, key=lambda path: (path.suffix != ".html", rank.get(str(path), len(rank)), str(path)))
    return tuple(folder / path for path in order)


def _files_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's files."""
    lines = [f"{path.relative_to(folder)} {sha256(path.read_bytes()).hexdigest()}" for path in _files(folder)]
    return sha256("\n".join(lines).encode()).hexdigest()


def _open(connection: duckdb.DuckDBPyConnection) -> tuple[Row, ...]:
    return tuple(
        ledger.rows(
            connection,
            "select discrepancy.* from report.discrepancy as discrepancy join report.finding as finding using (id)"
            " where finding.state = 'discrepancy'"
            " order by abs(discrepancy.amount_usd) desc, discrepancy.moved_usd desc, id",
        )
    )


def _outcome(job: _Job, revision: ledger.Revision, *, published: bool) -> Outcome:
    with ledger.reading(revision.path) as connection:
        summary = ledger.rows(connection, "select * from report.summary")[0]
        warnings = connection.execute("select warning from report.warning order by position").fetchall()
        return Outcome(
            exit_code=1 if summary["discrepancy_count"] else 0,
            period=str(job.period),
            revision=revision.number,
            published=published,
            ledger=job.room.shelf.link(job.period),
            files=_files(job.room.reports(job.period)),
            summary=summary,
            bridge=tuple(ledger.rows(connection, "select * from report.bridge order by position")),
            chargeback=tuple(ledger.rows(connection, "select * from report.chargeback")),
            discrepancies=_open(connection),
            warnings=tuple(warning for (warning,) in warnings),
        )


def _stamp(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
