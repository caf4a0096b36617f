"""What the API's pages must look like: buckets of a report, items of a list."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from reconcile.errors import SourceError
from reconcile.pull.client import REPORTS_VERSION, Call, Reply

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_WIDTH = {HOUR: "1h", DAY: "1d"}
_KEEP = "Report it to the provider; nothing of this listing was kept, so that the next pull asks for it again"

NEVER_NULL = frozenset({"model", "service_tier", "context_window", "inference_geo", "description", "cost_type"})
"""Fields whose null means "not grouped" and nothing else.

A null workspace is the default one, a null key the Console; a null model is neither.
"""


class MalformedError(SourceError):
    """A page, or the listing that it belongs to, is not what the API promises."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what, _KEEP)


@dataclass(frozen=True)
class Report:
    """A listing of buckets: one for each ``width`` in [``start``, ``end``), ``limit`` of them a page at most.

    ``grouped`` are the fields that every page with rows must show as grouped.
    """

    kind: str
    stem: str
    path: str
    start: datetime
    end: datetime
    width: timedelta
    limit: int
    group_by: tuple[str, ...] = ()
    grouped: tuple[str, ...] = ()
    beta: str | None = None

    def call(self, number: int, token: str | None) -> Call:
        """The page after ``token``; every other parameter is the same on all pages."""
        parameters = [
            ("starting_at", instant(self.start)),
            ("ending_at", instant(self.end)),
            ("bucket_width", _WIDTH[self.width]),
            ("limit", str(self.limit)),
            *(("group_by[]", field) for field in self.group_by),
            *((("page", token),) if token else ()),
        ]
        return Call(self.kind, self.stem, number, self.path, tuple(parameters), beta=self.beta)

    def buckets(self) -> Iterator[datetime]:
        """The start of every bucket, in order."""
        for position in range((self.end - self.start) // self.width):
            yield self.start + position * self.width


@dataclass(frozen=True)
class Listing:
    """A list of items with ids, ``after_id`` paging."""

    kind: str
    path: str
    parameters: tuple[tuple[str, str], ...] = ()
    version: str = REPORTS_VERSION

    @property
    def stem(self) -> str:
        """How the files of its pages begin."""
        return self.kind

    def call(self, number: int, token: str | None) -> Call:
        """The page after the item with the id ``token``."""
        parameters = (*self.parameters, ("limit", "1000"), *((("after_id", token),) if token else ()))
        return Call(self.kind, self.stem, number, self.path, parameters, self.version)


@dataclass(frozen=True)
class Page:
    """What a page holds: the names of its parts (a bucket's start, an item's id), and the token of the next page."""

    parts: tuple[str, ...]
    token: str | None


@dataclass(frozen=True)
class Organization:
    """The organization that a key belongs to."""

    id: str
    name: str


@dataclass(frozen=True)
class Workspace:
    """A workspace as the API lists it; ``tags`` are (name, value), by name."""

    id: str
    name: str
    archived: bool
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ApiKey:
    """An API key as the API lists it. ``workspace_id`` is the real id, None for one of the whole organization."""

    id: str
    name: str
    status: str
    workspace_id: str | None


def report_page(report: Report, reply: Reply) -> Page:
    """The buckets of a page.

    Raises ``MalformedError`` for a wrong shape, a bucket that was not asked for, and rows that are not grouped.
    """
    starts, rows = [], []
    for position, bucket in enumerate(_rows(reply)):
        where = f"data[{position}]"
        start = _instant(reply, bucket, f"{where}.starting_at")
        end = _instant(reply, bucket, f"{where}.ending_at")
        if (
            end - start != report.width
            or not report.start <= start < report.end
            or (start - report.start) % report.width
        ):
            asked = f"{_WIDTH[report.width]} from {instant(report.start)} to {instant(report.end)}"
            raise MalformedError(reply.where, f"{where} is {instant(start)} to {instant(end)}, asked for {asked}")
        results = bucket.get("results")
        if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
            raise MalformedError(reply.where, f"{where}.results is not a list of objects")
        rows += results
        starts.append(instant(start))
    for field in report.grouped:
        if rows and all(row.get(field) is None for row in rows):
            raise MalformedError(
                reply.where, f"`{field}` is null in all of {len(rows)} rows: they are not grouped by what was asked for"
            )
    return Page(tuple(starts), _token(reply, "next_page", starts))


def list_page(reply: Reply) -> Page:
    """The items of a page by id. Raises ``MalformedError`` for a wrong shape."""
    ids = [_text(reply, item, f"data[{position}].id") for position, item in enumerate(_rows(reply))]
    return Page(tuple(ids), _token(reply, "last_id", ids))


def organization(reply: Reply) -> Organization:
    """Whose key it is."""
    return Organization(_text(reply, reply.body, "id"), _text(reply, reply.body, "name"))


def workspaces(reply: Reply) -> Iterator[Workspace]:
    """The workspaces of a page of their list."""
    for position, item in enumerate(_rows(reply)):
        tags = item.get("tags")
        yield Workspace(
            id=_text(reply, item, f"data[{position}].id"),
            name=_text(reply, item, f"data[{position}].name"),
            archived=item.get("archived_at") is not None,
            tags=tuple(sorted((k, str(v)) for k, v in tags.items())) if isinstance(tags, dict) else (),
        )


def api_keys(reply: Reply) -> Iterator[ApiKey]:
    """The API keys of a page of their list."""
    for position, item in enumerate(_rows(reply)):
        scope = item.get("scope")
        holder = scope if isinstance(scope, dict) else item
        workspace_id = holder.get("workspace_id")
        yield ApiKey(
            id=_text(reply, item, f"data[{position}].id"),
            name=_text(reply, item, f"data[{position}].name"),
            status=_text(reply, item, f"data[{position}].status"),
            workspace_id=workspace_id if isinstance(workspace_id, str) else None,
        )


def instant(at: datetime) -> str:
    """An instant as the API writes it: UTC, whole seconds, ``Z``."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _rows(reply: Reply) -> list[dict[str, Any]]:
    rows = reply.body.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MalformedError(reply.where, "`data` is not a list of objects")
    return rows


def _token(reply: Reply, field: str, parts: list[str]) -> str | None:
    """The token of the next page, None on the last one."""
    has_more = reply.body.get("has_more")
    if not isinstance(has_more, bool):
        raise MalformedError(reply.where, f"`has_more` is {has_more!r}, expected true or false")
    if not has_more:
        return None
    token = reply.body.get(field)
    if not isinstance(token, str) or not token:
        raise MalformedError(
            reply.where, f"`has_more` is true and `{field}` is {token!r}: the next page cannot be asked for"
        )
    if not parts:
        raise MalformedError(reply.where, "`has_more` is true on a page without anything: paging would never end")
    return token


def _text(reply: Reply, holder: dict[str, Any], path: str) -> str:
    value = holder.get(path.rpartition(".")[2])
    if not isinstance(value, str) or not value:
        raise MalformedError(reply.where, f"`{path}` is {value!r:.80}, expected text")
    return value


def _instant(reply: Reply, bucket: dict[str, Any], path: str) -> datetime:
    text = _text(reply, bucket, path)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise MalformedError(reply.where, f"`{path}` is {text!r:.80}, expected an instant like 2026-10-01T00:00:00Z")
    return at.astimezone(UTC)
