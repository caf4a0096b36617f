"""The sandbox's HTTP server: it answers as the provider's Admin API is known to."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise

import httpx
import pytest
from anthropic.types.organization import APIKey, Workspace
from anthropic.types.organization_info import OrganizationInfo

from reconcile.sandbox import Fault, Faults, Sandbox, Scenario
from reconcile.sandbox.organization import API_KEYS, LOGS, WORKSPACES
from reconcile.sandbox.rates import day_number

USAGE = "/v1/organizations/usage_report/messages"
COST = "/v1/organizations/cost_report"
LIST_WORKSPACES = "/v1/organizations/workspaces"
LIST_KEYS = "/v1/organizations/api_keys"
FAST_MODE = {"anthropic-beta": "fast-mode-2026-02-01"}
OCTOBER = {"starting_at": "2026-10-01T00:00:00Z", "ending_at": "2026-11-01T00:00:00Z"}
DIMENSIONS = [
    "account_id",
    "api_key_id",
    "context_window",
    "inference_geo",
    "model",
    "service_account_id",
    "service_tier",
    "workspace_id",
]

# The keys of the documented examples (August 2026).
USAGE_ROW = {
    "account_id",
    "api_key_id",
    "cache_creation",
    "cache_read_input_tokens",
    "context_window",
    "inference_geo",
    "model",
    "output_tokens",
    "server_tool_use",
    "service_account_id",
    "service_tier",
    "uncached_input_tokens",
    "workspace_id",
}
COST_ROW = {
    "amount",
    "context_window",
    "cost_type",
    "currency",
    "description",
    "inference_geo",
    "model",
    "service_tier",
    "token_type",
    "workspace_id",
}
BUCKET = {"starting_at", "ending_at", "results"}
LISTING = {"data", "has_more", "next_page"}
CURSOR_LISTING = {"data", "first_id", "last_id", "has_more"}
WORKSPACE = {
    "id",
    "archived_at",
    "compartment_id",
    "created_at",
    "data_residency",
    "display_color",
    "external_key_id",
    "name",
    "tags",
    "type",
}
API_KEY = {
    "id",
    "created_at",
    "created_by",
    "expires_at",
    "name",
    "partial_key_hint",
    "principal",
    "status",
    "type",
    "workspace_id",
}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.build(Scenario(requests=2500))


def connect(server, **headers):
    common = {"x-api-key": server.key, "anthropic-version": "2023-06-01"}
    return httpx.Client(base_url=server.url, headers=common | headers, timeout=10, trust_env=False)


@pytest.fixture(scope="module")
def client(sandbox):
    with sandbox.serve() as server, connect(server) as connected:
        yield connected


def pages(client, path, parameters, **kwargs):
    """Every bucket of a report, page by page."""
    parameters = list(parameters.items()) if isinstance(parameters, dict) else list(parameters)
    buckets, page = [], None
    while True:
        answer = client.get(path, params=parameters + ([("page", page)] if page else []), **kwargs)
        assert answer.status_code == 200, answer.text
        buckets += answer.json()["data"]
        page = answer.json()["next_page"]
        if page is None:
            return buckets


def tokens(row):
    return (
        row["uncached_input_tokens"],
        row["cache_creation"]["ephemeral_5m_input_tokens"],
        row["cache_creation"]["ephemeral_1h_input_tokens"],
        row["cache_read_input_tokens"],
        row["output_tokens"],
        row["server_tool_use"]["web_search_requests"],
    )


def total(buckets):
    return [sum(column) for column in zip(*(tokens(row) for b in buckets for row in b["results"]), strict=True)]


def refused(answer, status, kind):
    """An answer in the error envelope, with the request id in header and body."""
    body = answer.json()
    assert (answer.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == answer.headers["request-id"]
    return body["error"]["message"]


def test_usage_has_the_documented_keys(client):
    """A usage answer has exactly the keys of the documented example, down to the row."""
    answer = client.get(USAGE, params=[*OCTOBER.items(), *(("group_by[]", name) for name in DIMENSIONS)])
    body = answer.json()
    assert set(body) == LISTING
    assert {frozenset(bucket) for bucket in body["data"]} == {frozenset(BUCKET)}
    rows = [row for bucket in body["data"] for row in bucket["results"]]
    assert {frozenset(row) for row in rows} == {frozenset(USAGE_ROW)}
    assert set(rows[0]["cache_creation"]) == {"ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens"}
    assert set(rows[0]["server_tool_use"]) == {"web_search_requests"}


def test_cost_has_the_documented_keys(client):
    """A cost answer has exactly the keys of the documented example; amounts are strings in cents, currency is USD."""
    parameters = [*OCTOBER.items(), ("group_by[]", "workspace_id"), ("group_by[]", "description"), ("limit", "31")]
    body = client.get(COST, params=parameters).json()
    assert set(body) == LISTING
    rows = [row for bucket in body["data"] for row in bucket["results"]]
    assert {frozenset(row) for row in rows} == {frozenset(COST_ROW)}
    assert all(isinstance(row["amount"], str) and Decimal(row["amount"]) > 0 for row in rows)
    assert {row["currency"] for row in rows} == {"USD"}
    assert {row["service_tier"] for row in rows} == {"standard", "batch", None}
    assert {row["cost_type"] for row in rows} == {"tokens", "web_search", "code_execution", "session_usage"}
    assert all(row["model"] is None and row["token_type"] is None for row in rows if row["cost_type"] != "tokens")


def test_without_a_limit_there_is_one_week(client):
    """A client that forgets `limit` gets seven days, a full day's hours, an hour's minutes, and is told of more."""
    for width, buckets in (("1d", 7), ("1h", 24), ("1m", 60)):
        body = client.get(USAGE, params=OCTOBER | {"bucket_width": width}).json()
        assert (len(body["data"]), body["has_more"]) == (buckets, True)
    assert len(client.get(COST, params=OCTOBER).json()["data"]) == 7


def test_the_largest_limits(client):
    """The largest limits are answered, one more is refused."""
    for path, width, largest in ((USAGE, "1d", 31), (USAGE, "1h", 168), (USAGE, "1m", 1440), (COST, "1d", 31)):
        parameters = OCTOBER | {"bucket_width": width}
        assert len(client.get(path, params=parameters | {"limit": largest}).json()["data"]) == largest
        message = refused(client.get(path, params=parameters | {"limit": largest + 1}), 400, "invalid_request_error")
        assert message == f"limit: '{largest + 1}' must lie between 1 and {largest}"


def test_widths_and_groupings_agree(client):
    """Grouped by everything and hour by hour, usage adds up to the ungrouped days, and to every minute of a day."""
    grouped = [*OCTOBER.items(), ("bucket_width", "1h"), *(("group_by[]", name) for name in DIMENSIONS)]
    hours = pages(client, USAGE, grouped)
    days = pages(client, USAGE, OCTOBER)
    assert (len(hours), len(days)) == (31 * 24, 31)
    assert total(hours) == total(days)
    one_day = {"starting_at": "2026-10-14T00:00:00Z", "ending_at": "2026-10-15T00:00:00Z"}
    minutes = pages(client, USAGE, one_day | {"bucket_width": "1m", "limit": "1440"})
    assert total(minutes) == list(tokens(days[13]["results"][0]))


def test_pages_are_whole(client):
    """Pages follow each other without a gap, oldest first; tokens are opaque text; empty buckets are there."""
    buckets = pages(client, USAGE, OCTOBER | {"bucket_width": "1h", "limit": "100"})
    assert [b["starting_at"] for b in buckets] == sorted({b["starting_at"] for b in buckets})
    assert all(a["ending_at"] == b["starting_at"] for a, b in pairwise(buckets))
    quiet = pages(client, USAGE, {"starting_at": "2026-09-01T00:00:00Z", "ending_at": "2026-09-05T00:00:00Z"})
    assert [bucket["results"] for bucket in quiet] == [[], [], [], []]


def test_buckets_snap(client):
    """`starting_at` snaps to the bucket's start, in UTC; a bucket that does not end by `ending_at` is left out."""
    parameters = {"starting_at": "2026-10-03T15:20:11+02:00", "ending_at": "2026-10-03T16:30:00Z", "bucket_width": "1h"}
    found = client.get(USAGE, params=parameters).json()["data"]
    assert [b["starting_at"] for b in found] == [f"2026-10-03T{hour}:00:00Z" for hour in (13, 14, 15)]


def test_ungrouped_fields_are_null(client):
    """What is not grouped by is null, and so is the default workspace when it is."""
    row = client.get(USAGE, params=OCTOBER).json()["data"][0]["results"][0]
    assert {row[name] for name in DIMENSIONS} == {None}
    costs = client.get(COST, params=OCTOBER).json()["data"][0]["results"]
    assert [{costs[0][name] for name in COST_ROW - {"amount", "currency"}}] == [{None}]
    by_workspace = client.get(USAGE, params=OCTOBER | {"group_by[]": "workspace_id"}).json()["data"][0]["results"]
    names = {row["workspace_id"] for row in by_workspace}
    assert None in names
    assert WORKSPACES[0].id not in names


def test_speed_needs_its_header(client):
    """Grouping by speed is refused without the beta header; with it, rows say their speed."""
    parameters = [*OCTOBER.items(), ("limit", "31"), ("group_by[]", "speed")]
    assert "anthropic-beta" in refused(client.get(USAGE, params=parameters), 400, "invalid_request_error")
    buckets = client.get(USAGE, params=parameters, headers=FAST_MODE).json()["data"]
    assert {row["speed"] for b in buckets for row in b["results"]} == {"standard", "fast"}
    assert set(buckets[0]["results"][0]) == USAGE_ROW | {"speed"}


def test_speed_without_its_field(sandbox):
    """With the switch, rows lack the field and two of them look the same."""
    silent = Sandbox.build(Scenario(requests=2500, speed_field=False))
    parameters = [*OCTOBER.items(), ("limit", "31"), ("group_by[]", "speed")]
    with silent.serve() as server, connect(server) as client:
        buckets = client.get(USAGE, params=parameters, headers=FAST_MODE).json()["data"]
    assert {frozenset(row) for b in buckets for row in b["results"]} == {frozenset(USAGE_ROW)}
    assert max(len(bucket["results"]) for bucket in buckets) == 2


def test_filters(client):
    """Filters keep what they name; several values are alternatives; an unknown value of an enum is refused."""
    parameters = [*OCTOBER.items(), ("limit", "31"), ("group_by[]", "model"), ("group_by[]", "service_tier")]
    models = [("models[]", "claude-opus-4-7"), ("models[]", "claude-haiku-4-5-20251001")]
    for chosen, names in ((models[:1], {"claude-opus-4-7"}), (models, {name for _, name in models})):
        found = client.get(USAGE, params=parameters + chosen).json()["data"]
        assert {row["model"] for b in found for row in b["results"]} == names
    tiers = client.get(USAGE, params=[*parameters, ("service_tiers[]", "priority")]).json()["data"]
    assert {row["service_tier"] for b in tiers for row in b["results"]} == {"priority"}
    refused(client.get(USAGE, params=[*parameters, ("context_window[]", "1M")]), 400, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        (USAGE, {}, "starting_at: Field required"),
        (USAGE, {"starting_at": "2026-10-01"}, "starting_at: '2026-10-01' is not an RFC 3339 date-time with an offset"),
        (USAGE, OCTOBER | {"group_by": "model"}, "group_by: Extra inputs are not permitted"),
        (USAGE, OCTOBER | {"group_by[]": "user"}, "group_by: 'user' is not one of account_id"),
        (USAGE, OCTOBER | {"bucket_width": "1w"}, "bucket_width: '1w' is not one of 1d, 1h, 1m"),
        (USAGE, OCTOBER | {"page": "next"}, "page: not a page token of this report"),
        (
            USAGE,
            {"starting_at": OCTOBER["ending_at"], "ending_at": OCTOBER["starting_at"]},
            "must be after starting_at",
        ),
        (COST, OCTOBER | {"bucket_width": "1h"}, "bucket_width: '1h' is not one of 1d"),
        (COST, OCTOBER | {"group_by[]": "model"}, "group_by: 'model' is not one of workspace_id, description"),
        (COST, OCTOBER | {"workspace_ids[]": "wrkspc_1"}, "workspace_ids[]: Extra inputs are not permitted"),
        (LIST_KEYS, {"status": "lost"}, "status: 'lost' is not one of active"),
        (LIST_WORKSPACES, {"limit": "1001"}, "limit: '1001' must lie between 1 and 1000"),
    ],
)
def test_bad_requests(client, path, parameters, message):
    """A parameter that is missing, unknown or out of range is refused with 400 and a sentence."""
    assert message in refused(client.get(path, params=parameters), 400, "invalid_request_error")


def test_keys_that_are_refused(sandbox):
    """No key and a wrong key are 401, a workspace's key is 403; a bearer token with the key is taken."""
    with sandbox.serve() as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        version = {"anthropic-version": "2023-06-01"}
        refused(client.get(COST, params=OCTOBER, headers=version), 401, "authentication_error")
        refused(client.get(COST, headers=version | {"x-api-key": "sk-ant-admin01-x"}), 401, "authentication_error")
        refused(client.get(COST, headers=version | {"x-api-key": "sk-ant-api03-x"}), 403, "permission_error")
        refused(client.get(COST, headers={"x-api-key": server.key}), 400, "invalid_request_error")
        assert client.get(COST, params=OCTOBER, headers=version | {"authorization": f"Bearer {server.key}"}).is_success
        refused(client.get("/v1/nothing", headers=version | {"x-api-key": server.key}), 404, "not_found_error")
        assert client.post(COST).status_code == 405


def test_every_answer_has_a_request_id(client):
    """A good answer carries a request id too, another one each time."""
    ids = [client.get("/v1/organizations/me").headers["request-id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert all(request_id.startswith("req_011C") for request_id in ids)


def test_the_running_day_has_no_cost():
    """By the sandbox's clock: the running day has usage so far, and no cost bucket; no bucket lies in the future."""
    sandbox = Sandbox.build(Scenario(requests=2500, now=datetime(2026, 10, 14, 15, 30, tzinfo=UTC)))
    with sandbox.serve() as server, connect(server) as client:
        costs = pages(client, COST, OCTOBER)
        usage = pages(client, USAGE, OCTOBER)
        hours = pages(client, USAGE, {"starting_at": "2026-10-14T00:00:00Z", "bucket_width": "1h"})
    assert (len(costs), costs[-1]["ending_at"]) == (13, "2026-10-14T00:00:00Z")
    assert (len(usage), usage[-1]["starting_at"]) == (14, "2026-10-14T00:00:00Z")
    assert usage[-1]["results"]
    assert hours[-1]["starting_at"] == "2026-10-14T15:00:00Z"


def test_cost_adds_up_in_every_grouping(client, sandbox):
    """However it is grouped, the bill is the same."""
    sums = []
    for names in ([], ["workspace_id"], ["description"], ["workspace_id", "description"]):
        buckets = pages(client, COST, [*OCTOBER.items(), *(("group_by[]", name) for name in names)])
        sums.append(sum(Decimal(row["amount"]) for b in buckets for row in b["results"]))
    assert len(set(sums)) == 1
    month = {day_number(day) for day in sandbox.scenario.period.days()}
    billed = sum(line.pico_usd for day in month for line in sandbox.costs[day])
    assert sums[0] == Decimal(billed).scaleb(-10)


def test_fast_and_priority_lines(client, sandbox):
    """Priority Tier has no cost line, and fast lines differ from the others only in their description."""
    parameters = [*OCTOBER.items(), ("group_by[]", "workspace_id"), ("group_by[]", "description")]
    rows = [row for bucket in pages(client, COST, parameters) for row in bucket["results"]]
    fast = [row for row in rows if "Fast Mode" in row["description"]]
    slow = {
        json.dumps({k: v for k, v in row.items() if k not in {"amount", "description"}}, sort_keys=True) for row in rows
    }
    assert fast
    assert all(
        json.dumps({k: v for k, v in row.items() if k not in {"amount", "description"}}, sort_keys=True) in slow
        for row in fast
    )
    assert not any(row["service_tier"] == "priority" for row in rows)
    assert any(d.service_tier == "priority" for d in sandbox.provider.dimensions)


def test_workspaces_parse_with_the_sdk(client):
    """Workspaces have the documented keys and parse as the official SDK's own type."""
    body = client.get(LIST_WORKSPACES, params={"include_archived": "true", "limit": 100}).json()
    assert set(body) == CURSOR_LISTING
    assert {frozenset(row) for row in body["data"]} == {frozenset(WORKSPACE)}
    for row in body["data"]:
        parsed = Workspace.model_validate(row, strict=False)
        assert parsed.data_residency.default_inference_geo in {"global", "us"}
    assert sum(row["archived_at"] is not None for row in body["data"]) == 1
    assert OrganizationInfo.model_validate(client.get("/v1/organizations/me").json()).type == "organization"


def test_workspaces_are_listed_as_documented(client):
    """Twenty at a time; the default one only on request, archived ones too; by their id all of them."""
    first = client.get(LIST_WORKSPACES).json()
    second = client.get(LIST_WORKSPACES, params={"after_id": first["last_id"]}).json()
    assert (len(first["data"]), first["has_more"], second["has_more"]) == (20, True, False)
    ids = [row["id"] for row in first["data"] + second["data"]]
    default = WORKSPACES[0].id
    archived = next(workspace.id for workspace in WORKSPACES if workspace.archived_on_day)
    assert len(ids) == len(set(ids)) == len(WORKSPACES) - 2
    assert not {default, archived} & set(ids)
    back = client.get(LIST_WORKSPACES, params={"before_id": second["first_id"], "limit": 5}).json()
    assert [row["id"] for row in back["data"]] == ids[15:20]
    whole = {"include_default": "true", "include_archived": "true", "limit": "1000"}
    assert len(client.get(LIST_WORKSPACES, params=whole).json()["data"]) == len(WORKSPACES)
    chosen = client.get(LIST_WORKSPACES, params=[("ids[]", ids[3]), ("ids[]", default)]).json()["data"]
    assert [row["id"] for row in chosen] == [ids[3]]
    assert client.get(f"{LIST_WORKSPACES}/{default}").json()["name"] == "Default"
    refused(client.get(f"{LIST_WORKSPACES}/wrkspc_01nobody"), 404, "not_found_error")


def test_keys_in_both_shapes(client):
    """By version: a workspace id that is null for the default one, or a scope with its real id (the SDK's type)."""
    old = client.get(LIST_KEYS, params={"limit": 1000}).json()
    new = client.get(LIST_KEYS, params={"limit": 1000}, headers={"anthropic-version": "2026-10-21"}).json()
    assert set(old) == CURSOR_LISTING
    assert {frozenset(row) for row in old["data"]} == {frozenset(API_KEY)}
    assert len(old["data"]) == len(new["data"]) == len(API_KEYS)
    scopes = [APIKey.model_validate(row).scope for row in new["data"]]
    assert WORKSPACES[0].id in {scope.workspace_id for scope in scopes if scope.type == "workspace"}
    assert sum(scope.type == "organization" for scope in scopes) == 1
    assert sum(row["workspace_id"] is None for row in old["data"]) == 3
    archived = client.get(LIST_KEYS, params={"status": "archived"}).json()["data"]
    assert {row["status"] for row in archived} == {"archived"}
    in_search = client.get(LIST_KEYS, params={"workspace_id": WORKSPACES[1].id}).json()["data"]
    assert {row["workspace_id"] for row in in_search} == {WORKSPACES[1].id}


def test_what_was_asked_is_kept(sandbox):
    """The server keeps path, parameters and headers of each request, for tests of clients."""
    with sandbox.serve() as server, connect(server) as client:
        client.get(COST, params=[("starting_at", "2026-10-01T00:00:00Z"), ("group_by[]", "workspace_id")])
        (received,) = server.requests
    assert received.path == COST
    assert received.parameters == (("starting_at", "2026-10-01T00:00:00Z"), ("group_by[]", "workspace_id"))
    assert received.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault("rate_limit", COST, times=2, retry_after="3"), 429, "rate_limit_error"),
        (Fault("rate_limit_silent", COST, times=2), 429, "rate_limit_error"),
        (Fault("spend_cap", COST, times=2), 429, "rate_limit_error"),
        (Fault("server_error", COST, times=2), 500, "api_error"),
        (Fault("overloaded", COST, times=2), 529, "overloaded_error"),
    ],
)
def test_faults_that_refuse(sandbox, fault, status, kind):
    """A refusing fault meets the first answers of its path and no other; then all is well."""
    with sandbox.serve(faults=Faults((fault,))) as server, connect(server) as client:
        assert client.get(USAGE, params=OCTOBER).is_success
        answers = [client.get(COST, params=OCTOBER) for _ in range(3)]
    for answer in answers[:2]:
        refused(answer, status, kind)
        assert answer.headers.get("retry-after") == ("3" if fault.kind == "rate_limit" else None)
        code = answer.json()["error"].get("details", {}).get("error_code")
        assert code == ("enforced_spend_limit_reached" if fault.kind == "spend_cap" else None)
    assert answers[2].is_success


def test_faults_that_spoil(sandbox):
    """A hang times out, a cut body breaks off, invalid JSON does not parse: each once, in the order planned."""
    planned = Faults((Fault("hang"), Fault("cut_body"), Fault("invalid_json", times=None)))
    with sandbox.serve(faults=planned) as server, connect(server) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get(USAGE, params=OCTOBER, timeout=0.3)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(USAGE, params=OCTOBER)
        for _ in range(2):
            with pytest.raises(json.JSONDecodeError):
                client.get(USAGE, params=OCTOBER).json()


def test_faults_that_lie(sandbox):
    """A page token that repeats, a day that is missing, a row that is lost, another currency."""
    grouped = [*OCTOBER.items(), ("group_by[]", "model")]
    planned = Faults(
        (
            Fault("missing_day", USAGE, day="2026-10-05"),
            Fault("repeated_page", USAGE, times=None),
            Fault("lost_row", USAGE),
            Fault("other_currency", COST),
        )
    )
    with sandbox.serve(faults=planned) as server, connect(server) as client:
        missing = client.get(USAGE, params=OCTOBER).json()["data"]
        assert [b["starting_at"][:10] for b in missing] == [f"2026-10-0{day}" for day in (1, 2, 3, 4, 6, 7)]
        first = client.get(USAGE, params=OCTOBER).json()
        again = client.get(USAGE, params=OCTOBER | {"page": first["next_page"]}).json()
        assert again["next_page"] == first["next_page"]
        one_page = [*grouped, ("limit", "31")]
        lost, whole = (client.get(USAGE, params=one_page).json()["data"] for _ in range(2))
        assert sum(len(b["results"]) for b in lost) == sum(len(b["results"]) for b in whole) - 1
        currencies = [
            {row["currency"] for b in client.get(COST, params=OCTOBER).json()["data"] for row in b["results"]}
            for _ in range(2)
        ]
        assert currencies == [{"EUR"}, {"USD"}]


def test_traffic_on_both_sides_of_the_month(client, sandbox):
    """The days before and after the month have usage, cost and logs; the days beyond have none."""
    around = [
        {"starting_at": "2026-09-30T00:00:00Z", "ending_at": "2026-10-01T00:00:00Z"},
        {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z"},
    ]
    for parameters in around:
        assert client.get(USAGE, params=parameters).json()["data"][0]["results"]
        assert client.get(COST, params=parameters).json()["data"][0]["results"]
    for day in (date(2026, 9, 30), date(2026, 11, 1)):
        assert sum(f"{day}" in path for path in sandbox.files) == len(LOGS)
    beyond = {"starting_at": "2026-11-02T00:00:00Z", "ending_at": "2026-11-03T00:00:00Z"}
    assert [client.get(path, params=beyond).json()["data"][0]["results"] for path in (USAGE, COST)] == [[], []]
