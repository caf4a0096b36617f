"""Stage explain: each reason's rule, at its edges; and what holds for every organization."""

import json
import random
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from month import bridge, closed, cost, days, line, several_logs, tokens, usage, write_config

from reconcile import ledger
from reconcile.explain import requests_behind

DAY, HOUR, AT = "2026-10-05", "2026-10-05T10:00:00Z", "2026-10-05T10:30:00Z"
INPUT, OUTPUT, READ = "uncached_input_tokens", "output_tokens", "cache_read_input_tokens"


def found(connection, columns="reason, quantity, amount_usd"):
    """Columns of the findings, largest first, decimals as text without trailing zeros."""
    rows = connection.execute(f"select {columns} from report.discrepancy order by moved_usd desc, reason").fetchall()
    return [
        tuple(format(value.normalize(), "f") if isinstance(value, Decimal) else value for value in row)
        for row in rows
    ]  # fmt: skip


def billed_for(usages):
    """Cost lines of these rows of Opus 4.7, at list: input $5 and output $25."""
    lines = []
    for row in usages:
        day = row["at"][:10]
        if "2026-10-01" <= day <= "2026-10-31":
            place = {"workspace_id": row["workspace_id"]}
            if row["uncached_input_tokens"]:
                lines.append(cost(day, str(row["uncached_input_tokens"] * Decimal("0.0005")), INPUT, **place))
            if row["output_tokens"]:
                lines.append(cost(day, str(row["output_tokens"] * Decimal("0.0025")), OUTPUT, **place))
    return lines


def month(tmp_path, usages, lines, **more):
    """A month of Opus 4.7 that is billed at list."""
    return closed(tmp_path, usages, billed_for(usages), lines, **more)


# Cleaning


def test_the_earliest_finished_line_stands(tmp_path):
    """Of lines with one id the earliest stands, then the largest output, then the largest text of the line."""
    later, small, large = tokens(10, 999), tokens(2000, 1), tokens(1000, 2)
    with month(
        tmp_path,
        [usage(HOUR, input=1000, output=2)],
        [
            line("2026-10-05T10:30:01Z", usage=later),
            line(AT, usage=small),
            line(AT, usage=large),
        ],
    ) as connection:
        assert bridge(connection)["recorded"] == bridge(connection)["billed"]
        assert found(connection) == [("duplicate", -3010, "-0.03505")]


def test_the_largest_text_breaks_the_last_tie(tmp_path):
    """Same instant, same output: of 999 and 1000 input tokens the text with 999 is the larger one."""
    with month(
        tmp_path, [usage(HOUR, input=999)], [line(AT, usage=tokens(1000)), line(AT, usage=tokens(999))]
    ) as connection:
        assert found(connection) == [("duplicate", -1000, "-0.005")]


def test_a_stream_belongs_to_the_day_of_its_last_event(tmp_path):
    """The provider counts at completion: a stream over midnight is of the next day, at the start's dimensions."""
    start = tokens(1000, 1, service_tier="batch")
    with closed(
        tmp_path,
        [usage("2026-10-06T00:00:00Z", input=1000, output=10, service_tier="batch")],
        [
            cost("2026-10-06", "0.25", INPUT, service_tier="batch"),
            cost("2026-10-06", "0.0125", OUTPUT, service_tier="batch"),
        ],
        [
            line("2026-10-05T23:59:58Z", event="message_start", usage=start),
            line("2026-10-06T00:00:02Z", event="message_delta", usage={"output_tokens": 10}),
        ],
    ) as connection:
        assert connection.execute("select distinct day::varchar, service_tier, status from report.cell").fetchall() == [
            ("2026-10-06", "batch", "matched")
        ]
        assert found(connection, "reason, amount_usd") == [("stream_sum", "-0.0000125")]


def test_a_finished_request_over_midnight_is_of_its_timestamp(tmp_path):
    """23:59:59.999 is the 5th and 00:00 the 6th, whatever was reported."""
    with month(
        tmp_path,
        [usage("2026-10-05T23:00:00Z", input=1000), usage("2026-10-06T00:00:00Z", input=500)],
        [
            line("2026-10-05T23:59:59.999Z", "a", usage=tokens(1000)),
            line("2026-10-06T00:00:00Z", "b", usage=tokens(500)),
        ],
    ) as connection:
        assert found(connection) == []


def test_the_ttl_split_of_a_stream_is_its_starts(tmp_path):
    """A delta has no split: what the start had as 1-hour stays it, what the total grew by is 5-minute."""
    start = tokens(
        10, 1, cache_creation_input_tokens=300,
        cache_creation={"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    )  # fmt: skip
    with closed(
        tmp_path, [], [],
        [
            line(AT, event="message_start", usage=start),
            line("2026-10-05T10:30:05Z", event="message_delta", usage={"cache_creation_input_tokens": 350}),
        ],
    ) as connection:  # fmt: skip
        assert connection.execute(
            "select recorded_quantity from report.cell where meter like 'cache_creation%' order by meter"
        ).fetchall() == [(200,), (150,)]


def test_a_blank_id_is_no_id(tmp_path):
    """A blank request_id says as little as a null one: such lines are never folded together."""
    with month(
        tmp_path, [usage(HOUR, input=2000)], [line(AT, "", usage=tokens(1000)), line(AT, "", usage=tokens(1000))]
    ) as connection:
        assert found(connection) == []


def test_a_stream_in_two_logs_is_one_stream(tmp_path):
    """Ids are compared over all logs: a start in one log and its delta in another are one request."""
    (tmp_path / "a.jsonl").write_text(json.dumps(line(AT, event="message_start", usage=tokens(1000, 1))) + "\n")
    delta = line("2026-10-05T10:30:05Z", event="message_delta", usage={"output_tokens": 400})
    (tmp_path / "b.jsonl").write_text(json.dumps(delta) + "\n")
    config = write_config(tmp_path, request_logs=[{"name": name, "path": f"{name}.jsonl"} for name in "ab"])
    with month(tmp_path, [usage(HOUR, input=1000, output=400)], [], config=config) as connection:
        assert bridge(connection)["recorded"] == bridge(connection)["billed"] == "0.015"


@pytest.mark.parametrize("own", ["0.02", 0.02, "2e-2", "0.020000000000000000"])
def test_the_applications_own_cost_is_text_or_a_number(tmp_path, own):
    """cost_usd is logged as it stands; app_price is the book minus it."""
    with month(tmp_path, [usage(HOUR, input=1000)], [line(AT, usage=tokens(1000), cost_usd=own)]) as connection:
        assert bridge(connection)["logged"] == "0.02"
        assert found(connection, "reason, quantity, amount_usd, confidence") == [
            ("app_price", None, "-0.015", "measured")
        ]


@pytest.mark.parametrize(
    ("model", "own", "cause"),
    [
        ("claude-opus-4-7", "0.0045", "price of before the last change"),
        ("claude-opus-4-7", "0.005", "list instead of contract"),
        ("claude-nova-9", "0.5", "no price in the book"),
    ],
)
def test_each_request_has_one_cause(tmp_path, model, own, cause):
    """After two changes in a month the last one counts; a model that the book does not know is told as well."""
    rates = [
        {"model": "claude-opus-4-7", "discount_percent": percent, "from": first, "until": last}
        for percent, first, last in ((10, "2026-10-03", DAY), (20, DAY, None))
    ]
    config = write_config(tmp_path, prices={"contract": rates})
    lines = [line(AT, model=model, usage=tokens(1000), cost_usd=own)]
    with closed(
        tmp_path, [usage(HOUR, input=1000, model=model)], [cost(DAY, "0.4", INPUT, model=model)], lines, config=config
    ) as connection:
        [(evidence,)] = connection.execute(
            "select evidence from report.discrepancy where reason = 'app_price'"
        ).fetchall()
        assert [(told["cause"], told["requests"]) for told in json.loads(evidence)["causes"]] == [(cause, "1")]


def test_a_price_of_many_decimals_is_told_to_the_last(tmp_path):
    """A contract's price has more decimals than a dollar amount: the causes add up all the same."""
    rates = [{"model": "claude-opus-4-7", "discount_percent": "7.7777"}]
    config = write_config(tmp_path, prices={"contract": rates}, billing={"amounts": "net"})
    lines = [line(AT, f"r{n}", usage=tokens(1000, cache_read_input_tokens=333), cost_usd="0.01") for n in range(5)]
    with month(tmp_path, [usage(HOUR, input=5000, read=1665)], lines, config=config) as connection:
        assert "app_price" in {reason for (reason,) in found(connection, "reason")}


# Defaults and names


@pytest.mark.parametrize(
    ("model", "fields", "geo"),
    [
        ("claude-opus-4-7", {}, "global"),
        ("claude-opus-4-7", {"workspace_id": "wrkspc_us"}, "us"),
        ("claude-opus-4-7", {"workspace_id": "wrkspc_gone"}, "global"),
        ("claude-sonnet-4-5-20250929", {"workspace_id": "wrkspc_us"}, "not_available"),
    ],
)
def test_the_geography_where_a_log_does_not_say(tmp_path, model, fields, geo):
    """not_available before 4.6, else the workspace's default, else global; each default that was used is counted."""
    workspaces = [
        {"id": "wrkspc_a", "name": "Search"},
        {"id": "wrkspc_us", "name": "US", "data_residency": {"default_inference_geo": "us"}},
    ]
    with closed(
        tmp_path, [], [], [line(AT, model=model, usage={"input_tokens": 10}, **fields)], workspaces=workspaces
    ) as connection:
        assert connection.execute("select inference_geo, service_tier, speed from report.cell").fetchall() == [
            (geo, "standard", "standard")
        ]
        assert connection.execute("from source.default_used").fetchall() == [
            ("app", "inference_geo", 1), ("app", "service_tier", 1), ("app", "speed", 1),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("workspace", "key", "setting", "expected"),
    [
        ("wrkspc_a", "apikey_b", "wrkspc_c", "wrkspc_a"),
        (None, "apikey_b", "wrkspc_c", "wrkspc_b"),
        (None, "apikey_default", "wrkspc_c", "default"),
        (None, "apikey_gone", "wrkspc_c", "wrkspc_c"),
        (None, None, "wrkspc_default", "default"),
        (None, None, None, None),
        ("wrkspc_default", None, None, "default"),
    ],
)
def test_the_workspace_where_a_log_does_not_say(tmp_path, workspace, key, setting, expected):
    """The line's, that of its key, the source's config, else NULL; the default one's real id maps to `default`."""
    keys = [
        {"id": f"apikey_{name}", "name": name, "status": "active",
            "scope": {"type": "workspace", "workspace_id": f"wrkspc_{name}"}}
        for name in ("b", "default")
    ]  # fmt: skip
    config = write_config(tmp_path, request_logs=[{"name": "app", "path": "log*.jsonl", "workspace_id": setting}])
    with closed(
        tmp_path, [], [], [line(AT, workspace_id=workspace, api_key_id=key, usage=tokens(10))], config=config,
        api_keys=keys,
    ) as connection:  # fmt: skip
        assert connection.execute("select workspace_id from report.cell").fetchall() == [(expected,)]


@pytest.mark.parametrize(
    ("logged", "reported"),
    [
        ("claude-opus-4.7", "claude-opus-4-7"),
        ("anthropic/claude-opus-4-7", "claude-opus-4-7"),
        ("Claude-Opus-4-7", "claude-opus-4-7"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5-20250929"),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001"),
        ("claude-nova-9", "claude-nova-9"),
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-opus-5", "claude-opus-5"),
    ],
)
def test_a_model_has_the_name_that_the_reports_use(tmp_path, logged, reported):
    """Aliases, vendor prefixes, dots and dates become the reports' name; an unknown one keeps its own."""
    geo = "not_available" if "4-5" in reported else "global"
    with closed(
        tmp_path, [usage(HOUR, input=10, model=reported, inference_geo=geo)], [],
        [line(AT, model=logged, usage={"input_tokens": 10, "inference_geo": geo})],
    ) as connection:  # fmt: skip
        assert connection.execute("select model, recorded_quantity, reported_quantity from report.cell").fetchall() == [
            (reported, 10, 10)
        ]


@pytest.mark.parametrize(
    ("fields", "evidence"),
    [
        ({"model": "us.anthropic.claude-opus-4-7-v1:0"}, "tokens_billed_by_bedrock"),
        ({"model": "claude-opus-4-7@20260416"}, "tokens_billed_by_vertex"),
        ({"status": 529}, "tokens_error_status"),
    ],
)
def test_what_tells_why_something_was_not_reported(tmp_path, fields, evidence):
    """The id of another biller or an error status is evidence for `unreported`, which is then more than suspected."""
    with month(
        tmp_path,
        [usage(HOUR, input=1000)],
        [line(AT, "a", usage=tokens(1000)), line(AT, "b", usage=tokens(70), **fields)],
    ) as connection:
        assert found(connection, "reason, confidence, log, quantity") == [("unreported", "inferred", "app", -70)]
        evidence_of = connection.execute("select evidence from report.discrepancy").fetchone()[0]
        assert json.loads(evidence_of)[evidence] == "70"


# One side only


@pytest.mark.parametrize(("named", "reason"), [(950, "unlogged_key"), (949, "unlogged")])
def test_unlogged_key_needs_ninety_five_percent(tmp_path, named, reason):
    """Claimed only where lines that name their key carry at least 95 % of the workspace's recorded quantity."""
    with month(
        tmp_path,
        [usage(HOUR, input=1000), usage(HOUR, input=70, api_key_id="apikey_b")],
        [line(AT, "a", usage=tokens(named)), line(AT, "b", usage=tokens(1000 - named), api_key_id=None)],
    ) as connection:
        assert found(connection) == [(reason, 70, "0.00035")]


def test_the_ninety_five_percent_are_of_each_workspace(tmp_path):
    """A log that hides keys in one workspace does not keep the key of another from being claimed."""
    with month(
        tmp_path,
        [
            usage(HOUR, input=1000), usage(HOUR, input=500, workspace_id="wrkspc_b", api_key_id="apikey_c"),
            usage("2026-10-06T10:00:00Z", input=70, api_key_id="apikey_b"),
        ],
        [
            line(AT, "a", usage=tokens(1000)),
            line(AT, "b", usage=tokens(500), workspace_id="wrkspc_b", api_key_id=None),
        ],
    ) as connection:  # fmt: skip
        assert found(connection, "reason, api_key_id, quantity") == [("unlogged_key", "apikey_b", 70)]


def test_a_keys_claim_ends_at_the_cells_variance(tmp_path):
    """The amount is the key's reported quantity, at most the cell's positive quantity variance."""
    with month(
        tmp_path,
        [usage(HOUR, input=1000), usage(HOUR, input=700, api_key_id="apikey_b")],
        [line(AT, "a", usage=tokens(1200))],
    ) as connection:
        assert bridge(connection)["unlogged_key"] == "0.0025"


def test_a_few_lines_too_many_take_nothing_off_a_silent_key(tmp_path):
    """Beside a key that nobody logs, less than a tenth of its use too much: both are shown in full, and do not net."""
    with month(
        tmp_path,
        [usage(HOUR, input=1000), usage(HOUR, input=700, api_key_id="apikey_b")],
        [line(AT, "a", usage=tokens(1000)), line("2026-10-05T15:30:00Z", "again", usage=tokens(60))],
    ) as connection:
        assert found(connection) == [("unlogged_key", 700, "0.0035"), ("unreported", -60, "-0.0003")]


def test_a_silent_key_leaves_room_for_use_without_a_key(tmp_path):
    """Use without a key is not logged, so a line without one is the silent key's: nothing of that is missing."""
    usages, lines = [], []
    for hour, quantity in steady(48):
        usages.append(usage(f"{hour}:00:00Z", input=10 * quantity, output=900))
        lines.append(line(f"{hour}:10:00Z", f"a{hour}", usage=tokens(10 * quantity, 900)))
    usages.append(usage(HOUR, input=300, api_key_id="apikey_b"))
    usages.append(usage(HOUR, input=500, api_key_id=None))
    lines.append(line(AT, "b", usage=tokens(300), api_key_id=None))
    with month(tmp_path, usages, lines) as connection:
        assert found(connection, "reason, quantity") == [("no_key", 500)]


def test_a_key_whose_lines_stand_elsewhere_is_not_silent(tmp_path):
    """No line names the key, and lines without one hold its use in another workspace: workspace, not unlogged_key."""
    place = {"workspace_id": "wrkspc_a", "api_key_id": "apikey_b"}
    usages, lines = [], []
    for hour, quantity in steady(48):
        usages.append(usage(f"{hour}:00:00Z", input=500, output=40))
        usages.append(usage(f"{hour}:00:00Z", input=quantity, output=quantity // 3, **place))
        lines.append(line(f"{hour}:10:00Z", f"a{hour}", usage=tokens(500, 40)))
        said = {"workspace_id": "wrkspc_b", "api_key_id": None}
        lines.append(line(f"{hour}:20:00Z", f"b{hour}", usage=tokens(quantity, quantity // 3), **said))
    with month(tmp_path, usages, lines) as connection:
        assert {row[0] for row in found(connection)} == {"workspace"}


def test_lines_without_a_key_can_be_a_silent_keys(tmp_path):
    """A key of few requests that no line names, whose lines name none: all that is reported is recorded."""
    usages, lines = [], []
    for hour, quantity in steady(48):
        usages.append(usage(f"{hour}:00:00Z", input=25 * quantity, output=900))
        usages.append(usage(f"{hour}:00:00Z", input=quantity, output=30, api_key_id="apikey_b"))
        lines.append(line(f"{hour}:10:00Z", f"a{hour}", usage=tokens(25 * quantity, 900)))
        lines.append(line(f"{hour}:20:00Z", f"b{hour}", usage=tokens(quantity, 30), api_key_id=None))
    with month(tmp_path, usages, lines) as connection:
        assert found(connection) == []


@pytest.mark.parametrize(("stands_on_lines", "is_claimed"), [(True, False), (False, True)])
def test_lines_that_name_nothing_can_be_a_silent_keys(tmp_path, stands_on_lines, is_claimed):
    """Lines without workspace and key, hours early, hold a silent key's requests: all counters of each are theirs."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(48)):
        usages.append(usage(f"{hour}:00:00Z", input=25 * quantity, output=900))
        usages.append(
            usage(f"{hour}:00:00Z", input=quantity, output=30 + number, read=3 * number, api_key_id="apikey_b")
        )
        lines.append(line(f"{hour}:10:00Z", f"a{hour}", usage=tokens(25 * quantity, 900)))
        early = datetime.fromisoformat(f"{hour}:20:00") - timedelta(hours=1 + 7 * number % 19)
        said = {"workspace_id": None, "api_key_id": None}
        counted = tokens(quantity if stands_on_lines else quantity + 1, 30 + number, cache_read_input_tokens=3 * number)
        lines.append(line(f"{early:%Y-%m-%dT%H:%M:%SZ}", f"b{hour}", usage=counted, **said))
    with month(tmp_path, usages, lines) as connection:
        assert ("unlogged_key" in {row[0] for row in found(connection)}) == is_claimed


def test_lines_without_a_key_that_are_hours_early_are_still_a_silent_keys(tmp_path):
    """Where most of a key's use is recorded by the day, a lost line of it is a lost line, and no unlogged key."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(48)):
        usages.append(usage(f"{hour}:00:00Z", input=25 * quantity, output=9000))
        lines.append(line(f"{hour}:10:00Z", f"a{hour}", usage=tokens(25 * quantity, 9000)))
        if number % 3 == 2:
            day = hour[:10]
            usages.append(usage(f"{hour}:00:00Z", input=quantity, output=30, api_key_id="apikey_b"))
            if number != 20:
                lines.append(line(f"{day}T00:20:00Z", f"b{hour}", usage=tokens(quantity, 30), api_key_id=None))
    with month(tmp_path, usages, lines) as connection:
        assert found(connection, "reason, quantity") == [("unlogged", 4317)]


def test_a_key_without_logs_is_unlogged(tmp_path):
    """With no request log at all, each key's usage is an unlogged key and keyless use no_key; nothing breaks."""
    with month(
        tmp_path, [usage(HOUR, input=1000), usage(HOUR, input=30, api_key_id=None)], []
    ) as connection:  # fmt: skip
        assert found(connection, "reason, quantity") == [("unlogged_key", 1000), ("no_key", 30)]


def test_logs_without_any_usage(tmp_path):
    """Nothing was reported and nothing billed: all that was recorded is unreported."""
    with month(tmp_path, [], [line(AT, usage=tokens(1000))]) as connection:
        assert found(connection) == [("unreported", -1000, "-0.005")]
        assert connection.execute("select capture_rate from report.summary").fetchone() == (None,)


def test_iterations_of_an_advisor_are_of_its_model(tmp_path):
    """An entry's own model where it has one; entries of type message are the top level and no extra."""
    entries = [
        {"type": "message", "input_tokens": 1000},
        {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 50},
    ]
    with closed(
        tmp_path,
        [usage(HOUR, input=1000), usage(HOUR, input=50, model="claude-opus-5-5")],
        [cost(DAY, "0.5", INPUT), cost(DAY, "0.02", INPUT, model="claude-opus-5-5")],
        [line(AT, usage=tokens(1000, iterations=entries))],
    ) as connection:
        assert found(connection, "reason, model, quantity, amount_usd") == [
            ("iterations", "claude-opus-5-5", 50, "0.0002")
        ]


# Price


def test_a_refused_request_is_uncharged_and_not_another_rate(tmp_path):
    """Whole tokens at the book's rate, but fewer than reported: uncharged, on that day alone."""
    usages = [usage(f"{day}T10:00:00Z", input=3000) for day in days("2026-10-05", 4)]
    costs = [*billed_for(usages[1:]), cost(DAY, "1.2345", INPUT)]
    lines = [line(f"{day}T10:00:00Z", day, usage=tokens(3000)) for day in days("2026-10-05", 4)]
    with closed(tmp_path, usages, costs, lines) as connection:
        assert found(connection, "reason, amount_usd") == [("uncharged", "-0.002655")]


def test_a_discount_begins_in_mid_month(tmp_path):
    """From the 20th on every meter of a model at 0.8 of list: discount from that day, and only of that model."""
    usages = [usage(f"{day}T10:00:00Z", input=3000, output=100) for day in days("2026-10-17", 6)]
    costs = [
        line_ | {"amount": str(Decimal(line_["amount"]) * (Decimal("0.8") if line_["at"] >= "2026-10-20" else 1))}
        for line_ in billed_for(usages)
    ]
    lines = [line(f"{day}T10:00:00Z", day, usage=tokens(3000, 100)) for day in days("2026-10-17", 6)]
    with closed(tmp_path, usages, costs, lines) as connection:
        assert found(connection, "reason, day_from::varchar, day_to::varchar, amount_usd") == [
            ("discount", "2026-10-20", "2026-10-22", "-0.0105")  # 3 days x $0.0175 x 0.2
        ]


def test_a_discount_begins_where_requests_are_unknown(tmp_path):
    """Haiku 5.5 at 0.9 of list: the first day, of which nothing is logged, is of the discount as its price fits it."""
    place = {"model": "claude-haiku-5-5"}
    dates = days("2026-10-17", 4)
    usages = [usage(f"{day}T10:00:00Z", input=3000, output=100, **place) for day in dates]
    cents = {INPUT: "0.027", OUTPUT: "0.0045"}
    costs = [cost(day, amount, meter, **place) for day in dates for meter, amount in cents.items()]
    lines = [line(f"{day}T10:30:00Z", day, usage=tokens(3000, 100), **place) for day in dates[1:]]
    with closed(tmp_path, usages, costs, lines) as connection:
        assert found(connection, "reason, day_from::varchar")[1:] == [("discount", "2026-10-17")]


def test_a_discount_and_another_rate_of_one_model(tmp_path):
    """All meters at 0.9 of list, and output at $30 in place of $25 before that: both are found, each in full."""
    usages = [usage(f"{day}T10:00:00Z", input=3000, read=5000, output=100) for day in days("2026-10-05", 6)]
    costs = []
    for day in days("2026-10-05", 6):
        costs += [cost(day, "1.35", INPUT), cost(day, "0.225", READ), cost(day, "0.27", OUTPUT)]  # 30 x 0.9 x 100
    use = tokens(3000, 100, cache_read_input_tokens=5000)
    lines = [line(f"{day}T10:00:00Z", day, usage=use) for day in days("2026-10-05", 6)]
    with closed(tmp_path, usages, costs, lines) as connection:
        # list a day: 0.015 + 0.0025 + 0.0025 = $0.02; discount 10 %, then output is billed $0.0027 for $0.00225
        assert found(connection, "reason, amount_usd") == [("discount", "-0.012"), ("price_book", "0.0027")]


def test_a_credit_is_not_a_discount(tmp_path):
    """A negative line stands where it was booked, as another rate than the book's."""
    usages = [usage(HOUR, input=3000)]
    with closed(
        tmp_path, usages, [*billed_for(usages), cost(DAY, "-1", INPUT, description="correction")],
        [line(AT, usage=tokens(3000))],
    ) as connection:  # fmt: skip
        assert bridge(connection)["billed"] == "0.005"
        assert sum(Decimal(row[1]) for row in found(connection, "reason, amount_usd")) == Decimal("-0.01")


# Both sides saw it, in different cells


def steady(count=48, first="2026-10-05T00"):
    """Hours and tokens of a log that writes one request an hour, no two hours alike."""
    day0, hour0 = first.split("T")
    for number in range(count):
        hour = int(hour0) + number
        yield f"{days(day0, hour // 24 + 1)[-1]}T{hour % 24:02}", 1000 + number * 7919 % 5003


@pytest.mark.parametrize("minutes", [-720, -300, -30, 60, 330, 840])
def test_a_clock_that_is_off_is_found_for_every_offset(tmp_path, minutes):
    """A whole log shifted by whole or half hours is time_zone and nothing else, at no dollars."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(96)):
        usages.append(usage(f"{hour}:00:00Z", input=quantity))
        sign, (h, m) = "-" if minutes > 0 else "+", divmod(abs(minutes), 60)
        # the instant is hour:20 UTC; written in a zone and then called UTC
        lines.append((f"req_{number}", f"{hour}:20:00{sign}{h:02}:{m:02}", quantity))
    written = [line(at, rid, usage=tokens(quantity)) for rid, at, quantity in lines]
    with month(tmp_path, usages, written) as connection:
        assert {row[0] for row in found(connection)} <= {"time_zone"}
        assert bridge(connection)["logged"] == bridge(connection)["billed"]
        shifted = connection.execute("select count(*) from report.cell where difference_usd <> 0").fetchone()
        assert shifted != (0,)


def test_a_log_that_is_right_beside_one_that_is_wrong(tmp_path):
    """Only the log whose clock is off gets time_zone; the other's hours stay its own."""
    usages = [usage(f"{hour}:00:00Z", input=2 * quantity) for hour, quantity in steady(96)]
    for name, zone in (("right", "Z"), ("wrong", "-05:00")):
        text = [
            json.dumps(line(f"{hour}:20:00{zone}", f"{name}_{hour}", usage=tokens(quantity)))
            for hour, quantity in steady(96)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(text) + "\n")
    logs = [{"name": name, "path": f"{name}.jsonl"} for name in ("right", "wrong")]
    with month(tmp_path, usages, [], config=write_config(tmp_path, request_logs=logs)) as connection:
        assert found(connection, "reason, log") == [("time_zone", "wrong")]


@pytest.mark.parametrize("is_billed", [False, True])
def test_lines_with_an_error_do_not_hide_what_is_lost(tmp_path, is_billed):
    """Where the report knows nothing of them, a lost line beside one is unlogged in full; where it does, they count."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(48)):
        usages.append(usage(f"{hour}:00:00Z", input=quantity, output=quantity // 3))
        if number != 20:
            lines.append(line(f"{hour}:10:00Z", f"a{number}", usage=tokens(quantity, quantity // 3)))
        if number in {8, 20, 31}:
            lines.append(line(f"{hour}:30:00Z", f"b{number}", usage=tokens(300, 40), status=529))
            if is_billed:
                usages.append(usage(f"{hour}:00:00Z", input=300, output=40))
    lost = [quantity + quantity // 3 for number, (_, quantity) in enumerate(steady(48)) if number == 20]
    with month(tmp_path, usages, lines) as connection:
        left = dict(found(connection, "reason, quantity"))
        assert left == {"unlogged": lost[0]} | ({} if is_billed else {"unreported": -1020})


@pytest.mark.parametrize(
    ("an_hour", "silent", "lost", "expected"),
    [
        (4, range(60, 63), (), {"log_gap": 12}),  # three hours of a busy log
        (1, range(60, 64), (), {"log_gap": 4}),  # four of a quiet one, whose use is missing in each of them
        (1, (), (60,), {"unlogged": 1}),  # one hour of a quiet log is a lost line
        (1, range(60, 64), (90,), {"log_gap": 4, "unlogged": 1}),
    ],
)
def test_a_gap_is_told_from_lost_lines(tmp_path, an_hour, silent, lost, expected):
    """Hours without a line are a gap where chance would hardly leave them out: by what else is written, and missing."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(144)):
        for minute in range(an_hour):
            usages.append(usage(f"{hour}:00:00Z", input=quantity + minute, output=quantity // 3))
            if number not in silent and number not in lost:
                said = tokens(quantity + minute, quantity // 3)
                lines.append(line(f"{hour}:{10 + minute}:00Z", f"a{number}.{minute}", usage=said))
    with month(tmp_path, usages, lines) as connection:
        requests = {}
        for reason, quantity in found(connection, "reason, quantity"):
            hours = [*silent] if reason == "log_gap" else [*lost]
            tokens_of = [quantity_ for number, (_, quantity_) in enumerate(steady(144)) if number in hours]
            assert quantity == sum(an_hour * (one + one // 3) + sum(range(an_hour)) for one in tokens_of)
            requests[reason] = an_hour * len(hours)
        assert requests == expected


def test_a_log_that_is_less_used_has_no_gaps(tmp_path):
    """From the fourth day on one request a day, one of which is lost: hours without a line are usual by then."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(240)):
        if number < 72 or number % 24 == 10:
            usages.append(usage(f"{hour}:00:00Z", input=quantity, output=quantity // 3))
            if number != 178:
                lines.append(line(f"{hour}:10:00Z", f"a{number}", usage=tokens(quantity, quantity // 3)))
    with month(tmp_path, usages, lines) as connection:
        assert [reason for (reason,) in found(connection, "reason")] == ["unlogged"]


def test_a_log_of_few_requests_has_no_gaps_beside_one_that_loses_lines(tmp_path):
    """Neither names keys: what the busy one loses while the other is silent, as it always does, is no gap of that."""
    drawn = random.Random(1)  # noqa: S311 - a seed, no secret
    models = ("claude-opus-4-6", "claude-opus-4-5-20251101", "claude-sonnet-4-6", "claude-opus-4-7")
    usages, lines = [], {"rare": [], "busy": []}
    for number, (hour, quantity) in enumerate(steady(24 * 29, "2026-10-02T00")):
        for log, minute in [("busy", 0), ("busy", 1), ("busy", 2), *([("rare", 9)] if number % 8 == 3 else [])]:
            place = {"model": models[3] if log == "rare" else drawn.choice(models), "api_key_id": None}
            usages.append(usage(f"{hour}:00:00Z", input=quantity + minute, output=quantity // 3, **place))
            if drawn.random() > 0.15:
                use = tokens(quantity + minute, quantity // 3)
                lines[log].append(line(f"{hour}:{10 + minute}:00Z", f"{log}{number}.{minute}", usage=use, **place))
    config = several_logs(tmp_path, lines)
    with month(tmp_path, usages, [], config=config) as connection:
        assert connection.execute("from explained.gap").fetchall() == []


def beside(folder, said):
    """Two logs of one workspace, each of its own key, every hour of eight days; ``said`` makes a line of each."""
    usages, lines = [], {"large": [], "small": []}
    for number, (hour, quantity) in enumerate(steady(192)):
        for log, factor in (("large", 3), ("small", 1)):
            key, use = f"apikey_{log}", factor * quantity
            usages.append(
                usage(f"{hour}:00:00Z", input=use, write_5m=use, write_1h=use, output=use // 3, api_key_id=key)
            )
            written = {"ephemeral_5m_input_tokens": use, "ephemeral_1h_input_tokens": use}
            one = tokens(use, use // 3, cache_creation=written, cache_creation_input_tokens=2 * use)
            if one := said(log, number, one):
                lines[log].append(line(f"{hour}:20:00Z", f"{log}{number}", usage=one, api_key_id=key))
    scope = {"type": "workspace", "workspace_id": "wrkspc_a"}
    keys = [{"id": f"apikey_{log}", "name": log, "status": "active", "scope": scope} for log in lines]
    return month(folder, usages, [], config=several_logs(folder, lines), api_keys=keys)


def test_two_logs_are_silent_in_the_same_hours(tmp_path):
    """What each of them misses is missing in its own log: they serve other keys."""
    with beside(tmp_path, lambda log, number, one: None if 90 <= number < 100 else one) as connection:
        lost = [quantity for _, quantity in steady(192)][90:100]
        gaps = {
            log: quantity for reason, log, quantity in found(connection, "reason, log, quantity") if reason == "log_gap"
        }
        assert gaps == {
            log: sum(3 * factor * one + factor * one // 3 for one in lost)
            for log, factor in (("large", 3), ("small", 1))
        }


def test_lifetimes_that_one_log_does_not_split_are_that_logs(tmp_path):
    """Beside a log that holds more and tells lifetimes apart."""

    def said(log, _number, one):
        return one if log == "large" else {name: value for name, value in one.items() if name != "cache_creation"}

    with beside(tmp_path, said) as connection:
        assert ("cache_ttl", "small") in found(connection, "reason, log")
        assert ("cache_ttl", "large") not in found(connection, "reason, log")


def test_streams_without_an_end_are_those_of_the_log_that_holds_them(tmp_path):
    """Beside a log that holds more lines, none of a stream."""
    usages, lines = [], {"large": [], "small": []}
    for number, (hour, quantity) in enumerate(steady(96)):
        for log, key, count in (("large", "apikey_a", 3), ("small", "apikey_b", 1)):
            usages.append(usage(f"{hour}:00:00Z", input=count * quantity, output=count * 400, api_key_id=key))
            lines[log] += [
                line(
                    f"{hour}:2{part}:00Z", f"{log}{number}.{part}", api_key_id=key,
                    usage=tokens(quantity, 1 if log == "small" and number % 2 else 400),
                    **({"event": "message_start", "stream": True} if log == "small" and number % 2 else {}),
                )
                for part in range(count)
            ]  # fmt: skip
    with month(tmp_path, usages, [], config=several_logs(tmp_path, lines)) as connection:
        assert found(connection, "reason, log") == [("cut_stream", "small")]


@pytest.mark.parametrize(
    ("reads", "is_wrong", "told"),
    [
        (0.4, lambda number, _key: number >= 100, {"from": "2026-10-09T04:00Z"}),
        (0.4, lambda number, _key: number < 50, {"until": "2026-10-07T02:00Z"}),
        (3, lambda number, _key: 50 <= number < 150, {"from": "2026-10-07T02:00Z", "until": "2026-10-11T06:00Z"}),
        (0.4, lambda _number, key: key == "apikey_a", {"of_the_keys": ["apikey_a"]}),
        (3, lambda number, key: (number, key) != (100, "apikey_b"), {}),  # one line is right
    ],
)
def test_cached_tokens_counted_twice_in_a_part_of_a_log(tmp_path, reads, is_wrong, told):
    """A release in mid-month, one of two services, one odd line: what is counted twice is found to the token."""
    usages, lines, twice = [], [], 0
    for number, (hour, quantity) in enumerate(steady(240)):
        for key in ("apikey_a", "apikey_b"):
            read = int(reads * quantity) + number
            usages.append(usage(f"{hour}:00:00Z", input=quantity, read=read, output=quantity // 3, api_key_id=key))
            wrong = read if is_wrong(number, key) else 0
            twice += wrong
            use = tokens(quantity + wrong, quantity // 3, cache_read_input_tokens=read)
            lines.append(line(f"{hour}:20:00Z", f"{key}{number}", usage=use, api_key_id=key))
    scope = {"type": "workspace", "workspace_id": "wrkspc_a"}
    keys = [{"id": f"apikey_{key}", "name": key, "status": "active", "scope": scope} for key in "ab"]
    with month(tmp_path, usages, lines, api_keys=keys) as connection:
        [(reason, quantity, evidence), *others] = found(connection, "reason, quantity, evidence")
        assert (reason, quantity) == ("cache_inclusive", -twice)
        assert {reason for reason, *_ in others} <= {"uncharged"}
        evidence = json.loads(evidence)
        assert {
            name: evidence[name] for name in ("of_the_keys", "from", "until") if name in evidence
        } == told or reads == 3


@pytest.mark.parametrize("reads", [5, 0.2])
def test_cached_tokens_counted_twice_on_single_lines(tmp_path, reads):
    """One line of nine: what is too much in an hour is what its line holds of cached tokens, to the token."""
    usages, lines, twice = [], [], 0
    for number, (hour, quantity) in enumerate(steady(240)):
        read = int(reads * quantity)
        wrong = 0 if number % 9 else read
        twice += wrong
        usages.append(usage(f"{hour}:00:00Z", input=quantity, read=read, output=quantity // 3))
        use = tokens(quantity + wrong, quantity // 3, cache_read_input_tokens=read)
        lines.append(line(f"{hour}:20:00Z", f"r{number}", usage=use))
    with month(tmp_path, usages, lines) as connection:
        quantities = dict(found(connection, "reason, quantity"))
        assert quantities.pop("cache_inclusive") == -twice
        assert quantities.keys() <= {"uncharged"}


def test_lines_of_a_busy_hour_that_count_cached_tokens_twice(tmp_path):
    """One line of five, one or two of the six of an hour: what is too much tells which, by their sum."""
    usages, lines, twice = [], [], {}
    for number, (hour, quantity) in enumerate(steady(240)):
        for part in range(6):
            read = quantity // 5 + 97 * part
            usages.append(usage(f"{hour}:00:00Z", input=quantity, read=read, output=quantity // 3))
            wrong = read if (6 * number + part) % 5 == 0 else 0
            if wrong:
                twice[f"r{number}.{part}"] = wrong
            use = tokens(quantity + wrong, quantity // 3, cache_read_input_tokens=read)
            lines.append(line(f"{hour}:2{part}:00Z", f"r{number}.{part}", usage=use))
    with month(tmp_path, usages, lines) as connection:
        [(finding, quantity, evidence)] = connection.execute("""
            select id, quantity, evidence from report.discrepancy where reason = 'cache_inclusive'
        """).fetchall()
        assert quantity == -sum(twice.values())
        assert int(json.loads(evidence)["on_single_lines"]) == len(twice)
        behind = requests_behind(connection, finding, 5000)
        assert {row["request_id"] for row in behind.rows if row["known"]} == twice.keys()


def test_lines_too_many_that_are_all_alike_do_not_count_cached_tokens_twice(tmp_path):
    """A line that nobody counted has as much input as two have cached tokens; it has reads too many as well."""
    usages, lines = [], []
    for number, (hour, _) in enumerate(steady(96)):
        usages.append(usage(f"{hour}:00:00Z", input=6000, read=3000, output=90))
        for part in range(4 if number % 6 == 0 else 3):
            use = tokens(2000, 30, cache_read_input_tokens=1000)
            lines.append(line(f"{hour}:2{part}:00Z", f"r{number}.{part}", usage=use))
    with month(tmp_path, usages, lines) as connection:
        quantities = dict(found(connection, "reason, quantity"))
        assert quantities.pop("unreported") == -16 * 3030
        assert quantities.keys() <= {"uncharged"}


@pytest.mark.parametrize("names", [None, "wrkspc_gone"])
def test_cached_tokens_counted_twice_where_lines_stand_in_no_place_of_their_own(tmp_path, names):
    """Neither key nor the right workspace, beside a log that counts them twice as well: the model's whole use tells."""
    usages, lines, twice = [], {"placed": [], "lost": []}, Counter()
    for number, (hour, quantity) in enumerate(steady(96)):
        for log, factor in (("placed", 3), ("lost", 1)):
            use, read = factor * quantity, factor * quantity // 2 + number
            usages.append(usage(f"{hour}:00:00Z", input=use, read=read, output=use, api_key_id=f"apikey_{log}"))
            twice[log] -= read
            said = {"workspace_id": names, "api_key_id": None} if log == "lost" else {"api_key_id": "apikey_placed"}
            counted = tokens(use + read, use, cache_read_input_tokens=read)
            lines[log].append(line(f"{hour}:20:00Z", f"{log}{number}", usage=counted, **said))
    with month(tmp_path, usages, [], config=several_logs(tmp_path, lines)) as connection:
        quantities = {(reason, log): quantity for reason, log, quantity in found(connection, "reason, log, quantity")}
        assert {log: quantities.pop(("cache_inclusive", log)) for log in lines} == twice
        assert {reason for reason, _ in quantities} <= {"workspace", "uncharged"}


@pytest.mark.parametrize("names", [None, "wrkspc_gone"])
def test_a_log_whose_places_are_not_reported_is_not_taken_to_count_cached_tokens_twice(tmp_path, names):
    """A thousand lines and more whose input is little above what they hold of cached tokens."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(350)):
        usages.append(usage(f"{hour}:00:00Z", input=3 * quantity, read=3 * (quantity * 7 // 10), output=3 * quantity))
        for part in range(3):
            use = tokens(quantity, quantity, cache_read_input_tokens=quantity * 7 // 10)
            said = {"workspace_id": names, "api_key_id": None}
            lines.append(line(f"{hour}:2{part}:00Z", f"a{number}.{part}", usage=use, **said))
    with month(tmp_path, usages, lines) as connection:
        assert {reason for (reason,) in found(connection, "reason")} == {"workspace", "uncharged"}


def test_a_clock_is_found_where_lines_name_no_workspace(tmp_path):
    """Three of five lines name neither key nor workspace: what the model's use is, whatever the workspace, tells."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(96)):
        usages.append(usage(f"{hour}:00:00Z", input=quantity, output=quantity // 3))
        stamped = datetime.fromisoformat(f"{hour}:40:00+00:00") + timedelta(hours=5)
        said = {"workspace_id": None if number % 5 < 3 else "wrkspc_a", "api_key_id": None}
        lines.append(line(
            f"{stamped:%Y-%m-%dT%H:%M:%SZ}", f"a{number}", usage=tokens(quantity, quantity // 3), **said,
        ))  # fmt: skip
    with month(tmp_path, usages, lines) as connection:
        assert connection.execute("select minutes from explained.shift").fetchall() == [(300,)]
        assert {reason for (reason,) in found(connection, "reason")} == {"time_zone", "workspace"}


def test_a_clock_is_found_beside_use_that_nobody_logs(tmp_path):
    """A log that names no keys, five hours ahead, in a workspace most of whose use is of a key without a log."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(96)):
        usages.append(usage(f"{hour}:00:00Z", input=quantity, output=quantity // 3))
        if number % 3:
            usages.append(usage(f"{hour}:00:00Z", input=quantity, output=7 * (9000 - quantity), api_key_id="apikey_b"))
        stamped = datetime.fromisoformat(f"{hour}:40:00+00:00") + timedelta(hours=5)
        said = {"usage": tokens(quantity, quantity // 3), "api_key_id": None}
        lines.append(line(f"{stamped:%Y-%m-%dT%H:%M:%SZ}", f"a{number}", **said))
    with month(tmp_path, usages, lines) as connection:
        assert connection.execute("select minutes from explained.shift").fetchall() == [(300,)]


def test_exchanged_lifetimes_beside_a_log_without_a_split(tmp_path):
    """Two logs of one workspace name no keys, one does not split its writes: the hours of the other alone tell."""
    usages, lines = [], {"plain": [], "swapped": []}
    for number, (hour, quantity) in enumerate(steady(96)):
        log, w5, w1 = ("plain", 20 * quantity, 25 * quantity) if number % 3 else ("swapped", quantity, 3 * quantity)
        usages.append(usage(f"{hour}:00:00Z", input=500, write_5m=w5, write_1h=w1, output=40))
        split = {"ephemeral_5m_input_tokens": w1, "ephemeral_1h_input_tokens": w5}
        writes = {"cache_creation_input_tokens": w5 + w1} | ({"cache_creation": split} if log == "swapped" else {})
        lines[log].append(line(f"{hour}:20:00Z", f"r{number}", usage=tokens(500, 40, **writes), api_key_id=None))
    config = several_logs(tmp_path, lines)
    with month(tmp_path, usages, [], config=config) as connection:
        told = connection.execute("""
            select evidence ->> 'lifetimes_are_exchanged' from report.discrepancy
            where reason = 'cache_ttl' and log = 'swapped'
        """).fetchall()
        assert told == [("on every line",)]


def test_a_log_that_agrees_is_not_exchanged_because_another_does_not_split(tmp_path):
    """Beside a log without a split, whose writes were of the longer lifetime, one that is right has no finding."""
    usages, lines = [], {"right": [], "plain": []}
    other = {"workspace_id": "wrkspc_b", "api_key_id": "apikey_b"}
    for number, (hour, quantity) in enumerate(steady(96)):
        short, long = quantity // 3, quantity - quantity % 700
        usages.append(usage(f"{hour}:00:00Z", input=500, write_5m=quantity, output=40))
        usages.append(usage(f"{hour}:00:00Z", input=700, write_5m=short, write_1h=long, output=60, **other))
        split = {"cache_creation": {"ephemeral_5m_input_tokens": quantity, "ephemeral_1h_input_tokens": 0}}
        whole = {"cache_creation_input_tokens": short + long}
        lines["right"].append(line(f"{hour}:20:00Z", f"a{number}", usage=tokens(500, 40, **split)))
        lines["plain"].append(line(f"{hour}:20:00Z", f"b{number}", usage=tokens(700, 60, **whole), **other))
    config = several_logs(
        tmp_path,
        lines,
        allocation={"cost_centers": {"CC-1": {"name": "All"}}, "rules": [{"workspace": "*", "to": "CC-1"}]},
    )
    workspaces = [{"id": "wrkspc_a", "name": "a"}, {"id": "wrkspc_b", "name": "b"}]
    with month(tmp_path, usages, [], config=config, workspaces=workspaces) as connection:
        logs = connection.execute("select distinct log from report.discrepancy where reason = 'cache_ttl'").fetchall()
        assert logs == [("plain",)]


def test_lines_in_a_wrong_workspace_are_not_exchanged_because_others_are(tmp_path):
    """One log writes its lifetimes for the other; a second, which is right, books half of its lines beside it."""
    usages, lines = [], {"swapped": [], "moved": []}
    for number, (hour, quantity) in enumerate(steady(96)):
        w5, w1 = 30 * quantity, 0
        other = {"workspace_id": "wrkspc_b", "api_key_id": "apikey_b"}
        usages.append(usage(f"{hour}:00:00Z", input=500, write_1h=w5, output=40))
        usages.append(usage(f"{hour}:00:00Z", input=700, write_5m=w5, output=60, **other))
        writes = {"cache_creation": {"ephemeral_5m_input_tokens": w5, "ephemeral_1h_input_tokens": w1}}
        lines["swapped"].append(line(f"{hour}:20:00Z", f"s{number}", usage=tokens(500, 40, **writes)))
        said = {"api_key_id": None, "workspace_id": "wrkspc_a" if number % 8 else "wrkspc_b"}
        lines["moved"].append(line(f"{hour}:20:00Z", f"m{number}", usage=tokens(700, 60, **writes), **said))
    config = several_logs(
        tmp_path,
        lines,
        allocation={"cost_centers": {"CC-1": {"name": "All"}}, "rules": [{"workspace": "*", "to": "CC-1"}]},
    )
    workspaces = [{"id": "wrkspc_a", "name": "a"}, {"id": "wrkspc_b", "name": "b"}]
    with month(tmp_path, usages, [], config=config, workspaces=workspaces) as connection:
        logs = connection.execute("select distinct log from report.discrepancy where reason = 'cache_ttl'").fetchall()
        assert logs == [("swapped",)]


def test_dollars_of_two_confusions_stand_where_each_costs(tmp_path):
    """Two calls on one line, and as a batch: the tier costs, the window does not, though no cell is on the way."""
    usages, lines = [], []
    for number, (hour, quantity) in enumerate(steady(30)):
        usages.append(usage(f"{hour}:00:00Z", input=100 * quantity, output=quantity // 3, read=number))
        said = tokens(100 * quantity, quantity // 3, service_tier="batch", cache_read_input_tokens=number)
        lines.append(line(f"{hour}:10:00Z", f"a{number}", usage=said))
    with closed(tmp_path, usages, [], lines) as connection:
        moved = dict(
            connection.execute("""
            select reason, sum(amount_usd) from report.discrepancy
            where reason in ('service_tier', 'context_window', 'unlogged', 'unreported') group by reason
        """).fetchall()
        )
        whole_usd = sum(100 * one * Decimal("0.0000025") + one // 3 * Decimal("0.0000125") for _, one in steady(30))
        reads_usd = sum(range(30)) * Decimal("0.00000025")
        assert moved.pop("service_tier") == whole_usd + reads_usd
        assert moved == {"context_window": 0}


def test_noise_that_cancels_is_no_reason(tmp_path):
    """Too much on one day and as much too little on the next in other hours is not cutoff: unlogged and unreported."""
    usages = [usage("2026-10-05T10:00:00Z", input=5000), usage("2026-10-06T15:00:00Z", input=5000)]
    lines = [
        line("2026-10-05T10:30:00Z", "a", usage=tokens(5500)), line("2026-10-06T15:30:00Z", "b", usage=tokens(4500)),
    ]  # fmt: skip
    with month(tmp_path, usages, lines) as connection:
        assert {row[0] for row in found(connection)} == {"unlogged", "unreported"}


def test_a_workspace_mix_up_moves_more_than_it_nets(tmp_path):
    """It nets to $0.00 and sends a bill to the wrong team: moved_usd is both ends, and tolerance is applied to it."""
    usages = [usage(f"{hour}:00:00Z", input=quantity) for hour, quantity in steady(48)]
    lines = [
        line(f"{hour}:20:00Z", hour, usage=tokens(quantity), workspace_id="wrkspc_b") for hour, quantity in steady(48)
    ]
    total = sum(quantity for _, quantity in steady(48)) * Decimal("0.000005")
    with month(tmp_path, usages, lines) as connection:
        [(reason, amount, moved, beyond)] = found(connection, "reason, amount_usd, moved_usd, beyond_tolerance")
        assert (reason, amount, beyond) == ("workspace", "0", True)
        assert total <= Decimal(moved) <= 2 * total


# What holds for every organization

MODELS = {
    "claude-opus-4-7": ("global", (5, 25)), "claude-opus-5-5": ("us", ("4.4", 22)),
    "claude-haiku-5-5": ("global", ("0.1", "0.5")), "claude-nova-9": ("global", (7, 7)),
}  # fmt: skip
QUANTITY = st.sampled_from([0, 1, 7, 1000, 33_333, 120_000])


@st.composite
def organizations(draw):
    """A few rows of usage, the bill they should have, the log they should have, each with what may go wrong."""
    usages, costs, lines = [], [], []
    for number in range(draw(st.integers(0, 7))):
        model = draw(st.sampled_from(sorted(MODELS)))
        geo, prices = MODELS[model]
        day = draw(st.sampled_from(["2026-09-30", "2026-10-07", "2026-10-08", "2026-10-31", "2026-11-01"]))
        hour = draw(st.sampled_from([0, 10, 23]))
        workspace = draw(st.sampled_from(["wrkspc_a", "wrkspc_b", None]))
        key = draw(st.sampled_from(["apikey_a", "apikey_b", None]))
        tier = draw(st.sampled_from(["standard", "standard", "batch", "priority"]))
        quantities = {"input": draw(QUANTITY), "output": draw(QUANTITY)}
        searches = draw(st.sampled_from([0, 0, 2]))
        place = {"model": model, "inference_geo": geo, "service_tier": tier, "workspace_id": workspace}
        usages.append(usage(f"{day}T{hour:02}:00:00Z", api_key_id=key, searches=searches, **quantities, **place))
        if "2026-10-01" <= day <= "2026-10-31" and tier != "priority":
            times = draw(st.sampled_from(["1", "1", "1", "0.9", "1.04", "0", "-1", "0.3333333333333333", "50000"]))
            for name, price in zip(("input", "output"), prices, strict=True):
                amount = quantities[name] * Decimal(price) * Decimal(times) / 10_000 / (2 if tier == "batch" else 1)
                if amount:
                    meter = {"input": INPUT, "output": OUTPUT}[name]
                    costs.append(cost(day, format(amount, "f"), meter, **place))
        copies = draw(st.sampled_from([0, 1, 1, 1, 2]))
        off = draw(st.sampled_from([{}, {}, {}, {"workspace_id": "wrkspc_b"}, {"model": "claude-opus-4-7"}]))
        at = draw(st.sampled_from([f"{day}T{hour:02}:20:00Z", f"{day}T{hour:02}:59:59.999Z", "2026-10-09T05:00:00Z"]))
        event = draw(st.sampled_from([None, None, "message_start"]))
        use = tokens(
            quantities["input"], draw(st.sampled_from([quantities["output"], 1])), service_tier=tier,
            server_tool_use={"web_search_requests": draw(st.sampled_from([searches, 0]))},
        ) | {"inference_geo": geo}  # fmt: skip
        own = draw(st.sampled_from([{}, {}, {"cost_usd": "0.1"}, {"cost_usd": "-0.01"}, {"status": 500}]))
        row = {"model": model, "workspace_id": workspace or "wrkspc_default", "api_key_id": key, "event": event} | own
        request_id = draw(st.sampled_from([f"req_{number}", f"req_{number}", None, "req_same"]))
        lines += [line(at, request_id, usage=use, **row | off)] * copies
    return usages, costs, lines


def views(folder, usages, costs, lines):
    """Every public view of the month, and the cells whose parts do not sum to their difference."""
    folder.mkdir()
    with closed(folder, usages, costs, lines) as connection:
        names = ("summary", "cell", "usage", "bridge", "discrepancy", "allocation", "chargeback")
        wrong = connection.execute("""
            with part as (
                select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
                    sum(amount_usd) as amount_usd
                from explained.part where meter is not null group by all
            )
            select cell.* from report.cell as cell
            left join part on part.day = cell.day and part.meter = cell.meter
                and part.workspace_id is not distinct from cell.workspace_id
                and part.model is not distinct from cell.model
                and part.service_tier is not distinct from cell.service_tier
                and part.context_window is not distinct from cell.context_window
                and part.inference_geo is not distinct from cell.inference_geo
                and part.speed is not distinct from cell.speed
            where cell.difference_usd <> coalesce(part.amount_usd, 0)
        """).fetchall()
        assert wrong == []
        return {name: ledger.rows(connection, f"from report.{name}") for name in names}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(organization=organizations(), seed=st.integers(0, 1000))
def test_whatever_goes_wrong_the_bridge_adds_up(tmp_path_factory, organization, seed):
    """The bridge adds up exactly, parts sum to each cell's difference, and the order of rows changes no view."""
    folder = tmp_path_factory.mktemp("organization")
    first = views(folder / "a", *organization)
    running = first["bridge"][0]["running_usd"]
    for row in first["bridge"]:
        running += row["amount_usd"] or 0
        assert row["running_usd"] == running
    assert running == first["summary"][0]["billed_usd"]
    assert all(row["moved_usd"] >= abs(row["amount_usd"]) for row in first["discrepancy"])
    order = random.Random(seed)  # noqa: S311 - a seeded shuffle
    shuffled = [order.sample(rows, len(rows)) for rows in organization]
    assert views(folder / "b", *shuffled) == first
