"""Stage match: where the three sides meet, at which price, and what the guards say."""

import json
from decimal import Decimal

import pytest
from month import bridge, closed, cost, days, line, tokens, usage, write_config

from reconcile import ledger
from reconcile.errors import InvariantError, SourceError

DAY, HOUR, AT = "2026-10-15", "2026-10-15T10:00:00Z", "2026-10-15T10:30:00Z"
INPUT, OUTPUT, READ = "uncached_input_tokens", "output_tokens", "cache_read_input_tokens"
W5, W1 = "cache_creation.ephemeral_5m_input_tokens", "cache_creation.ephemeral_1h_input_tokens"
O55 = {"model": "claude-opus-5-5"}
H55 = {"model": "claude-haiku-5-5"}


def cells(connection, columns, where="true"):
    """Columns of report.cell in its order, decimals without trailing zeros."""
    found = connection.execute(f"select {columns} from report.cell where {where}").fetchall()
    return [
        tuple(format(value.normalize(), "f") if isinstance(value, Decimal) else value for value in row)
        for row in found
    ]  # fmt: skip


def reasons(connection):
    """{reason: summed dollars} of the findings."""
    found = connection.execute("select reason, sum(amount_usd) from report.discrepancy group by all").fetchall()
    return {reason: format(amount.normalize(), "f") for reason, amount in found}


def test_a_cell_meets_null_safe(tmp_path):
    """The default workspace, null in both reports, is one workspace on all three sides."""
    with closed(
        tmp_path,
        [usage(HOUR, input=1000, workspace_id=None)],
        [cost(DAY, "0.5", INPUT, workspace_id=None)],
        [line(AT, usage=tokens(1000), workspace_id="wrkspc_default")],
    ) as connection:
        assert cells(connection, "workspace_id, recorded_usd, reported_usd, billed_usd, status") == [
            ("default", "0.005", "0.005", "0.005", "matched")
        ]


def test_rows_of_one_cell_are_summed_on_each_side(tmp_path):
    """Usage rows that look equal are not unique, and neither are cost lines: they are summed, not dropped."""
    with closed(
        tmp_path,
        [usage(HOUR, input=1000), usage(HOUR, input=1000), usage("2026-10-15T11:00:00Z", input=500, api_key_id=None)],
        [cost(DAY, "0.5", INPUT), cost(DAY, "0.5", INPUT), cost(DAY, "0.25", INPUT, description="again")],
        [line(AT, f"req_{n}", usage=tokens(500)) for n in range(5)],
    ) as connection:
        assert cells(connection, "recorded_quantity, reported_quantity, billed_usd, status") == [
            (2500, 2500, "0.0125", "matched")
        ]


@pytest.mark.parametrize(
    ("fields", "prices"),
    [
        ({"model": "claude-opus-4-7"}, ("5", "6.25", "10", "0.5", "25")),
        ({"model": "claude-opus-4-7", "service_tier": "batch"}, ("2.5", "3.125", "5", "0.25", "12.5")),
        ({"model": "claude-opus-4-7", "service_tier": "priority"}, ("5", "6.25", "10", "0.5", "25")),
        ({"model": "claude-opus-4-7", "inference_geo": "us"}, ("5.5", "6.875", "11", "0.55", "27.5")),
        ({"model": "claude-opus-4-7", "inference_geo": "us", "service_tier": "batch"},
            ("2.75", "3.4375", "5.5", "0.275", "13.75")),
        ({"model": "claude-opus-4-7", "context_window": "200k-1M"}, ("5", "6.25", "10", "0.5", "25")),
        ({"model": "claude-opus-4-6", "context_window": "200k-1M"}, ("5", "6.25", "10", "0.5", "25")),
        ({"model": "claude-opus-4-6", "speed": "fast"}, ("5", "6.25", "10", "0.5", "25")),
        ({"model": "claude-opus-5-5"}, ("4", "5", "8", "0.2", "20")),
        ({"model": "claude-opus-5-5", "speed": "fast"}, ("8", "10", "16", "0.4", "40")),
        ({"model": "claude-opus-5-5", "speed": "fast", "inference_geo": "us"}, ("8.8", "11", "17.6", "0.44", "44")),
        ({"model": "claude-opus-4-8", "speed": "fast"}, ("10", "12.5", "20", "1", "50")),
        ({"model": "claude-fable-5-1"}, ("10", "12.5", "20", "0.25", "50")),
        ({"model": "claude-sonnet-5-5"}, ("2", "2.5", "4", "0.1", "10")),
        ({"model": "claude-sonnet-4-5-20250929", "context_window": "200k-1M", "inference_geo": "not_available"},
            ("3", "3.75", "6", "0.3", "15")),
        ({"model": "claude-haiku-4-5-20251001", "inference_geo": "not_available"}, ("1", "1.25", "2", "0.1", "5")),
        ({"model": "claude-haiku-5-5", "context_window": "200k-1M"}, ("0.5", "0.625", "1", "0.05", "2.5")),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)  # fmt: skip
def test_the_price_of_a_cell(tmp_path, fields, prices):
    """Each meter has the price of the facts for its model, tier, window, geography and speed in October 2026."""
    with closed(
        tmp_path,
        [usage(HOUR, input=1, write_5m=1, write_1h=1, read=1, output=1, **fields)], [], []
    ) as connection:  # fmt: skip
        found = {row[0]: row[1] for row in cells(connection, "meter, price_usd")}
        assert tuple(found[meter] for meter in (INPUT, W5, W1, READ, OUTPUT)) == prices
        assert cells(connection, "distinct price_high_usd") == [(None,)]


def test_prices_change_by_the_day(tmp_path):
    """Sonnet 5.5's cache read is $0.20 until 6 October and $0.10 from the 7th, at the day as reported."""
    model = {"model": "claude-sonnet-5-5"}
    with closed(
        tmp_path, [usage("2026-10-06T23:00:00Z", read=1, **model), usage("2026-10-07T00:00:00Z", read=1, **model)],
        [], [],
    ) as connection:  # fmt: skip
        assert cells(connection, "day::varchar, price_usd") == [("2026-10-06", "0.2"), ("2026-10-07", "0.1")]


def test_a_retired_fast_mode_has_no_price(tmp_path):
    """Fast mode of Opus 4.7 ended in July: no price is invented for it, and what is billed is `unpriced` in full."""
    with closed(
        tmp_path, [usage(HOUR, input=1000, speed="fast")], [cost(DAY, "3", INPUT)],
        [line(AT, usage=tokens(1000, speed="fast"))],
    ) as connection:  # fmt: skip
        assert cells(connection, "speed, price_usd, recorded_usd, billed_usd") == [("fast", None, None, "0.03")]
        assert reasons(connection) == {"unpriced": "0.03"}


def fast_month(tmp_path, amounts, standard=2000, fast=1000, **config):
    """Opus 5.5 in both speeds in one place, logged and reported; ``amounts`` of the cost lines in cents."""
    return closed(
        tmp_path,
        [usage(HOUR, input=standard, **O55), usage(HOUR, input=fast, speed="fast", **O55)],
        [cost(DAY, amount, INPUT, description=f"Opus {n}", **O55) for n, amount in enumerate(amounts)],
        [line(AT, "r1", usage=tokens(standard), **O55), line(AT, "r2", usage=tokens(fast, speed="fast"), **O55)],
    )


@pytest.mark.parametrize(
    ("amounts", "standard", "fast", "billed"),
    [
        (["0.4", "2.4"], 1000, 3000, {"standard": "0.004", "fast": "0.024"}),
        (["2.4", "0.4"], 1000, 3000, {"standard": "0.004", "fast": "0.024"}),
        (["0.8", "0.8"], 2000, 1000, {"standard": "0.008", "fast": "0.008"}),  # equal dollars: one line each
        (["2.8"], 1000, 3000, {"standard": "0.004", "fast": "0.024"}),  # one line for both: shared by the product
        (["1.4"], 1000, 3000, {"standard": "0.002", "fast": "0.012"}),
        (["0.4"], 1000, 3000, {"standard": "0.004", "fast": None}),  # the fast line is missing
    ],
)
def test_the_speed_of_cost_lines(tmp_path, amounts, standard, fast, billed):
    """A line is of the speed whose price x reported quantity it equals; what cannot be told is shared by it."""
    with fast_month(tmp_path, amounts, standard, fast) as connection:
        assert dict(cells(connection, "speed, billed_usd")) == billed


def test_an_unknown_discount_on_both_speeds_is_told_apart(tmp_path):
    """Both speeds billed at 0.9: no line equals its product, together they are shared by it, so both cells fit."""
    with fast_month(tmp_path, ["0.36", "2.16"], 1000, 3000) as connection:
        assert dict(cells(connection, "speed, billed_usd")) == {"standard": "0.0036", "fast": "0.0216"}


def test_what_both_speeds_share_keeps_the_fraction_to_the_last_decimal(tmp_path):
    """Both speeds billed at 0.61 of odd quantities and rates: one discount, and no other rate."""
    place = O55 | {"inference_geo": "us"}
    usages, costs, lines = [], [], []
    for number, day in enumerate(days(DAY, 4)):
        for speed, price in (("standard", "0.00044"), ("fast", "0.00088")):
            for meter, read, rate in ((INPUT, 0, "1"), ("cache_read_input_tokens", 1, "0.05")):
                quantity = 4321 + 37 * number + len(speed) + read
                counters = {"read": quantity} if read else {"input": quantity}
                usages.append(usage(f"{day}T10:00:00Z", speed=speed, **place, **counters))
                cents = quantity * Decimal(price) * Decimal(rate) * Decimal("0.61")
                costs.append(cost(day, str(cents), meter, description=f"{speed} {meter}", **place))
                logged = {"cache_read_input_tokens": quantity} if read else {"input_tokens": quantity}
                said = tokens(speed=speed, inference_geo="us") | logged
                lines.append(line(f"{day}T10:30:00Z", f"{day}{speed}{meter}", usage=said, **O55))
    with closed(tmp_path, usages, costs, lines) as connection:
        assert set(reasons(connection)) == {"discount"}


def test_a_usage_row_without_the_field_is_standard(tmp_path):
    """Where the report does not say the speed, it is standard."""
    row = usage(HOUR, input=1000)
    del row["speed"]
    with closed(tmp_path, [row], [cost(DAY, "0.5", INPUT)], [line(AT, usage=tokens(1000))]) as connection:
        assert cells(connection, "speed, status") == [("standard", "matched")]


@pytest.mark.parametrize(
    ("prompts", "recorded", "over"),
    [
        ([100_000], "0.01", "exactly 100k is the lower price"),
        ([100_001], "0.0500005", "one token more is the upper"),
        ([150_000, 50_000], "0.08", "each request at its own price"),
    ],
)
def test_requests_at_a_price_step_are_valued_one_by_one(tmp_path, prompts, recorded, over):
    """Haiku 5.5 above 100k is repriced whole; the cell shows both prices, the requests are known, nothing is open."""
    cents = str(Decimal(recorded) * 100)
    with closed(
        tmp_path, [usage(HOUR, input=sum(prompts), **H55)], [cost(DAY, cents, INPUT, **H55)],
        [line(AT, f"req_{n}", usage=tokens(prompt), **H55) for n, prompt in enumerate(prompts)],
    ) as connection:  # fmt: skip
        assert cells(connection, "price_usd, price_high_usd, recorded_usd, reported_usd, billed_usd, status") == [
            ("0.1", "0.5", recorded, recorded, recorded, "matched")
        ], over


def test_the_step_counts_reads_and_writes(tmp_path):
    """The prompt is input + cache reads + cache writes; all meters of the request take the upper price."""
    use = tokens(1000, 100, cache_read_input_tokens=99_000, cache_creation_input_tokens=1000)
    with closed(
        tmp_path, [usage(HOUR, input=1000, output=100, read=99_000, write_5m=1000, **H55)], [],
        [line(AT, usage=use, **H55)],
    ) as connection:  # fmt: skip
        assert dict(cells(connection, "meter, recorded_usd")) == {
            INPUT: "0.0005", OUTPUT: "0.00025", READ: "0.00495", W5: "0.000625",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("billed_cents", "expected"),
    [
        # 50,000 recorded low; 200,000 reported: $0.02 at the lower price, up to 150,000 x $0.40 = $0.06 more
        ("2", {"unlogged": "0.015"}),
        ("5", {"unlogged": "0.015", "price_interval": "0.03"}),
        ("8", {"unlogged": "0.015", "price_interval": "0.06"}),
        ("9", {"unlogged": "0.015", "price_interval": "0.06", "price_book": "0.01"}),
    ],
)
def test_a_price_interval_ends_where_the_step_ends(tmp_path, billed_cents, expected):
    """Billed inside the interval is price_interval, up to |reported - recorded| x the step; outside it is not."""
    with closed(
        tmp_path, [usage(HOUR, input=200_000, **H55)], [cost(DAY, billed_cents, INPUT, **H55)],
        [line(AT, usage=tokens(50_000), **H55)],
    ) as connection:  # fmt: skip
        assert reasons(connection) == expected
        evidence = "select evidence from report.discrepancy where reason = 'price_interval'"
        for (told,) in connection.execute(evidence).fetchall():
            interval = {name: float(usd) for name, usd in json.loads(told).items() if name.endswith("_usd")}
            assert interval == {
                "lowest_by_the_book_usd": 0.02, "highest_by_the_book_usd": 0.1,
                "lowest_with_the_requests_known_usd": 0.02, "highest_with_the_requests_known_usd": 0.08,
                "billed_usd": float(billed_cents) / 100,
            }  # fmt: skip


@pytest.mark.parametrize("reported", [0, 1000])
def test_a_long_request_that_was_not_reported(tmp_path, reported):
    """Unreported at a price step: the absent side counts as 0, and the parts add up to the difference all the same."""
    usages = [usage(HOUR, input=reported, **H55)] if reported else []
    costs = [cost(DAY, "0.01", INPUT, **H55)] if reported else []
    lines = [line(AT, "long", usage=tokens(150_000), **H55), line(AT, "short", usage=tokens(1000), **H55)]
    with closed(tmp_path, usages, costs, lines) as connection:
        found = bridge(connection)
        assert found["recorded"] == "0.0751"
        assert found["billed"] == ("0.0001" if reported else "0")
        assert set(reasons(connection)) <= {"unreported", "price_interval"}


def test_web_search_has_the_grain_day_and_workspace(tmp_path):
    """Searches of two models, tiers and keys meet in one cell; one search is one cent at any tier and geography."""
    none = dict.fromkeys(("model", "service_tier", "context_window", "inference_geo"))
    search = {"server_tool_use": {"web_search_requests": 2}}
    with closed(
        tmp_path,
        [usage(HOUR, searches=2), usage(HOUR, searches=2, service_tier="batch", api_key_id="apikey_b", **O55)],
        [cost(DAY, "4", None, cost_type="web_search", **none)],
        [
            line(AT, "r1", usage=tokens(0, **search)),
            line(AT, "r2", usage=tokens(0, service_tier="batch", **search), **O55),
        ],
    ) as connection:
        assert cells(connection, "meter, model, price_unit, price_usd, recorded_quantity, billed_usd, status") == [
            ("web_search_requests", None, "search", "0.01", 4, "0.04", "matched")
        ]


def test_searches_of_an_unpriced_model_keep_their_price(tmp_path):
    """The tokens of a model that nobody prices have NULL dollars; its web searches are one cent each all the same."""
    none = dict.fromkeys(("model", "service_tier", "context_window", "inference_geo"))
    use = tokens(1000, server_tool_use={"web_search_requests": 1})
    with closed(
        tmp_path,
        [usage(HOUR, input=1000, searches=1, model="claude-nova-9")],
        [cost(DAY, "1", None, cost_type="web_search", **none), cost(DAY, "2", INPUT, model="claude-nova-9")],
        [line(AT, usage=use, model="claude-nova-9")],
    ) as connection:
        assert bridge(connection) == {
            "logged": "0.01", "recorded": "0.01", "reported": "0.01", "unpriced": "0.02", "billed": "0.03",
        }  # fmt: skip


def test_the_tiers_of_the_usage_report_that_cost_nothing(tmp_path):
    """Priority is valued as standard; flex and the like have no price that is known, so none is invented."""
    tiers = ("priority", "priority_on_demand", "flex", "flex_discount")
    with closed(tmp_path, [usage(HOUR, input=1000, service_tier=tier) for tier in tiers], [], []) as connection:
        assert dict(cells(connection, "service_tier, reported_usd")) == {
            "priority": "0.005", "priority_on_demand": None, "flex": None, "flex_discount": None,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("cents", "stops"),
    [
        ("9500", True),
        ("10500", True),
        ("10600", False),
        ("9400", False),
        ("1.05", True),
        ("0.95", True),
        ("1.06", False),
    ],
)
def test_the_guard_of_the_unit(tmp_path, cents, stops):
    """More than half of the billed dollars within 5 % of 100 or 1/100 times the book is an error of the unit."""
    month = closed(tmp_path, [usage(HOUR, input=200_000)], [cost(DAY, cents, INPUT)], [line(AT, usage=tokens(200_000))])
    if stops:
        with pytest.raises(InvariantError, match="100"), month:
            pass
    else:
        with month as connection:
            assert connection.execute("select count(*) from report.cell").fetchone() == (1,)


def test_half_of_the_dollars_is_not_more_than_half(tmp_path):
    """The guard holds for more than half: one wrong line beside an equal sum of right ones is a finding, no stop."""
    with closed(
        tmp_path,
        [usage(HOUR, input=1000), usage(HOUR, output=20_000)],
        [cost(DAY, "50", INPUT), cost(DAY, "50", OUTPUT)],
        [line(AT, usage=tokens(1000, 20_000))],
    ) as connection:
        assert reasons(connection) == {"price_book": "0.495"}


CONTRACT = {"prices": {"contract": [{"model": "claude-opus-4-7", "discount_percent": 10}]}}


@pytest.mark.parametrize(
    ("cents", "amounts", "price", "invoiced"),
    [("0.45", "net", "4.5", {}), ("0.5", "list", "5", {"contract_discount": "-0.0005"})],
)
def test_whether_amounts_are_net_is_measured(tmp_path, cents, amounts, price, invoiced):
    """`billing.amounts: auto`: billed that divides by list, not by the contract's rate, prices the cells at list."""
    invoice = {"period": "2026-10", "number": "1", "on": "2026-11-02", "amount_usd": "0.0045"}
    config = write_config(tmp_path, invoices=[invoice], **CONTRACT)
    with closed(
        tmp_path, [usage(HOUR, input=1000)], [cost(DAY, cents, INPUT)], [line(AT, usage=tokens(1000))], config=config
    ) as connection:
        assert connection.execute("select amounts from source.run").fetchone() == (amounts,)
        assert cells(connection, "list_price_usd, price_usd, status") == [("5", price, "matched")]
        found = bridge(connection)
        assert found["recorded"] == found["billed"]
        assert {reason: found[reason] for reason in found if reason == "contract_discount"} == invoiced
        assert found["invoiced"] == "0.0045"


def test_undecidable_amounts_stop(tmp_path):
    """Where neither the contract's rate nor list fits, the run stops with exit 3 and shows three lines."""
    days = ("2026-10-05", "2026-10-06", "2026-10-07", "2026-10-08")
    config = write_config(tmp_path, **CONTRACT)
    month = closed(
        tmp_path,
        [usage(f"{day}T10:00:00Z", input=1000) for day in days],
        [cost(day, "0.3", INPUT) for day in days],
        [line(f"{day}T10:00:00Z", f"req_{day}", usage=tokens(1000)) for day in days],
        config=config,
    )
    with pytest.raises(SourceError) as caught, month:
        pass
    assert caught.value.exit_code == 3
    assert [day in str(caught.value) for day in days] == [True, True, True, False]


def test_amounts_that_the_config_settles_are_not_measured(tmp_path):
    """`billing.amounts: net` is taken as said."""
    config = write_config(tmp_path, billing={"amounts": "net"}, **CONTRACT)
    with closed(
        tmp_path, [usage(HOUR, input=1000)], [cost(DAY, "0.5", INPUT)], [line(AT, usage=tokens(1000))], config=config
    ) as connection:
        assert bridge(connection)["recorded"] == "0.0045"


def test_a_contract_of_a_hundred_percent(tmp_path):
    """A model that the contract gives away costs $0, which is a price."""
    config = write_config(
        tmp_path, prices={"contract": [{"model": "claude-opus-4-7", "discount_percent": 100}]},
        billing={"amounts": "net"},
    )  # fmt: skip
    with closed(
        tmp_path, [usage(HOUR, input=1000)], [cost(DAY, "1", INPUT)], [line(AT, usage=tokens(1000))], config=config
    ) as connection:
        assert reasons(connection) == {"price_book": "0.01"}


@pytest.mark.parametrize(
    ("cents", "billed"),
    [
        ("0.500000000000000000000000000001", "0.005"), ("0.50", "0.005"), ("5E-1", "0.005"), ("-0.5", "-0.005"),
        ("0", "0"), ("999999999999.99", "9999999999.9999"),
    ],
)  # fmt: skip
def test_amounts_of_any_length_are_exact(tmp_path, cents, billed):
    """An amount has any number of digits; it is billed at twelve decimals, a credit is negative."""
    with closed(
        tmp_path, [usage(HOUR, input=1000)], [cost(DAY, cents, INPUT)], [line(AT, usage=tokens(1000))]
    ) as connection:
        assert bridge(connection)["billed"] == billed


@pytest.mark.parametrize("cents", ["1e999", "NaN", "", "5 cents", None])
def test_an_amount_that_is_none_stops(tmp_path, cents):
    """What is not a finite decimal cannot be booked: exit 3."""
    month = closed(tmp_path, [usage(HOUR, input=1000)], [cost(DAY, cents, INPUT)], [])
    with pytest.raises(SourceError), month:
        pass


@pytest.mark.parametrize("currency", ["usd", "USD", "Usd"])
def test_usd_is_compared_without_case(tmp_path, currency):
    """USD is USD in any case."""
    with closed(tmp_path, [], [cost(DAY, "1", INPUT, currency=currency)], []) as connection:
        assert bridge(connection)["billed"] == "0.01"


@pytest.mark.parametrize("currency", ["EUR", "", None])
def test_anything_but_usd_stops(tmp_path, currency):
    """Nothing is converted: exit 3."""
    month = closed(tmp_path, [], [cost(DAY, "1", INPUT, currency=currency)], [])
    with pytest.raises(SourceError), month:
        pass


def test_nothing_billed_is_lost_where_nothing_else_is(tmp_path):
    """A charge of tokens that nobody reported or logged stands in its own cell, residual."""
    with closed(tmp_path, [], [cost(DAY, "1", INPUT, workspace_id="wrkspc_gone")], []) as connection:
        assert cells(connection, "workspace_id, reported_usd, billed_usd, status") == [
            ("wrkspc_gone", None, "0.01", "discrepancy")
        ]
        assert reasons(connection) == {"residual": "0.01"}


def test_the_checks_are_looked_at(tmp_path):
    """Each arrow has its control totals: schema checks holds them for every stage."""
    with closed(tmp_path, [], [], []) as connection:
        views = {
            row[0]
            for row in connection.execute(
                "select view_name from duckdb_views() where schema_name = 'checks' and not internal"
            ).fetchall()
        }
        assert {"recorded_lost_in_match", "reported_lost_in_match", "billed_lost_in_match", "cell_twice"} <= views
        connection.execute("update matched.cell set billed_usd = billed_usd")
        ledger.check(connection)
