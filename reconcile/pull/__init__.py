"""The provider's side of a period, page by page as received: the only stage that knows the network.

```
span     what is asked for
desk     whole listings, out of the folder or the API
client   one page from the API, with finite patience
pages    what a page must look like
folder   where the pages lie
```

A pull is complete or it fails. It ends as ``raw/<period>/<stamp>/`` with the bytes of every page beside a manifest;
until then the folder's name ends in ``.partial``, and a pull that was interrupted goes on where it stopped.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import httpx

from reconcile.config import Billing
from reconcile.errors import ConfigError, SourceError
from reconcile.period import Period
from reconcile.pull.client import KEYS_VERSION, Call, Client, RefusedError, Reply
from reconcile.pull.desk import Desk
from reconcile.pull.folder import Folder, Manifest, all_complete, newest_complete
from reconcile.pull.pages import (
    ApiKey,
    Listing,
    Organization,
    Workspace,
    api_keys,
    instant,
    organization,
    workspaces,
)
from reconcile.pull.span import API, Span

__all__ = [
    "ApiKey",
    "Directory",
    "Organization",
    "Progress",
    "Workspace",
    "complete",
    "directory",
    "latest",
    "pull",
    "reach",
    "repull_day",
]

_ME = Call("organization", "organization", 1, f"{API}/me")
_WORKSPACES = Listing("workspaces", f"{API}/workspaces", (("include_archived", "true"),))
_API_KEYS = Listing("api_keys", f"{API}/api_keys", version=KEYS_VERSION)
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
    span = Span.of(period, now)
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
            desk = Desk(client, folder)
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
    span = Span(period, date.fromisoformat(before.through_on), datetime.fromisoformat(before.usage_until))
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
                    Desk(client, copy).report(report)
                    steps.done(report.stem)
                return copy.complete(now, client.now(), before.default_workspace_id)
            except BaseException:
                copy.drop()  # or a later pull would take a copy of this one for its own beginning
                raise


def latest(raw_dir: Path, period: Period) -> Path | None:
    """The newest complete pull of the period, None where there is none."""
    return newest_complete(raw_dir / str(period))


def complete(raw_dir: Path) -> tuple[Path, ...]:
    """Every complete pull of every period, oldest first."""
    return tuple(path for parent in sorted(raw_dir.glob("*")) for path in all_complete(parent))


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
        desk = Desk(client)
        ours = organization(client.get(_ME))
        steps.done("organization")
        names = _names(desk, billing, steps)
        return Directory(ours, names.workspaces, names.keys, names.default_workspace_id)


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


@dataclass(frozen=True)
class _Names:
    workspaces: tuple[Workspace, ...]
    keys: tuple[ApiKey, ...]
    default_workspace_id: str | None


def _names(desk: Desk, billing: Billing, steps: _Steps) -> _Names:
    listed = tuple(workspace for reply in desk.listing(_WORKSPACES) for workspace in workspaces(reply))
    steps.done("workspaces")
    keys = tuple(key for reply in desk.listing(_API_KEYS) for key in api_keys(reply))
    steps.done("api_keys")
    unlisted = {key.workspace_id for key in keys if key.workspace_id} - {workspace.id for workspace in listed}
    return _Names(listed, keys, _default_workspace(desk, unlisted, billing))


def _default_workspace(desk: Desk, unlisted: set[str], billing: Billing) -> str | None:
    """The real id of the default workspace: the one that keys name, the list lacks and the API confirms.

    Of several that the API knows, the one that is named "Default". Where no key tells it, the config's.
    Source: Admin API, workspaces: the list omits the default workspace, its own address answers with that name.
    """
    configured = billing.default_workspace_id
    candidates = sorted(unlisted | ({configured} if configured else set()))
    known: dict[str, str] = {}
    for candidate in filter(_ASKABLE_ID.fullmatch, candidates):
        call = Call("workspace", f"workspace-{candidate}", 1, f"{API}/workspaces/{candidate}")
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


def _usage(desk: Desk, span: Span, steps: _Steps) -> None:
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
            f"the key of {billing.key.place()} belongs to organization {found.id} ({found.name!r}), "
            f"expected {organization_id}",
            "Use a key of that organization, or correct organization_id",
        )
    return found


def _client(billing: Billing, key: str, now: datetime, steps: _Steps, transport: httpx.BaseTransport | None) -> Client:
    return Client(billing, key=key, now=now, on_failure=steps.say, transport=transport)
