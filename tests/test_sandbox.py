"""The sandbox: what it plants is what its own logs and bill differ by, to the last digit."""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from reconcile.config import load_config
from reconcile.errors import ConfigError
from reconcile.period import Period
from reconcile.sandbox import PLANTS, Sandbox, Scenario, Variety, drawn
from reconcile.sandbox.organization import API_KEYS, LOGS, RESEARCH, WORKSPACES
from reconcile.sandbox.rates import day_number, long_over
from reconcile.sandbox.rates import rates as own_rates

METERS = (
    "uncached_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)

# USD for a million tokens in October 2026, written down once more from the provider's price page.
OCTOBER = {
    "claude-opus-4-5-20251101": "5 6.25 10 0.50 25",
    "claude-opus-4-6": "5 6.25 10 0.50 25",
    "claude-opus-4-7": "5 6.25 10 0.50 25",
    "claude-opus-4-8": "5 6.25 10 0.50 25",
    "claude-opus-5": "5 6.25 10 0.50 25",
    "claude-opus-5-5": "4 5 8 0.20 20",
    "claude-fable-5-1": "10 12.50 20 0.25 50",
    "claude-sonnet-4-5-20250929": "3 3.75 6 0.30 15",
    "claude-sonnet-4-6": "3 3.75 6 0.30 15",
    "claude-sonnet-5": "2 2.50 4 0.20 10",
    "claude-sonnet-5-5": "2 2.50 4 0.10 10",
    "claude-haiku-4-5-20251001": "1 1.25 2 0.10 5",
    "claude-haiku-5-5": "0.10 0.125 0.20 0.01 0.50",
}
OCTOBER["claude-harbor-1"] = "0 0 0 0 0"  # no list has it
DATES = {"claude-opus-4-5": "20251101", "claude-sonnet-4-5": "20250929", "claude-haiku-4-5": "20251001"}

CLEANING = ("duplicate", "stream_sum", "app_price")
PRICE = ("discount", "price_book", "price_interval", "uncharged", "unpriced", "code_execution", "session_usage")

Price = Callable[[str, date, str, str, str, int], list[Decimal]]


def october_price(model, day, tier, geo, speed, prompt) -> list[Decimal]:  # noqa: PLR0917 - a cell's dimensions, in their order
    """USD for one token of each meter in October 2026."""
    usd = [Decimal(text) for text in OCTOBER[model].split()]
    if model == "claude-sonnet-5-5" and day < date(2026, 10, 7):
        usd[3] = Decimal("0.20")
    if model == "claude-haiku-5-5":
        assert day >= date(2026, 10, 7)
        if prompt > 100_000:
            usd = [price * 5 for price in usd]
    factor = Decimal("0.000001")
    if speed == "fast":
        assert model in {"claude-opus-4-8", "claude-opus-5"} or (
            model == "claude-opus-5-5" and day >= date(2026, 10, 15)
        )
        factor *= 2
    if geo == "us":
        factor *= Decimal("1.1")
    if tier == "batch":
        factor *= Decimal("0.5")
    return [price * factor for price in usd]


def table_price(model, day, tier, geo, speed, prompt) -> list[Decimal]:  # noqa: PLR0917 - a cell's dimensions, in their order
    """The same out of the sandbox's own table, for months whose prices this file does not repeat."""
    number = day_number(day)
    if model == "claude-harbor-1":
        return [Decimal(0)] * 5
    is_long = 0 < long_over(model, number) < prompt
    return [Decimal(rate).scaleb(-12) for rate in own_rates(model, number, tier, geo, speed, is_long)]


@dataclass
class Side:
    """Quantities and dollars by cell: (day, workspace, model, tier, window, geo, speed) to six meters."""

    quantities: dict[tuple, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * 6))
    usd: Decimal = Decimal(0)

    def add(self, cell: tuple, quantities: list[int], usd: Decimal = Decimal(0)) -> None:
        """Add quantities and dollars to a cell."""
        self.quantities[cell] = [a + b for a, b in zip(self.quantities[cell], quantities, strict=True)]
        self.usd += usd


def log_lines(sandbox: Sandbox) -> Iterator[tuple[str, dict]]:
    """Every readable line of the logs with its log's name."""
    for path, body in sandbox.files.items():
        text = gzip.decompress(body) if path.endswith(".gz") else body
        for line in text.decode().splitlines():
            try:
                yield path.split("/")[1], json.loads(line)
            except json.JSONDecodeError:
                continue


def report_model(name: str) -> str:
    """The reports' name for what a log holds."""
    name = name.removeprefix("anthropic/").removeprefix("us.anthropic.").removesuffix("-v1:0")
    return f"{name}-{DATES[name]}" if name in DATES else name


def line_workspace(log: str, line: dict) -> str:
    """The workspace of a line: its own, its key's, or its log's; the default one by its name."""
    key_workspaces = {key.id: key.workspace for key in API_KEYS}
    workspace_id = line.get("workspace_id")
    if workspace_id is None:
        workspace = key_workspaces[line["api_key_id"]] if line.get("api_key_id") else LOGS[log].workspace
        assert workspace is not None
        workspace_id = workspace.id
    return "default" if workspace_id == WORKSPACES[0].id else workspace_id


def line_dims(line: dict, workspace_id: str) -> tuple[str, str, str, str]:
    """Model, tier, geo and speed of a line, with what is meant where it does not say."""
    usage = line["usage"]
    model = report_model(line["model"])
    geo = usage.get("inference_geo")
    if geo is None:
        takes_geo = not re.search(r"-(\d{8})$", model)
        geo = ("us" if workspace_id == RESEARCH.id else "global") if takes_geo else "not_available"
    return model, usage.get("service_tier") or "standard", geo, usage.get("speed") or "standard"


def counters(usage: dict, split: dict | None) -> list[int]:
    """The six meters of a line's usage; without a split its writes are 5-minute ones."""
    written = usage.get("cache_creation_input_tokens") or 0
    hour = (split or {}).get("ephemeral_1h_input_tokens", 0) if written else 0
    searches = (usage.get("server_tool_use") or {}).get("web_search_requests", 0)
    return [
        usage.get("input_tokens") or 0,
        written - hour,
        hour,
        usage.get("cache_read_input_tokens") or 0,
        usage.get("output_tokens") or 0,
        searches,
    ]


def instant(text: str) -> datetime:
    """A timestamp of a log in UTC; without an offset it is what the config says: UTC."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def value(quantities: list[int], prices: list[Decimal]) -> Decimal:
    return sum((q * p for q, p in zip(quantities, prices, strict=False)), quantities[5] * Decimal("0.01"))


def books(sandbox: Sandbox, price: Price) -> tuple[Decimal, Side, Side, Decimal]:
    """Logged, recorded, reported and billed of the period's complete days, from files and provider alone."""
    period = sandbox.scenario.period
    through = period.through_on(sandbox.now)
    assert through is not None
    grouped: dict[str, list[tuple[str, dict]]] = defaultdict(list)
    for position, (log, line) in enumerate(log_lines(sandbox)):
        grouped[line["request_id"] or f"line {position}"].append((log, line))
    logged = Decimal(0)
    recorded = Side()
    for lines in grouped.values():
        logged += record(lines, recorded, price, lambda day: period.start_on <= day <= through)
    reported = Side()
    provider = sandbox.provider
    for day in period.days():
        if day > through:
            continue
        for _, index, found in provider.minutes(day_number(day)):
            dims = provider.dimensions[index]
            cell = (
                day,
                dims.workspace_id or "default",
                dims.model,
                dims.service_tier,
                dims.context_window,
                dims.inference_geo,
                dims.speed,
            )
            reported.add(cell, list(found[:6]))
    reported.usd = recorded.usd
    for cell in {**recorded.quantities, **reported.quantities}:
        day, _, model, tier, window, geo, speed = cell
        lower = price(model, day, tier, geo, speed, 200_001 if window == "200k-1M" else 0)
        more = [a - b for a, b in zip(reported.quantities[cell], recorded.quantities[cell], strict=True)]
        reported.usd += value(more, lower)
    billed = sum(
        (
            Decimal(line.pico_usd).scaleb(-12)
            for day in sandbox.costs
            for line in sandbox.costs[day]
            if day_number(period.start_on) <= day <= day_number(through)
        ),
        Decimal(0),
    )
    return logged, recorded, reported, billed


def record(lines: list[tuple[str, dict]], recorded: Side, price: Price, covers: Callable[[date], bool]) -> Decimal:
    """Clean the lines of one request into ``recorded``; what was logged for them."""
    log, first = lines[0]
    workspace_id = line_workspace(log, first)
    model, tier, geo, speed = line_dims(first, workspace_id)
    if "event" in first:
        assert first["event"] == "message_start"
        day = instant(lines[-1][1]["timestamp"]).date()
        split = first["usage"]["cache_creation"]
        events = [counters(line["usage"], split) for _, line in lines]
        searched = any(event[5] for event in events)
        prompt = sum(events[0][:4])
        prices = price(model, day, tier, geo, speed, prompt)
        folded = (
            list(events[-1])
            if len(events) > 1 and lines[-1][1]["usage"]["input_tokens"] is not None
            else list(events[0])
        )
        folded[4] = events[-1][4]
        assert searched == bool(folded[5])
        assert all(instant(line["timestamp"]).date() == day for _, line in lines)
        logged = sum((value(event, prices) for event in events), Decimal(0))
    else:
        lines = sorted(lines, key=lambda item: instant(item[1]["timestamp"]))
        log, first = lines[0]
        day = instant(first["timestamp"]).date()
        folded = counters(first["usage"], first["usage"].get("cache_creation"))
        if not covers(day):
            return Decimal(0)
        prices = price(model, day, tier, geo, speed, sum(folded[:4]))
        logged = Decimal(first["cost_usd"]) * len(lines) if "cost_usd" in first else value(folded, prices) * len(lines)
    if not covers(day):
        return Decimal(0)
    window = "200k-1M" if sum(folded[:4]) > 200_000 else "0-200k"
    recorded.add((day, workspace_id, model, tier, window, geo, speed), folded, value(folded, prices))
    return logged


def amounts(sandbox: Sandbox, reasons: tuple[str, ...]) -> Decimal:
    return sum((Decimal(p.amount_usd) for p in sandbox.truth if p.reason in reasons), Decimal(0))


def assert_truth_ties(sandbox: Sandbox, price: Price) -> tuple[Side, Side]:
    logged, recorded, reported, billed = books(sandbox, price)
    quantity_reasons = tuple(set(PLANTS) - set(CLEANING) - set(PRICE))
    assert recorded.usd - logged == amounts(sandbox, CLEANING)
    assert reported.usd - recorded.usd == amounts(sandbox, quantity_reasons)
    assert billed - reported.usd == amounts(sandbox, PRICE)
    tokens = sum(sum(q[:5]) for q in reported.quantities.values()) - sum(
        sum(q[:5]) for q in recorded.quantities.values()
    )
    assert tokens == sum(p.quantity or 0 for p in sandbox.truth if p.reason in quantity_reasons)
    return recorded, reported


@pytest.fixture(scope="module")
def everything() -> Sandbox:
    return Sandbox.build(Scenario(requests=6000, bad_lines=True))


def test_truth_is_the_whole_difference(everything):
    """With every plant at once, logs and bill differ by the sum of the truth, stage by stage, to the last digit."""
    assert_truth_ties(everything, october_price)


def test_every_plant_is_planted(everything):
    """By default every reason is in the truth, in the bridge's order, with requests or dollars behind it."""
    reasons = list(dict.fromkeys(planted.reason for planted in everything.truth))
    assert reasons == list(PLANTS)
    assert all(planted.requests or Decimal(planted.amount_usd) for planted in everything.truth)


@pytest.mark.parametrize("plant", PLANTS)
def test_one_plant_alone(plant):
    """A plant that is switched on alone makes its own difference and no other."""
    requests = 4000 if plant in {"price_interval", "context_window"} else 1200  # long prompts are rare
    sandbox = Sandbox.build(Scenario(requests=requests, plants=frozenset({plant}), intensity={"duplicate": 0.05}))
    recorded, reported = assert_truth_ties(sandbox, october_price)
    reasons = {planted.reason for planted in sandbox.truth}
    assert reasons == ({plant, "unlogged"} if plant == "price_interval" else {plant})
    if plant in {"workspace", "time_zone", "cutoff", "context_window"}:  # moves, which may well net to nothing
        assert recorded.quantities != reported.quantities
    else:
        assert all(Decimal(planted.amount_usd) for planted in sandbox.truth)


def test_clean_organization_agrees_in_every_cell():
    """Without plants, quantities agree in every cell and every cost line is its cell's recorded dollars."""
    sandbox = Sandbox.build(Scenario(requests=6000, plants=frozenset()))
    assert sandbox.truth == ()
    logged, recorded, reported, billed = books(sandbox, october_price)
    assert dict(recorded.quantities) == dict(reported.quantities)
    assert logged == recorded.usd == reported.usd == billed
    assert {line.cost_type for lines in sandbox.costs.values() for line in lines} == {"tokens", "web_search"}


@pytest.mark.parametrize("month", ["2026-03", "2026-07", "2026-11", "2027-02"])
def test_other_months(month):
    """The truth ties in months with other models and prices too, long-context premiums included."""
    sandbox = Sandbox.build(Scenario(period=Period.parse(month), requests=1500, seed=7))
    assert_truth_ties(sandbox, table_price)


def test_a_month_without_known_models():
    """A month before the table begins is refused in one sentence."""
    with pytest.raises(ConfigError, match="no model is known"):
        Sandbox.build(Scenario(period=Period.parse("2023-01"), requests=100))


@pytest.mark.parametrize("now", ["2026-10-15T09:20:00+00:00", "2026-10-02T00:30:00+00:00", "2026-11-01T00:20:00+00:00"])
def test_a_running_month(now):
    """Nothing happens after the sandbox's clock, and the truth covers the complete days."""
    clock = datetime.fromisoformat(now)
    sandbox = Sandbox.build(Scenario(requests=1500, now=clock))
    if sandbox.scenario.period.through_on(clock) is not None:
        assert_truth_ties(sandbox, october_price)
    else:
        assert sandbox.truth == ()
    stamps = [instant(line["timestamp"]) for log, line in log_lines(sandbox) if log != "tablets"]
    assert max(stamps) < clock


def test_same_scenario_same_bytes():
    """A scenario is a function: the same one gives the same files, bill and truth; another seed does not."""
    first, second, other = (Sandbox.build(Scenario(requests=800, seed=seed)) for seed in (3, 3, 4))
    assert first.files == second.files
    assert first.costs == second.costs
    assert first.truth == second.truth
    assert first.files != other.files


def test_plants_leave_the_traffic_alone():
    """What a plant does not touch is the same with and without it."""
    clean, planted = (Sandbox.build(Scenario(requests=800, plants=p)) for p in (frozenset(), frozenset({"duplicate"})))
    ids = [{line["request_id"] for _, line in log_lines(sandbox)} for sandbox in (clean, planted)]
    assert ids[0] == ids[1]
    assert clean.costs == planted.costs


def test_intensity():
    """A plant's strength is in the unit that it names."""
    weak, strong = (
        Sandbox.build(Scenario(requests=3000, plants=frozenset({"unlogged_key"}), intensity={"unlogged_key": times}))
        for times in (1.0, 3.0)
    )
    assert 2 * weak.truth[0].requests < strong.truth[0].requests < 4 * weak.truth[0].requests


@pytest.mark.parametrize("hours", [-5, 9])
def test_clocks_that_are_off(hours):
    """A clock may be behind or ahead by any number of hours."""
    sandbox = Sandbox.build(
        Scenario(requests=3000, plants=frozenset({"time_zone"}), intensity={"time_zone": hours}),
    )
    recorded, reported = assert_truth_ties(sandbox, october_price)
    assert recorded.quantities != reported.quantities


def test_unknown_plant():
    """A plant that does not exist is refused with the list of those that do."""
    with pytest.raises(ConfigError, match="got 'typo', expected one of duplicate"):
        Scenario(plants=frozenset({"typo"}))


def test_the_organization_is_as_large_as_promised(everything):
    """Workspaces, keys, models, tiers, lifetimes, geographies, speeds and windows are all there."""
    dims = everything.provider.dimensions
    assert len(WORKSPACES) >= 8
    assert sum(workspace.is_default for workspace in WORKSPACES) == 1
    assert any(workspace.archived_on_day for workspace in WORKSPACES)
    assert {"Claude Code", '<script>alert(1)</script> & "Co"'} <= {workspace.name for workspace in WORKSPACES}
    assert any(workspace.name.startswith("=") for workspace in WORKSPACES)
    assert len(API_KEYS) >= 12
    assert {key.status for key in API_KEYS} == {"active", "inactive", "archived", "expired"}
    assert {
        "claude-opus-4-7",
        "claude-opus-4-6",
        "claude-sonnet-4-5-20250929",
        "claude-haiku-5-5",
        "claude-opus-5-5",
    } <= {d.model for d in dims}
    assert len({d.model for d in dims}) >= 8
    assert {d.service_tier for d in dims} == {"standard", "batch", "priority"}
    assert {d.inference_geo for d in dims} == {"global", "us", "not_available"}
    assert {d.speed for d in dims} == {"standard", "fast"}
    assert {d.context_window for d in dims} == {"0-200k", "200k-1M"}
    assert any(d.is_long and d.context_window == "0-200k" for d in dims)
    assert any(d.account_id for d in dims)
    assert any(d.service_account_id for d in dims)
    totals = [
        sum(c) for c in zip(*(c for day in everything.costs for *_, c in everything.provider.minutes(day)), strict=True)
    ]
    assert all(totals)


def test_logs_name_what_they_should(everything):
    """The default workspace's real id stands in some lines, the key that nobody logs in none, an alias in some."""
    lines = [line for _, line in log_lines(everything)]
    assert any(line.get("workspace_id") == WORKSPACES[0].id for line in lines)
    unlogged = next(p.place for p in everything.truth if p.reason == "unlogged_key").rsplit("=", 1)[1]
    assert all(line.get("api_key_id") != unlogged for line in lines)
    assert {"anthropic/claude-opus-4-7", "claude-sonnet-4-5"} <= {line["model"] for line in lines}
    assert any(line["request_id"] is None for line in lines)


def test_lines_that_cannot_be_read(everything):
    """With bad lines switched on some cannot be read; without, all can."""
    clean = Sandbox.build(Scenario(requests=800))

    def bad(sandbox: Sandbox) -> int:
        texts = [gzip.decompress(body) if path.endswith(".gz") else body for path, body in sandbox.files.items()]
        return sum(len(text.splitlines()) for text in texts) - sum(1 for _ in log_lines(sandbox))

    assert bad(everything) > 0
    assert bad(clean) == 0


def test_traffic_has_a_real_shape():
    """Working days outweigh weekends, days outweigh nights, and the month ends busier than it began."""
    sandbox = Sandbox.build(Scenario(requests=8000, plants=frozenset()))
    days = {
        day: sum(c[6] for *_, c in sandbox.provider.minutes(day_number(day))) for day in sandbox.scenario.period.days()
    }
    weekend = [count for day, count in days.items() if day.weekday() >= 5]
    working = [count for day, count in days.items() if day.weekday() < 5]
    assert sum(weekend) / len(weekend) < 0.8 * sum(working) / len(working)
    assert sum(working[-10:]) > 1.1 * sum(working[:10])
    assert sum(days.values()) == pytest.approx(8000, rel=0.02)
    hours = [
        sum(c[6] for c in sandbox.provider.hour(day_number(date(2026, 10, 14)), hour).values()) for hour in range(24)
    ]
    assert sum(hours[9:17]) > 2 * sum(hours[0:6])


def test_write(tmp_path, everything):
    """What is written is a config that validates, with logs where it says, and the truth as JSON."""
    everything.write(tmp_path, base_url="http://127.0.0.1:4711")
    config = load_config(tmp_path / "config.yaml")
    assert config.billing.base_url == "http://127.0.0.1:4711"
    assert config.billing.key.env == "RECONCILE_SANDBOX_KEY"
    assert {log.name for log in config.request_logs} == set(LOGS)
    for log in config.request_logs:
        for day in everything.scenario.period.days():
            pattern = Path(log.path.format(day=day, month=f"{day:%Y-%m}"))
            assert list(tmp_path.glob(str(pattern.relative_to(tmp_path) if pattern.is_absolute() else pattern)))
    written = json.loads((tmp_path / "truth.json").read_text())
    assert [set(planted) for planted in written[:1]] == [{"reason", "place", "requests", "quantity", "amount_usd"}]
    assert len(written) == len(everything.truth)


# Organizations that are drawn


def test_a_seed_draws_one_organization():
    """The same seed draws the same organization and files, another seed another one."""
    first, second, other = (drawn(seed, Variety(requests=600)) for seed in (5, 5, 6))
    assert first == second
    assert first.organization != other.organization
    assert Sandbox.build(first).files == Sandbox.build(second).files


def test_drawn_organizations_are_of_every_shape():
    """Over some seeds every plant is placed that can be, in several variants, and logs lack what logs lack."""
    organizations = [drawn(seed).organization for seed in range(80)]
    logs = [log for organization in organizations for log in organization.logs]
    assert {(log.names_key, log.names_workspace) for log in logs} == {
        (a, b) for a in (True, False) for b in (True, False)
    }
    assert all(log.workspace for log in logs if not log.names_key and not log.names_workspace)
    assert any(log.own_cost for log in logs)
    sizes = [len(organization.workspaces) for organization in organizations]
    assert min(sizes) <= 3
    assert max(sizes) >= 20
    placed: dict[str, set] = defaultdict(set)
    for organization in organizations:
        for place in organization.placements:
            placed[place.plant].add((place.variant, place.value))
    without_a_place = {"unlogged_key", "no_key", "price_interval", "unpriced", "code_execution", "session_usage"}
    assert set(PLANTS) - set(placed) == without_a_place
    assert {variant for variant, _ in placed["cutoff"]} == {"start", "submission", "day", "fetched"}
    assert {variant for variant, _ in placed["cache_ttl"]} == {"missing", "exchanged"}
    assert {variant for variant, _ in placed["unreported"]} == {"", "plain", "bedrock"}
    exists_for = {source.exists_for for organization in organizations for source in organization.sources}
    assert exists_for == {None, "unlogged_key", "no_key", "unpriced"}


def test_nothing_is_planted_where_no_plant_is_allowed():
    """A drawn organization without plants has no truth, whatever its shape."""
    for seed in (1, 2, 3):
        assert Sandbox.build(drawn(seed, Variety(requests=600, plants=frozenset()))).truth == ()
    sources = [one for seed in range(80) for one in drawn(seed, Variety(plants=frozenset())).organization.sources]
    assert [source.name for source in sources if source.log is None] == []


def test_a_key_that_no_line_names_is_unlogged_where_lines_name_no_keys():
    """Usage of a silent key is `unlogged_key` only where 95 % of the workspace's recorded tokens name their key."""
    reasons = set()
    for seed in range(40):
        scenario = drawn(seed, Variety(requests=800, plants=frozenset({"unlogged_key"}), density=1.0))
        named = {log.name: log.names_key for log in scenario.organization.logs}
        for source in scenario.organization.sources:
            if source.exists_for is None:
                continue
            beside = [
                other for other in scenario.organization.sources if other.workspace is source.workspace and other.log
            ]
            keys = {other.key for other in beside if named[other.log]}
            if source.key not in keys and len({named[other.log] for other in beside}) == 1:
                expected = "unlogged_key" if named[beside[0].log] else "unlogged"
                planted = {p.reason for p in Sandbox.build(scenario).truth if f"api_key_id={source.key.id}" in p.place}
                assert planted <= {expected}
                reasons |= planted
        if len(reasons) == 2:
            break
    assert reasons == {"unlogged_key", "unlogged"}


def test_answers_without_a_server(everything):
    """What the server would send can be asked for without it, refusals included."""
    answers = everything.answers()
    headers = {"x-api-key": everything.key, "anthropic-version": "2023-06-01"}
    status, body = answers("/v1/organizations/me", headers)
    assert status == 200
    assert json.loads(body)["type"] == "organization"
    status, body = answers("/v1/organizations/cost_report?limit=99", headers)
    assert status == 400
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
