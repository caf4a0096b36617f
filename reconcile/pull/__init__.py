"""The provider's side of a period, page by page as received: the only stage that knows the network.

```
client   one page from the API, with finite patience
pages    what a page must look like
folder   where the pages lie
```

A pull is complete or it fails. It ends as ``raw/<period>/<stamp>/`` with the bytes of every page beside a manifest;
until then the folder's name ends in ``.partial``, and a pull that was interrupted goes on where it stopped.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from pathlib import Path

import httpx

from reconcile.config import Billing
from reconcile.errors import ConfigError, NotReadyError, SourceError
from reconcile.period import Period
from reconcile.pull.client import FAST_MODE, KEYS_VERSION, Call, Client, RefusedError, Reply, parse
from reconcile.pull.folder import Folder, Manifest, newest_complete
from reconcile.pull.pages import (
    DAY,
    HOUR,
    NEVER_NULL,
    ApiKey,
    Listing,
    MalformedError,
    Organization,
    Page,
    Report,
    Workspace,
    api_keys,
    instant,
    list_page,
    organization,
    report_page,
    workspaces,
)

__all__ = [
    "ApiKey",
    "Directory",
    "Organization",
    "Progress",
    "Workspace",
    "directory",
    "latest",
    "pull",
    "reach",
    "repull_day",
]

_API = "/v1/organizations"
_ME = Call("organization", "organization", 1, f"{_API}/me")
_WORKSPACES = Listing("workspaces", f"{_API}/workspaces", (("include_archived", "true"),))
_API_KEYS = Listing("api_keys", f"{_API}/api_keys", version=KEYS_VERSION)
_GRAIN = (
    "workspace_id", "model", "service_tier", "context_window", "inference_geo", "api_key_id", "account_id",
    "service_account_id",
)  # fmt: skip
_SETTLES = timedelta(hours=1)  # an hour is over for us an hour after its end, as a day is
_MOST_PAGES = 10_000
_TOKEN_REFUSED = frozenset({400, 404, 410})
_SPEED_REFUSED = re.compile(r"speed|fast-mode|anthropic-beta")
_ASKABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class Progress:
    """How far a stage is: ``done`` of ``total`` steps (None where it is not known), and what it does now."""

    done: int
    total: int | None
    what: str


@dataclass(frozen=True)
class Directory:
    """Who is there. ``default_workspace_id`` is the real id of the workspace that the list lacks, where it is known."""

    organization: Organization
    workspaces: tuple[Workspace, ...]
    keys: tuple[ApiKey, ...]
    default_workspace_id: str | None


def _silent(_: Progress) -> None:
    return None


def pull(
    billing: Billing,
    period: Period,
    raw_dir: Path,
    *,
    now: datetime,
    key: str,
    organization_id: str | None,
    on_progress: Callable[[Progress], None] = _silent,
    transport: httpx.BaseTransport | None = None,
) -> Path:
    """Everything that the provider reports of the period, in a new complete folder under ``raw_dir/<period>/``.

    Usage by hour at full grain for the period and a day either side (of the day after, the hours that are over at
    ``now``), usage by day and cost by day for the period's complete days, and the names. ``now`` is the pull's clock.

    Raises ``NotReadyError`` for a period without a complete day; ``SourceError`` for a source that is unavailable,
    refused, incomplete, malformed or another organization's; ``ConfigError`` for a key that cannot be sent, a
    default workspace that the API contradicts, or a folder that cannot be written.
    """
    span = _Span.of(period, now)
    steps = _Steps(on_progress, len(list(span.hours())) + 5)
    with _client(billing, key, now, steps, transport) as client:
        me = client.get(_ME)
        ours = _ours(me, organization_id, billing)
        wanted = Manifest(
            period=str(period),
            base_url=billing.base_url,
            organization_id=ours.id,
            organization=ours.name,
            started_at=instant(now),
            through_on=span.through_on.isoformat(),
            usage_until=instant(span.usage_until),
        )
        with Folder.open(raw_dir / str(period), wanted, now) as folder:
            desk = _Desk(client, folder)
            if desk.stored(_ME) is None:
                desk.keep(me)
            steps.done("organization")
            default_workspace_id = _names(desk, billing, steps).default_workspace_id
            _usage(desk, span, steps)
            for report in (span.usage_days(), span.cost_days()):
                desk.report(report)
                steps.done(report.stem)
            return folder.complete(now, client.now(), default_workspace_id)


def repull_day(
    billing: Billing,
    period: Period,
    folder: Path,
    day: date,
    *,
    now: datetime,
    key: str,
    on_progress: Callable[[Progress], None] = _silent,
    transport: httpx.BaseTransport | None = None,
) -> Path:
    """A new complete folder: ``day``'s usage pages and the control total fetched again, the others taken over.

    ``folder`` is a complete pull of the period. Raises as ``pull`` does, and leaves nothing behind then.
    """
    before = Manifest.of_file(folder)
    if before is None or before.completed_at is None:
        raise SourceError(str(folder), "is not a complete pull", "Pull the period again")
    by_speed = any(("group_by[]", "speed") in kept.parameters for kept in before.pages if kept.kind == "usage_hour")
    span = _Span(period, date.fromisoformat(before.through_on), datetime.fromisoformat(before.usage_until))
    reports = [report for report in span.hours(by_speed=by_speed) if report.start.date() == day]
    if not reports:
        raise SourceError(str(folder), f"holds no usage of {day}", "Pull the period again")
    reports.append(span.usage_days())
    again = {report.stem for report in reports}
    steps = _Steps(on_progress, len(reports) + 1)
    with _client(billing, key, now, steps, transport) as client:
        _ours(client.get(_ME), before.organization_id, billing)
        steps.done("organization")
        taken = tuple(kept for kept in before.pages if kept.stem not in again)
        with Folder.create(folder.parent, replace(before, completed_at=None, pages=()), now) as copy:
            try:
                copy.link(folder, taken)
                for report in reports:
                    _Desk(client, copy).report(report)
                    steps.done(report.stem)
                return copy.complete(now, client.now(), before.default_workspace_id)
            except BaseException:
                copy.drop()  # or a later pull would take a copy of this one for its own beginning
                raise


def latest(raw_dir: Path, period: Period) -> Path | None:
    """The newest complete pull of the period, None where there is none."""
    return newest_complete(raw_dir / str(period))


def reach(billing: Billing, *, key: str, transport: httpx.BaseTransport | None = None) -> Organization:
    """Whose key it is: one request. Raises ``SourceError`` when the API cannot be reached or refuses the key."""
    with _client(billing, key, datetime.now(UTC), _Steps(_silent, 1), transport) as client:
        return organization(client.get(_ME))


def directory(
    billing: Billing,
    *,
    key: str,
    on_progress: Callable[[Progress], None] = _silent,
    transport: httpx.BaseTransport | None = None,
) -> Directory:
    """The organization with its workspaces, archived ones included, and its API keys. Raises as ``pull`` does."""
    steps = _Steps(on_progress, 4)
    with _client(billing, key, datetime.now(UTC), steps, transport) as client:
        desk = _Desk(client)
        ours = organization(client.get(_ME))
        steps.done("organization")
        names = _names(desk, billing, steps)
        return Directory(ours, names.workspaces, names.keys, names.default_workspace_id)


@dataclass(frozen=True)
class _Span:
    """What is asked for: the period's complete days, and the hours around them up to ``usage_until`` (exclusive)."""

    period: Period
    through_on: date
    usage_until: datetime

    @classmethod
    def of(cls, period: Period, now: datetime) -> "_Span":
        """The span at ``now``. Raises ``NotReadyError`` for a period without a complete day."""
        through_on = period.through_on(now)
        if through_on is None:
            raise NotReadyError(
                str(period),
                f"has no complete day at {instant(now)}",
                "A day is complete an hour after its end in UTC: close the month later, or an earlier month",
            )
        end = _midnight(through_on) + DAY
        over = (now.astimezone(UTC) - _SETTLES).replace(minute=0, second=0, microsecond=0)
        return cls(period, through_on, min(over, end + DAY))

    def hours(self, *, by_speed: bool = True) -> Iterator[Report]:
        """Usage at full grain, one listing a day: a day is a page, so that it alone can be fetched again."""
        group_by = (*_GRAIN, "speed") if by_speed else _GRAIN
        start = _midnight(self.period.start_on) - DAY
        while start < self.usage_until:
            yield Report(
                kind="usage_hour",
                stem=f"usage_hour-{start.date()}",
                path=f"{_API}/usage_report/messages",
                start=start,
                end=min(start + DAY, self.usage_until),
                width=HOUR,
                limit=24,
                group_by=group_by,
                grouped=tuple(field for field in group_by if field in NEVER_NULL),
                beta=FAST_MODE if by_speed else None,
            )
            start += DAY

    def usage_days(self) -> Report:
        """The ungrouped control total of the complete days."""
        return self._days("usage_day", f"{_API}/usage_report/messages")

    def cost_days(self) -> Report:
        """What was billed on the complete days; the running day has no bucket and is not asked for."""
        fields = ("workspace_id", "description")
        return replace(
            self._days("cost_day", f"{_API}/cost_report"), group_by=fields, grouped=("description", "cost_type")
        )

    def _days(self, kind: str, path: str) -> Report:
        start, end = _midnight(self.period.start_on), _midnight(self.through_on) + DAY
        return Report(kind, kind, path, start, end, DAY, limit=31)


class _Steps:
    """Counts the listings of a pull and tells the callback."""

    def __init__(self, on_progress: Callable[[Progress], None], total: int) -> None:
        self._on_progress = on_progress
        self._total = total
        self._done = 0

    def done(self, what: str) -> None:
        """One more listing is there."""
        self._done += 1
        self.say(what)

    def say(self, what: str) -> None:
        """A line that is not a step."""
        self._on_progress(Progress(self._done, self._total, what))


class _Desk:
    """Gets pages: from the folder where an earlier attempt kept them, else from the API; checks, then keeps them."""

    def __init__(self, client: Client, folder: Folder | None = None) -> None:
        self._client = client
        self._folder = folder

    def stored(self, call: Call) -> Reply | None:
        """The page as the folder holds it."""
        url = self._client.url(call)
        found = self._folder.stored(call, url) if self._folder else None
        if found is None:
            return None
        kept, content = found
        body = parse(content)
        if not isinstance(body, dict):
            return None
        at = datetime.fromisoformat(kept.fetched_at)
        return Reply(call, url, content, body, kept.status, kept.request_id, at)

    def keep(self, reply: Reply) -> None:
        """Write a page that was found good."""
        if self._folder:
            self._folder.keep(reply)

    def report(self, report: Report) -> None:
        """All pages of a report. Raises ``MalformedError`` unless every bucket of the range is there exactly once."""
        seen: set[str] = set()
        for _, page in self._chain(report, lambda reply: report_page(report, reply)):
            seen.update(page.parts)
        missing = [at for at in map(instant, report.buckets()) if at not in seen]
        if missing:
            self._forget(report.stem)
            every = sum(1 for _ in report.buckets())
            raise MalformedError(
                f"{report.stem} (GET {self._client.url(report.call(1, None))})",
                f"{len(missing)} of {every} buckets are missing, the first is {missing[0]}",
            )

    def listing(self, listing: Listing) -> list[Reply]:
        """All pages of a list."""
        return [reply for reply, _ in self._chain(listing, list_page)]

    def one(self, call: Call) -> Reply:
        """A page that stands alone."""
        reply = self.stored(call)
        if reply is None:
            reply = self._client.get(call)
            self.keep(reply)
        return reply

    def _chain(self, listing: Report | Listing, read: Callable[[Reply], Page]) -> list[tuple[Reply, Page]]:
        """The pages of a listing, in order. A page token that is refused (it may be too old) starts it over, once."""
        for last_chance in (False, True):
            chain: list[tuple[Reply, Page]] = []
            try:
                for reply, page in self._walk(listing, read):
                    chain.append((reply, page))
            except MalformedError:
                self._forget(listing.stem)
                raise
            except RefusedError as refusal:
                if last_chance or not chain or refusal.status not in _TOKEN_REFUSED:
                    raise
                self._forget(listing.stem)
            else:
                return chain
        raise AssertionError("unreachable")

    def _walk(self, listing: Report | Listing, read: Callable[[Reply], Page]) -> Iterator[tuple[Reply, Page]]:
        token: str | None = None
        tokens: set[str] = set()
        parts: set[str] = set()
        for number in count(1):
            call = listing.call(number, token)
            stored = self.stored(call)
            reply = stored or self._client.get(call)
            page = read(reply)
            if page.token in tokens:
                raise MalformedError(reply.where, f"the page token {page.token!r:.80} comes a second time")
            for part in page.parts:
                if part in parts:
                    raise MalformedError(reply.where, f"{part} comes a second time")
                parts.add(part)
            if stored is None:
                self.keep(reply)
            yield reply, page
            if page.token is None:
                return
            if number >= _MOST_PAGES:
                raise MalformedError(reply.where, f"there are more than {_MOST_PAGES} pages")
            token = page.token
            tokens.add(token)

    def _forget(self, stem: str) -> None:
        if self._folder:
            self._folder.forget(stem)


@dataclass(frozen=True)
class _Names:
    workspaces: tuple[Workspace, ...]
    keys: tuple[ApiKey, ...]
    default_workspace_id: str | None


def _names(desk: _Desk, billing: Billing, steps: _Steps) -> _Names:
    listed = tuple(workspace for reply in desk.listing(_WORKSPACES) for workspace in workspaces(reply))
    steps.done("workspaces")
    keys = tuple(key for reply in desk.listing(_API_KEYS) for key in api_keys(reply))
    steps.done("api_keys")
    unlisted = {key.workspace_id for key in keys if key.workspace_id} - {workspace.id for workspace in listed}
    return _Names(listed, keys, _default_workspace(desk, unlisted, billing))


def _default_workspace(desk: _Desk, unlisted: set[str], billing: Billing) -> str | None:
    """The real id of the default workspace: the one that keys name, the list lacks and the API confirms.

    Of several that the API knows, the one that is named "Default". Where no key tells it, the config's.
    Source: Admin API, workspaces: the list omits the default workspace, its own address answers with that name.
    """
    configured = billing.default_workspace_id
    candidates = sorted(unlisted | ({configured} if configured else set()))
    known: dict[str, str] = {}
    for candidate in filter(_ASKABLE_ID.fullmatch, candidates):
        call = Call("workspace", f"workspace-{candidate}", 1, f"{_API}/workspaces/{candidate}")
        try:
            known[candidate] = str(desk.one(call).body.get("name"))
        except RefusedError as refusal:
            if refusal.status != httpx.codes.NOT_FOUND:
                raise
    told = {candidate: name for candidate, name in known.items() if candidate in unlisted}
    confirmed = [candidate for candidate, name in told.items() if name == "Default"] or list(told)
    if configured and confirmed and configured not in confirmed:
        raise ConfigError(
            "billing.default_workspace_id",
            f"the config says {configured}, the API says {confirmed[0]}",
            "Correct it, or leave it out: the API tells it",
        )
    return confirmed[0] if len(confirmed) == 1 else configured


def _usage(desk: _Desk, span: _Span, steps: _Steps) -> None:
    """Usage by hour, by speed too unless the API refuses just that.

    Grouping by speed hangs on a beta header. Should the API refuse it (400, naming it), the pull goes on without: rows
    without the field count as standard, and what fast mode cost beyond that stays visible as price variance. The
    manifest's parameters show which it was. All days are asked the same.
    """
    first, *_ = span.hours()
    plain, *_ = span.hours(by_speed=False)
    by_speed = desk.stored(plain.call(1, None)) is None
    if by_speed:
        try:
            desk.report(first)
        except RefusedError as refusal:
            if refusal.status != httpx.codes.BAD_REQUEST or not _SPEED_REFUSED.search(refusal.what):
                raise
            by_speed = False
            steps.say("the API refuses to group by speed: usage counts as standard speed")
    for report in span.hours(by_speed=by_speed):
        desk.report(report)
        steps.done(report.stem)


def _ours(me: Reply, organization_id: str | None, billing: Billing) -> Organization:
    found = organization(me)
    if organization_id is not None and found.id != organization_id:
        raise SourceError(
            me.where,
            f"the key of {billing.key.place()} belongs to organization {found.id} ({found.name}), "
            f"expected {organization_id}",
            "Use a key of that organization, or correct organization_id",
        )
    return found


def _client(billing: Billing, key: str, now: datetime, steps: _Steps, transport: httpx.BaseTransport | None) -> Client:
    return Client(billing, key=key, now=now, on_failure=steps.say, transport=transport)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
