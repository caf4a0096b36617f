"""Allocation: literal charges in, literal parts out; and what holds for any charges."""

from contextlib import closing
from datetime import date
from decimal import Decimal
from random import Random

import duckdb
import month as month_of
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile import ledger, money
from reconcile.allocate import allocate
from reconcile.allocate.budgets import _month_budget
from reconcile.config import Allocation, Budget, Pool
from reconcile.errors import ConfigError, InvariantError, SourceError

DIMS = """day date, workspace_id varchar, model varchar, service_tier varchar, context_window varchar,
    inference_geo varchar, speed varchar, meter varchar, in_period boolean"""
KIND = "workspace_id varchar, model varchar, service_tier varchar, meter varchar"
TABLES = {
    "source.workspace": "workspace_id varchar, name varchar, tags varchar",
    "source.api_key": "api_key_id varchar, name varchar",
    "source.earlier_chargeback": "period varchar, through_on date, cost_center varchar, payable_usd decimal(38, 2)",
    "source.earlier_spend": f"""cost_center varchar, basis varchar, route varchar, receiver varchar,
        conditional boolean, {KIND}, amount_usd decimal(38, 12)""",
    "source.earlier_kind": f"{KIND}, quantity bigint, billed_usd decimal(38, 12)",
    "source.earlier_route": "route varchar",
    "matched.cell": f"""{DIMS}, recorded_quantity bigint, reported_quantity bigint,
        recorded_usd decimal(38, 12), reported_usd decimal(38, 12), billed_usd decimal(38, 12)""",
    "matched.usage": f"{DIMS}, api_key_id varchar, reported_quantity bigint, reported_usd decimal(38, 12)",
    "matched.label": f"""{DIMS}, api_key_id varchar, label varchar, value varchar, recorded_quantity bigint,
        requests bigint, recorded_usd decimal(38, 12)""",
    "matched.recorded": f"{DIMS}, log varchar, api_key_id varchar, over_step boolean, quantity bigint, requests bigint",
    "matched.price": """day date, model varchar, service_tier varchar, context_window varchar, inference_geo varchar,
        speed varchar, meter varchar, price_unit varchar, price_usd decimal(38, 12), price_high_usd decimal(38, 12)""",
    "explained.finding": "id varchar, reason varchar",
    "explained.part": f"finding_id varchar, {DIMS.removesuffix(', in_period boolean')}, amount_usd decimal(38, 12)",
    "explained.invoice_step": "reason varchar, title varchar, amount_usd decimal(38, 12), restated_usd decimal(38, 12)",
    "source.restatement": f"""period_of_charge varchar, {DIMS.removesuffix(", in_period boolean")},
        amount_usd decimal(38, 12)""",
    "source.restatement_part": f"""period_of_charge varchar, {DIMS.removesuffix(", in_period boolean")},
        cost_center varchar, amount_usd decimal(38, 12)""",
}
OUTPUT, INPUT = "output_tokens", "uncached_input_tokens"
FIRST = date(2026, 10, 1)


def dims(day=1, workspace="wrkspc_search", model="claude-opus-4-7", meter=OUTPUT, window="0-200k"):
    """A cell's dimensions on a day of October 2026."""
    on = date(2026, 10, day) if isinstance(day, int) else day
    if meter in {"code_execution", "session_usage", "web_search_requests"}:
        return (on, workspace, None, None, None, None, None, meter)
    return (on, workspace, model, "standard", window, "global", "standard", meter)


def cell(billed, *, recorded=None, reported=None, quantities=(None, None), in_period=True, **where):
    """A row of matched.cell."""
    return (*dims(**where), in_period, *quantities, recorded, reported, billed)


def usage(key, quantity, *, usd=None, in_period=True, **where):
    """A row of matched.usage: what one API key used in a cell."""
    return (*dims(**where), in_period, key, quantity, usd)


def labeled(value, usd, *, quantity=1, label="team", key=None, requests=1, in_period=True, **where):
    """A row of matched.label: what the requests with one value recorded in a cell."""
    return (*dims(**where), in_period, key, label, value, quantity, requests, usd)


def recorded(quantity, *, log="gateway", key=None, requests=1, **where):
    """A row of matched.recorded: what one log and key recorded in a cell."""
    return (*dims(**where), True, log, key, False, quantity, requests)


def price(usd, *, unit="MTok", **where):
    """A row of matched.price."""
    day, _, *kind, meter = dims(**where)
    return (day, *kind, meter, unit, usd, None)


WORKSPACES = [
    ("default", "Default", None),
    ("wrkspc_search", "Search", "{}"),
    ("wrkspc_ads", "Ads [EU]?", '{"cost_center": "CC-200"}'),
    ("wrkspc_old", "Old", '{"cost_center": "CC-999"}'),
    ("wrkspc_evil", '<script>alert(1)</script> & "Co"', None),
    ("wrkspc_formula", "=1+1'; drop table source.run; --", None),
]
KEYS = [("apikey_a", "search-prod"), ("apikey_b", "search-test"), ("apikey_c", "ads-prod")]
CENTERS = {"CC-100": {"name": "Search"}, "CC-200": {"name": "Ads"}, "CC-300": {"name": "O'Brien <b>"}}


@pytest.fixture
def connection():
    with closing(duckdb.connect()) as opened:
        ledger.prepare(opened)
        yield opened


def fill(connection, *, cells=(), usages=(), labels=(), workspaces=WORKSPACES, through=31, **rows):
    """Build what load, match and explain would have written; further tables by schema and name."""
    connection.execute(
        f"""create or replace table source.run as select '2026-10' as period, date '2026-10-01' as start_on,
            date '2026-11-01' as end_on, date '2026-10-{through}' as through_on"""
    )
    named = {
        "source.workspace": workspaces,
        "source.api_key": KEYS,
        "matched.cell": cells,
        "matched.usage": usages,
        "matched.label": labels,
    }
    named |= {name.replace("_", ".", 1): table for name, table in rows.items()}
    for table, columns in TABLES.items():
        connection.execute(f"create or replace table {table} ({columns})")
        if held := list(named.pop(table, ())):
            connection.executemany(f"insert into {table} values ({', '.join('?' * len(held[0]))})", held)
    assert not named


def split(connection, *, rules=(), shared=(), centers=CENTERS, budgets=(), unallocated_percent=None, **rows):
    """Fill, allocate, look at the checks."""
    fill(connection, **rows)
    allocate(
        connection,
        Allocation.model_validate({"cost_centers": centers, "rules": list(rules), "shared": list(shared)}),
        budgets=[Budget.model_validate(budget) for budget in budgets],
        unallocated_percent=unallocated_percent,
    )
    ledger.check(connection)


def parts(connection, columns="cost_center, basis, amount_usd", where="true"):
    """The parts as rows, amounts without trailing zeros."""
    found = connection.execute(f"select {columns} from allocated.part where {where} order by all").fetchall()
    return [tuple(plain(value) for value in row) for row in found]


def plain(value):
    return f"{value.normalize():f}" if isinstance(value, Decimal) else value


def warnings(connection):
    return [row[0] for row in connection.execute("select warning from allocated.warning order by position").fetchall()]


def chargeback(connection):
    found = connection.execute(
        "select cost_center, direct_usd, shared_usd, total_usd, payable_usd from allocated.chargeback"
    ).fetchall()
    return {row[0]: tuple(str(value) for value in row[1:]) for row in found}


# Workspaces and tags


def test_columns_are_those_of_the_public_views(connection):
    """Part has the columns of report.allocation and its quantity, chargeback those of report.chargeback."""
    split(connection)
    described = {
        table: [(row[0], row[1]) for row in connection.execute(f"describe allocated.{table}").fetchall()]
        for table in ("part", "chargeback")
    }
    text = ["cost_center", "basis", "rule", "pool", "driver"]
    assert described["part"] == [
        ("day", "DATE"),
        *(
            (name, "VARCHAR")
            for name in ["workspace_id", "model", "service_tier", "meter", "api_key_id", "label", *text]
        ),
        ("share", "DECIMAL(9,6)"),
        ("amount_usd", "DECIMAL(38,12)"),
        ("quantity", "BIGINT"),
    ]
    assert described["chargeback"] == [
        ("cost_center", "VARCHAR"),
        ("name", "VARCHAR"),
        *((f"{name}_usd", "DECIMAL(38,2)") for name in ("direct", "shared", "total", "other", "payable")),
    ]


def test_a_month_without_charges_gives_every_center_a_row_of_nothing(connection):
    """Each cost center has its row at 0.00, and so has `unallocated`, which comes last."""
    split(connection)
    assert list(chargeback(connection).items()) == [
        (name, ("0.00",) * 4) for name in ("CC-100", "CC-200", "CC-300", "unallocated")
    ]


def test_workspace_rules_take_whole_charges_and_the_first_one_wins(connection):
    """An id, a name and a wildcard name their workspaces; the rest is unallocated."""
    split(
        connection,
        cells=[
            cell("1.000000000001"),
            cell("2", workspace="wrkspc_ads"),
            cell("4", workspace="wrkspc_evil"),
            cell("8", workspace="default"),
            cell("99", in_period=False, day=date(2026, 9, 30)),
        ],
        rules=[
            {"workspace": "wrkspc_search", "to": "CC-100"},
            {"workspace": "Ads [EU]?", "to": "CC-200"},
            {"workspace": "<script>*", "to": "CC-300"},
            {"workspace": "S*", "to": "CC-300"},
        ],
    )
    assert parts(connection, "cost_center, basis, rule, driver, share, amount_usd") == [
        ("CC-100", "direct", "rules[0] workspace wrkspc_search", None, "1", "1.000000000001"),
        ("CC-200", "direct", "rules[1] workspace Ads [EU]?", None, "1", "2"),
        ("CC-300", "direct", "rules[2] workspace <script>*", None, "1", "4"),
        ("unallocated", "unallocated", None, None, "1", "8"),
    ]


def test_windows_and_geos_are_summed_in_a_part(connection):
    """A part stands at day, workspace, model, tier and meter: cells that differ in nothing else are one part."""
    split(
        connection,
        cells=[cell("1"), cell("2", window="200k-1M"), cell("4", meter=INPUT), cell("8", day=2)],
        rules=[{"workspace": "Search", "to": "CC-100"}],
    )
    assert parts(connection, "day, meter, amount_usd") == [
        (FIRST, OUTPUT, "3"),
        (FIRST, INPUT, "4"),
        (date(2026, 10, 2), OUTPUT, "8"),
    ]


def test_names_full_of_quotes_are_only_names(connection):
    """A workspace named like SQL is matched by that name and harms nothing."""
    name = "=1+1'; drop table source.run; --"
    split(
        connection,
        cells=[cell("3", workspace="wrkspc_formula")],
        rules=[{"workspace": name, "to": "CC-300"}],
    )
    assert parts(connection) == [("CC-300", "direct", "3")]
    assert connection.execute("select name from allocated.chargeback where cost_center = 'CC-300'").fetchone() == (
        "O'Brien <b>",
    )


def test_a_workspace_that_the_list_lacks_is_known_by_its_id(connection):
    """An id that only the bill names can be matched by id, by id pattern, and by `*`."""
    cells = [cell("1", workspace="wrkspc_gone1"), cell("2", workspace="wrkspc_gone2"), cell("4", workspace="wrkspc_x")]
    split(
        connection,
        cells=cells,
        rules=[
            {"workspace": "wrkspc_gone1", "to": "CC-100"},
            {"workspace": "wrkspc_gone*", "to": "CC-200"},
            {"workspace": "*", "to": "CC-300"},
        ],
    )
    assert parts(connection) == [("CC-100", "direct", "1"), ("CC-200", "direct", "2"), ("CC-300", "direct", "4")]


def test_a_dated_rule_holds_from_its_first_day_until_the_day_before_its_end(connection):
    """A change in mid-month is exact by day: `from` counts, `until` does not."""
    split(
        connection,
        cells=[cell("1", day=14), cell("2", day=15), cell("4", day=19), cell("8", day=20)],
        rules=[
            {"workspace": "Search", "to": "CC-100", "until": date(2026, 10, 15)},
            {"workspace": "Search", "to": "CC-200", "from": date(2026, 10, 15), "until": date(2026, 10, 20)},
        ],
    )
    assert parts(connection, "day, cost_center, rule") == [
        (date(2026, 10, 14), "CC-100", "rules[0] workspace Search, until 2026-10-15"),
        (date(2026, 10, 15), "CC-200", "rules[1] workspace Search, from 2026-10-15, until 2026-10-20"),
        (date(2026, 10, 19), "CC-200", "rules[1] workspace Search, from 2026-10-15, until 2026-10-20"),
        (date(2026, 10, 20), "unallocated", None),
    ]


def test_a_tag_names_the_cost_center(connection):
    """The workspace's own tag decides; a value that is no cost center warns and is left to later rules."""
    split(
        connection,
        cells=[cell("1", workspace="wrkspc_ads"), cell("2", workspace="wrkspc_old"), cell("4")],
        rules=[{"tag": "cost_center"}, {"workspace": "Old", "to": "CC-300"}],
    )
    assert parts(connection, "cost_center, basis, rule, amount_usd") == [
        ("CC-200", "direct", "rules[0] tag cost_center", "1"),
        ("CC-300", "direct", "rules[1] workspace Old", "2"),
        ("unallocated", "unallocated", None, "4"),
    ]
    [warning] = warnings(connection)
    assert warning == (
        "allocation.rules[0] tag cost_center: wrkspc_old ('Old') has 'CC-999', which is no cost center;"
        " it is left to later rules"
    )


# API keys


def test_a_key_takes_its_share_of_the_cell_and_leaves_the_rest_to_later_rules(connection):
    """A charge is split by the reported quantity of each key in that very cell; use without a key is never a key's."""
    split(
        connection,
        cells=[cell("10"), cell("7", meter=INPUT), cell("5", meter="code_execution")],
        usages=[
            usage("apikey_a", 3),
            usage("apikey_b", 1),
            usage(None, 6),
            usage("apikey_a", 1000, day=2),
            usage("apikey_c", 9, meter=INPUT),
        ],
        rules=[
            {"workspace": "Search", "api_key": "search-prod", "to": "CC-100"},
            {"api_key": "apikey_b", "to": "CC-200"},
            {"workspace": "wrkspc_search", "to": "CC-300"},
        ],
    )
    assert parts(connection, "meter, cost_center, basis, api_key_id, driver, share, amount_usd") == [
        ("code_execution", "CC-300", "direct", None, None, "1", "5"),
        (OUTPUT, "CC-100", "key", "apikey_a", "reported quantity by key", "0.3", "3"),
        (OUTPUT, "CC-200", "key", "apikey_b", "reported quantity by key", "0.1", "1"),
        (OUTPUT, "CC-300", "direct", None, None, "0.6", "6"),
        (INPUT, "CC-300", "direct", None, None, "1", "7"),
    ]


def test_keys_share_a_web_search_charge_whose_cell_has_no_model(connection):
    """Cells meet their usage null-safely."""
    split(
        connection,
        cells=[cell("0.03", meter="web_search_requests")],
        usages=[usage("apikey_a", 2, meter="web_search_requests"), usage("apikey_x", 1, meter="web_search_requests")],
        rules=[{"api_key": "apikey_x", "to": "CC-200"}, {"api_key": "*", "to": "CC-100"}],
    )
    assert parts(connection, "cost_center, api_key_id, amount_usd") == [
        ("CC-100", "apikey_a", "0.02"),
        ("CC-200", "apikey_x", "0.01"),
    ]


def test_the_smallest_unit_goes_to_the_largest_remainder_and_ties_to_the_first_name(connection):
    """1e-12 USD too many goes to the first key of equal ones, a negative charge is split the same way."""
    three = [usage(key, 1, day=day) for day in (1, 2) for key in ("apikey_c", "apikey_b", "apikey_a")]
    split(
        connection,
        cells=[cell("0.000000000010"), cell("-0.000000000010", day=2)],
        usages=three,
        rules=[{"api_key": "*", "to": "CC-100"}],
    )
    assert parts(connection, "day, api_key_id, amount_usd * 1000000000000") == [
        (FIRST, "apikey_a", "4"),
        (FIRST, "apikey_b", "3"),
        (FIRST, "apikey_c", "3"),
        (date(2026, 10, 2), "apikey_a", "-4"),
        (date(2026, 10, 2), "apikey_b", "-3"),
        (date(2026, 10, 2), "apikey_c", "-3"),
    ]


# Labels

BY_TEAM = {"workspace": "Search", "split_by": "label.team", "to": {"search": "CC-100", "ads": "CC-200"}}
TEAM_CELL = cell("20", recorded="8", reported="10", quantities=(80, 100))
TEAM_LABELS = [
    labeled("search", "4", quantity=40),
    labeled("ads", "2", quantity=20),
    labeled("new", "1", quantity=10),
    labeled(None, "1", quantity=10),
    labeled("ads", "1000", quantity=10, label="app"),
]


def test_a_label_shares_the_charge_by_what_each_value_recorded(connection):
    """A value without a receiver, rows without the label, what no log covers: unallocated, apart, and they stay so."""
    split(
        connection,
        cells=[TEAM_CELL],
        labels=TEAM_LABELS,
        rules=[BY_TEAM, {"workspace": "*", "to": "CC-300"}],
        shared=[{"name": "Rest", "workspace": "*"}],
    )
    by = "recorded USD by label.team"
    assert parts(connection, "label, driver, cost_center, basis, share, amount_usd") == [
        ("ads", by, "CC-200", "label", "0.2", "4"),
        ("new", by, "unallocated", "unallocated", "0.1", "2"),
        ("search", by, "CC-100", "label", "0.4", "8"),
        (None, "not covered by a log", "unallocated", "unallocated", "0.2", "4"),
        (None, by, "unallocated", "unallocated", "0.1", "2"),
    ]
    assert {row[0] for row in parts(connection, "rule")} == {"rules[0] workspace Search, split_by label.team"}


def test_what_no_log_covers_is_shared_like_the_rest_when_the_rule_says_so(connection):
    """`unlogged: proportional` takes it out of the weights."""
    split(connection, cells=[TEAM_CELL], labels=TEAM_LABELS, rules=[{**BY_TEAM, "unlogged": "proportional"}])
    assert parts(connection, "label, cost_center, amount_usd") == [
        ("ads", "CC-200", "5"),
        ("new", "unallocated", "2.5"),
        ("search", "CC-100", "10"),
        (None, "unallocated", "2.5"),
    ]


def test_what_no_log_covers_goes_to_the_center_that_the_rule_names(connection):
    """`unlogged: CC-300` receives it, also for a charge without any recorded use."""
    split(
        connection,
        cells=[TEAM_CELL, cell("7", meter="session_usage")],
        labels=TEAM_LABELS,
        rules=[{**BY_TEAM, "unlogged": "CC-300"}],
    )
    assert [
        row for row in parts(connection, "driver, cost_center, basis, meter, amount_usd") if row[1] == "CC-300"
    ] == [
        ("not covered by a log", "CC-300", "label", OUTPUT, "4"),
        ("not covered by a log", "CC-300", "label", "session_usage", "7"),
    ]


def test_a_charge_without_recorded_use_is_shared_by_the_month_when_the_rule_says_so(connection):
    """A session has no labels: `unlogged: proportional` shares it by what the rule's other charges there recorded."""
    split(
        connection,
        cells=[TEAM_CELL, cell("8", meter="session_usage"), cell("3", meter="session_usage", workspace="wrkspc_ads")],
        labels=TEAM_LABELS,
        rules=[
            {**BY_TEAM, "unlogged": "proportional"},
            {**BY_TEAM, "workspace": "wrkspc_ads", "unlogged": "proportional"},
        ],
    )
    by = "recorded USD of the month by label.team"
    assert parts(connection, "driver, label, cost_center, amount_usd", "meter = 'session_usage'") == [
        ("not covered by a log", None, "unallocated", "3"),
        (by, "ads", "CC-200", "2"),
        (by, "new", "unallocated", "1"),
        (by, "search", "CC-100", "4"),
        (by, None, "unallocated", "1"),
    ]


@pytest.mark.parametrize("policy", [None, "unallocated"])
def test_a_charge_without_recorded_use_is_wholly_not_covered(connection, policy):
    """Unless the rule says otherwise it is not smeared over the teams of other cells."""
    split(
        connection,
        cells=[TEAM_CELL, cell("7", meter="session_usage")],
        labels=TEAM_LABELS,
        rules=[{**BY_TEAM, "unlogged": policy}],
    )
    assert parts(connection, "driver, cost_center, amount_usd", "meter = 'session_usage'") == [
        ("not covered by a log", "unallocated", "7")
    ]


def test_requests_of_a_log_without_the_label_count_as_without_it(connection):
    """What the cell recorded beyond the label's rows is nobody's."""
    split(
        connection,
        cells=[cell("10", recorded="10", reported="10", quantities=(100, 100))],
        labels=[labeled("search", "4", quantity=40)],
        rules=[BY_TEAM],
    )
    assert parts(connection, "cost_center, label, amount_usd") == [
        ("CC-100", "search", "4"),
        ("unallocated", None, "6"),
    ]


def test_a_model_without_a_price_is_shared_by_quantity(connection):
    """Where dollars are unknown the quantities of the one meter say the same, and the driver says so."""
    split(
        connection,
        cells=[cell("10", quantities=(80, 100))],
        labels=[labeled("search", None, quantity=60), labeled("ads", None, quantity=20)],
        rules=[{**BY_TEAM, "unlogged": "CC-300"}],
    )
    assert parts(connection, "cost_center, driver, amount_usd") == [
        ("CC-100", "recorded quantity by label.team", "6"),
        ("CC-200", "recorded quantity by label.team", "2"),
        ("CC-300", "not covered by a log", "2"),
    ]


def test_a_log_with_absurd_quantities_cannot_break_the_split(connection):
    """Weights beyond what the arithmetic holds in dollars are compared as quantities; the charge is still exact."""
    most = 2**62
    split(
        connection,
        cells=[cell("10", recorded="92233720368547", reported="1", quantities=(2 * most - 1, 1))],
        labels=[
            labeled("search", "46116860184273", quantity=most),
            labeled("ads", "46116860184273", quantity=most - 1),
        ],
        rules=[BY_TEAM],
    )
    assert parts(connection, "cost_center, driver, amount_usd") == [
        ("CC-100", "recorded quantity by label.team", "5"),
        ("CC-200", "recorded quantity by label.team", "5"),
    ]


def test_a_label_shares_what_a_key_rule_left(connection):
    """Rules nest: the key's portion first, the rest by label."""
    split(
        connection,
        cells=[TEAM_CELL],
        labels=TEAM_LABELS,
        usages=[usage("apikey_c", 25), usage("apikey_a", 75)],
        rules=[{"api_key": "ads-prod", "to": "CC-300"}, {**BY_TEAM, "unlogged": "proportional"}],
    )
    assert parts(connection, "cost_center, basis, amount_usd") == [
        ("CC-100", "label", "7.5"),
        ("CC-200", "label", "3.75"),
        ("CC-300", "key", "5"),
        ("unallocated", "unallocated", "1.875"),
        ("unallocated", "unallocated", "1.875"),
    ]


KEYED_CELL = cell("20", recorded="16", reported="20", quantities=(160, 200))
KEYED = {
    "usages": [usage("apikey_a", 120, usd="12"), usage("apikey_c", 80, usd="8")],
    "labels": [
        labeled("search", "6", quantity=60, key="apikey_a"),
        labeled("ads", "3", quantity=30, key="apikey_a"),
        labeled("ads", "5", quantity=50, key="apikey_c"),
        labeled(None, "2", quantity=20, key="apikey_c"),
    ],
    "matched_recorded": [recorded(90, key="apikey_a"), recorded(70, key="apikey_c")],
    "matched_price": [price("100000")],
}


def test_a_key_is_split_by_the_labels_of_its_own_requests(connection):
    """Rules nest: the key's part of the charge by its reported quantity, that part by what its requests recorded."""
    split(
        connection,
        cells=[KEYED_CELL],
        **KEYED,
        rules=[
            {"api_key": "search-prod", "split_by": "label.team", "to": {"search": "CC-100", "ads": "CC-200"}},
            {"workspace": "Search", "to": "CC-300"},
        ],
    )
    assert parts(connection, "cost_center, basis, api_key_id, label, amount_usd") == [
        ("CC-100", "label", "apikey_a", "search", "6"),
        ("CC-200", "label", "apikey_a", "ads", "3"),
        ("CC-300", "direct", None, None, "8"),
        ("unallocated", "unallocated", "apikey_a", None, "3"),
    ]


def test_what_a_key_took_is_not_among_the_labels_of_the_rest(connection):
    """The rest of a workspace is split by the requests of the other keys alone."""
    split(
        connection,
        cells=[KEYED_CELL],
        **KEYED,
        rules=[{"api_key": "search-prod", "to": "CC-300"}, {**BY_TEAM, "unlogged": "proportional"}],
    )
    assert parts(connection, "cost_center, api_key_id, label, amount_usd") == [
        ("CC-200", None, "ads", "5.714285714286"),
        ("CC-300", "apikey_a", None, "12"),
        ("unallocated", None, None, "2.285714285714"),
    ]


def test_a_key_that_no_log_names_cannot_be_split_by_label(connection):
    """Where the log does not say who called, nothing of the key is smeared over labels, and that is told."""
    split(
        connection,
        cells=[KEYED_CELL],
        usages=KEYED["usages"],
        labels=[labeled("search", "16", quantity=160)],
        matched_recorded=[recorded(160)],
        matched_price=KEYED["matched_price"],
        rules=[{"api_key": "search-prod", "split_by": "label.team", "to": {"search": "CC-100"}}],
    )
    assert parts(connection, "cost_center, driver, api_key_id, amount_usd") == [
        ("unallocated", "not covered by a log", "apikey_a", "12"),
        ("unallocated", None, None, "8"),
    ]
    assert warnings(connection) == [
        (
            "allocation.rules[0] api_key search-prod, split_by label.team: no log names these API keys, so nothing of"
            " it could be split by label.team"
        )
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            {"split_by": "log", "to": {"gateway": "CC-100", "batch": "CC-200"}},
            [("CC-100", "gateway", "6"), ("CC-200", "batch", "2"), ("unallocated", None, "2")],
        ),
        (
            {"split_by": "api_key", "to": {"search-*": "CC-100", "*": "CC-300"}},
            [("CC-100", "apikey_a", "6"), ("CC-300", "apikey_c", "2"), ("unallocated", None, "2")],
        ),
        (
            {"split_by": "model", "to": {"claude-opus-4-7": "CC-100"}, "unlogged": "proportional"},
            [("CC-100", "claude-opus-4-7", "10")],
        ),
        (
            {"split_by": "service_tier", "to": {"batch": "CC-100", "*": "CC-200"}, "unlogged": "unallocated"},
            [("CC-200", "standard", "8"), ("unallocated", None, "2")],
        ),
    ],
)
def test_a_field_that_every_request_has_splits_like_a_label(connection, rule, expected):
    """By log, by key as the log says it, by model; `*` receives every other value."""
    split(
        connection,
        cells=[cell("10", recorded="8", reported="10", quantities=(80, 100))],
        matched_recorded=[recorded(60, key="apikey_a"), recorded(20, log="batch", key="apikey_c")],
        matched_price=[price("100000")],
        rules=[{"workspace": "Search", **rule}],
    )
    assert parts(connection, "cost_center, label, amount_usd") == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("proportional", [("CC-100", "6.666666666667"), ("CC-200", "3.333333333333")]),
        ("CC-300", [("CC-100", "5"), ("CC-200", "2.5"), ("CC-300", "2.5")]),
        ("unallocated", [("CC-100", "5"), ("CC-200", "2.5"), ("unallocated", "2.5")]),
    ],
)
def test_requests_without_the_label_have_a_policy_of_their_own(connection, policy, expected):
    """`unlabeled` says who pays what was logged without the label; nothing else does."""
    split(
        connection,
        cells=[cell("10", recorded="8", reported="8", quantities=(80, 80))],
        labels=[labeled("search", "4", quantity=40), labeled("ads", "2", quantity=20), labeled(None, "2", quantity=20)],
        rules=[{**BY_TEAM, "unlabeled": policy}],
    )
    assert parts(connection, "cost_center, amount_usd") == expected


# Rules for a part of a charge


def test_a_rule_may_ask_for_models_tiers_and_meters(connection):
    """All keys of a rule must fit; what it does not ask for is left to later rules."""
    split(
        connection,
        cells=[
            cell("1"),
            cell("2", model="claude-haiku-5-5"),
            cell("4", meter=INPUT),
            cell("8", meter="session_usage"),
        ],
        rules=[
            {"workspace": "Search", "model": "claude-opus-*", "meter": OUTPUT, "to": "CC-100"},
            {"meter": "session_usage", "to": "CC-200"},
            {"service_tier": "standard", "to": "CC-300"},
        ],
    )
    assert parts(connection, "cost_center, amount_usd, rule") == [
        ("CC-100", "1", f"rules[0] workspace Search, model claude-opus-*, meter {OUTPUT}"),
        ("CC-200", "8", "rules[1] meter session_usage"),
        ("CC-300", "2", "rules[2] service_tier standard"),
        ("CC-300", "4", "rules[2] service_tier standard"),
    ]


def test_use_without_a_key_may_have_a_rule_of_its_own(connection):
    """`charge: no_key` takes that portion of a cell, by reported quantity; charges that know no key are not meant."""
    split(
        connection,
        cells=[cell("10"), cell("5", meter="code_execution")],
        usages=[usage("apikey_a", 3), usage(None, 1)],
        rules=[{"charge": "no_key", "pool": "Sign-ins"}, {"workspace": "Search", "to": "CC-100"}],
        shared=[{"name": "Sign-ins", "split": {"CC-200": 100}}],
    )
    assert parts(connection, "cost_center, basis, pool, amount_usd") == [
        ("CC-100", "direct", None, "5"),
        ("CC-100", "direct", None, "7.5"),
        ("CC-200", "shared", "Sign-ins", "2.5"),
    ]


def test_what_nothing_explains_may_have_a_rule_of_its_own(connection):
    """`charge: residual` takes the unexplained part of a charge, never more than the charge or against its sign."""
    unexplained = [(FIRST, "3"), (date(2026, 10, 2), "-4"), (date(2026, 10, 3), "9")]
    split(
        connection,
        cells=[cell("10"), cell("10", day=2), cell("5", day=3)],
        explained_finding=[("f", "residual"), ("g", "discount")],
        explained_part=[
            *(("f", *dims(day=on), usd) for on, usd in unexplained),
            ("g", *dims(), "6"),
        ],
        rules=[{"charge": "residual", "to": "CC-300"}, {"workspace": "Search", "to": "CC-100"}],
    )
    assert parts(connection, "day, cost_center, amount_usd") == [
        (FIRST, "CC-100", "7"),
        (FIRST, "CC-300", "3"),
        (date(2026, 10, 2), "CC-100", "10"),
        (date(2026, 10, 3), "CC-100", "0"),
        (date(2026, 10, 3), "CC-300", "5"),
    ]


# Pools

DIRECT_CELLS = [
    cell("30"),
    cell("10", workspace="wrkspc_ads"),
    cell("1", workspace="default"),
    cell("3", workspace="default", day=2, window="200k-1M"),
    cell("0.5", workspace="default", meter="session_usage"),
]
DIRECT_RULES = [{"workspace": "Search", "to": "CC-100"}, {"workspace": "wrkspc_ads", "to": "CC-200"}]


def shared_parts(connection):
    return [
        row[1:]
        for row in parts(
            connection, "basis, day, service_tier, meter, cost_center, pool, driver, rule, share, amount_usd"
        )
        if row[0] == "shared"
    ]


def test_a_pool_in_proportion_to_direct_cost_is_one_sum_for_each_meter(connection):
    """Days, tiers and windows of a pool are one sum; who has no direct cost receives nothing."""
    split(
        connection,
        cells=DIRECT_CELLS,
        rules=DIRECT_RULES,
        shared=[{"name": "Default workspace", "workspace": "default"}],
    )
    pool = ("Default workspace", "direct cost", None)
    assert shared_parts(connection) == [
        (None, None, OUTPUT, "CC-100", *pool, "0.75", "3"),
        (None, None, OUTPUT, "CC-200", *pool, "0.25", "1"),
        (None, None, "session_usage", "CC-100", *pool, "0.75", "0.375"),
        (None, None, "session_usage", "CC-200", *pool, "0.25", "0.125"),
    ]
    assert chargeback(connection) == {
        "CC-100": ("30.00", "3.38", "33.38", "33.38"),
        "CC-200": ("10.00", "1.12", "11.12", "11.12"),
        "CC-300": ("0.00", "0.00", "0.00", "0.00"),
        "unallocated": ("0.00", "0.00", "0.00", "0.00"),
    }


def test_a_pool_split_evenly_gives_every_cost_center_the_same(connection):
    """`even` is over all cost centers; what does not divide goes to the first names."""
    split(
        connection,
        cells=[cell("0.000000000005", workspace="default")],
        shared=[{"name": "P", "workspace": "default", "split": "even"}],
    )
    assert parts(connection, "cost_center, driver, amount_usd * 1000000000000") == [
        ("CC-100", "even", "2"),
        ("CC-200", "even", "2"),
        ("CC-300", "even", "1"),
    ]


def test_a_pool_split_by_fixed_percentages(connection):
    """Percentages may have decimals; they are taken exactly."""
    split(
        connection,
        cells=[cell("200", workspace="default")],
        shared=[
            {"name": "P", "workspace": "default", "split": {"CC-100": "62.5", "CC-200": "37.4375", "CC-300": "0.0625"}}
        ],
    )
    assert parts(connection, "cost_center, driver, amount_usd") == [
        ("CC-100", "fixed percent", "125"),
        ("CC-200", "fixed percent", "74.875"),
        ("CC-300", "fixed percent", "0.125"),
    ]


def test_the_first_pool_that_holds_on_the_day_takes_what_rules_left(connection):
    """Pools have dates and an order, and take remainders of charges that a key rule took its portion of."""
    split(
        connection,
        cells=[cell("4", day=1), cell("8", day=2)],
        usages=[usage("apikey_a", 1), usage("apikey_b", 3)],
        rules=[{"api_key": "apikey_a", "to": "CC-100"}],
        shared=[
            {"name": "Early", "workspace": "Search", "split": {"CC-200": 100}, "until": date(2026, 10, 2)},
            {"name": "Late", "workspace": "*", "split": {"CC-300": 100}},
        ],
    )
    assert parts(connection, "cost_center, pool, amount_usd") == [
        ("CC-100", None, "1"),
        ("CC-200", "Early", "3"),
        ("CC-300", "Late", "8"),
    ]


def test_a_proportional_pool_stays_unallocated_where_nobody_has_direct_cost(connection):
    """There is nothing to be in proportion to: the dollars stay in sight, with a warning."""
    split(
        connection,
        cells=[cell("4", workspace="default"), cell("-9")],
        rules=DIRECT_RULES[:1],
        shared=[{"name": "P", "workspace": "default"}],
    )
    assert parts(connection, "cost_center, basis, pool, amount_usd") == [
        ("CC-100", "direct", None, "-9"),
        ("unallocated", "unallocated", "P", "4"),
    ]
    assert warnings(connection) == [
        "allocation.shared[0] P: nobody has direct cost, so 4.00 USD of it stay unallocated"
    ]


def test_a_credit_in_a_pool_is_split_like_a_charge(connection):
    """A negative sum gives negative parts of the same size."""
    split(
        connection,
        cells=[cell("3"), cell("1", workspace="wrkspc_ads"), cell("-8", workspace="default")],
        rules=DIRECT_RULES,
        shared=[{"name": "P", "workspace": "default"}],
    )
    assert [(row[3], row[-1]) for row in shared_parts(connection)] == [("CC-100", "-6"), ("CC-200", "-2")]


def test_a_large_bill_is_split_without_loss(connection):
    """Amounts and weights of a hundred billion dollars, whose product has 46 digits, still sum to the last decimal."""
    huge = "99999999999.123456789012"
    split(
        connection,
        cells=[cell(huge), cell("7.000000000001", workspace="wrkspc_ads"), cell(huge, workspace="default")],
        rules=DIRECT_RULES,
        shared=[{"name": "P", "workspace": "default"}],
    )
    large, small = (Decimal(row[-1]) for row in shared_parts(connection))
    units = 99999999999123456789012
    quota, remainder = divmod(units * 7000000000001, units + 7000000000001)
    assert large + small == Decimal(huge)
    assert small == Decimal(quota + (2 * remainder > units + 7000000000001)).scaleb(-12)


def test_a_pool_may_ask_for_meters_and_rules_may_send_it_more(connection):
    """Code execution of any workspace goes to one pool, whatever rules say of the rest."""
    split(
        connection,
        cells=[
            cell("3"),
            cell("6", meter="code_execution"),
            cell("1", workspace="default", meter="code_execution"),
            cell("2", workspace="default", meter="session_usage"),
        ],
        rules=[
            {"workspace": "Search", "meter": "code_execution", "pool": "Sandboxes"},
            {"workspace": "Search", "to": "CC-100"},
        ],
        shared=[
            {"name": "Sandboxes", "meter": "code_execution", "split": {"CC-200": 50, "CC-300": 50}},
            {"name": "Rest", "workspace": "*", "split": "even", "among": ["CC-100"]},
        ],
    )
    assert parts(connection, "cost_center, pool, workspace_id, amount_usd") == [
        ("CC-100", "Rest", "default", "2"),
        ("CC-100", None, "wrkspc_search", "3"),
        ("CC-200", "Sandboxes", "default", "0.5"),
        ("CC-200", "Sandboxes", "wrkspc_search", "3"),
        ("CC-300", "Sandboxes", "default", "0.5"),
        ("CC-300", "Sandboxes", "wrkspc_search", "3"),
    ]


@pytest.mark.parametrize(
    ("split_by", "expected"),
    [
        ("proportional", {"CC-100": "7.5", "CC-200": "2.5"}),
        ("quantity", {"CC-100": "2", "CC-200": "8"}),
        ("requests", {"CC-100": "4", "CC-200": "6"}),
    ],
)
def test_a_pool_is_split_by_what_cost_centers_use_themselves(connection, split_by, expected):
    """In proportion to dollars, to tokens, or to requests of direct use."""
    split(
        connection,
        cells=[
            cell("30", quantities=(0, 100)),
            cell("10", workspace="wrkspc_ads", quantities=(0, 400)),
            cell("10", workspace="default"),
        ],
        matched_recorded=[recorded(9, requests=2), recorded(9, workspace="wrkspc_ads", requests=3)],
        rules=DIRECT_RULES,
        shared=[{"name": "P", "workspace": "default", "split": split_by}],
    )
    assert {row[3]: row[-1] for row in shared_parts(connection)} == expected


def test_a_pool_in_proportion_may_be_among_some_only(connection):
    """`among` leaves the others out of the proportion."""
    split(
        connection,
        cells=[cell("3"), cell("1", workspace="wrkspc_ads"), cell("8", workspace="default")],
        rules=DIRECT_RULES,
        shared=[{"name": "P", "workspace": "default", "among": ["CC-200", "CC-300"]}],
    )
    assert [(row[3], row[-1]) for row in shared_parts(connection)] == [("CC-200", "8")]


def test_one_pool_feeds_the_next(connection):
    """Step-down: what a pool receives from another is split with its own, and stands under the last one's name."""
    split(
        connection,
        cells=[cell("10", workspace="default"), cell("2", workspace="wrkspc_ads")],
        shared=[
            {"name": "Platform", "workspace": "Ads*", "split": {"CC-100": 50, "CC-200": 50}},
            {"name": "Default", "workspace": "default", "split": {"CC-300": 20, "Platform": 80}},
        ],
    )
    assert parts(connection, "cost_center, pool, workspace_id, share, amount_usd") == [
        ("CC-100", "Platform", "default", "0.5", "4"),
        ("CC-100", "Platform", "wrkspc_ads", "0.5", "1"),
        ("CC-200", "Platform", "default", "0.5", "4"),
        ("CC-200", "Platform", "wrkspc_ads", "0.5", "1"),
        ("CC-300", "Default", "default", "0.2", "2"),
    ]
    assert connection.execute("from allocated.passed_on").fetchall() == [("Default", "Platform", False, 8)]


def headcount(tmp_path, text):
    """A driver's file with these lines, read as the config reads it."""
    (tmp_path / "headcount.csv").write_text(text)
    return Pool.model_validate(
        {"name": "P", "workspace": "default", "split": "driver", "driver": "headcount.csv"},
        context={"base_dir": tmp_path},
    )


def split_by_file(connection, pool, **rows):
    """Allocate with one pool that was read from files."""
    fill(connection, **rows)
    centers = Allocation.model_validate({"cost_centers": CENTERS}).cost_centers
    allocate(connection, Allocation(cost_centers=centers, shared=[pool]))
    ledger.check(connection)


def test_a_weight_holds_from_its_day_until_the_next_one_of_the_cost_center(connection, tmp_path):
    """A headcount that changes on the 11th splits the days before by the old one and the rest by the new one."""
    split_by_file(
        connection,
        headcount(
            tmp_path,
            "from,cost_center,weight\n2026-01-01,CC-100,10\n2026-01-01,CC-200,30\n2026-10-11,CC-100,20\n"
            "2026-10-11,CC-200,20\n",
        ),
        cells=[cell("4", workspace="default", day=10), cell("6", workspace="default", day=11)],
    )
    assert parts(connection, "cost_center, driver, amount_usd") == [
        ("CC-100", "headcount.csv", "4"),
        ("CC-200", "headcount.csv", "6"),
    ]
    assert warnings(connection) == []


def test_a_gap_in_a_drivers_file_is_told_with_its_days(connection, tmp_path):
    """A cost center without a weight takes no part on those days; where nobody has one, nothing is split."""
    split_by_file(
        connection,
        headcount(
            tmp_path,
            "from,until,cost_center,weight\n2026-01-01,2026-10-05,CC-100,1\n2026-10-08,,CC-100,1\n"
            "2026-10-07,,CC-200,1\n2026-12-01,,CC-300,1\n",
        ),
        cells=[cell(usd, workspace="default", day=day) for day, usd in ((4, "1"), (5, "2"), (7, "4"), (8, "8"))],
    )
    assert parts(connection, "cost_center, amount_usd") == [("CC-100", "5"), ("CC-200", "8"), ("unallocated", "2")]
    assert warnings(connection) == [
        (
            "allocation.shared[0] P: headcount.csv:3: CC-100 has no weight from 2026-10-05 until 2026-10-08, and takes"
            " no part on those days"
        ),
        (
            "allocation.shared[0] P: headcount.csv:4: CC-200 has no weight from 2026-10-01 until 2026-10-07, and takes"
            " no part on those days"
        ),
        "allocation.shared[0] P: nobody has a weight, so 2.00 USD of it stay unallocated",
    ]


def test_overlapping_rows_of_a_drivers_file_are_told_and_the_later_one_counts(connection, tmp_path):
    """Of two rows for a day the one that begins later counts, of two from the same day the later line."""
    split_by_file(
        connection,
        headcount(
            tmp_path,
            "from,until,cost_center,weight\n2026-01-01,2026-10-20,CC-100,1\n2026-10-10,,CC-100,3\n"
            "2026-01-01,,CC-200,7\n2026-01-01,,CC-200,1\n",
        ),
        cells=[cell("2", workspace="default", day=9), cell("4", workspace="default", day=10)],
    )
    assert parts(connection, "cost_center, amount_usd") == [("CC-100", "4"), ("CC-200", "2")]
    assert warnings(connection) == [
        (
            "allocation.shared[0] P: headcount.csv:3: CC-100 from 2026-10-10 overlaps line 2, which holds until"
            " 2026-10-20; from 2026-10-10 the weight is 3"
        ),
        "allocation.shared[0] P: headcount.csv:5: CC-200 has a weight from 2026-01-01 in line 4 too, 1 counts",
    ]


# From outside the cost report

SUPPORT = {
    "name": "Support",
    "lines": [
        {"on": date(2026, 10, 31), "amount_usd": "100", "what": "Support, October"},
        {"on": date(2026, 10, 5), "amount_usd": "-40.01", "what": "Credit"},
        {"on": date(2026, 11, 1), "amount_usd": "7", "what": "Support, November"},
    ],
}


def test_lines_from_outside_stand_in_other_usd_and_never_in_the_bill(connection):
    """They are split like any pool, of the period alone; parts and total are those of the cost report."""
    split(
        connection,
        cells=[cell("3"), cell("1", workspace="wrkspc_ads")],
        rules=DIRECT_RULES,
        shared=[SUPPORT],
    )
    assert parts(connection) == [("CC-100", "direct", "3"), ("CC-200", "direct", "1")]
    assert connection.execute(
        "select on_day, what, cost_center, basis, pool, driver, amount_usd from allocated.other"
    ).fetchall() == [
        (date(2026, 10, 5), "Credit", "CC-100", "shared", "Support", "direct cost", Decimal("-30.0075")),
        (date(2026, 10, 5), "Credit", "CC-200", "shared", "Support", "direct cost", Decimal("-10.0025")),
        (date(2026, 10, 31), "Support, October", "CC-100", "shared", "Support", "direct cost", 75),
        (date(2026, 10, 31), "Support, October", "CC-200", "shared", "Support", "direct cost", 25),
    ]
    found = connection.execute("select cost_center, total_usd, other_usd, payable_usd from allocated.chargeback")
    assert [tuple(str(value) for value in row) for row in found.fetchall()] == [
        ("CC-100", "3.00", "44.99", "47.99"),
        ("CC-200", "1.00", "15.00", "16.00"),
        ("CC-300", "0.00", "0.00", "0.00"),
        ("unallocated", "0.00", "0.00", "0.00"),
    ]


def test_the_invoices_lines_may_be_shared_so_that_payable_is_the_invoice(connection):
    """A pool takes the bridge's steps after billed by their reason; with rounding they end at the invoice's cents."""
    split(
        connection,
        cells=[cell("10.004"), cell("20.003", workspace="wrkspc_ads")],
        rules=DIRECT_RULES,
        explained_invoice_step=[
            ("credit", "Credit", "-5", 0),
            ("tax", "Tax", "2.50", 0),
            ("invoice_rounding", "Rounding of the invoice", "0.003", 0),
        ],
        shared=[{"name": "Tax", "invoice": ["tax", "credit", "invoice_rounding"]}],
    )
    assert connection.execute("select sum(payable_usd) from allocated.chargeback").fetchone() == (Decimal("27.51"),)


def test_what_was_restated_is_paid_by_those_who_paid_then(connection):
    """Corrections are nobody's pool: each goes to its cost center; who is gone since, is unallocated.

    A pool for the invoice's line of that reason takes only what was not restated.
    """
    september = ("2026-09", *dims(day=date(2026, 9, 5)))
    split(
        connection,
        cells=[cell("10"), cell("20", workspace="wrkspc_ads")],
        rules=DIRECT_RULES,
        source_restatement=[(*september, "3")],
        source_restatement_part=[(*september, "CC-200", "2.75"), (*september, "CC-gone", "0.25")],
        explained_invoice_step=[("earlier_period", "Corrections", "5", "3")],
        shared=[{"name": "Late", "invoice": ["earlier_period"], "split": {"CC-100": 100}}],
    )
    assert connection.execute(
        "select what, pool, basis, cost_center, amount_usd from allocated.other order by all"
    ).fetchall() == [
        ("Correction of 2026-09", None, "direct", "CC-200", Decimal("2.75")),
        ("Correction of 2026-09", None, "unallocated", "unallocated", Decimal("0.25")),
        ("Corrections", "Late", "shared", "CC-100", 2),
    ]
    assert connection.execute("select sum(payable_usd), sum(other_usd) from allocated.chargeback").fetchone() == (35, 5)


def test_an_outside_line_goes_through_every_step(connection):
    """A line that one pool passes on is split by the next, still under its own words."""
    split(
        connection,
        cells=[cell("3")],
        rules=DIRECT_RULES[:1],
        shared=[
            {**SUPPORT, "split": {"Platform": 100}},
            {"name": "Platform", "split": {"CC-200": 75, "CC-300": 25}},
        ],
    )
    assert connection.execute(
        "select what, cost_center, pool, amount_usd from allocated.other where amount_usd > 0"
    ).fetchall() == [
        ("Support, October", "CC-200", "Platform", 75),
        ("Support, October", "CC-300", "Platform", 25),
    ]


# Budgets


def budget(connection, columns):
    found = connection.execute(f"select {columns} from allocated.budget order by cost_center").fetchall()
    return [tuple(str(value) if isinstance(value, Decimal) else value for value in row) for row in found]


def test_a_years_budget_is_a_twelfth_a_month_and_ends_at_the_daily_mean(connection):
    """September and October gave 610 in 61 days: 10 a day; the other 304 days of 2026 are taken at that."""
    split(
        connection,
        cells=[cell("310")],
        rules=DIRECT_RULES[:1],
        source_earlier_chargeback=[("2026-09", date(2026, 9, 30), "CC-100", "300")],
        budgets=[{"cost_center": "CC-100", "period": 2026, "amount_usd": "3700"}],
    )
    assert budget(connection, "* exclude (name)") == [
        ("CC-100", "308.33", "310.00", "1.67", 2026, "3700.00", "610.00", "3650.00", "-50.00", 61, 365)
    ]


def test_the_forecast_takes_the_last_three_months(connection):
    """An expensive spring does not weigh on the rest of the year; its dollars count."""
    split(
        connection,
        cells=[cell("31")],
        rules=DIRECT_RULES[:1],
        through=31,
        source_earlier_chargeback=[
            ("2026-04", date(2026, 4, 30), "CC-100", "9000"),
            ("2026-08", date(2026, 8, 31), "CC-100", "31"),
            ("2026-09", date(2026, 9, 30), "CC-100", "30"),
        ],
        budgets=[{"cost_center": "CC-100", "period": "2026-10", "amount_usd": "100"}],
    )
    assert budget(connection, "month_budget_usd, month_variance_usd, year_budget_usd, forecast_usd") == [
        ("100.00", "-69.00", None, "9335.00")  # 9000 + 92 + 243 days at 1
    ]


def test_twelve_monthly_budgets_are_the_years(connection):
    """A year's budget is known where all of it is; other years and other months are not meant."""
    months = [{"cost_center": "CC-200", "period": f"2026-{m:02}", "amount_usd": str(m)} for m in range(1, 13)]
    split(
        connection,
        budgets=[
            *months,
            {"cost_center": "CC-300", "period": "2026-12", "amount_usd": "9"},
            {"cost_center": "CC-100", "period": "2027", "amount_usd": "9"},
        ],
    )
    assert budget(connection, "cost_center, month_budget_usd, year_budget_usd, forecast_usd") == [
        ("CC-200", "10.00", "78.00", "0.00"),
        ("CC-300", None, None, "0.00"),
    ]


def test_a_running_month_counts_its_complete_days(connection):
    """Ten days at 10 dollars are 3,650 a year, not a third of it."""
    split(
        connection,
        cells=[cell("100")],
        rules=DIRECT_RULES[:1],
        through=10,
        budgets=[{"cost_center": "CC-100", "period": "2026", "amount_usd": "0"}],
    )
    assert budget(connection, "closed_days, forecast_usd") == [(10, "3650.00")]


@given(st.decimals(0, 10**9, places=2), st.integers(1, 12))
def test_twelfths_add_up_to_the_year(amount, month):
    """The months of a yearly budget are within a cent of each other and sum to it."""
    own = [Budget(cost_center="A", period="2026", amount_usd=amount)]
    twelfths = [_month_budget(own, n) for n in range(1, 13)]
    assert sum(twelfths) == amount
    assert abs(twelfths[month - 1] - amount / 12) <= Decimal("0.01")


# What moved since the month before


def close_twice(connection, before, now):
    """Allocate a month, take from it what a run takes, allocate the next; effects by cost center."""
    split(connection, **before)
    taken = {
        f"source_earlier_{name}": connection.execute(f"from allocated.{name}").fetchall()
        for name in ("spend", "kind", "route")
    }
    old = dict(connection.execute("select cost_center, sum(amount_usd) from allocated.part group by all").fetchall())
    split(connection, **now, **taken)
    new = dict(connection.execute("select cost_center, sum(amount_usd) from allocated.part group by all").fetchall())
    moved = {}
    for cost_center, effect, usd in connection.execute("from allocated.movement").fetchall():
        moved.setdefault(cost_center, {})[effect] = usd
    for cost_center in {*old, *new}:
        assert sum(moved[cost_center].values()) == new.get(cost_center, 0) - old.get(cost_center, 0)
    return {center: {effect: plain(usd) for effect, usd in effects.items() if usd} for center, effects in moved.items()}


def meant(**quantities):
    """Cells of one workspace and day: {model: (tokens, USD)}."""
    return [
        cell(usd, model=model.replace("_", "-"), quantities=(0, tokens)) for model, (tokens, usd) in quantities.items()
    ]


def test_twice_the_tokens_are_volume_and_a_higher_price_is_price(connection):
    """100 tokens at 1 became 200 at 1.10: 100 more for volume, 20 more for price."""
    assert close_twice(
        connection,
        {"cells": meant(opus=(100, "100")), "rules": DIRECT_RULES[:1]},
        {"cells": meant(opus=(200, "220")), "rules": DIRECT_RULES[:1]},
    ) == {"CC-100": {"volume": "100", "price": "20"}}


def test_after_a_month_without_a_charge_all_is_volume(connection):
    """A month that was closed at $0.00 is one to compare with; where none was closed, no reason is made up."""
    now = {"cells": meant(opus=(200, "220")), "rules": DIRECT_RULES[:1]}
    assert close_twice(connection, {"rules": DIRECT_RULES[:1]}, now) == {"CC-100": {"volume": "220"}}
    assert close_twice(connection, {}, now) == {"CC-100": {"volume": "220"}}
    assert close_twice(connection, now, {}) == {"CC-100": {"volume": "-220"}}
    split(connection, **now)
    assert connection.execute("from allocated.movement").fetchall() == []


def test_a_cheaper_model_for_the_same_tokens_is_mix(connection):
    """Half of the tokens moved from a model at 1 to one at 0.2, known from the month before: 40 less."""
    assert close_twice(
        connection,
        {"cells": meant(opus=(90, "90"), haiku=(10, "2")), "rules": DIRECT_RULES[:1]},
        {"cells": meant(opus=(40, "40"), haiku=(60, "12")), "rules": DIRECT_RULES[:1]},
    ) == {"CC-100": {"mix": "-40"}}


def test_a_workspace_that_another_rule_takes_is_rule(connection):
    """First what the old rule would have given, then the rest: what moved nets to nothing over all."""
    assert close_twice(
        connection,
        {"cells": meant(opus=(100, "100")), "rules": DIRECT_RULES[:1]},
        {"cells": meant(opus=(110, "110")), "rules": [{"workspace": "Search", "to": "CC-200"}]},
    ) == {"CC-100": {"volume": "10", "rule": "-110"}, "CC-200": {"rule": "110"}}


def test_a_larger_part_in_common_costs_is_share(connection):
    """A pool of 10 was split 3 : 1 and now is 1 : 1, by the direct cost of both: the terms are the same."""
    pool = [{"name": "P", "workspace": "default"}]

    def month(ads):
        return {
            "cells": [
                cell("3", quantities=(0, 30)),
                cell(ads, workspace="wrkspc_ads", quantities=(0, int(ads) * 10)),
                cell("10", workspace="default", quantities=(0, 100)),
            ],
            "rules": DIRECT_RULES,
            "shared": pool,
        }

    assert close_twice(connection, month("1"), month("3")) == {
        "CC-100": {"share": "-2.5"},
        "CC-200": {"volume": "2", "share": "2.5"},
    }


def test_other_terms_of_a_pool_are_rule(connection):
    """Percentages that changed move dollars without anybody having used more."""
    cells = [cell("10", workspace="default", quantities=(0, 100))]

    def month(first, second):
        return {
            "cells": cells,
            "shared": [{"name": "P", "workspace": "default", "split": {"CC-100": first, "CC-200": second}}],
        }

    assert close_twice(connection, month(50, 50), month(80, 20)) == {
        "CC-100": {"rule": "3"},
        "CC-200": {"rule": "-3"},
    }


def test_a_key_that_was_not_used_before_is_no_other_rule(connection):
    """A rule that matched nothing the month before and was there is the same rule."""
    rules = [{"api_key": "apikey_a", "to": "CC-300"}, {"workspace": "Search", "to": "CC-100"}]
    assert close_twice(
        connection,
        {"cells": meant(opus=(100, "100")), "rules": rules},
        {
            "cells": meant(opus=(100, "100")),
            "usages": [usage("apikey_a", 40, model="opus"), usage("apikey_c", 60, model="opus")],
            "rules": rules,
        },
    ) == {"CC-100": {"volume": "-40"}, "CC-300": {"volume": "40"}}


def test_charges_without_a_quantity_are_volume(connection):
    """Nobody can say whether sessions became longer or dearer."""
    assert close_twice(
        connection,
        {"cells": [cell("5", meter="session_usage")], "rules": DIRECT_RULES[:1]},
        {"cells": [cell("8", meter="session_usage")], "rules": DIRECT_RULES[:1]},
    ) == {"CC-100": {"volume": "3"}}


# The chargeback


def test_cents_of_all_rows_are_apportioned_together(connection):
    """Three times a third of a cent: rounding each would lose it, largest remainder keeps the total."""
    split(
        connection,
        cells=[
            cell("0.004"),
            cell("0.003", workspace="wrkspc_ads"),
            cell("0.003", workspace="default"),
        ],
        rules=DIRECT_RULES,
    )
    assert chargeback(connection) == {
        "CC-100": ("0.01", "0.00", "0.01", "0.01"),
        "CC-200": ("0.00", "0.00", "0.00", "0.00"),
        "CC-300": ("0.00", "0.00", "0.00", "0.00"),
        "unallocated": ("0.00", "0.00", "0.00", "0.00"),
    }


def test_what_is_unallocated_stands_in_direct_usd(connection):
    """It was not shared, and the reserved row shows it."""
    split(connection, cells=[cell("12.34")])
    assert chargeback(connection)["unallocated"] == ("12.34", "0.00", "12.34", "12.34")


# The config's mistakes


def test_a_receiver_that_is_no_cost_center_is_an_offender(connection):
    """Should the config's own check ever miss one, the check view names it with its dollars."""
    with pytest.raises(InvariantError) as raised:
        split(connection, cells=[cell("5")], rules=[{"workspace": "Search", "to": "CC-1"}])
    [offender] = connection.execute("from checks.receiver_is_no_cost_center").fetchall()
    assert offender == ("CC-1", 5)
    assert raised.value.where.startswith("checks.")


@pytest.mark.parametrize(
    ("tampering", "violation"),
    [
        ("delete from allocated.part where amount_usd = 1", "billed_lost_in_allocation"),
        ("update allocated.part set day = day + 1 where amount_usd = 1", "parts_differ_from_charge"),
        ("update allocated.part set workspace_id = 'x' where basis = 'shared'", "parts_differ_from_pot"),
        ("update allocated.part set amount_usd = -amount_usd where amount_usd = 1", "part_with_other_sign"),
        ("update allocated.part set amount_usd = -amount_usd where basis = 'shared'", "part_with_other_sign"),
        ("update allocated.part set basis = 'key' where basis = 'direct'", "basis_differs_from_receiver"),
        ("update allocated.chargeback set total_usd = total_usd + 0.01", "chargeback_differs_from_bill"),
        ("update allocated.chargeback set payable_usd = 0", "chargeback_differs_from_parts"),
        ("delete from allocated.chargeback where total_usd = 0", "cost_center_without_chargeback"),
    ],
)
def test_every_check_finds_its_offender(connection, tampering, violation):
    """A view in checks is empty after allocating, and is not after its rule was broken."""
    split(
        connection,
        cells=[cell("1"), cell("2", workspace="default")],
        rules=DIRECT_RULES,
        shared=[{"name": "P", "workspace": "default"}],
    )
    connection.execute(tampering)
    assert connection.execute(f"from checks.{violation}").fetchall()


def test_a_bill_that_is_none_stops(connection):
    """A charge of ten quintillion dollars is refused with the figure, not split with an overflow."""
    fill(connection, cells=[cell("10000000000000000000")])
    with pytest.raises(SourceError, match=r"10000000000000000000\.000000000000 USD"):
        allocate(connection, Allocation())


def test_rules_that_matched_nothing_are_named_unless_their_time_is_over(connection):
    """What may match in another month is a warning; a rule or pool whose dates lie outside the month is no mistake."""
    split(
        connection,
        cells=[cell("1")],
        rules=[
            {"workspace": "Serach *", "to": "CC-100"},
            {"api_key": "search-prod", "to": "CC-100"},
            {"workspace": "Serach", "to": "CC-100", "until": date(2026, 10, 1)},
            {"workspace": "Search", "to": "CC-100", "from": date(2026, 11, 1)},
            {"workspace": "Search", "to": "CC-100"},
        ],
        shared=[
            {"name": "P", "workspace": "default"},
            {"name": "Q", "workspace": "default", "until": date(2026, 9, 1)},
        ],
    )
    assert warnings(connection) == [
        "allocation.rules[0] workspace Serach *: matched no charge of 2026-10",
        "allocation.rules[1] api_key search-prod: matched no charge of 2026-10",
        "allocation.shared[0] P: no charge of 2026-10 was left for it (workspace default)",
    ]


@pytest.mark.parametrize(
    ("section", "item", "error"),
    [
        (
            "rules",
            {"workspace": "Serach", "to": "CC-100"},
            (
                "allocation.rules[0].workspace: got 'Serach', the id or name of no workspace of 2026-10: it can never"
                " match. Did you mean `Search`?"
            ),
        ),
        (
            "rules",
            {"workspace": "Search", "api_key": "serach-prod", "to": "CC-100"},
            (
                "allocation.rules[0].api_key: got 'serach-prod', the id or name of no API key of 2026-10: it can never"
                " match. Did you mean `search-prod`?"
            ),
        ),
        (
            "rules",
            {"workspace": "wrkspc_saerch", "to": "CC-100"},
            (
                "allocation.rules[0].workspace: got 'wrkspc_saerch', the id or name of no workspace of 2026-10: it can"
                " never match. Correct it, or give a rule of other months its `from` or `until`"
            ),
        ),
        (
            "shared",
            {"workspace": "Defualt", "name": "P"},
            (
                "allocation.shared[0].workspace: got 'Defualt', the id or name of no workspace of 2026-10: it can never"
                " match. Did you mean `Default`?"
            ),
        ),
    ],
)
def test_an_id_or_a_name_that_nobody_has_stops(connection, section, item, error):
    """A typo would leave dollars unallocated in silence: it is refused with its place, its value and the nearest."""
    with pytest.raises(ConfigError) as raised:
        split(connection, cells=[cell("1")], **{section: [item]})
    assert str(raised.value) == error


OPUS = {"model": "claude-opus-*"}


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        ({"workspace": "*"}, {"workspace": "wrkspc_ads"}, True),
        ({"workspace": "*"}, {"api_key": "search-*"}, True),
        ({"workspace": "*"}, {"charge": "no_key"}, True),
        ({"workspace": "S*"}, {"workspace": "Sea*"}, True),
        ({"workspace": "Sea*"}, {"workspace": "S*"}, False),
        ({"workspace": "wrkspc_search"}, {"workspace": "Search"}, True),
        ({"workspace": "Search"}, {"workspace": "Sear*"}, False),
        ({"workspace": "Search"}, {"workspace": "Search", "api_key": "*"}, True),
        ({"workspace": "Search", "api_key": "*"}, {"workspace": "Search"}, False),
        ({"api_key": "search-*"}, {"workspace": "Search", "api_key": "search-prod"}, True),
        ({"workspace": "Search", "api_key": "*"}, {"api_key": "search-prod"}, False),
        ({"workspace": "Search", "until": date(2026, 10, 2)}, {"workspace": "Search"}, False),
        (
            {"workspace": "Search", "until": date(2026, 12, 1)},
            {"workspace": "Search", "until": date(2026, 11, 1)},
            True,
        ),
        ({"workspace": "Search", "from": date(2026, 10, 2)}, {"workspace": "Search", "from": date(2026, 10, 9)}, True),
        (OPUS, {"model": "claude-opus-4-7"}, True),
        (OPUS, {"workspace": "Search"}, False),
        ({"workspace": "Search", **OPUS}, {"model": "claude-opus-4-7"}, False),
        ({"meter": OUTPUT}, {"meter": OUTPUT, **OPUS}, True),
        ({"charge": "no_key"}, {"workspace": "Search"}, False),
        ({"charge": "no_key"}, {"workspace": "Search", "charge": "no_key"}, True),
    ],
)
def test_a_rule_behind_one_that_takes_all_of_its_charges_stops(connection, earlier, later, shadowed):
    """Only an earlier rule that covers the later one wholly, on all of its days, is called its shadow."""
    fill(connection)
    rules = [{**earlier, "to": "CC-100"}, {**later, "to": "CC-200"}]
    allocation = Allocation.model_validate({"cost_centers": CENTERS, "rules": rules})
    if not shadowed:
        allocate(connection, allocation)
        return
    with pytest.raises(ConfigError, match=r"can never match, rules\[0\] .* comes first and takes the same") as raised:
        allocate(connection, allocation)
    assert raised.value.where == "allocation.rules[1]"


@pytest.mark.parametrize(("second_from", "shadowed"), [(10, True), (15, True), (16, False)])
def test_rules_that_leave_no_day_are_a_shadow_together(connection, second_from, shadowed):
    """One until the 15th and one from then on leave nothing to a third; a day between them is its own."""
    fill(connection, cells=[cell("1", day=15)])
    rules = [
        {"workspace": "Search", "to": "CC-100", "until": date(2026, 10, 15)},
        {"workspace": "S*", "to": "CC-200", "from": date(2026, 10, second_from)},
        {"workspace": "Search", "model": "claude-*", "to": "CC-300"},
    ]
    allocation = Allocation.model_validate({"cost_centers": CENTERS, "rules": rules})
    if shadowed:
        with pytest.raises(ConfigError, match=r"can never match, rules\[0\] .* and rules\[1\] .* come first and take"):
            allocate(connection, allocation)
    else:
        allocate(connection, allocation)
        assert parts(connection) == [("CC-300", "direct", "1")]


def test_a_value_that_took_nothing_is_told(connection):
    """A team in `to` that no line has may be quiet, or be written otherwise in the logs."""
    split(
        connection,
        cells=[cell("3", recorded="3", reported="3", quantities=(3, 3))],
        labels=[labeled("search", "3", quantity=3)],
        rules=[{"workspace": "Search", "split_by": "label.team", "to": {"serach": "CC-100", "search": "CC-200"}}],
    )
    assert warnings(connection) == [
        (
            "allocation.rules[0] workspace Search, split_by label.team: matched no charge of 2026-10 for label.team"
            " 'serach'"
        )
    ]


def test_two_rules_for_the_same_charges_on_the_same_days_are_told(connection):
    """Dates that overlap are no error, the first rule counts; but its author may have meant another day."""
    split(
        connection,
        cells=[cell("1", day=12), cell("2", day=20)],
        rules=[
            {"workspace": "Search", "to": "CC-100", "until": date(2026, 10, 15)},
            {"workspace": "Search", "to": "CC-200", "from": date(2026, 10, 10)},
        ],
    )
    assert parts(connection) == [("CC-100", "direct", "1"), ("CC-200", "direct", "2")]
    assert warnings(connection) == [
        (
            "allocation.rules[1] workspace Search, from 2026-10-10: overlaps rules[0] from 2026-10-10 until 2026-10-15;"
            " on those days rules[0] counts"
        )
    ]


@pytest.mark.parametrize(("percent", "warned"), [(None, False), ("25", False), ("24.9", True), ("0", True)])
def test_what_is_unallocated_beyond_its_tolerance_is_told(connection, percent, warned):
    """A quarter of the bill without a cost center is more than 24.9 % and no more than 25 %."""
    split(
        connection,
        cells=[cell("3"), cell("1", workspace="default")],
        rules=[{"workspace": "Search", "to": "CC-100"}],
        unallocated_percent=None if percent is None else Decimal(percent),
    )
    assert connection.execute("select * from allocated.unallocated").fetchall() == [
        (1, 4, None if percent is None else Decimal(percent), warned)
    ]
    expected = f"tolerance.unallocated_percent: 1.00 of 4.00 USD have no cost center, more than {percent} %."
    assert [w.startswith(expected) for w in warnings(connection)] == ([True] if warned else [])


# What a team used


def used(connection, columns="cost_center, meter, quantity, requests, amount_usd"):
    found = connection.execute(f"select {columns} from allocated.use order by all").fetchall()
    return [tuple(plain(value) for value in row) for row in found]


def test_quantities_follow_the_dollars(connection):
    """A key's tokens are its own, a label's are in proportion to what it recorded; they sum to what was reported."""
    split(
        connection,
        cells=[cell("10", quantities=(90, 100), recorded="9", reported="10"), cell("7", meter="session_usage")],
        usages=[usage("apikey_a", 30, usd="3"), usage("apikey_c", 70, usd="7")],
        labels=[
            labeled("search", "4", quantity=40, key="apikey_c", requests=5),
            labeled("ads", "2", quantity=20, key="apikey_c", requests=3),
        ],
        matched_price=[price("100000")],
        matched_recorded=[recorded(30, key="apikey_a", requests=3), recorded(60, key="apikey_c", requests=8)],
        rules=[{"api_key": "apikey_a", "to": "CC-300"}, {**BY_TEAM, "unlogged": "CC-300"}],
    )
    assert used(connection) == [
        ("CC-100", OUTPUT, 40, 5, "4"),
        ("CC-200", OUTPUT, 20, 3, "2"),
        ("CC-300", OUTPUT, 40, 3, "4"),
        ("CC-300", "session_usage", None, 0, "7"),
    ]


def test_use_that_was_not_charged_is_used_all_the_same(connection):
    """Priority Tier has no cost line: whose it is shows, and no dollar moves."""
    split(
        connection,
        cells=[cell(None, quantities=(0, 500), reported="5"), cell("1", day=2, quantities=(9, 9))],
        rules=[{"workspace": "Search", "to": "CC-100"}],
    )
    assert used(connection, "day, cost_center, quantity, amount_usd") == [
        (FIRST, "CC-100", 500, "0"),
        (date(2026, 10, 2), "CC-100", 9, "1"),
    ]
    assert parts(connection) == [("CC-100", "direct", "1")]


def test_cached_tokens_show_what_they_would_have_cost_as_input(connection):
    """Reads and writes at the input's price, so that what caching saved is that less what was paid."""
    read, write = "cache_read_input_tokens", "cache_creation.ephemeral_5m_input_tokens"
    split(
        connection,
        cells=[
            cell("0.5", meter=read, quantities=(0, 1_000_000)),
            cell("0.625", meter=write, quantities=(0, 100_000)),
            cell("1", meter=INPUT, quantities=(0, 200_000)),
        ],
        matched_price=[price("5", meter=INPUT), price("0.5", meter=read), price("6.25", meter=write)],
        rules=[{"workspace": "Search", "to": "CC-100"}],
    )
    assert used(connection, "meter, amount_usd, as_input_usd") == [
        (write, "0.625", "0.5"),
        (read, "0.5", "5"),
        (INPUT, "1", None),
    ]


# What holds for any charges

units = st.integers(-(10**19), 10**19) | st.integers(-20, 20)
spots = st.fixed_dictionaries(
    {
        "day": st.integers(1, 3),
        "workspace": st.sampled_from(["default", "wrkspc_search", "wrkspc_ads", "wrkspc_evil"]),
        "meter": st.sampled_from([OUTPUT, INPUT, "session_usage"]),
        "window": st.sampled_from(["0-200k", "200k-1M"]),
    }
)


@st.composite
def months(draw):
    """A month of charges, each with the use of some keys and labels."""
    where = draw(st.lists(spots, max_size=12, unique_by=lambda spot: dims(**spot)))
    cells, usages, labels, unexplained = [], [], [], []
    for spot in where:
        logged = draw(st.lists(st.integers(0, 10**15), min_size=3, max_size=3))
        reported = draw(st.integers(0, 4 * 10**15))
        usd = [Decimal(quantity).scaleb(-9) for quantity in (sum(logged), reported)]
        billed = Decimal(draw(units)).scaleb(-12)
        cells.append(cell(billed, recorded=usd[0], reported=usd[1], quantities=(sum(logged), reported), **spot))
        unexplained.append(("f", *dims(**spot), Decimal(draw(units)).scaleb(-12)))
        keyed = zip(["apikey_a", "apikey_b", None], draw(st.tuples(*[st.integers(0, 9)] * 3)), strict=True)
        usages += [usage(key, quantity, **spot) for key, quantity in keyed]
        named = zip(["search", "other", None], logged, strict=True)
        labels += [labeled(value, Decimal(q).scaleb(-9), quantity=q, **spot) for value, q in named]
    return {"cells": cells, "usages": usages, "labels": labels, "explained_part": unexplained}


ANY_RULES = {
    "rules": [
        {"charge": "residual", "workspace": "Search", "pool": "Even"},
        {
            "workspace": "Search",
            "api_key": "search-prod",
            "split_by": "label.team",
            "to": {"search": "CC-100"},
            "unlogged": "proportional",
        },
        {**BY_TEAM, "until": date(2026, 10, 3), "unlabeled": "proportional"},
        {"api_key": "apikey_b", "to": "CC-200", "from": date(2026, 10, 2)},
        {"workspace": "<script>*", "charge": "no_key", "pool": "Step"},
        {"workspace": "<script>*", "meter": OUTPUT, "to": "CC-300"},
        {"tag": "cost_center"},
    ],
    "shared": [
        {"name": "Even", "workspace": "default", "split": "even", "until": date(2026, 10, 2)},
        {
            "name": "Fixed",
            "workspace": "default",
            "split": {"CC-100": "33.3", "CC-300": "36.6", "Step": "30.1"},
            "from": date(2026, 10, 3),
        },
        {"name": "Step", "split": "quantity", "lines": [{"on": FIRST, "amount_usd": "-0.01", "what": "Credit"}]},
        {"name": "By cost", "workspace": "wrkspc_*"},
        {"name": "By cost too", "workspace": "default"},
    ],
}


@settings(max_examples=40, deadline=None)
@given(month=months())
def test_parts_sum_to_charges_charges_to_the_bill_and_cents_to_its_rounding(month):
    """No check finds an offender: sums are exact, no part has another sign, the chargeback foots to the cent."""
    with closing(duckdb.connect()) as connection:
        ledger.prepare(connection)
        split(connection, **ANY_RULES, **month, explained_finding=[("f", "residual")])  # looks at every view in checks
        billed = sum((row[-1] for row in month["cells"]), Decimal(0))
        [(allocated,)] = connection.execute("select coalesce(sum(amount_usd), 0) from allocated.part").fetchall()
        [(charged, other, payable)] = connection.execute(
            "select sum(total_usd), sum(other_usd), sum(payable_usd) from allocated.chargeback"
        ).fetchall()
        assert allocated == billed
        assert abs(charged - billed) <= Decimal("0.005")
        assert payable == money.cents(billed - Decimal("0.01"))
        assert charged + other == payable


@settings(max_examples=15, deadline=None)
@given(before=months(), now=months())
def test_what_moved_adds_up_whatever_happened(before, now):
    """For any two months the effects of a cost center sum to the change of its parts, to the last decimal."""
    other_rules = {**ANY_RULES, "rules": ANY_RULES["rules"][1:]}
    with closing(duckdb.connect()) as connection:
        ledger.prepare(connection)
        close_twice(connection, {**ANY_RULES, **before}, {**other_rules, **now})  # compares every sum


@settings(max_examples=20, deadline=None)
@given(month=months(), seed=st.integers(0, 2**32))
def test_the_order_of_rows_changes_nothing(month, seed):
    """The same charges in another order give the same parts, chargeback and warnings."""
    other_order = Random(seed)  # noqa: S311 - an order, not a secret
    shuffled = {name: other_order.sample(rows, len(rows)) for name, rows in month.items()}
    results = []
    for rows in (month, shuffled):
        with closing(duckdb.connect()) as connection:
            ledger.prepare(connection)
            split(connection, **ANY_RULES, **rows, explained_finding=[("f", "residual")])
            results.append((parts(connection, "*"), chargeback(connection), warnings(connection)))
    assert results[0] == results[1]


@settings(max_examples=60, deadline=None)
@given(
    amount=st.integers(-(10**23), 10**23),
    weights=st.lists(st.integers(0, 10**22) | st.integers(0, 3), min_size=3, max_size=3).filter(any),
)
def test_sql_and_python_apportion_alike(amount, weights):
    """The exact arithmetic in 128 bits gives the parts that unbounded integers give."""
    total = sum(weights)
    quotas = [divmod(abs(amount) * weight, total) for weight in weights]
    left = abs(amount) - sum(whole for whole, _ in quotas)
    order = sorted((i for i in range(3) if weights[i]), key=lambda i: (-quotas[i][1], i))[:left]
    sign = -1 if amount < 0 else 1
    expected = [sign * (whole + (i in order)) for i, (whole, _) in enumerate(quotas)]
    workspaces = ["wrkspc_search", "wrkspc_ads", "wrkspc_evil"]
    with closing(duckdb.connect()) as connection:
        ledger.prepare(connection)
        split(
            connection,
            cells=[
                cell(Decimal(amount).scaleb(-12), workspace="default"),
                *(cell(Decimal(w).scaleb(-12), workspace=name) for name, w in zip(workspaces, weights, strict=True)),
            ],
            rules=[{"workspace": name, "to": center} for name, center in zip(workspaces, CENTERS, strict=True)],
            shared=[{"name": "P", "workspace": "default"}],
        )
        found = {row[3]: Decimal(row[-1]) for row in shared_parts(connection)}
    assert [found.get(center, Decimal(0)) for center in CENTERS] == [Decimal(part).scaleb(-12) for part in expected]


# From a file: every mistake is one line that names file, key and values

CODES = {"CC-1": {"name": "Search"}, "CC-2": {"name": "Ads"}}
GAPS = "from,until,cost_center,weight\n2026-01-01,2026-10-05,CC-1,1\n2026-10-08,2026-10-20,CC-1,1\n2026-10-10,,CC-1,2\n"


def told(folder, *, rules=(), shared=()):
    """Close a month of one charge under these rules; what is told of them."""
    (folder / "heads.csv").write_text(GAPS)
    config = month_of.write_config(
        folder,
        request_logs=[],
        allocation={"cost_centers": CODES, "rules": list(rules), "shared": list(shared)},
    )
    cost = month_of.cost("2026-10-12", "500", "output_tokens")
    with month_of.closed(folder, [month_of.usage("2026-10-12T10:00:00Z", output=200)], [cost], [], config=config) as c:
        return [row[0] for row in c.execute("select warning from report.warning order by position").fetchall()]


@pytest.mark.parametrize(
    ("section", "line"),
    [
        (
            {"shared": [{"name": "P", "workspace": "default", "split": {"CC-1": 60, "CC-2": "35.5"}}]},
            "13: allocation.shared[0].split: shares add up to 95.5 %, must be 100 %. Correct the percentages",
        ),
        (
            {"rules": [{"workspace": "Search", "to": "CC-3"}]},
            "11: allocation.rules[0].to: got 'CC-3', which allocation.cost_centers does not hold. Did you mean `CC-2`?",
        ),
        (
            {"rules": [{"to": "CC-1", "workspace": "Serach"}]},
            (
                "11: allocation.rules[0].workspace: got 'Serach', the id or name of no workspace of 2026-10: it can"
                " never match. Did you mean `Search`?"
            ),
        ),
        (
            {"rules": [{"workspace": "S*", "to": "CC-1"}, {"workspace": "Search", "to": "CC-2"}]},
            (
                "12: allocation.rules[1]: workspace Search can never match, rules[0] workspace S* comes first and takes"
                " the same. Put it before, or remove it"
            ),
        ),
    ],
)
def test_what_stops_is_a_line_with_its_place(tmp_path, section, line):
    """Percentages, a cost center that does not exist, a typo, a shadow: exit 2, nothing is published."""
    with pytest.raises(ConfigError) as raised:
        told(tmp_path, **section)
    assert str(raised.value) == f"{tmp_path / 'config.yaml'}:{line}"
    assert raised.value.exit_code == 2


def test_what_is_warned_of_is_a_line_with_its_file(tmp_path):
    """A rule that matched nothing, dates that overlap, a driver's file with a gap and with two weights for a day."""
    assert told(
        tmp_path,
        rules=[
            {"workspace": "Ads *", "to": "CC-2"},
            {"workspace": "Search", "to": "CC-1", "until": "2026-10-15"},
            {"workspace": "Search", "to": "CC-2", "from": "2026-10-10"},
        ],
        shared=[{"name": "P", "workspace": "default", "split": "driver", "driver": "heads.csv"}],
    ) == [
        "config.yaml: allocation.rules[0] workspace Ads *: matched no charge of 2026-10",
        "config.yaml: allocation.rules[2] workspace Search, from 2026-10-10: matched no charge of 2026-10",
        (
            "config.yaml: allocation.rules[2] workspace Search, from 2026-10-10: overlaps rules[1] from 2026-10-10"
            " until 2026-10-15; on those days rules[1] counts"
        ),
        (
            "config.yaml: allocation.shared[0] P: heads.csv:4: CC-1 from 2026-10-10 overlaps line 3, which holds until"
            " 2026-10-20; from 2026-10-10 the weight is 2"
        ),
        (
            "config.yaml: allocation.shared[0] P: heads.csv:3: CC-1 has no weight from 2026-10-05 until 2026-10-08, and"
            " takes no part on those days"
        ),
        "config.yaml: allocation.shared[0] P: no charge of 2026-10 was left for it (workspace default)",
    ]
