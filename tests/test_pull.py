"""The pull against a small fake of the API at the transport, and against the sandbox over real HTTP."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import stamina

from reconcile.config import Billing, Key
from reconcile.errors import ConfigError, NotReadyError, ReconcileError, SourceError
from reconcile.period import Period
from reconcile.pull import ApiKey, Organization, Progress, Workspace, directory, latest, pull, reach, repull_day
from reconcile.pull.client import Patience, asked_wait
from reconcile.sandbox import Fault, Faults, Sandbox, Scenario
from reconcile.sandbox.organization import DEFAULT

KEY = "sk-ant-admin01-secret"
ORGANIZATION = "12345678-1234-5678-1234-567812345678"
OCTOBER = Period.parse("2026-10")
NOW = datetime(2026, 11, 4, 6, tzinfo=UTC)
BILLING = Billing(base_url="https://api.example.com", key=Key(env="ANTHROPIC_ADMIN_KEY"))
GRAIN = [
    "workspace_id", "model", "service_tier", "context_window", "inference_geo", "api_key_id", "account_id",
    "service_account_id", "speed",
]  # fmt: skip

Answer = Callable[[httpx.Request], httpx.Response | None]


def usage_row(tokens: int = 1500) -> dict[str, object]:
    return {
        "uncached_input_tokens": tokens,
        "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
        "cache_read_input_tokens": 200,
        "output_tokens": 500,
        "server_tool_use": {"web_search_requests": 10},
        "model": "claude-opus-4-7",
        "workspace_id": None,
        "api_key_id": "apikey_1",
        "account_id": None,
        "service_account_id": None,
        "service_tier": "standard",
        "context_window": "0-200k",
        "inference_geo": "global",
    }


COST_ROW = {
    "amount": "123.78912",
    "currency": "USD",
    "workspace_id": None,
    "description": "Claude Opus 4.7 Usage - Input Tokens",
    "cost_type": "tokens",
    "model": "claude-opus-4-7",
    "token_type": "uncached_input_tokens",
    "service_tier": "standard",
    "context_window": "0-200k",
    "inference_geo": "global",
}


def error(status: int, kind: str = "api_error", message: str = "no", headers=None, **more) -> httpx.Response:
    body = {"type": "error", "error": {"type": kind, "message": message} | more, "request_id": "req_9"}
    return httpx.Response(status, json=body, headers={"request-id": "req_9"} | (headers or {}))


class Api:
    """A fake of the API: an answer for every path, and what stands before it.

    ``before`` are asked first, in order; the first that answers wins.
    """

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.before: list[Answer] = []
        self.buckets_a_page = 31
        self.tokens = 1500
        self.workspaces = [{"id": "wrkspc_1", "name": "Search", "archived_at": None, "tags": {"team": "s", "env": "p"}}]
        self.unlisted = {"wrkspc_default": "Default"}
        self.keys = [
            {"id": "apikey_1", "name": "a", "status": "active", "scope": {"type": "workspace", "workspace_id": w}}
            for w in ("wrkspc_1", "wrkspc_default")
        ]
        self.keys[1] |= {"id": "apikey_2", "status": "inactive"}
        self.keys.append({"id": "apikey_3", "name": "o", "status": "active", "scope": {"type": "organization"}})

    @property
    def transport(self) -> httpx.MockTransport:
        """What stands in for the network."""
        return httpx.MockTransport(self._answer)

    def asked(self, path: str) -> list[httpx.QueryParams]:
        """The parameters of each request for a path that ends so."""
        return [request.url.params for request in self.requests if request.url.path.endswith(path)]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        for before in self.before:
            if (response := before(request)) is not None:
                return response
        path = request.url.path.removeprefix("/v1/organizations/")
        return httpx.Response(200, json=self._body(path, request.url.params), headers={"request-id": "req_1"})

    def _body(self, path: str, params: httpx.QueryParams) -> dict[str, object]:
        if path == "me":
            return {"id": ORGANIZATION, "name": "Example Ltd", "type": "organization"}
        if path == "workspaces":
            return {"data": self.workspaces, "has_more": False, "first_id": None, "last_id": None}
        if path == "api_keys":
            return {"data": self.keys, "has_more": False, "first_id": None, "last_id": None}
        if path.startswith("workspaces/"):
            return {"id": path.rpartition("/")[2], "name": self.unlisted[path.rpartition("/")[2]], "tags": {}}
        return self._report(path, params)

    def _report(self, path: str, params: httpx.QueryParams) -> dict[str, object]:
        width = {"1h": timedelta(hours=1), "1d": timedelta(days=1)}[params["bucket_width"]]
        start = datetime.fromisoformat(params.get("page", params["starting_at"]).removeprefix("page_"))
        end = datetime.fromisoformat(params["ending_at"])
        rows = [COST_ROW] if path == "cost_report" else [usage_row(self.tokens)]
        buckets = []
        while start < end and len(buckets) < min(int(params["limit"]), self.buckets_a_page):
            bucket = {"starting_at": stamp(start), "ending_at": stamp(start + width)}
            buckets.append(bucket | {"results": rows if start.hour in (0, 9) else []})
            start += width
        more = start < end
        return {"data": buckets, "has_more": more, "next_page": f"page_{stamp(start)}" if more else None}


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def once(answer: Answer) -> Answer:
    """The answer for the first request that it has one for."""
    spent = []

    def first(request: httpx.Request) -> httpx.Response | None:
        if spent:
            return None
        try:
            response = answer(request)
        except httpx.HTTPError:
            spent.append(True)
            raise
        if response is not None:
            spent.append(True)
        return response

    return first


def on(path: str, make: Callable[[httpx.Request], httpx.Response], **params: str) -> Answer:
    """The answer ``make`` gives for a path that ends so, and parameters that begin so."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        matches = request.url.path.endswith(path)
        matches = matches and all(request.url.params.get(k, "").startswith(v) for k, v in params.items())
        return make(request) if matches else None

    return answer


def changed(api: Api, change: Callable[[dict], None]) -> Callable[[httpx.Request], httpx.Response]:
    """The fake's own answer after ``change``."""

    def make(request: httpx.Request) -> httpx.Response:
        body = json.loads(
            json.dumps(api._body(request.url.path.removeprefix("/v1/organizations/"), request.url.params))
        )
        change(body)
        return httpx.Response(200, json=body)

    return make


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=6, cap=True):
        yield


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def close(api: Api, tmp_path: Path) -> Callable[..., Path]:
    def run(**over) -> Path:
        billing, period, now = over.pop("billing", BILLING), over.pop("period", OCTOBER), over.pop("now", NOW)
        over = {"key": KEY, "organization_id": ORGANIZATION, "transport": api.transport} | over
        return pull(billing, period, tmp_path / "raw", now=now, **over)

    return run


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_bytes())


def files(folder: Path, kind: str) -> list[str]:
    return [page["file"] for page in manifest(folder)["pages"] if page["kind"] == kind]


def where_and_what(raised: pytest.ExceptionInfo[ReconcileError]) -> str:
    line = str(raised.value)
    assert "\n" not in line
    assert KEY not in line
    return line


# --- what is pulled ---


def test_the_manifest_of_a_whole_month(close, api):
    """A closed month is 33 days of hours, one page of days for each report, and the names, listed by kind and order."""
    folder = close()
    found = manifest(folder)
    assert folder.name == "20261104T060000Z"
    assert folder.parent.name == "2026-10"
    assert {name: found[name] for name in found if name not in ("pages", "completed_at")} == {
        "manifest": 1,
        "api": "admin",
        "period": "2026-10",
        "base_url": "https://api.example.com",
        "organization_id": ORGANIZATION,
        "organization": "Example Ltd",
        "started_at": "2026-11-04T06:00:00Z",
        "through_on": "2026-10-31",
        "usage_until": "2026-11-02T00:00:00Z",
        "default_workspace_id": "wrkspc_default",
    }
    assert found["completed_at"].startswith("2026-11-04T06:0")
    hours = files(folder, "usage_hour")
    assert len(hours) == 33
    assert (hours[0], hours[-1]) == ("usage_hour-2026-09-30-1.json", "usage_hour-2026-11-01-1.json")
    others = [page["file"] for page in found["pages"] if page["kind"] != "usage_hour"]
    assert others == [
        "organization-1.json",
        "workspaces-1.json",
        "workspace-wrkspc_default-1.json",
        "api_keys-1.json",
        "usage_day-1.json",
        "cost_day-1.json",
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*hours, *others, "manifest.json"])


def test_a_page_of_the_manifest(close):
    """A page says which kind it is, what was asked for in order, what came, and the digest of its bytes."""
    folder = close()
    page = next(page for page in manifest(folder)["pages"] if page["file"] == "cost_day-1.json")
    assert page.pop("fetched_at").startswith("2026-11-04T06:0")
    assert page == {
        "file": "cost_day-1.json",
        "kind": "cost_day",
        "url": "https://api.example.com/v1/organizations/cost_report",
        "parameters": [
            ["starting_at", "2026-10-01T00:00:00Z"],
            ["ending_at", "2026-11-01T00:00:00Z"],
            ["bucket_width", "1d"],
            ["limit", "31"],
            ["group_by[]", "workspace_id"],
            ["group_by[]", "description"],
        ],
        "status": 200,
        "request_id": "req_1",
        "sha256": sha256((folder / "cost_day-1.json").read_bytes()).hexdigest(),
    }


def test_usage_by_hour_is_asked_for_at_full_grain(close, api):
    """Every hourly request groups by all nine dimensions, with the beta header that speed needs."""
    close()
    hourly = [request for request in api.requests if request.url.params.get("bucket_width") == "1h"]
    assert [request.url.params.get_list("group_by[]") for request in hourly] == [GRAIN] * 33
    assert {request.headers["anthropic-beta"] for request in hourly} == {"fast-mode-2026-02-01"}
    assert {request.url.params["limit"] for request in hourly} == {"24"}


def test_the_control_total_is_not_grouped(close, api):
    """Usage by day has no group and no beta header, and ends with the period."""
    close()
    (daily,) = [request for request in api.requests if request.url.params.get("bucket_width") == "1d"][:1]
    assert daily.url.path.endswith("/usage_report/messages")
    assert "group_by[]" not in daily.url.params
    assert "anthropic-beta" not in daily.headers
    assert (daily.url.params["starting_at"], daily.url.params["ending_at"]) == (
        "2026-10-01T00:00:00Z",
        "2026-11-01T00:00:00Z",
    )


def test_versions_and_user_agent(close, api):
    """API keys are asked for under 2026-10-21, everything else under 2023-06-01, by name and version of the tool."""
    close()
    versions = {(request.url.path.rpartition("/")[2], request.headers["anthropic-version"]) for request in api.requests}
    assert versions == {
        ("me", "2023-06-01"),
        ("workspaces", "2023-06-01"),
        ("wrkspc_default", "2023-06-01"),
        ("api_keys", "2026-10-21"),
        ("messages", "2023-06-01"),
        ("cost_report", "2023-06-01"),
    }
    assert {request.headers["user-agent"].split("/")[0] for request in api.requests} == {"reconcile"}
    assert api.asked("/workspaces")[0]["include_archived"] == "true"


def test_pages_are_kept_byte_for_byte(close, api):
    """A page's odd spacing, exponents and long decimals stand on the disk as they came."""
    odd = (
        b'{ "data" : [ %s ],\n "has_more":false , "next_page":null, "extra": 1E2, "more": 0.1000000000000000000000001 }'
    )
    days = [OCTOBER.start_on + timedelta(days=n) for n in range(32)]
    buckets = b",".join(
        b'{"starting_at":"%sT00:00:00Z","ending_at":"%sT00:00:00+00:00","results":[]}'
        % (str(day).encode(), str(after).encode())
        for day, after in pairwise(days)
    )
    api.before.append(on("/cost_report", lambda _: httpx.Response(200, content=odd % buckets)))
    assert (close() / "cost_day-1.json").read_bytes() == odd % buckets


def test_a_report_of_several_pages_is_followed(close, api):
    """Where the API gives fewer buckets a page, each page follows its predecessor's token, in order."""
    api.buckets_a_page = 10
    folder = close()
    assert files(folder, "cost_day") == [f"cost_day-{n}.json" for n in (1, 2, 3, 4)]
    assert [params.get("page") for params in api.asked("/cost_report")] == [
        None,
        "page_2026-10-11T00:00:00Z",
        "page_2026-10-21T00:00:00Z",
        "page_2026-10-31T00:00:00Z",
    ]


def test_pages_are_listed_by_number(close, api):
    """The tenth page of a listing stands after the ninth, not after the first."""
    api.buckets_a_page = 3
    assert files(close(), "usage_day") == [f"usage_day-{n}.json" for n in range(1, 12)]


def test_lists_are_followed_by_their_last_id(close, api):
    """Workspaces and keys are paged by after_id."""
    second = {"data": [{"id": "wrkspc_2", "name": "Ads"}], "has_more": False, "last_id": "wrkspc_2"}
    api.before.append(on("/workspaces", lambda _: httpx.Response(200, json=second), after_id="wrkspc_1"))
    api.before.append(on("/workspaces", changed(api, lambda body: body.update(has_more=True, last_id="wrkspc_1"))))
    assert files(close(), "workspaces") == ["workspaces-1.json", "workspaces-2.json"]


@pytest.mark.parametrize(
    ("now", "through_on", "usage_until", "last_file"),
    [
        ("2026-11-01T01:00:00+00:00", "2026-10-31", "2026-11-01T00:00:00Z", "usage_hour-2026-10-31-1.json"),
        ("2026-11-01T09:59:00+00:00", "2026-10-31", "2026-11-01T08:00:00Z", "usage_hour-2026-11-01-1.json"),
        ("2026-11-01T11:30:00+02:00", "2026-10-31", "2026-11-01T08:00:00Z", "usage_hour-2026-11-01-1.json"),
        ("2026-11-02T01:00:00+00:00", "2026-10-31", "2026-11-02T00:00:00Z", "usage_hour-2026-11-01-1.json"),
        ("2026-10-05T00:59:00+00:00", "2026-10-03", "2026-10-04T23:00:00Z", "usage_hour-2026-10-04-1.json"),
        ("2026-10-05T13:00:00+00:00", "2026-10-04", "2026-10-05T12:00:00Z", "usage_hour-2026-10-05-1.json"),
    ],
)
def test_only_what_is_over_is_asked_for(close, now, through_on, usage_until, last_file):
    """Complete days of the period, and of the day after them the hours that ended an hour ago."""
    folder = close(now=datetime.fromisoformat(now))
    found = manifest(folder)
    assert (found["through_on"], found["usage_until"]) == (through_on, usage_until)
    assert files(folder, "usage_hour")[-1] == last_file
    for page in found["pages"]:
        if page["kind"] in ("usage_day", "cost_day"):
            end = date.fromisoformat(through_on) + timedelta(days=1)
            assert ["ending_at", f"{end}T00:00:00Z"] in page["parameters"]


def test_a_period_without_a_complete_day_is_not_ready(close, api):
    """A future month, or one whose first day is not over, asks for nothing."""
    with pytest.raises(NotReadyError, match="no complete day"):
        close(now=datetime(2026, 10, 2, 0, 30, tzinfo=UTC))
    assert api.requests == []


def test_progress_counts_to_its_total(close):
    """The callback sees every step once, up to the total."""
    seen: list[Progress] = []
    close(on_progress=seen.append)
    assert [progress.done for progress in seen] == list(range(1, 39))
    assert {progress.total for progress in seen} == {38}
    assert seen[4].what == "usage_hour-2026-10-01"


# --- the default workspace ---


def test_several_unlisted_workspaces_are_all_asked(close, api):
    """Of several workspaces that the list lacks, the default one is that which is named so."""
    api.unlisted = {"wrkspc_default": "Default", "wrkspc_0": "Deleted"}
    api.keys[0]["scope"]["workspace_id"] = "wrkspc_0"
    folder = close()
    assert manifest(folder)["default_workspace_id"] == "wrkspc_default"
    assert files(folder, "workspace") == ["workspace-wrkspc_0-1.json", "workspace-wrkspc_default-1.json"]


def test_the_only_unlisted_workspace_may_have_another_name(close, api):
    """One workspace that keys name, the list lacks and the API knows is the default one, whatever its name."""
    api.unlisted = {"wrkspc_default": "Standard"}
    assert manifest(close())["default_workspace_id"] == "wrkspc_default"


def test_several_unlisted_workspaces_without_the_name_tell_nothing(close, api):
    """Where none of several is named so, the default workspace stays unknown rather than guessed."""
    api.unlisted = {"wrkspc_default": "Standard", "wrkspc_0": "Deleted"}
    api.keys[0]["scope"]["workspace_id"] = "wrkspc_0"
    assert manifest(close())["default_workspace_id"] is None


def test_a_workspace_that_the_api_does_not_know_is_not_the_default(close, api):
    """A 404 for the one candidate leaves the default workspace unknown."""
    api.before.append(on("/workspaces/wrkspc_default", lambda _: error(404, "not_found_error")))
    assert manifest(close())["default_workspace_id"] is None


def test_the_config_tells_the_default_workspace_where_no_key_does(close, api):
    """Without a key in it, billing.default_workspace_id is taken, and its page is kept for its defaults."""
    api.keys = api.keys[:1]
    api.unlisted["wrkspc_cfg"] = "Default"
    folder = close(billing=BILLING.model_copy(update={"default_workspace_id": "wrkspc_cfg"}))
    assert manifest(folder)["default_workspace_id"] == "wrkspc_cfg"
    assert files(folder, "workspace") == ["workspace-wrkspc_cfg-1.json"]


def test_a_config_that_the_api_contradicts_is_refused(close, api):
    """Two different default workspaces are an error of the config that names both."""
    api.unlisted["wrkspc_cfg"] = "Other"
    with pytest.raises(ConfigError, match=r"wrkspc_cfg.*wrkspc_default"):
        close(billing=BILLING.model_copy(update={"default_workspace_id": "wrkspc_cfg"}))


def test_a_hostile_workspace_id_reaches_no_path(close, api):
    """An id that could leave the folder or the address is not asked for."""
    api.keys[1]["scope"]["workspace_id"] = "../../etc"
    folder = close()
    assert files(folder, "workspace") == []
    assert manifest(folder)["default_workspace_id"] is None


# --- retries ---


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 504, 529])
def test_what_can_heal_is_asked_again(close, api, status):
    """A passing status costs one more request, which the callback is told of."""
    seen: list[Progress] = []
    api.before.append(once(on("/cost_report", lambda _: error(status, "some_error"))))
    close(on_progress=seen.append)
    assert len(api.asked("/cost_report")) == 2
    assert [p.what for p in seen if "some_error" in p.what] == [
        f"cost_day-1.json: HTTP {status} some_error: no (req_9)"
    ]


@pytest.mark.parametrize(
    "broken",
    [
        lambda _: httpx.Response(200, content=b'{"data": [{"starting_at": "2026-10'),
        lambda _: httpx.Response(200, content=b"<html>a proxy's page</html>"),
        lambda _: httpx.Response(200, content=b"[" * 100_000),
        lambda _: httpx.Response(200, content=b'{"data": NaN}'),
        lambda _: httpx.Response(200, stream=httpx.ByteStream(b"not gzip"), headers={"content-encoding": "gzip"}),
    ],
    ids=["cut", "html", "nested", "nan", "gzip"],
)
def test_a_broken_body_is_asked_for_again(close, api, broken):
    """A body that is not whole JSON may come whole the next time; a lasting one is an error of the source."""
    api.before.append(once(on("/cost_report", broken)))
    assert files(close(), "cost_day") == ["cost_day-1.json"]
    api.before[:] = [on("/cost_report", broken)]
    with pytest.raises(SourceError, match=r"cost_day-1\.json"):
        close()


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ReadError])
def test_a_broken_connection_is_tried_again_a_finite_number_of_times(close, api, kind):
    """A connection that fails heals or ends in a SourceError that names the address after six attempts."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise kind(f"broken {KEY}", request=request)

    api.before.append(once(on("/me", fail)))
    close()
    api.requests.clear()
    api.before[:] = [on("/me", fail)]
    with pytest.raises(SourceError, match=kind.__name__) as raised:
        close()
    assert "https://api.example.com/v1/organizations/me" in where_and_what(raised)
    assert len(api.requests) == 6


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 04 Nov 2026 06:00:30 GMT", "date": "Wed, 04 Nov 2026 06:00:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 04 Nov 2026 05:00:30 GMT", "date": "Wed, 04 Nov 2026 06:00:00 GMT"}, 0.0),
    ],
)
def test_the_wait_that_an_answer_asks_for(headers, wait):
    """Milliseconds stand before seconds and dates; what is not a wait is left to the backoff."""
    assert asked_wait(httpx.Headers(headers)) == wait


def test_a_date_without_the_answers_own_counts_from_now():
    """Without a date header, an HTTP date is a wait from this machine's clock."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    wait = asked_wait(httpx.Headers({"retry-after": at}))
    assert wait is not None
    assert 50 < wait <= 60


def test_the_asked_wait_is_kept(close, api, monkeypatch):
    """The wait that a 429 asks for is the time that passes before the next attempt."""
    waits: list[float] = []
    stamina.set_testing(False)
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    api.before.append(once(on("/cost_report", lambda _: error(429, headers={"retry-after": "7"}))))
    close()
    assert waits == [7.0]


def test_the_backoff_grows(close, api, monkeypatch):
    """Without a word on waiting, each wait is about twice the one before and never more than 8 s."""
    waits: list[float] = []
    stamina.set_testing(False)
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    api.before.append(on("/me", lambda _: error(529, "overloaded_error")))
    with pytest.raises(SourceError, match="overloaded_error"):
        close()
    assert len(waits) == 5
    assert all(0.5 * 2**n <= wait <= 0.5 * 2**n + 0.5 for n, wait in enumerate(waits))


def test_a_wait_of_hours_fails_with_a_clear_line(close, api):
    """A 429 that asks for more than a pull waits is not waited for."""
    api.before.append(on("/cost_report", lambda _: error(429, "rate_limit_error", headers={"retry-after": "7200"})))
    with pytest.raises(SourceError, match=r"asks to wait 7200 s, more than the 120 s"):
        close()
    assert len(api.asked("/cost_report")) == 1


@pytest.mark.parametrize(
    "details",
    [{"details": {"error_code": "enforced_spend_limit_reached"}}, {"error_code": "enforced_spend_limit_reached"}],
)
def test_a_spend_limit_is_not_waited_for(close, api, details):
    """A 429 of a spend cap does not clear by waiting, whatever its headers say."""
    said = error(429, "rate_limit_error", headers={"retry-after": "1", "x-should-retry": "true"}, **details)
    api.before.append(on("/cost_report", lambda _: said))
    with pytest.raises(SourceError, match="spend limit"):
        close()
    assert len(api.asked("/cost_report")) == 1


@pytest.mark.parametrize(("status", "word", "asked"), [(500, "false", 1), (400, "true", 6)])
def test_x_should_retry_wins(close, api, status, word, asked):
    """The API's explicit word on retrying stands over the status."""
    api.before.append(on("/cost_report", lambda _: error(status, headers={"x-should-retry": word})))
    with pytest.raises(SourceError, match=f"HTTP {status}"):
        close()
    assert len(api.asked("/cost_report")) == asked


@pytest.mark.parametrize("status", [400, 402, 404, 413, 422, 204, 301])
def test_what_cannot_heal_fails_at_once(close, api, status):
    """Other statuses are errors of the source on the first answer."""
    api.before.append(on("/cost_report", lambda _: error(status)))
    with pytest.raises(SourceError, match=f"HTTP {status}"):
        close()
    assert len(api.asked("/cost_report")) == 1


# --- the key ---


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_fails_at_once_and_its_place_is_named(close, api, status):
    """401 and 403 name the variable that was read, and never the key, even where the API repeats it."""
    api.before.append(on("/me", lambda _: error(status, "authentication_error", f"invalid x-api-key: {KEY}")))
    with pytest.raises(SourceError, match="environment variable ANTHROPIC_ADMIN_KEY") as raised:
        close()
    assert "invalid x-api-key: [the key]" in where_and_what(raised)
    assert len(api.requests) == 1


def test_a_404_says_that_it_may_be_a_workspace_key(close, api):
    """Admin paths do not exist for a workspace key."""
    api.before.append(on("/me", lambda _: error(404, "not_found_error")))
    with pytest.raises(SourceError, match="may be a workspace key"):
        close()


def test_the_key_is_nowhere(close, tmp_path, api):
    """No file of a pull holds the key, no message, and nothing that the pull holds prints it."""
    api.before.append(once(on("/cost_report", lambda _: error(500, message=f"key {KEY}\nis wrong"))))
    seen: list[Progress] = []
    close(on_progress=seen.append)
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in repr(seen)
    assert all(request.headers["x-api-key"] == KEY for request in api.requests)


@pytest.mark.parametrize("key", ["sk-ant\nadmin", "sk-ant admin", "schlüssel", ""])
def test_a_key_that_cannot_be_sent_is_an_error_of_the_config(close, api, key):
    """A key with a line break is refused before anything that would print it sees it."""
    with pytest.raises(ConfigError, match="environment variable ANTHROPIC_ADMIN_KEY") as raised:
        close(key=key)
    assert not key or key not in str(raised.value)
    assert api.requests == []


def test_another_organizations_key_is_refused(close, api):
    """A key of another organization is named with both ids, before anything else is asked."""
    with pytest.raises(SourceError, match=rf"{ORGANIZATION}.*expected 99999999") as raised:
        close(organization_id="99999999")
    assert raised.value.exit_code == 3
    assert len(api.requests) == 1


def test_a_redirect_is_not_followed(close, api):
    """The key goes nowhere but to base_url."""
    api.before.append(on("/me", lambda _: httpx.Response(302, headers={"location": "https://evil.example.com/"})))
    with pytest.raises(SourceError, match="Redirects are not followed"):
        close()
    assert {request.url.host for request in api.requests} == {"api.example.com"}


def test_an_address_that_is_none_is_an_error_of_the_config(close):
    """What cannot be asked at all is named."""
    with pytest.raises(ConfigError, match=r"billing.base_url: 'https://api.example.com:port'"):
        close(billing=BILLING.model_copy(update={"base_url": "https://api.example.com:port"}), transport=None)


def test_a_proxy_that_cannot_be_used_is_an_error_of_the_config(close, monkeypatch):
    """Settings of the environment that httpx cannot use are named, not shown: they may hold a password."""
    monkeypatch.setenv("HTTPS_PROXY", "gopher://user:password@proxy.example.com")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as raised:
        close(transport=None)
    assert "password" not in where_and_what(raised)


def test_an_endless_answer_is_cut(close, api, monkeypatch):
    """An answer is read up to a bound."""
    monkeypatch.setattr("reconcile.pull.client.PATIENCE", Patience(bytes=1000))
    api.before.append(on("/me", lambda _: httpx.Response(200, content=b" " * 1001)))
    with pytest.raises(SourceError, match="more than 1000 bytes"):
        close()


def test_an_answer_that_drips_is_cut(close, api, monkeypatch):
    """An answer that never ends byte by byte is given up like one that hangs."""
    monkeypatch.setattr("reconcile.pull.client.PATIENCE", Patience(answer=-1))
    with pytest.raises(SourceError, match="was not complete after"):
        close()
    assert len(api.requests) == 6


# --- complete or failed ---


def drop_bucket(body: dict) -> None:
    del body["data"][4]


def repeat_bucket(body: dict) -> None:
    body["data"].append(body["data"][4])


def foreign_bucket(body: dict) -> None:
    body["data"].append({"starting_at": "2026-12-01T00:00:00Z", "ending_at": "2026-12-02T00:00:00Z", "results": []})


def wide_bucket(body: dict) -> None:
    body["data"][0]["ending_at"] = "2026-10-03T00:00:00Z"


def crooked_bucket(body: dict) -> None:
    body["data"][0] |= {"starting_at": "2026-10-01T00:30:00Z", "ending_at": "2026-10-02T00:30:00Z"}


@pytest.mark.parametrize("path", ["/cost_report", "/usage_report/messages"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop_bucket, "1 of 31 buckets are missing, the first is 2026-10-05T00:00:00Z"),
        (repeat_bucket, "2026-10-05T00:00:00Z comes a second time"),
        (foreign_bucket, r"data\[31\] is 2026-12-01T00:00:00Z to 2026-12-02T00:00:00Z, asked for 1d from 2026-10-01"),
        (wide_bucket, r"data\[0\] is 2026-10-01T00:00:00Z to 2026-10-03T00:00:00Z"),
        (crooked_bucket, r"data\[0\] is 2026-10-01T00:30:00Z"),
        (lambda body: body.update(has_more=True), "`next_page` is None"),
        (lambda body: body.update(has_more=True, next_page="x", data=[]), "without anything"),
        (lambda body: body.update(has_more=None), "`has_more` is None"),
        (lambda body: body.pop("data"), "`data` is not a list"),
        (lambda body: body.update(data=[1]), "`data` is not a list of objects"),
        (lambda body: body["data"][2].pop("results"), r"data\[2\].results is not a list"),
        (lambda body: body["data"][2].update(results={}), r"data\[2\].results is not a list"),
        (lambda body: body["data"][2].update(starting_at="2026-10-03T00:00:00"), r"data\[2\].starting_at` is '2026-10"),
        (lambda body: body["data"][2].update(starting_at=5), r"data\[2\].starting_at` is 5"),
    ],
)
def test_a_report_that_is_not_whole_is_refused(close, api, path, change, says):
    """Every day is there exactly once, or the pull fails, names page and fault, and keeps no such page."""
    api.before.append(on(path, changed(api, change), bucket_width="1d"))
    with pytest.raises(SourceError, match=says) as raised:
        close()
    kind = "cost_day" if path == "/cost_report" else "usage_day"
    assert where_and_what(raised).startswith(kind)
    api.before.clear()
    assert close().is_dir()


def test_a_missing_hour_is_missed(close, api):
    """Hours are checked as days are."""
    api.before.append(on("/messages", changed(api, drop_bucket), bucket_width="1h", starting_at="2026-10-07"))
    with pytest.raises(SourceError, match=r"usage_hour-2026-10-07.*1 of 24 .* the first is 2026-10-07T04:00:00Z"):
        close()


@pytest.mark.parametrize("body", [[], None, "text", 5])
def test_a_body_that_is_no_object_is_refused(close, api, body):
    """A page is a JSON object."""
    api.before.append(on("/cost_report", lambda _: httpx.Response(200, content=json.dumps(body).encode())))
    with pytest.raises(SourceError, match=r"cost_day-1.json.*expected an object"):
        close()


def test_no_page_token_comes_twice(close, api):
    """A page token that repeats would page for ever."""
    api.buckets_a_page = 10
    api.before.append(
        on("/cost_report", changed(api, lambda body: body.update(next_page="page_2026-10-11T00:00:00Z", has_more=True)))
    )
    with pytest.raises(SourceError, match=r"cost_day-2.json.*page_2026-10-11T00:00:00Z' comes a second time"):
        close()


def test_no_item_comes_twice(close, api):
    """A list that gives the same page for ever is refused."""
    api.before.append(on("/api_keys", changed(api, lambda body: body.update(has_more=True, last_id="apikey_3"))))
    with pytest.raises(SourceError, match=r"api_keys-2.json.*comes a second time"):
        close()


@pytest.mark.parametrize("field", ["model", "service_tier", "context_window", "inference_geo"])
def test_usage_that_is_not_grouped_is_refused(close, api, field):
    """A field that is null in every row was not grouped by, though it was asked for."""

    def ungroup(body: dict) -> None:
        for bucket in body["data"]:
            for row in bucket["results"]:
                row[field] = None

    api.before.append(on("/messages", changed(api, ungroup), bucket_width="1h"))
    with pytest.raises(SourceError, match=f"`{field}` is null in all of 2 rows"):
        close()


def test_a_cost_report_without_descriptions_is_refused(close, api):
    """Cost lines without a description were not grouped by it."""

    def ungroup(body: dict) -> None:
        for bucket in body["data"]:
            bucket["results"] = [COST_ROW | {"description": None, "cost_type": None}]

    api.before.append(on("/cost_report", changed(api, ungroup)))
    with pytest.raises(SourceError, match="`description` is null in all of 31 rows"):
        close()


def test_null_workspaces_and_keys_are_no_fault(close, api):
    """The default workspace and the Console are null: a page that holds nothing else is grouped all the same."""

    def only_console(body: dict) -> None:
        for bucket in body["data"]:
            bucket["results"] = [usage_row() | {"workspace_id": None, "api_key_id": None}]

    api.before.append(on("/messages", changed(api, only_console), bucket_width="1h"))
    assert close().is_dir()


# --- speed ---


def test_a_refusal_of_speed_is_lived_with(close, api):
    """Where the API refuses to group by speed, all hours are asked without, and the manifest's parameters say so."""

    def no_speed(request: httpx.Request) -> httpx.Response:
        return error(400, "invalid_request_error", "group_by: speed requires the anthropic-beta header")

    api.before.append(lambda request: no_speed(request) if "anthropic-beta" in request.headers else None)
    folder = close()
    hours = [page for page in manifest(folder)["pages"] if page["kind"] == "usage_hour"]
    assert len(hours) == 33
    assert all(["group_by[]", "speed"] not in page["parameters"] for page in hours)
    again = repull_day(BILLING, OCTOBER, folder, date(2026, 10, 7), now=NOW, key=KEY, transport=api.transport)
    assert len(files(again, "usage_hour")) == 33


def test_another_400_of_usage_is_an_error(close, api):
    """A 400 that does not name speed is no reason to ask for less."""
    refused = error(400, "invalid_request_error", "limit: at most 12")
    api.before.append(lambda request: refused if "anthropic-beta" in request.headers else None)
    with pytest.raises(SourceError, match="limit: at most 12"):
        close()


# --- interrupted ---


def interrupt(api: Api, day: str) -> Answer:
    def stop(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    return on("/messages", stop, starting_at=day, bucket_width="1h")


def test_an_interrupted_pull_goes_on_where_it_stopped(close, api, tmp_path):
    """What was kept is not fetched again; until the end there is no complete pull."""
    api.before.append(interrupt(api, "2026-10-20"))
    with pytest.raises(KeyboardInterrupt):
        close()
    (partial,) = (tmp_path / "raw" / "2026-10").iterdir()
    assert partial.name == "20261104T060000Z.partial"
    assert latest(tmp_path / "raw", OCTOBER) is None
    assert not (partial / "manifest.json").exists()

    api.before.clear()
    api.requests.clear()
    folder = close(now=NOW + timedelta(hours=2))
    assert [request.url.path.rpartition("/")[2] for request in api.requests] == ["me"] + ["messages"] * 14 + [
        "cost_report"
    ]
    assert api.requests[1].url.params["starting_at"] == "2026-10-20T00:00:00Z"
    assert folder.name == "20261104T080000Z"
    assert manifest(folder)["started_at"] == "2026-11-04T06:00:00Z"
    assert len(files(folder, "usage_hour")) == 33
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    for page in manifest(folder)["pages"]:
        assert sha256((folder / page["file"]).read_bytes()).hexdigest() == page["sha256"]


def test_a_kept_page_that_changed_is_fetched_again(close, api, tmp_path):
    """A page whose bytes are no longer those of the manifest is not trusted."""
    api.before.append(interrupt(api, "2026-10-20"))
    with pytest.raises(KeyboardInterrupt):
        close()
    (partial,) = (tmp_path / "raw" / "2026-10").iterdir()
    (partial / "usage_hour-2026-10-03-1.json").write_bytes(b"{}")
    (partial / "usage_hour-2026-10-04-1.json").unlink()
    api.before.clear()
    api.requests.clear()
    close()
    starts = [params["starting_at"] for params in api.asked("/messages")]
    assert starts[:3] == ["2026-10-03T00:00:00Z", "2026-10-04T00:00:00Z", "2026-10-20T00:00:00Z"]


def test_an_interrupted_chain_goes_on_in_its_middle(close, api):
    """The second page of a report is asked for with the token of the kept first one."""
    api.buckets_a_page = 10
    api.before.append(on("/cost_report", lambda _: error(500), page="page_2026-10-11"))
    with pytest.raises(SourceError, match=r"cost_day-2.json.*HTTP 500"):
        close()
    api.before.clear()
    api.requests.clear()
    close()
    assert [params.get("page", "")[:15] for params in api.asked("/cost_report")] == [
        "page_2026-10-11",
        "page_2026-10-21",
        "page_2026-10-31",
    ]


def test_a_listing_with_a_bad_page_is_fetched_again_whole(close, api):
    """Where one page of a report is wrong, the ones before it are not trusted either."""
    api.buckets_a_page = 10
    api.before.append(on("/cost_report", changed(api, repeat_bucket), page="page_2026-10-11"))
    with pytest.raises(SourceError, match=r"cost_day-2.json.*a second time"):
        close()
    api.before.clear()
    api.requests.clear()
    close()
    assert len(api.asked("/cost_report")) == 4


def test_a_page_that_was_fetched_late_stands_in_its_place(close, api, tmp_path):
    """The manifest lists pages in order, whatever the order in which they came."""
    api.buckets_a_page = 10
    api.before.append(on("/cost_report", lambda _: error(500), page="page_2026-10-31"))
    with pytest.raises(SourceError, match=r"cost_day-4.json"):
        close()
    (partial,) = (tmp_path / "raw" / "2026-10").iterdir()
    (partial / "cost_day-1.json").write_bytes(b"{}")
    api.before.clear()
    assert files(close(), "cost_day") == [f"cost_day-{n}.json" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_page_token_that_died_starts_its_listing_over(close, api, status):
    """How long a token lives is not documented: a refused one costs the listing, once, not the pull."""
    api.buckets_a_page = 10
    api.before.append(once(on("/cost_report", lambda _: error(status, message="cursor"), page="page_2026-10-21")))
    assert files(close(), "cost_day") == [f"cost_day-{n}.json" for n in (1, 2, 3, 4)]
    assert [params.get("page", "")[:15] for params in api.asked("/cost_report")][:4] == [
        "",
        "page_2026-10-11",
        "page_2026-10-21",
        "",
    ]
    api.before[:] = [on("/cost_report", lambda _: error(status, message="cursor"), page="page_2026-10-21")]
    with pytest.raises(SourceError, match="cursor"):
        close()


@pytest.mark.parametrize(
    "over",
    [
        {"billing": BILLING.model_copy(update={"base_url": "https://other.example.com"})},
        {"now": NOW + timedelta(days=2)},
        {"now": NOW - timedelta(hours=1)},
    ],
    ids=["other address", "too old", "from the future"],
)
def test_an_interrupted_pull_of_something_else_is_left_alone(close, api, over):
    """Another address, or pages older than a day, begin anew beside the interrupted pull."""
    api.before.append(interrupt(api, "2026-10-20"))
    with pytest.raises(KeyboardInterrupt):
        close()
    api.before.clear()
    api.requests.clear()
    folder = close(**over)
    assert len(api.requests) == 39
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([folder.name, "20261104T060000Z.partial"])


def test_a_pull_that_is_being_written_is_not_taken_over(close, api, tmp_path):
    """Two pulls at once write two folders."""
    inner: list[Path] = []

    def pull_meanwhile(request: httpx.Request) -> None:
        if not inner and request.url.path.endswith("/cost_report"):
            inner.append(tmp_path)
            inner[0] = close()

    api.before.append(pull_meanwhile)
    outer = close()
    assert {inner[0].name, outer.name} == {"20261104T060000Z", "20261104T060001Z"}
    assert len(manifest(outer)["pages"]) == len(manifest(inner[0])["pages"]) == 39


def test_a_second_pull_at_the_same_time_takes_the_next_name(close, tmp_path):
    """A complete pull is never written over, and the newest is the one that is found."""
    first, second = close(), close()
    assert (first.name, second.name) == ("20261104T060000Z", "20261104T060001Z")
    assert latest(tmp_path / "raw", OCTOBER) == second
    assert latest(tmp_path / "raw", OCTOBER.next) is None


def test_only_the_owner_reads_what_was_pulled(close, tmp_path):
    """Folders have mode 0700, files 0600."""
    folder = close()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent, tmp_path / "raw")} == {0o700}


def test_a_folder_that_cannot_be_written_is_an_error_of_the_config(close, tmp_path):
    """A file where the folder should be is named."""
    (tmp_path / "raw").write_text("in the way")
    with pytest.raises(ConfigError, match=r"raw.*cannot be written"):
        close()


# --- one day again ---


def test_one_day_is_pulled_again(close, api, tmp_path):
    """The day's hours and the control total are new; every other page is the same file; the old pull is untouched."""
    folder = close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    api.tokens = 9999
    api.requests.clear()
    again = repull_day(BILLING, OCTOBER, folder, date(2026, 10, 7), now=NOW, key=KEY, transport=api.transport)
    assert [request.url.path.rpartition("/")[2] for request in api.requests] == ["me", "messages", "messages"]
    fresh = {"usage_hour-2026-10-07-1.json", "usage_day-1.json"}
    for page in manifest(again)["pages"]:
        path, old = again / page["file"], folder / page["file"]
        assert sha256(path.read_bytes()).hexdigest() == page["sha256"]
        assert path.samefile(old) == (page["file"] not in fresh)
        assert (path.read_bytes() == before[page["file"]]) == (page["file"] not in fresh)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [p["file"] for p in manifest(again)["pages"]] == [p["file"] for p in manifest(folder)["pages"]]
    assert latest(tmp_path / "raw", OCTOBER) == again


def test_a_failed_second_pull_of_a_day_leaves_nothing(close, api, tmp_path):
    """Nothing is left that a later pull would go on with."""
    folder = close()
    api.before.append(on("/messages", lambda _: error(400)))
    with pytest.raises(SourceError):
        repull_day(BILLING, OCTOBER, folder, date(2026, 10, 7), now=NOW, key=KEY, transport=api.transport)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_day_that_was_not_pulled_cannot_be_pulled_again(close, api, tmp_path):
    """A day outside the pull, or a folder that is none, is named."""
    folder = close()
    for where, day in ((folder, date(2026, 12, 7)), (tmp_path, date(2026, 10, 7))):
        with pytest.raises(SourceError, match=str(where)):
            repull_day(BILLING, OCTOBER, where, day, now=NOW, key=KEY, transport=api.transport)


# --- check and init ---


def test_reach_says_whose_key_it_is(api):
    """One request tells the organization."""
    assert reach(BILLING, key=KEY, transport=api.transport) == Organization(ORGANIZATION, "Example Ltd")
    assert len(api.requests) == 1


def test_the_directory_names_workspaces_and_keys(api):
    """Workspaces come with their tags by name, keys with the real id of their workspace."""
    api.workspaces.append({"id": "wrkspc_2", "name": "Old", "archived_at": "2026-01-01T00:00:00Z"})
    found = directory(BILLING, key=KEY, transport=api.transport)
    assert found.organization == Organization(ORGANIZATION, "Example Ltd")
    assert found.workspaces == (
        Workspace("wrkspc_1", "Search", archived=False, tags=(("env", "p"), ("team", "s"))),
        Workspace("wrkspc_2", "Old", archived=True, tags=()),
    )
    assert found.keys == (
        ApiKey("apikey_1", "a", "active", "wrkspc_1"),
        ApiKey("apikey_2", "a", "inactive", "wrkspc_default"),
        ApiKey("apikey_3", "o", "active", None),
    )
    assert found.default_workspace_id == "wrkspc_default"


# --- over real HTTP ---


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.build(Scenario(requests=2_000))


@pytest.fixture
def served(sandbox, tmp_path) -> Callable[..., Path]:
    """Pulls the sandbox's month from its server, with faults; ``attempts`` times, as a scheduler would."""

    def run(*faults: Fault, attempts: int = 1, key: str = sandbox.key) -> Path:
        with sandbox.serve(faults=Faults(faults)) as server:
            billing = Billing(base_url=server.url, key=Key(env="ANTHROPIC_ADMIN_KEY"))
            while True:
                attempts -= 1
                try:
                    return pull(billing, OCTOBER, tmp_path / "raw", now=sandbox.now, key=key, organization_id=None)
                except SourceError:
                    if not attempts:
                        raise

    return run


def buckets(folder: Path, kind: str) -> list[dict]:
    return [bucket for file in files(folder, kind) for bucket in json.loads((folder / file).read_bytes())["data"]]


def tokens_by_day(folder: Path, kind: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for bucket in buckets(folder, kind):
        day = bucket["starting_at"][:10]
        sums[day] = sums.get(day, 0) + sum(row["output_tokens"] for row in bucket["results"])
    return sums


def test_a_month_of_the_sandbox(served):
    """Over real HTTP the month comes whole: each hour, each day, and the grouped sums are the ungrouped ones."""
    folder = served()
    assert len(buckets(folder, "usage_hour")) == 33 * 24
    assert len(buckets(folder, "cost_day")) == 31
    hours, days = tokens_by_day(folder, "usage_hour"), tokens_by_day(folder, "usage_day")
    assert sum(days.values()) > 0
    assert {day: hours[day] for day in days} == days
    assert manifest(folder)["default_workspace_id"] == DEFAULT.id
    rows = [row for bucket in buckets(folder, "usage_hour") for row in bucket["results"]]
    assert {"standard", "fast"} == {row["speed"] for row in rows}


def test_faults_that_pass_leave_no_trace(served):
    """What goes wrong for a while is asked for again: the pages are those of a pull without faults."""
    faults = {
        "usage_report": ("rate_limit", "rate_limit_silent", "server_error"),
        "cost_report": ("overloaded", "cut_body", "invalid_json"),
    }
    whole = served()
    healed = served(*(Fault(kind, path=path) for path, kinds in faults.items() for kind in kinds))
    for name in [page["file"] for page in manifest(whole)["pages"]]:
        assert (healed / name).read_bytes() == (whole / name).read_bytes()


def test_a_hang_is_given_up_and_asked_again(served, monkeypatch):
    """A server that goes silent is left, and asked again."""
    monkeypatch.setattr("reconcile.pull.client.PATIENCE", Patience(attempts=2, silence=0.2))
    assert served(Fault("hang", path="cost_report", times=1)).is_dir()
    with pytest.raises(SourceError, match="ReadTimeout"):
        served(Fault("hang", path="cost_report", times=None))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("spend_cap", times=None), "spend limit"),
        (Fault("rate_limit", times=None, retry_after="86400"), "asks to wait 86400 s"),
        (Fault("server_error", path="cost_report", times=None), r"cost_day-1.json.*HTTP 500 api_error"),
        (Fault("invalid_json", path="api_keys", times=None), r"api_keys-1.json.*not JSON, it begins '<html>"),
        (Fault("missing_day", path="cost_report", day="2026-10-09"), "the first is 2026-10-09T00:00:00Z"),
        (Fault("missing_day", path="usage_report", day="2026-10-09"), "24 of 24 buckets are missing"),
    ],
)
def test_a_fault_that_stays_is_one_clear_line(served, tmp_path, fault, says):
    """What does not heal ends the pull with a SourceError, and without a complete folder."""
    with pytest.raises(SourceError, match=says):
        served(fault)
    assert latest(tmp_path / "raw", OCTOBER) is None


@pytest.mark.parametrize("key", ["sk-ant-admin01-wrong", "sk-ant-api03-a-workspaces-key"])
def test_the_sandbox_refuses_other_keys(served, key):
    """A wrong key and a workspace's key are refused by name of their place."""
    with pytest.raises(SourceError, match="environment variable ANTHROPIC_ADMIN_KEY"):
        served(key=key)


def test_the_next_attempt_finishes_an_interrupted_pull(served, sandbox, tmp_path):
    """After a fault that outlasts a pull's patience, the next pull completes the same folder."""
    folder = served(Fault("overloaded", path="cost_report", times=6), attempts=2)
    assert len(buckets(folder, "cost_day")) == 31
    assert list(folder.parent.iterdir()) == [folder]


def test_a_day_that_lost_a_row_is_whole_when_pulled_again(sandbox, tmp_path):
    """A row that was missing from one day's hours is there after that day alone is fetched again."""
    with sandbox.serve(faults=Faults((Fault("lost_row", path="usage_report"),))) as server:
        billing = Billing(base_url=server.url, key=Key(env="ANTHROPIC_ADMIN_KEY"))
        folder = pull(billing, OCTOBER, tmp_path / "raw", now=sandbox.now, key=sandbox.key, organization_id=None)
        again = repull_day(billing, OCTOBER, folder, date(2026, 9, 30), now=sandbox.now, key=sandbox.key)
    lost, whole = (sum(len(bucket["results"]) for bucket in buckets(path, "usage_hour")) for path in (folder, again))
    assert whole == lost + 1
