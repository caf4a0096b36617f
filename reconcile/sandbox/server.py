"""An HTTP server on loopback that answers like the provider's Admin API."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from reconcile.sandbox.organization import (
    ADMIN_KEY,
    NAME,
    ORGANIZATION_ID,
    USERS,
    ApiKey,
    Workspace,
    tagged_id,
)
from reconcile.sandbox.provider import CostLine, Dimensions, Provider, cents
from reconcile.sandbox.rates import day_date
from reconcile.sandbox.scenario import Scenario

_VERSIONS = ("2023-06-01", "2026-10-21")
_FAST_MODE = "fast-mode-2026-02-01"
_WIDTHS = {"1d": (1440, 7, 31), "1h": (60, 24, 168), "1m": (1, 60, 1440)}  # minutes, default limit, largest limit
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MINUTES = 1440

_DIMENSIONS = {
    "account_id": "account_ids[]",
    "api_key_id": "api_key_ids[]",
    "context_window": "context_window[]",
    "inference_geo": "inference_geos[]",
    "model": "models[]",
    "service_account_id": "service_account_ids[]",
    "service_tier": "service_tiers[]",
    "speed": "speeds[]",
    "workspace_id": "workspace_ids[]",
}
_ENUMS = {
    "context_window": ("0-200k", "200k-1M"),
    "inference_geo": ("global", "us", "not_available"),
    "service_tier": ("standard", "batch", "priority", "priority_on_demand", "flex", "flex_discount"),
    "speed": ("standard", "fast"),
}

FaultKind = Literal[
    "rate_limit",
    "rate_limit_silent",
    "spend_cap",
    "server_error",
    "overloaded",
    "hang",
    "cut_body",
    "invalid_json",
    "repeated_page",
    "missing_day",
    "lost_row",
    "other_currency",
]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with answers whose path holds ``path``.

    ``rate_limit`` is a 429 that says ``retry_after`` (seconds), ``rate_limit_silent`` one that does not, ``spend_cap``
    one that waiting does not heal; ``server_error`` 500, ``overloaded`` 529; ``hang`` keeps the line open without an
    answer until the server stops; ``cut_body`` ends in the middle; ``repeated_page`` names the page that was asked for
    as the next one; ``missing_day`` leaves out the buckets of ``day`` (YYYY-MM-DD, else the answer's last bucket);
    ``lost_row`` leaves out the first row of grouped usage (of ``day``); ``other_currency`` bills in EUR.
    It happens to the first ``times`` answers that match, or to all (None).
    """

    kind: FaultKind
    path: str = ""
    times: int | None = 1
    retry_after: str = "1"
    day: str | None = None


@dataclass(frozen=True)
class Faults:
    """The faults of a server, the first that matches an answer happens."""

    planned: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Received:
    """A request that the server got: its path, its parameters in order, its headers in lower case."""

    path: str
    parameters: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]


class _Refusal(Exception):  # noqa: N818 - an answer, not a failure of ours
    """An answer in the provider's error envelope."""

    def __init__(self, status: int, kind: str, message: str, details: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.details = details


def _invalid(message: str) -> _Refusal:
    return _Refusal(400, "invalid_request_error", message)


def _instant(minute: int) -> str:
    return (_EPOCH + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _minute(text: str, name: str) -> int:
    """An RFC 3339 instant as whole minutes since 1970, rounded down."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None or len(text) < len("2026-10-01T00:00Z"):
        raise _invalid(f"{name}: {text!r} is not an RFC 3339 date-time with an offset")
    return int((instant - _EPOCH).total_seconds() // 60)


class _Parameters:
    """The query of one request; anything that is not known is refused."""

    def __init__(self, pairs: Iterable[tuple[str, str]], known: Iterable[str]) -> None:
        self._values: dict[str, list[str]] = {}
        allowed = set(known)
        for name, value in pairs:
            if name not in allowed:
                raise _invalid(f"{name}: Extra inputs are not permitted")
            self._values.setdefault(name, []).append(value)

    def one(self, name: str) -> str | None:
        values = self._values.get(name, [])
        if len(values) > 1:
            raise _invalid(f"{name}: given {len(values)} times, expected once")
        return values[0] if values else None

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))

    def chosen(self, name: str, allowed: Iterable[str], default: str) -> str:
        value = self.one(name) or default
        if value not in allowed:
            raise _invalid(f"{name}: {value!r} is not one of {', '.join(allowed)}")
        return value

    def limit(self, default: int, largest: int) -> int:
        text = self.one("limit")
        if text is None:
            return default
        if not text.isdigit() or not 1 <= int(text) <= largest:
            raise _invalid(f"limit: {text!r} must lie between 1 and {largest}")
        return int(text)

    def flag(self, name: str) -> bool:
        return self.chosen(name, ("true", "false"), "false") == "true"


def _page_start(token: str) -> int:
    try:
        text = base64.b64decode(token.removeprefix("page_"), validate=True).decode("ascii")
        return _minute(text, "page")
    except (binascii.Error, UnicodeDecodeError, _Refusal):
        raise _invalid("page: not a page token of this report") from None


def _page_token(minute: int) -> str:
    return "page_" + base64.b64encode(_instant(minute).encode()).decode()


@dataclass(frozen=True)
class _Page:
    """The buckets of one answer: minutes since 1970, and the start of the next page."""

    starts: range
    width: int
    next_start: int | None


def _page(parameters: _Parameters, width_name: str, ends_by: int, last_start: int) -> _Page:
    """The buckets asked for. ``ends_by``: no bucket ends later; ``last_start``: none starts later."""
    width, default_limit, largest = _WIDTHS[width_name]
    text = parameters.one("starting_at")
    if text is None:
        raise _invalid("starting_at: Field required")
    start = _minute(text, "starting_at") // width * width
    ending_text = parameters.one("ending_at")
    end = ends_by
    if ending_text is not None:
        asked = _minute(ending_text, "ending_at")
        if asked <= _minute(text, "starting_at"):
            raise _invalid(f"ending_at: {ending_text!r} must be after starting_at {text!r}")
        end = min(end, asked)
    limit = parameters.limit(default_limit, largest)
    token = parameters.one("page")
    first = start if token is None else max(start, _page_start(token) // width * width)
    until = min(end - width, last_start) + 1  # no bucket starts here or later
    starts = range(first, min(first + limit * width, until), width)
    following = first + limit * width
    return _Page(starts, width, following if following < until else None)


class _Api:
    """The endpoints, as functions of parameters and headers."""

    def __init__(self, scenario: Scenario, provider: Provider, costs: dict[int, list[CostLine]]) -> None:
        self._scenario = scenario
        self._provider = provider
        self._costs = costs
        self._now = scenario.clock_ms // 60_000

    def answer(self, path: str, pairs: tuple[tuple[str, str], ...], headers: Mapping[str, str]) -> dict[str, Any]:
        """The body for a request. Raises ``_Refusal`` with what the provider would say."""
        _authorize(headers)
        version = headers.get("anthropic-version")
        if version is None:
            raise _invalid("anthropic-version: header is required")
        if version not in _VERSIONS:
            raise _invalid(f"anthropic-version: {version!r} is not a valid version")
        fixed: dict[str, Callable[[], dict[str, Any]]] = {
            "/v1/organizations/me": lambda: _organization(pairs),
            "/v1/organizations/usage_report/messages": lambda: self._usage(pairs, headers),
            "/v1/organizations/cost_report": lambda: self._cost(pairs),
            "/v1/organizations/workspaces": lambda: self._workspaces(pairs),
            "/v1/organizations/api_keys": lambda: self._api_keys(pairs, version),
        }
        if path in fixed:
            return fixed[path]()
        prefix, _, tail = path.rpartition("/")
        if prefix == "/v1/organizations/workspaces":
            _Parameters(pairs, ())
            for workspace in self._scenario.organization.workspaces:
                if workspace.id == tail:
                    return self._workspace(workspace)
        raise _Refusal(404, "not_found_error", "The requested resource could not be found.")

    def _usage(self, pairs: tuple[tuple[str, str], ...], headers: Mapping[str, str]) -> dict[str, Any]:
        known = ("starting_at", "ending_at", "bucket_width", "limit", "page", "group_by[]", *_DIMENSIONS.values())
        parameters = _Parameters(pairs, known)
        group_by = parameters.many("group_by[]")
        for name in group_by:
            if name not in _DIMENSIONS:
                raise _invalid(f"group_by: {name!r} is not one of {', '.join(_DIMENSIONS)}")
        filters = {}
        for name, parameter in _DIMENSIONS.items():
            if values := parameters.many(parameter):
                if unknown := set(values) - set(_ENUMS.get(name, values)):
                    raise _invalid(f"{parameter}: {min(unknown)!r} is not one of {', '.join(_ENUMS[name])}")
                filters[name] = frozenset(values)
        betas = {beta.strip() for beta in headers.get("anthropic-beta", "").split(",")}
        if ("speed" in group_by or "speed" in filters) and _FAST_MODE not in betas:
            raise _invalid(f"speed: needs the header anthropic-beta: {_FAST_MODE}")
        width_name = parameters.chosen("bucket_width", _WIDTHS, "1d")
        width = _WIDTHS[width_name][0]
        page = _page(parameters, width_name, self._now // width * width + width, self._now)
        groups = _Groups(self._provider.dimensions, frozenset(group_by), filters)
        show_speed = "speed" in group_by and self._scenario.speed_field
        buckets = [
            {
                "starting_at": _instant(start),
                "ending_at": _instant(start + page.width),
                "results": [
                    _usage_row(key, sums, show_speed) for key, sums in groups.sum(self._entries(start, page.width))
                ],
            }
            for start in page.starts
        ]
        return _listing(buckets, page)

    def _entries(self, start: int, width: int) -> Iterator[tuple[int, Iterable[int]]]:
        """Counters by dimensions of one bucket, finest first: a minute, an hour, a day."""
        day, minute = divmod(start, _DAY_MINUTES)
        if width == 1:
            yield from ((index, counters) for at, index, counters in self._provider.minutes(day) if at == minute)
        else:
            for hour in range(minute // 60, (minute + width) // 60):
                yield from self._provider.hour(day, hour).items()

    def _cost(self, pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        parameters = _Parameters(pairs, ("starting_at", "ending_at", "bucket_width", "limit", "page", "group_by[]"))
        parameters.chosen("bucket_width", ("1d",), "1d")
        group_by = parameters.many("group_by[]")
        for name in group_by:
            if name not in ("workspace_id", "description"):
                raise _invalid(f"group_by: {name!r} is not one of workspace_id, description")
        today = self._now // _DAY_MINUTES * _DAY_MINUTES
        page = _page(parameters, "1d", today, today)  # the running day has no bucket
        buckets = [
            {
                "starting_at": _instant(start),
                "ending_at": _instant(start + page.width),
                "results": _cost_rows(self._costs.get(start // _DAY_MINUTES, []), frozenset(group_by)),
            }
            for start in page.starts
        ]
        return _listing(buckets, page)

    def _workspaces(self, pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        known = ("after_id", "before_id", "limit", "include_archived", "include_default", "ids[]")
        parameters = _Parameters(pairs, known)
        ids = parameters.many("ids[]")
        if len(ids) > 100:
            raise _invalid(f"ids: got {len(ids)}, at most 100")
        rows = [
            self._workspace(workspace)
            for workspace in self._scenario.organization.workspaces
            if (not ids or workspace.id in ids)
            and (not workspace.is_default or parameters.flag("include_default"))
            and (self._archived_at(workspace) is None or parameters.flag("include_archived"))
        ]
        return _cursor_page(rows, parameters)

    def _archived_at(self, workspace: Workspace) -> str | None:
        if workspace.archived_on_day is None:
            return None
        day = self._scenario.first_day + workspace.archived_on_day - 1
        return f"{day_date(day)}T00:00:00Z" if day * _DAY_MINUTES <= self._now else None

    def _workspace(self, workspace: Workspace) -> dict[str, Any]:
        position = self._scenario.organization.workspaces.index(workspace)
        return {
            "id": workspace.id,
            "type": "workspace",
            "name": workspace.name,
            "created_at": f"2025-{1 + position % 12:02d}-{1 + position:02d}T09:30:00.000000Z",
            "archived_at": self._archived_at(workspace),
            "display_color": workspace.color,
            "compartment_id": tagged_id("cmpt", workspace.name),
            "data_residency": {
                "workspace_geo": "us",
                "default_inference_geo": workspace.default_geo,
                "allowed_inference_geos": "unrestricted",
            },
            "external_key_id": None,
            "tags": {} if workspace.cost_center is None else {"cost_center": workspace.cost_center, "env": "prod"},
        }

    def _api_keys(self, pairs: tuple[tuple[str, str], ...], version: str) -> dict[str, Any]:
        known = ("after_id", "before_id", "limit", "status", "workspace_id", "created_by_user_id")
        parameters = _Parameters(pairs, known)
        status = parameters.one("status")
        if status is not None:
            parameters.chosen("status", ("active", "inactive", "archived", "expired"), "active")
        workspace_id = parameters.one("workspace_id")
        user_id = parameters.one("created_by_user_id")
        rows = [
            _api_key(key, version)
            for key in self._scenario.organization.api_keys
            if (status is None or key.status == status)
            and (workspace_id is None or (key.workspace is not None and key.workspace.id == workspace_id))
            and (user_id is None or (key.created_by is not None and USERS[key.created_by] == user_id))
        ]
        return _cursor_page(rows, parameters)


class _Groups:
    """Sums counters over the dimensions that are asked for."""

    def __init__(
        self, dimensions: list[Dimensions], group_by: frozenset[str], filters: Mapping[str, frozenset[str]]
    ) -> None:
        self._keys: list[tuple[str | None, ...] | None] = []
        for dims in dimensions:
            passes = all(getattr(dims, name) in values for name, values in filters.items())
            key = tuple(getattr(dims, name) if name in group_by else None for name in _DIMENSIONS)
            self._keys.append(key if passes else None)

    def sum(self, entries: Iterator[tuple[int, Iterable[int]]]) -> list[tuple[tuple[str | None, ...], list[int]]]:
        sums: dict[tuple[str | None, ...], list[int]] = {}
        for index, counters in entries:
            key = self._keys[index]
            if key is not None:
                known = sums.get(key)
                sums[key] = list(counters) if known is None else [a + b for a, b in zip(known, counters, strict=True)]
        return sorted(sums.items(), key=lambda item: tuple(part or "" for part in item[0]))


def _usage_row(key: tuple[str | None, ...], sums: list[int], show_speed: bool) -> dict[str, Any]:
    account_id, api_key_id, window, geo, model, service_account_id, tier, speed, workspace_id = key
    row: dict[str, Any] = {
        "uncached_input_tokens": sums[0],
        "cache_creation": {"ephemeral_1h_input_tokens": sums[2], "ephemeral_5m_input_tokens": sums[1]},
        "cache_read_input_tokens": sums[3],
        "output_tokens": sums[4],
        "server_tool_use": {"web_search_requests": sums[5]},
        "account_id": account_id,
        "api_key_id": api_key_id,
        "context_window": window,
        "inference_geo": geo,
        "model": model,
        "service_account_id": service_account_id,
        "service_tier": tier,
        "workspace_id": workspace_id,
    }
    if show_speed:
        row["speed"] = speed
    return row


def _cost_rows(lines: list[CostLine], group_by: frozenset[str]) -> list[dict[str, Any]]:
    by_description = "description" in group_by
    sums: dict[tuple[str | None, ...], int] = {}
    for line in lines:
        key = (
            line.workspace_id if "workspace_id" in group_by else None,
            *(
                (
                    line.description,
                    line.cost_type,
                    line.model,
                    line.token_type,
                    line.service_tier,
                    line.context_window,
                    line.inference_geo,
                )
                if by_description
                else (None,) * 7
            ),
        )
        sums[key] = sums.get(key, 0) + line.pico_usd
    names = (
        "workspace_id",
        "description",
        "cost_type",
        "model",
        "token_type",
        "service_tier",
        "context_window",
        "inference_geo",
    )
    return [
        {"currency": "USD", "amount": cents(pico_usd), **dict(zip(names, key, strict=True))}
        for key, pico_usd in sorted(sums.items(), key=lambda item: tuple(part or "" for part in item[0]))
    ]


def _listing(buckets: list[dict[str, Any]], page: _Page) -> dict[str, Any]:
    next_start = page.next_start
    return {
        "data": buckets,
        "has_more": next_start is not None,
        "next_page": None if next_start is None else _page_token(next_start),
    }


def _cursor_page(rows: list[dict[str, Any]], parameters: _Parameters) -> dict[str, Any]:
    limit = parameters.limit(20, 1000)
    after, before = parameters.one("after_id"), parameters.one("before_id")
    ids = [row["id"] for row in rows]
    for name, cursor in (("after_id", after), ("before_id", before)):
        if cursor is not None and cursor not in ids:
            raise _invalid(f"{name}: {cursor!r} is not in this list")
    if before is not None:
        end = ids.index(before)
        chosen, has_more = rows[max(0, end - limit) : end], end > limit
    else:
        start = 0 if after is None else ids.index(after) + 1
        chosen, has_more = rows[start : start + limit], len(rows) > start + limit
    return {
        "data": chosen,
        "first_id": chosen[0]["id"] if chosen else None,
        "last_id": chosen[-1]["id"] if chosen else None,
        "has_more": has_more,
    }


def _organization(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    _Parameters(pairs, ())
    return {"id": ORGANIZATION_ID, "name": NAME, "type": "organization"}


def _api_key(key: ApiKey, version: str) -> dict[str, Any]:
    created_by = None if key.created_by is None else {"id": USERS[key.created_by], "type": "user"}
    service_account = None if key.service_account is None else tagged_id("svac", key.service_account)
    old = version == _VERSIONS[0]
    principal: dict[str, str] | None = None
    if service_account is not None:
        principal = (
            {"id": service_account, "type": "service_account"}
            if old
            else {"service_account_id": service_account, "type": "service_account_actor"}
        )
    row: dict[str, Any] = {
        "id": key.id,
        "type": "api_key",
        "name": key.name,
        "status": key.status,
        "created_at": "2026-01-15T08:00:00.000000Z",
        "created_by": created_by,
        "expires_at": "2026-08-31T00:00:00Z" if key.status == "expired" else None,
        "partial_key_hint": f"sk-ant-api03-{key.id[10:13]}...{key.id[-4:]}",
        "principal": principal,
    }
    if old:
        row["workspace_id"] = None if key.workspace is None else key.workspace.reported_id
    elif key.workspace is None:
        row["scope"] = {"type": "organization"}
    else:
        row["scope"] = {"type": "workspace", "workspace_id": key.workspace.id}
    return row


def _authorize(headers: Mapping[str, str]) -> None:
    authorization = headers.get("authorization", "")
    key = headers.get("x-api-key") or authorization.removeprefix("Bearer ")
    if not key:
        raise _Refusal(401, "authentication_error", "x-api-key header is required")
    if key.startswith("sk-ant-api03-"):
        raise _Refusal(403, "permission_error", "This endpoint needs an Admin API key, got a workspace's key.")
    if key != ADMIN_KEY:
        raise _Refusal(401, "authentication_error", "invalid x-api-key")


class _Planned:
    """Decides which fault happens to an answer."""

    def __init__(self, faults: Faults) -> None:
        self._left = [[fault, fault.times] for fault in faults.planned]
        self._lock = Lock()

    def next(self, path: str, matters: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for entry in self._left:
                fault, times = entry
                if not isinstance(fault, Fault) or fault.path not in path or times == 0 or not matters(fault):
                    continue
                if isinstance(times, int):
                    entry[1] = times - 1
                return fault
        return None


class Answers:
    """The API without a server: a function of a path with its query and the headers, to a status and a body."""

    def __init__(self, scenario: Scenario, provider: Provider, costs: dict[int, list[CostLine]]) -> None:
        self._api = _Api(scenario, provider, costs)

    def __call__(self, target: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """The status and the bytes that the server would send."""
        parts = urlsplit(target)
        pairs = tuple(parse_qsl(parts.query, keep_blank_values=True))
        try:
            body = self._api.answer(parts.path, pairs, {name.lower(): value for name, value in headers.items()})
        except _Refusal as refusal:
            return refusal.status, _envelope(refusal, "req_011CSandbox")
        return 200, json.dumps(body).encode()


class Server:
    """The sandbox's API on loopback: use it in ``with``, then ``url``, ``key`` and the log ``requests``."""

    def __init__(
        self, scenario: Scenario, provider: Provider, costs: dict[int, list[CostLine]], port: int, faults: Faults
    ) -> None:
        self.key = ADMIN_KEY
        self.requests: list[Received] = []
        self._api = _Api(scenario, provider, costs)
        self._planned = _Planned(faults)
        self._stopped = Event()
        self._answers = count()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version = "sandbox"

            def do_GET(self) -> None:
                server._get(self)

            def do_POST(self) -> None:
                server._refuse_method(self)

            do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815 - http.server names them

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server names it
                """Nothing is printed."""

        return Handler

    def _refuse_method(self, connection: BaseHTTPRequestHandler) -> None:
        refusal = _Refusal(405, "invalid_request_error", "Method not allowed")
        self._send(connection, refusal.status, refusal, {"connection": "close"})

    def _get(self, connection: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(connection.path)
        pairs = tuple(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in connection.headers.items()}
        self.requests.append(Received(parts.path, pairs, headers))
        extra: dict[str, str] = {}
        try:
            fault = self._planned.next(parts.path, lambda planned: planned.kind in _BEFORE)
            if fault is not None:
                if fault.kind == "hang":
                    self._stopped.wait()
                    connection.close_connection = True
                    return
                if fault.kind == "rate_limit":
                    extra["retry-after"] = fault.retry_after
                raise _refusal(fault.kind)
            body = self._api.answer(parts.path, pairs, headers)
        except _Refusal as refusal:
            self._send(connection, refusal.status, refusal, extra)
            return
        fault = self._planned.next(parts.path, lambda planned: _changes(planned, pairs, body))
        kind = None if fault is None else fault.kind
        text = "<html><body>Bad gateway</body></html>" if kind == "invalid_json" else json.dumps(body)
        self._send(connection, 200, text.encode(), extra, cut=kind == "cut_body")

    def _send(
        self,
        connection: BaseHTTPRequestHandler,
        status: int,
        content: bytes | _Refusal,
        extra: Mapping[str, str],
        *,
        cut: bool = False,
    ) -> None:
        request_id = tagged_id("req", str(next(self._answers))).replace("req_01", "req_011C")
        body = _envelope(content, request_id) if isinstance(content, _Refusal) else content
        try:
            connection.send_response(status)
            connection.send_header("content-type", "application/json")
            connection.send_header("content-length", str(len(body)))
            connection.send_header("request-id", request_id)
            connection.send_header("anthropic-organization-id", ORGANIZATION_ID)
            for name, value in extra.items():
                connection.send_header(name, value)
            connection.end_headers()
            connection.wfile.write(body[: len(body) // 2] if cut else body)
            connection.wfile.flush()
        except OSError:  # the client has gone
            connection.close_connection = True
        if cut:
            connection.close_connection = True


_BEFORE = ("rate_limit", "rate_limit_silent", "spend_cap", "server_error", "overloaded", "hang")


def _refusal(kind: FaultKind) -> _Refusal:
    if kind == "spend_cap":
        message = "Your organization has reached its spend limit for this month."
        return _Refusal(429, "rate_limit_error", message, {"error_code": "enforced_spend_limit_reached"})
    if kind == "server_error":
        return _Refusal(500, "api_error", "Internal server error")
    if kind == "overloaded":
        return _Refusal(529, "overloaded_error", "Overloaded")
    return _Refusal(429, "rate_limit_error", "This request would exceed your organization's rate limit.")


def _changes(fault: Fault, pairs: tuple[tuple[str, str], ...], body: dict[str, Any]) -> bool:
    """Spoil a body, if the fault applies to it; whether it did."""
    if fault.kind in ("invalid_json", "cut_body", *_BEFORE):
        return fault.kind not in _BEFORE
    buckets = body["data"] if "next_page" in body else []
    if fault.kind == "repeated_page" and body.get("next_page") is not None:
        body["next_page"] = dict(pairs).get("page") or _page_token(_minute(buckets[0]["starting_at"], "page"))
        return True
    if fault.kind == "missing_day" and buckets:
        day = fault.day or buckets[-1]["starting_at"][:10]
        body["data"] = [bucket for bucket in buckets if bucket["starting_at"][:10] != day]
        return len(body["data"]) < len(buckets)
    if fault.kind == "lost_row" and ("group_by[]", "model") in pairs:
        for bucket in buckets:
            if bucket["results"] and fault.day in {None, bucket["starting_at"][:10]}:
                del bucket["results"][0]
                return True
    if fault.kind == "other_currency":
        rows = [row for bucket in buckets for row in bucket["results"] if "currency" in row]
        for row in rows:
            row["currency"] = "EUR"
        return bool(rows)
    return False


def _envelope(refusal: _Refusal, request_id: str) -> bytes:
    error: dict[str, Any] = {"type": refusal.kind, "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    return json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()
