"""The order of the stages, and what one close publishes: the only module that knows it.

```
pull ──► load ──► match ──► explain ──► allocate ──► render
```

`export` writes a published revision for other systems, at any time after.

A revision is published by giving its file a name. What follows from it (the link to the newest revision, the reports,
the register's line) comes after, and is made good by the next close where a crash came in between.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
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
from reconcile.register import (
    Entry,
    Signature,
    Standing,
    State,
    changed,
    is_purged,
    last_published,
    ledger_sha256,
    standing,
)
from reconcile.run import gates, reports, restate
from reconcile.run.proof import ChangedError, Proof, verify
from reconcile.run.retention import Purged, purge
from reconcile.run.room import Room, file_sha256
from reconcile.run.signing import approve, reopen

__all__ = [
    "ChangedError",
    "Explanation",
    "OpenDiscrepancy",
    "Outcome",
    "PeriodStatus",
    "Proof",
    "Purged",
    "Rechecked",
    "approve",
    "close",
    "directory",
    "explanation",
    "export",
    "purge",
    "reach",
    "recheck",
    "reopen",
    "status",
    "verify",
]

Row = Mapping[str, Any]
OnProgress = Callable[[str, int, int | None], None]
"""Called with what is done now, how many steps are done, and of how many (None where it is not known)."""


@dataclass(frozen=True)
class Outcome:
    """What a close found: rows of the public views, exact. ``files`` are the reports, pages before tables.

    ``state`` is where the month stands now; ``unmet`` are the gates that kept it from being closed for good.
    """

    exit_code: int
    period: str
    state: State
    revision: int
    published: bool
    ledger: Path
    files: tuple[Path, ...]
    summary: Row
    bridge: tuple[Row, ...]
    chargeback: tuple[Row, ...]
    discrepancies: tuple[Row, ...]
    warnings: tuple[str, ...]
    unmet: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rechecked:
    """What a recheck found: rows of ``report.restatement`` that are not booked yet, and the month that books them now.

    ``booked_in`` is None where no later month is open yet: its first close books them.
    """

    period: str
    state: State
    revision: int
    rows: tuple[Row, ...]
    amount_usd: Decimal
    booked_in: str | None
    booked_revision: int | None


@dataclass(frozen=True)
class OpenDiscrepancy:
    """A discrepancy of a period, and for how many months its cause has been open, this one included."""

    id: str
    reason: str
    amount_usd: Decimal
    age_months: int


@dataclass(frozen=True)
class PeriodStatus:
    """Where a period stands; of one that is ``open`` nothing is published, and its figures are None.

    ``closed_at`` is the instant of the final close, of a month without one that of the last close. ``signatures`` are
    those that hold, ``withdrawn`` those that do not any more, with why. ``why`` is the reason of a reopening,
    ``rechecked_at`` the instant of the last recheck of a closed month.
    """

    period: str
    state: State
    revision: int
    closed_at: str
    billed_usd: Decimal | None
    difference_usd: Decimal | None
    residual_usd: Decimal | None
    discrepancies: tuple[OpenDiscrepancy, ...]
    signatures: tuple[Signature, ...]
    withdrawn: tuple[Signature, ...]
    why: str
    rechecked_at: str = ""


@dataclass(frozen=True)
class Explanation:
    """One finding of a period's newest revision: rows of the report's views, and the requests behind it.

    ``requests`` are rows of ``explained.request``, at most as many as were asked for of ``requests_behind``, of which
    ``requests_known`` are surely behind it. There are none where ``requests_purged``.
    """

    period: str
    revision: int
    finding: Row
    reason: Row
    accepted: tuple[Row, ...]
    requests: tuple[Row, ...]
    requests_behind: int
    requests_known: int
    requests_purged: bool


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
    settle_hours = config.billing.settle_hours
    gates.refuse_early(period, now, final=final, settle_hours=settle_hours)
    room = Room(config.data_dir)
    with room.locked():
        room.tidy()
        job = _Job(
            config=config,
            period=period,
            now=now,
            room=room,
            logs=load.find_logs(config.request_logs, period, room.snapshots),
            book=PriceBook.read(config.prices.contract),
            on_progress=on_progress,
        )
        pulled = _last_pull(job) if offline else _new_pull(job)
        if final:
            gates.refuse_old_pull(period, pulled.data_refreshed_at, settle_hours)
        try:
            return _close(job, pulled, final=final)
        except _DisagreementError as error:
            if offline:
                raise
            return _close(job, _pull_again(job, pulled, error.days), final=final)


def recheck(config: Config, *, period: Period, now: datetime, on_progress: OnProgress = _silent) -> Rechecked:
    """Pull a closed month once more, and book what moved in the first later month that is not closed.

    The closed month stays as it is. Where that later month has a revision, it is closed provisionally out of its last
    pull, so that its new one holds the corrections; else its first close books them.
    Raises ``NotReadyError`` for a month that is not closed.
    """
    room = Room(config.data_dir)
    with room.locked():
        room.tidy()
        stands, revision = standing(room.register.entries(), period), room.shelf.newest(period)
        if not stands.is_closed or revision is None:
            raise NotReadyError(
                f"recheck {period}",
                f"it is {stands.state}, expected closed",
                f"Close {period} instead: that pulls it anew",
            )
        book = PriceBook.read(config.prices.contract)
        job = _Job(config=config, period=period, now=now, room=room, logs=(), book=book, on_progress=on_progress)
        pulled = _new_pull(job)
        try:
            moved = _moved(job, pulled, revision)
        except _DisagreementError as error:
            pulled = _pull_again(job, pulled, error.days)
            moved = _moved(job, pulled, revision)
        room.register.append(
            "recheck",
            period=str(period),
            revision=revision.number,
            folder=pulled.folder.name,
            pages_digest=pulled.digest(),
            moved=moved.is_restated,
            cells=len(moved.rows),
            amount_usd=f"{moved.amount_usd:f}",
            at=gates.stamp(now),
        )
        later = restate.open_after(room.register.entries(), period)
        outcome = None
        if later is not None and (moved.rows or restate.books(room, later, period)):
            other = replace(job, period=later, logs=load.find_logs(config.request_logs, later))
            outcome = _close(other, _last_pull(other), final=False)
        columns = tuple(restate.RESTATEMENT)
        return Rechecked(
            period=str(period),
            state="restated" if moved.is_restated else "closed",
            revision=revision.number,
            rows=tuple(dict(zip(columns, row, strict=True)) for row in moved.rows),
            amount_usd=moved.amount_usd,
            booked_in=outcome.period if outcome else None,
            booked_revision=outcome.revision if outcome else None,
        )


def status(config: Config) -> tuple[PeriodStatus, ...]:
    """Every period that was closed or pulled, oldest first."""
    room = Room(config.data_dir)
    entries = room.register.entries()
    found: list[PeriodStatus] = []
    known = {Period.parse(entry["period"]) for entry in entries if entry["event"] == "pull"}
    for period in sorted(known | {*room.shelf.periods()}):
        revision = room.shelf.newest(period)
        stands = standing(entries, period)
        if revision is None:
            found.append(PeriodStatus(str(period), "open", 0, "", None, None, None, (), (), (), ""))
            continue
        with ledger.reading(revision.path) as connection:
            summary = ledger.rows(connection, "select * from report.summary")[0]
            open_rows = _open(connection)
        found.append(
            PeriodStatus(
                period=str(period),
                state="provisional" if stands.state == "open" else stands.state,
                revision=revision.number,
                closed_at=stands.closed_at or stands.at,
                billed_usd=summary["billed_usd"],
                difference_usd=summary["difference_usd"],
                residual_usd=summary["residual_usd"],
                discrepancies=tuple(
                    OpenDiscrepancy(row["id"], row["reason"], row["amount_usd"], row["age_months"]) for row in open_rows
                ),
                signatures=stands.holding,
                withdrawn=stands.withdrawn,
                why=stands.why,
                rechecked_at=stands.rechecked_at,
            )
        )
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
    room = Room(config.data_dir)
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
    stands = standing(room.register.entries(), period)
    if stands.is_closed and stands.revision == revision.number:
        return written
    return replace(written, notes=(*written.notes, f"r{revision.number} was not closed with --final: it may change"))


def explanation(config: Config, finding_id: str, *, period: Period | None, requests: int) -> Explanation:
    """One finding with its evidence, out of the newest revision of a period, by default the newest that holds it.

    Raises ``ConfigError`` where there is none of that id.
    """
    room = Room(config.data_dir)
    periods = [period] if period else room.shelf.periods()[::-1]
    for revision in filter(None, map(room.shelf.newest, periods)):
        with ledger.reading(revision.path) as connection:
            found = ledger.rows(connection, "select * from report.finding where id = ?", [finding_id])
            if found:
                return _explanation(connection, revision, found[0], requests, room.register.entries())
    held = f"{period} holds none of that id" if period else "no month holds one of that id"
    raise ConfigError(f"finding {finding_id}", held, "`reconcile status` lists the open ones, discrepancy.csv all")


def _explanation(
    connection: duckdb.DuckDBPyConnection,
    revision: ledger.Revision,
    finding: Row,
    requests: int,
    entries: Sequence[Entry],
) -> Explanation:
    (period,) = connection.execute("select period from source.run").fetchall()[0]
    behind = explain.requests_behind(connection, finding["id"], requests)
    return Explanation(
        period=period,
        revision=revision.number,
        finding=finding,
        reason=ledger.rows(connection, "select * from report.reason where reason = ?", [finding["reason"]])[0],
        accepted=tuple(ledger.rows(connection, "select * from report.accepted where finding_id = ?", [finding["id"]])),
        requests=behind.rows,
        requests_behind=behind.requests,
        requests_known=behind.known,
        requests_purged=is_purged(entries, Period.parse(period), revision.number),
    )


# One close ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What one close works on, but for the provider's pages."""

    config: Config
    period: Period
    now: datetime
    room: Room
    logs: tuple[load.LogFiles, ...]
    book: PriceBook
    on_progress: OnProgress

    @property
    def earlier(self) -> tuple[ledger.Revision, ...]:
        """The months before this one, of its year and the very last, as they were published last; oldest first."""
        before = [period for period in self.room.shelf.periods() if period < self.period]
        year = f"{self.period}"[:5]
        taken = [period for period in before if period == before[-1] or f"{period}".startswith(year)]
        return tuple(revision for period in taken if (revision := self.room.shelf.newest(period)) is not None)

    @property
    def corrections(self) -> tuple[restate.Correction, ...]:
        """What was corrected of earlier months after they were closed, and is booked in this one."""
        return restate.to_book(self.room, self.room.register.entries(), self.period)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Tell that a stage begins, and that it has ended."""
        self.on_progress(what, 0, 1)
        yield
        self.on_progress(what, 1, 1)

    def load_progress(self, what: str, done: int, total: int | None) -> None:
        """Tell how far the stage `load` is."""
        self.on_progress(f"load: {what}", done, total)

    def inputs(self, pulled: load.Pull) -> "_Inputs":
        """Everything that a result is a function of."""
        return _Inputs(
            period=self.period,
            pages=(f"pages {pulled.digest()}",),
            logs=tuple(
                f"log {found.log.name} {digest}"
                for found in self.logs
                for digest in sorted(file.sha256 for file in found.files)
            ),
            config=(f"config {config_digest(self.config)}",),
            prices=(f"prices {self.book.digest}",),
            version=(f"version {__version__}",),
            earlier=tuple(f"earlier {revision.path.stem} {_input_digest(revision)}" for revision in self.earlier),
            restated=tuple(
                f"restated {one.period} {one.pages_digest} "
                + " ".join(
                    f"{revision.path.stem} {_input_digest(revision)}" for revision in (one.revision, *one.booked)
                )
                for one in self.corrections
            ),
        )


@dataclass(frozen=True)
class _Inputs:
    """What a result is a function of, as the lines that its digest is taken over, by kind of input."""

    period: Period
    pages: tuple[str, ...]
    logs: tuple[str, ...]
    config: tuple[str, ...]
    prices: tuple[str, ...]
    version: tuple[str, ...]
    earlier: tuple[str, ...]
    restated: tuple[str, ...]

    @property
    def _kinds(self) -> dict[str, tuple[str, ...]]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "period"}

    @property
    def digest(self) -> str:
        """SHA-256 over all of them."""
        lines = [f"period {self.period}", *(line for kind in self._kinds.values() for line in kind)]
        return sha256("\n".join(lines).encode()).hexdigest()

    def digests(self) -> dict[str, str]:
        """A digest for each kind, so that a later close can tell which of them changed."""
        return {name: sha256("\n".join(lines).encode()).hexdigest()[:16] for name, lines in self._kinds.items()}


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


def _last_pull(job: _Job) -> load.Pull:
    folder = pull.latest(job.room.raw, job.period)
    if folder is None:
        raise SourceError(
            str(job.room.raw / str(job.period)),
            "holds no complete pull, --offline needs one",
            "Close once without --offline",
        )
    known = (entry for entry in job.room.register.entries() if entry["event"] == "pull")
    if any((entry["period"], entry["folder"]) == (str(job.period), folder.name) for entry in known):
        return load.Pull.read(folder)
    return _registered(job, folder)  # the run that pulled it was cut off


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
        "pull",
        period=str(job.period),
        folder=folder.name,
        pages_digest=pulled.digest(),
        manifest_sha256=file_sha256(folder / "manifest.json"),
        at=gates.stamp(job.now),
    )
    return pulled


def _close(job: _Job, pulled: load.Pull, *, final: bool) -> Outcome:
    """Publish what the inputs give unless the current revision is of the same ones; either way its reports stand.

    Raises ``NotReadyError`` where the month is closed and its inputs are others, and where a gate of a final close
    does not hold (what is published then is provisional); ``_DisagreementError`` where the pages do not agree with
    each other.
    """
    inputs = job.inputs(pulled)
    current = job.room.shelf.newest(job.period)
    entries = job.room.register.entries()
    stands = standing(entries, job.period)
    is_same = current is not None and _input_digest(current) == inputs.digest
    if final and not stands.is_closed and current is not None and is_purged(entries, job.period, current.number):
        is_same = False  # its gates ask for the rows that it has no more
    if stands.is_closed and not is_same:
        raise _closed_already(stands, inputs)
    if is_same and current is not None:
        closed = _close_again(job, current, stands, inputs, final=final)
    else:
        closed = _publish(job, pulled, inputs, current.number + 1 if current else 1, stands, final=final)
    if any(gate.gate != gates.DISCREPANCIES for gate in closed.unmet):
        raise gates.GatesError(closed.unmet)
    return _outcome(job, closed, published=not is_same)


def _closed_already(stands: Standing, inputs: "_Inputs") -> NotReadyError:
    return NotReadyError(
        stands.period,
        f"r{stands.revision} is closed since {stands.closed_at}, and what it was made from is not the same any more:"
        f" {changed(stands.inputs, inputs.digests())}. It stays as it is",
        f"`reconcile recheck --month {stands.period}` books what the provider corrected in the open month;"
        f" `reconcile reopen --month {stands.period} --reason …` lets the month be closed anew",
    )


@dataclass(frozen=True)
class _Closed:
    """A revision that stands, where the month stands with it, and the gates that it did not pass."""

    revision: ledger.Revision
    stands: Standing
    unmet: tuple[gates.GateError, ...]


def _close_again(job: _Job, revision: ledger.Revision, stands: Standing, inputs: "_Inputs", *, final: bool) -> _Closed:
    """The revision that the inputs gave before, for good where that is asked for now; its reports are made good."""
    room = job.room
    entries = room.register.entries()
    last = last_published(entries, job.period, revision.number)
    with ledger.reading(revision.path) as connection:
        judged = _judge(job, connection, inputs, revision.number, final=final, is_closed=stands.is_closed)
        after = stands.after(judged.facts)
        is_shown = after.shown == stands.shown and last.get("reports_digest") == reports.digest(
            room.reports(job.period)
        )
        if not is_shown:
            with job.step("render"):
                aside = reports.render_aside(connection, room.reports(job.period), after)
    if not is_shown:
        aside.swap_in()
    written = ledger_sha256(entries, job.period, revision.number) or file_sha256(revision.path)
    return _Closed(revision, _register_close(job, judged, written), judged.unmet)


def _publish(job: _Job, pulled: load.Pull, inputs: "_Inputs", number: int, stands: Standing, *, final: bool) -> _Closed:
    """Build a revision and its reports aside; when both stand, publish them."""
    shelf = job.room.shelf
    corrections = [restate.moved(job.room, one, partial(_build_pages, job)) for one in job.corrections]
    with ledger.building(shelf.aside(job.period), job.room.scratch) as connection:
        _build(connection, job, pulled, inputs.digest, number, corrections)
        judged = _judge(job, connection, inputs, number, final=final)
        with job.step("render"):
            aside = reports.render_aside(connection, job.room.reports(job.period), stands.after(judged.facts))
    revision = shelf.publish(job.period, number)
    aside.swap_in()
    return _Closed(revision, _register_close(job, judged, file_sha256(revision.path)), judged.unmet)


@dataclass(frozen=True)
class _Judged:
    """What the register will say of a close, and the gates that keep it from being final."""

    facts: dict[str, Any]
    unmet: tuple[gates.GateError, ...]


def _judge(
    job: _Job,
    connection: duckdb.DuckDBPyConnection,
    inputs: "_Inputs",
    number: int,
    *,
    final: bool,
    is_closed: bool = False,
) -> _Judged:
    """Look at the gates where the month is to be closed for good, and is not yet."""
    unmet = gates.unmet(connection, job.config, job.period) if final and not is_closed else ()
    facts = {
        "event": "close",
        "period": str(job.period),
        "revision": number,
        "final": final and not unmet,
        "input_digest": inputs.digest,
        "inputs": inputs.digests(),
        "figures_digest": reports.figures_digest(connection),
        "at": gates.stamp(job.now),
    }
    return _Judged(facts, unmet)


def _register_close(job: _Job, judged: _Judged, written: str) -> Standing:
    job.room.register.append(
        **judged.facts,
        ledger_sha256=written,
        reports_digest=reports.digest(job.room.reports(job.period)),
    )
    return standing(job.room.register.entries(), job.period)


def _moved(job: _Job, pulled: load.Pull, revision: ledger.Revision) -> restate.Moved:
    one = restate.against_closed(job.room, job.period, pulled.folder, pulled.digest(), revision)
    return restate.moved(job.room, one, partial(_build_pages, job))


def _build_pages(job: _Job, connection: duckdb.DuckDBPyConnection, period: Period, folder: Path) -> None:
    """The provider's side of another month alone, up to what was billed by cell."""
    other, pulled = replace(job, period=period, logs=()), load.Pull.read(folder)
    _describe_run(connection, other, pulled, "", 0)
    _load_pages(connection, pulled)
    load.load_logs(connection, (), job.book, period, job.config.billing.amounts, job.load_progress)
    match.match(connection)


def _load_pages(connection: duckdb.DuckDBPyConnection, pulled: load.Pull) -> None:
    load.load_pages(connection, pulled)
    if offenders := ledger.rows(connection, "select * from checks.reported_not_the_control_total order by day, meter"):
        raise _DisagreementError(offenders)


def _build(  # noqa: PLR0917 - the ledger first, then what goes into it
    connection: duckdb.DuckDBPyConnection,
    job: _Job,
    pulled: load.Pull,
    digest: str,
    number: int,
    corrections: Sequence[restate.Moved] = (),
) -> None:
    """Run the stages from load to allocate in an empty ledger, and look at every check."""
    config = job.config
    _describe_run(connection, job, pulled, digest, number)
    _take_from_earlier(connection, job.earlier, corrections)
    with job.step("load"):
        _load_pages(connection, pulled)
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
CARRIED = {
    **dict.fromkeys(
        ("id", "reason", "log", "workspace_id", "workspace_name", "model", "service_tier", "meter"), "VARCHAR"
    ),
    **dict.fromkeys(("api_key_id", "api_key_name", "opened_in"), "VARCHAR"),
    "closing_usd": "DECIMAL(38, 12)",
}
"""What is carried forward: columns of ``report.rollforward``."""
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


def _take_from_earlier(
    connection: duckdb.DuckDBPyConnection,
    earlier: Sequence[ledger.Revision],
    corrections: Sequence[restate.Moved] = (),
) -> None:
    """Copy what this period shows of earlier ones, so that the file answers alone; no earlier period, no rows."""
    rows = [row for moved in corrections for row in moved.rows]
    ledger.insert(connection, "source.restatement", restate.RESTATEMENT, rows)
    parts = [row for moved in corrections for row in moved.parts]
    ledger.insert(connection, "source.restatement_part", restate.PART, parts)
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
    ledger.insert(connection, "source.earlier_open", CARRIED, _open_before(earlier[-1]) if earlier else ())
    ledger.insert(connection, "source.earlier_chargeback", _CHARGEBACK, chargeback)
    for name, columns_of in _MONTH_BEFORE.items():
        ledger.insert(connection, f"source.earlier_{name}", columns_of, before[name])


def _open_before(revision: ledger.Revision) -> Sequence[tuple[object, ...]]:
    """What an earlier month left open, to be carried forward."""
    with ledger.reading(revision.path) as published:
        if not published.execute("select 1 from duckdb_views() where view_name = 'rollforward'").fetchall():
            return ()  # a ledger of an older version
        columns = ", ".join(CARRIED)
        return published.execute(
            f"select {columns} from report.rollforward where closing_usd > 0 order by id"
        ).fetchall()


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


def _open(connection: duckdb.DuckDBPyConnection) -> tuple[Row, ...]:
    return tuple(
        ledger.rows(
            connection,
            "select discrepancy.*, carried.age_months"
            " from report.discrepancy as discrepancy"
            " join report.rollforward as carried using (id)"
            " where carried.closing_usd > 0"
            " order by abs(discrepancy.amount_usd) desc, discrepancy.moved_usd desc, id",
        )
    )


def _outcome(job: _Job, closed: _Closed, *, published: bool) -> Outcome:
    with ledger.reading(closed.revision.path) as connection:
        summary = ledger.rows(connection, "select * from report.summary")[0]
        warnings = connection.execute("select warning from report.warning order by position").fetchall()
        return Outcome(
            exit_code=1 if summary["discrepancy_count"] else 0,
            period=str(job.period),
            state=closed.stands.state,
            revision=closed.revision.number,
            published=published,
            ledger=job.room.shelf.link(job.period),
            files=reports.files(job.room.reports(job.period)),
            summary=summary,
            bridge=tuple(ledger.rows(connection, "select * from report.bridge order by position")),
            chargeback=tuple(ledger.rows(connection, "select * from report.chargeback")),
            discrepancies=_open(connection),
            warnings=tuple(warning for (warning,) in warnings),
            unmet=tuple(map(str, closed.unmet)),
        )
