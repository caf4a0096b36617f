"""Allocation: literal charges in, literal parts out; and what holds for any charges."""

from contextlib import closing
from datetime import date
from decimal import Decimal
from random import Random

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile import ledger
from reconcile.allocate import allocate
from reconcile.config import Allocation
from reconcile.errors import ConfigError, InvariantError, SourceError

DIMS = """day date, workspace_id varchar, model varchar, service_tier varchar, context_window varchar,
    inference_geo varchar, speed varchar, meter varchar, in_period boolean"""
EARLIER = f"""
    create or replace table source.run as
        select '2026-10' as period, date '2026-10-01' as start_on, date '2026-11-01' as end_on;
    create or replace table source.workspace (workspace_id varchar, name varchar, tags varchar);
    create or replace table source.api_key (api_key_id varchar, name varchar);
    create or replace table matched.cell ({DIMS}, recorded_quantity bigint, reported_quantity bigint,
        recorded_usd decimal(38, 12), reported_usd decimal(38, 12), billed_usd decimal(38, 12));
    create or replace table matched.usage ({DIMS}, api_key_id varchar, reported_quantity bigint);
    create or replace table matched.label ({DIMS}, label varchar, value varchar,
        recorded_quantity bigint, recorded_usd decimal(38, 12));
"""
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


def usage(key, quantity, *, in_period=True, **where):
    """A row of matched.usage: what one API key used in a cell."""
    return (*dims(**where), in_period, key, quantity)


def labeled(value, usd, *, quantity=1, label="team", in_period=True, **where):
    """A row of matched.label: what the requests with one value recorded in a cell."""
    return (*dims(**where), in_period, label, value, quantity, usd)


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


def fill(connection, cells=(), usages=(), labels=(), workspaces=WORKSPACES):
    """Build what load and match would have written."""
    connection.execute(EARLIER)
    for table, rows in (
        ("source.workspace", workspaces),
        ("source.api_key", KEYS),
        ("matched.cell", cells),
        ("matched.usage", usages),
        ("matched.label", labels),
    ):
        if rows:
            connection.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", list(rows))


def split(connection, *, rules=(), shared=(), centers=CENTERS, **rows):
    """Fill, allocate, look at the checks."""
    fill(connection, **rows)
    allocate(
        connection, Allocation.model_validate({"cost_centers": centers, "rules": list(rules), "shared": list(shared)})
    )
    ledger.check(connection)


def parts(connection, columns="cost_center, basis, amount_usd"):
    """The parts as rows, amounts without trailing zeros."""
    found = connection.execute(f"select {columns} from allocated.part order by all").fetchall()
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
    """Part and chargeback have the columns of report.allocation and report.chargeback, and money is DECIMAL."""
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
            {"workspace": "Search", "to": "CC-300"},
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


def test_a_key_rule_after_one_for_the_workspace_comes_too_late(connection):
    """First match wins for portions too, and the rule that can never match is a warning."""
    split(
        connection,
        cells=[cell("10")],
        usages=[usage("apikey_a", 1)],
        rules=[{"workspace": "Search", "to": "CC-300"}, {"workspace": "Search", "api_key": "search-*", "to": "CC-100"}],
    )
    assert parts(connection) == [("CC-300", "direct", "10")]
    [warning] = warnings(connection)
    assert warning == (
        "allocation.rules[1] workspace Search, api_key search-*: can never match,"
        " rules[0] workspace Search comes first and takes the same. Put it before, or remove it"
    )


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
        rules=[BY_TEAM, {"workspace": "Search", "to": "CC-300"}],
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


def test_a_charge_without_recorded_use_is_wholly_not_covered(connection):
    """Nothing to share it by: not even `proportional` smears it over the teams of other cells."""
    split(
        connection,
        cells=[TEAM_CELL, cell("7", meter="session_usage")],
        labels=TEAM_LABELS,
        rules=[{**BY_TEAM, "unlogged": "proportional"}],
    )
    assert ("session_usage", "not covered by a log", "unallocated", "7") in parts(
        connection, "meter, driver, cost_center, amount_usd"
    )


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
    assert warnings(connection) == ["allocation.shared[0] P: nobody has direct cost, so its 4.00 USD stay unallocated"]


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


def test_a_key_cannot_be_split_by_label(connection):
    """Labels are known for a cell, not for a key in it: such a rule is refused with its place and values."""
    fill(connection)
    allocation = Allocation.model_validate({"cost_centers": CENTERS, "rules": [{**BY_TEAM, "api_key": "x"}]})
    with pytest.raises(ConfigError) as raised:
        allocate(connection, allocation)
    assert raised.value.where == "allocation.rules[0]"
    assert raised.value.what == "got split_by 'label.team' and api_key 'x', expected one of them"


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
        ("update allocated.part set workspace_id = 'x' where basis = 'shared'", "parts_differ_from_pool"),
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
    """A typo shows; a rule or pool whose dates lie outside the month is no mistake."""
    split(
        connection,
        cells=[cell("1")],
        rules=[
            {"workspace": "Serach", "to": "CC-100"},
            {"api_key": "search-prod", "to": "CC-100"},
            {"workspace": "Search", "to": "CC-100", "until": date(2026, 10, 1)},
            {"workspace": "Search", "to": "CC-100", "from": date(2026, 11, 1)},
            {"workspace": "Search", "to": "CC-100"},
        ],
        shared=[
            {"name": "P", "workspace": "default"},
            {"name": "Q", "workspace": "default", "until": date(2026, 9, 1)},
        ],
    )
    assert warnings(connection) == [
        "allocation.rules[0] workspace Serach: matched no charge of 2026-10",
        "allocation.rules[1] api_key search-prod: matched no charge of 2026-10",
        "allocation.shared[0] P: no charge of 2026-10 was left for it in workspace default",
    ]


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        ({"workspace": "*"}, {"workspace": "wrkspc_ads"}, True),
        ({"workspace": "*"}, {"api_key": "search-*"}, True),
        ({"workspace": "S*"}, {"workspace": "Sea*"}, True),
        ({"workspace": "Sea*"}, {"workspace": "S*"}, False),
        ({"workspace": "wrkspc_search"}, {"workspace": "Search"}, True),
        ({"workspace": "Search"}, {"workspace": "Sear*"}, False),
        ({"workspace": "Search"}, {"workspace": "Search", "api_key": "*"}, True),
        ({"workspace": "Search", "api_key": "*"}, {"workspace": "Search"}, False),
        ({"api_key": "search-*"}, {"workspace": "Search", "api_key": "search-prod"}, True),
        ({"workspace": "Search", "api_key": "*"}, {"api_key": "search-prod"}, False),
        ({"workspace": "Search", "until": date(2026, 10, 2)}, {"workspace": "Search"}, False),
    ],
)
def test_a_rule_behind_one_that_takes_all_of_its_charges_can_never_match(connection, earlier, later, shadowed):
    """Only an earlier rule without dates that covers the later one wholly is called its shadow."""
    split(connection, rules=[{**earlier, "to": "CC-100"}, {**later, "to": "CC-200"}])
    assert any("rules[1]" in warning and "can never match" in warning for warning in warnings(connection)) is shadowed


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
    cells, usages, labels = [], [], []
    for spot in where:
        logged = draw(st.lists(st.integers(0, 10**15), min_size=3, max_size=3))
        reported = draw(st.integers(0, 4 * 10**15))
        usd = [Decimal(quantity).scaleb(-9) for quantity in (sum(logged), reported)]
        billed = Decimal(draw(units)).scaleb(-12)
        cells.append(cell(billed, recorded=usd[0], reported=usd[1], quantities=(sum(logged), reported), **spot))
        keyed = zip(["apikey_a", "apikey_b", None], draw(st.tuples(*[st.integers(0, 9)] * 3)), strict=True)
        usages += [usage(key, quantity, **spot) for key, quantity in keyed]
        named = zip(["search", "other", None], logged, strict=True)
        labels += [labeled(value, Decimal(q).scaleb(-9), quantity=q, **spot) for value, q in named]
    return {"cells": cells, "usages": usages, "labels": labels}


ANY_RULES = {
    "rules": [
        {"workspace": "Search", "api_key": "search-prod", "to": "CC-100"},
        {**BY_TEAM, "until": date(2026, 10, 3)},
        {"api_key": "apikey_b", "to": "CC-200", "from": date(2026, 10, 2)},
        {"tag": "cost_center"},
    ],
    "shared": [
        {"name": "Even", "workspace": "default", "split": "even", "until": date(2026, 10, 2)},
        {
            "name": "Fixed",
            "workspace": "default",
            "split": {"CC-100": "33.3", "CC-300": "66.7"},
            "from": date(2026, 10, 3),
        },
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
        split(connection, **ANY_RULES, **month)  # looks at every view in checks
        billed = sum((row[-1] for row in month["cells"]), Decimal(0))
        [(allocated,)] = connection.execute("select coalesce(sum(amount_usd), 0) from allocated.part").fetchall()
        [(charged,)] = connection.execute("select sum(payable_usd) from allocated.chargeback").fetchall()
        assert allocated == billed
        assert abs(charged - billed) <= Decimal("0.005")


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
            split(connection, **ANY_RULES, **rows)
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
