"""The design's public contract: names, order and types of the views, and what stands in them."""

import json
import re
from decimal import Decimal

import pytest
from month import bridge, closed, cost, line, tokens, usage, write_config

from reconcile import explain, ledger

DAY, HOUR, AT = "2026-10-05", "2026-10-05T10:00:00Z", "2026-10-05T10:30:00Z"
MONEY, QUANTITY = "DECIMAL(38,12)", "BIGINT"
CELL = ("workspace_id", "model", "service_tier", "context_window", "inference_geo", "speed", "meter")

VIEWS = {
    "summary": {
        "period": "VARCHAR", "organization": "VARCHAR", "revision": "INTEGER", "logged_usd": MONEY,
        "cleaning_usd": MONEY, "recorded_usd": MONEY, "reported_usd": MONEY, "billed_usd": MONEY,
        "difference_usd": MONEY, "explained_usd": MONEY, "residual_usd": MONEY, "capture_rate": "DOUBLE",
        "discrepancy_count": QUANTITY, "beyond_tolerance": "BOOLEAN", "through_on": "DATE",
        "data_refreshed_at": "TIMESTAMP", "input_digest": "VARCHAR",
    },
    "cell": {
        "day": "DATE", "workspace_id": "VARCHAR", "workspace_name": "VARCHAR", "model": "VARCHAR",
        "service_tier": "VARCHAR", "context_window": "VARCHAR", "inference_geo": "VARCHAR", "speed": "VARCHAR",
        "meter": "VARCHAR", "recorded_quantity": QUANTITY, "reported_quantity": QUANTITY, "price_unit": "VARCHAR",
        "list_price_usd": MONEY, "price_usd": MONEY, "price_high_usd": MONEY, "recorded_usd": MONEY,
        "reported_usd": MONEY, "billed_usd": MONEY, "quantity_variance_usd": MONEY, "price_variance_usd": MONEY,
        "difference_usd": MONEY, "status": "VARCHAR",
    },
    "usage": {
        "day": "DATE", **dict.fromkeys(CELL, "VARCHAR"), "api_key_id": "VARCHAR", "reported_quantity": QUANTITY,
        "reported_usd": MONEY,
    },
    "bridge": {
        "position": "INTEGER", "kind": "VARCHAR", "reason": "VARCHAR", "title": "VARCHAR", "quantity": QUANTITY,
        "amount_usd": MONEY, "running_usd": MONEY,
    },
    "discrepancy": {
        "id": "VARCHAR", "reason": "VARCHAR", "confidence": "VARCHAR", "day_from": "DATE", "day_to": "DATE",
        "log": "VARCHAR", "workspace_id": "VARCHAR", "model": "VARCHAR", "service_tier": "VARCHAR", "meter": "VARCHAR",
        "api_key_id": "VARCHAR", "quantity": QUANTITY, "amount_usd": MONEY, "moved_usd": MONEY,
        "beyond_tolerance": "BOOLEAN", "accepted": "BOOLEAN",
    },
    "allocation": {
        "day": "DATE", "workspace_id": "VARCHAR", "model": "VARCHAR", "service_tier": "VARCHAR", "meter": "VARCHAR",
        "api_key_id": "VARCHAR", "label": "VARCHAR", "cost_center": "VARCHAR", "basis": "VARCHAR", "rule": "VARCHAR",
        "pool": "VARCHAR", "driver": "VARCHAR", "amount_usd": MONEY,
    },
    "chargeback": {
        "cost_center": "VARCHAR", "name": "VARCHAR",
        **dict.fromkeys(("direct_usd", "shared_usd", "total_usd", "other_usd", "payable_usd"), "DECIMAL(38,2)"),
    },
}  # fmt: skip
ORDER = {
    "discrepancy": [*VIEWS["discrepancy"], "evidence"],
    "allocation": [*list(VIEWS["allocation"])[:-1], "share", "amount_usd"],
}
"""Where a column's type is not the contract's: `evidence` is JSON, however it is kept, and `share` for display."""


def plain_charge(day, amount, cost_type, **fields):
    """A cost line that is not of tokens; ``amount`` in cents."""
    none = dict.fromkeys(("model", "service_tier", "context_window", "inference_geo"))
    return cost(day, amount, None, cost_type=cost_type, **none | fields)


def busy_month():
    """Every kind of row once: usages, costs, lines."""
    usages = [
        usage(HOUR, input=5000, output=100, searches=3),
        usage(HOUR, input=2000, api_key_id="apikey_b"),
        usage(HOUR, input=1000, service_tier="priority"),
        usage(HOUR, output=40, api_key_id=None, workspace_id=None),
        usage(HOUR, input=10, model="claude-nova-9"),
        usage("2026-11-01T00:00:00Z", input=9999),
    ]
    costs = [
        cost(DAY, "3.5", "uncached_input_tokens"),
        cost(DAY, "0.2", "output_tokens"),
        cost(DAY, "0.1", "output_tokens", workspace_id=None),
        cost(DAY, "2", "uncached_input_tokens", model="claude-nova-9"),
        plain_charge(DAY, "3", "web_search"),
        plain_charge(DAY, "500", "code_execution"),
        plain_charge(DAY, "7", "something_new"),
    ]
    lines = [
        line(AT, "req_1", usage=tokens(4000, 100), cost_usd="0.05"),
        line(AT, "req_1", usage=tokens(4000, 100), cost_usd="0.05"),
        line(AT, "req_2", workspace_id="wrkspc_gone", usage=tokens(700)),
        line(AT, "req_3", workspace_id=None, api_key_id=None, usage=tokens(300)),
    ]
    return usages, costs, lines


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """The ledger of the busy month."""
    with closed(tmp_path_factory.mktemp("busy"), *busy_month()) as connection:
        yield connection


@pytest.mark.parametrize("view", VIEWS)
def test_a_public_view_has_the_contracts_columns(busy, view):
    """Names, order and types of a public view are those of the design, section 4."""
    found = {row[0]: row[1] for row in busy.execute(f"describe report.{view}").fetchall()}
    assert list(found) == ORDER.get(view, list(VIEWS[view]))
    assert {name: found[name] for name in VIEWS[view]} == VIEWS[view]


def test_quantities_are_not_hugeint(busy):
    """No public view has a HUGEINT, a FLOAT, or a DOUBLE that is not a ratio."""
    wrong = busy.execute("""
        select table_name, column_name, data_type from duckdb_columns()
        where schema_name = 'report' and table_name in ('summary', 'cell', 'usage', 'bridge', 'discrepancy',
            'allocation', 'chargeback')
            and (data_type in ('HUGEINT', 'UHUGEINT', 'FLOAT') or data_type = 'DOUBLE'
                and column_name not in ('capture_rate', 'share'))
    """).fetchall()
    assert wrong == []


def test_the_identities_of_the_summary(busy):
    """Logged + cleaning + difference = billed; explained + residual = difference; the rest are the cells' sums."""
    summary = ledger.rows(busy, "from report.summary")[0]
    cells = ledger.rows(
        busy,
        "select sum(recorded_usd) as recorded_usd, sum(reported_usd) as reported_usd, sum(billed_usd) as billed_usd,"
        " sum(difference_usd) as difference_usd from report.cell",
    )[0]
    assert {name: summary[name] for name in cells} == cells
    assert summary["logged_usd"] + summary["cleaning_usd"] + summary["difference_usd"] == summary["billed_usd"]
    assert summary["explained_usd"] + summary["residual_usd"] == summary["difference_usd"]
    assert summary["residual_usd"] == Decimal("0.07")
    assert summary["capture_rate"] == pytest.approx(float(summary["recorded_usd"] / summary["reported_usd"]))


def test_the_capture_rate_of_nothing_is_null(tmp_path):
    """capture_rate is NULL when nothing is reported; an empty bill closes all the same."""
    with closed(tmp_path, [], [], []) as connection:
        assert connection.execute("select capture_rate, discrepancy_count from report.summary").fetchone() == (None, 0)
        assert connection.execute("select kind, reason from report.bridge").fetchall() == [
            ("total", "logged"), ("total", "recorded"), ("total", "reported"), ("step", "residual"),
            ("total", "billed"),
        ]  # fmt: skip
        assert connection.execute("select cost_center, total_usd::varchar from report.chargeback").fetchall() == [
            ("CC-1", "0.00"), ("unallocated", "0.00"),
        ]  # fmt: skip


def test_the_differences_of_a_cell_are_never_null(busy):
    """An absent side is NULL in its own columns and 0 in the three differences."""
    wrong = busy.execute("""
        select * from report.cell
        where quantity_variance_usd is distinct from coalesce(reported_usd, 0) - coalesce(recorded_usd, 0)
            or price_variance_usd is distinct from coalesce(billed_usd, 0) - coalesce(reported_usd, 0)
            or difference_usd is distinct from coalesce(billed_usd, 0) - coalesce(recorded_usd, 0)
            or (recorded_quantity is null and recorded_usd is not null)
            or (reported_quantity is null and reported_usd is not null)
            or recorded_quantity = 0 or reported_quantity = 0
    """).fetchall()
    assert wrong == []
    assert busy.execute(
        "select recorded_quantity, recorded_usd, reported_quantity, reported_usd, billed_usd, price_variance_usd"
        " from report.cell where meter = 'code_execution'"
    ).fetchall() == [(None, None, None, None, Decimal(5), Decimal(5))]


def test_a_quantity_without_a_price_has_null_dollars(busy):
    """A missing price is NULL, never $0; what was billed for it stands in `unpriced` in full, with its quantity."""
    assert busy.execute(
        "select reported_quantity, reported_usd, price_usd, list_price_usd, difference_usd::varchar from report.cell"
        " where model = 'claude-nova-9'"
    ).fetchall() == [(10, None, None, None, "0.020000000000")]
    assert busy.execute(
        "select quantity, amount_usd::varchar from report.discrepancy where reason = 'unpriced'"
    ).fetchall() == [(10, "0.020000000000")]


def test_meters_without_dimensions_have_null_dimensions(busy):
    """web_search_requests, code_execution and what is like it have the grain (day, workspace, meter)."""
    assert busy.execute("""
        select meter, model, service_tier, context_window, inference_geo, speed, price_unit from report.cell
        where meter not like '%tokens' order by meter
    """).fetchall() == [
        ("code_execution", None, None, None, None, None, None),
        ("something_new", None, None, None, None, None, None),
        ("web_search_requests", None, None, None, None, None, "search"),
    ]


def test_every_word_is_of_the_closed_lists(busy):
    """kind, reason, confidence, basis, status and price_unit hold only what the design lists."""
    columns = {
        "bridge.kind": {"total", "step"}, "discrepancy.confidence": {"measured", "inferred", "suspected"},
        "discrepancy.reason": {reason for reason, *_ in explain.REASONS},
        "cell.status": {"matched", "tolerated", "explained", "discrepancy"},
        "allocation.basis": {"direct", "key", "label", "shared", "unallocated"},
        "cell.price_unit": {"MTok", "search", None}, "cell.speed": {"standard", "fast", None},
        "cell.context_window": {"0-200k", "200k-1M", None},
    }  # fmt: skip
    for name, words in columns.items():
        view, column = name.split(".")
        found = {row[0] for row in busy.execute(f"select distinct {column} from report.{view}").fetchall()}
        assert found <= words, name
        assert found


def test_reasons_stand_in_the_order_of_the_design():
    """The closed list of section 6, in its order, cleaning before quantity before price."""
    assert [reason for reason, *_ in explain.REASONS] == [
        "duplicate", "stream_sum", "app_price", "time_zone", "cutoff", "cache_inclusive", "cache_ttl", "model",
        "service_tier", "context_window", "inference_geo", "speed", "workspace", "unlogged_key", "no_key", "iterations",
        "cut_stream", "log_gap", "unlogged", "unreported", "discount", "price_book", "price_interval", "uncharged",
        "unpriced", "code_execution", "session_usage", "rounding", "residual",
    ]  # fmt: skip


def test_the_bridge_is_a_walk(busy):
    """Totals have no amount, steps lead from one total to the next exactly, residual is always shown."""
    rows = ledger.rows(busy, "from report.bridge order by position")
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["reason"] for row in rows if row["kind"] == "total"] == ["logged", "recorded", "reported", "billed"]
    running = rows[0]["running_usd"]
    for row in rows:
        assert (row["amount_usd"] is None) == (row["kind"] == "total")
        running += row["amount_usd"] or 0
        assert row["running_usd"] == running, row["reason"]
    order = [reason for reason, *_ in explain.REASONS]
    steps = [row["reason"] for row in rows if row["kind"] == "step"]
    assert steps == sorted(steps, key=order.index)
    assert steps[-1] == "residual"


def test_findings_sum_to_the_bridge_by_reason(busy):
    """Amounts in report.discrepancy have the bridge's sign and sum, by reason, to its step."""
    found = dict(busy.execute("select reason, sum(amount_usd) from report.discrepancy group by reason").fetchall())
    steps = dict(busy.execute("select reason, amount_usd from report.bridge where kind = 'step'").fetchall())
    assert {reason: amount for reason, amount in found.items() if amount} == {
        reason: amount for reason, amount in steps.items() if amount
    }


def test_moved_is_never_below_the_amount(busy):
    """moved_usd is what stands in a wrong place: at least |amount_usd|."""
    assert busy.execute("select * from report.discrepancy where moved_usd < abs(amount_usd)").fetchall() == []


def test_ids_are_twelve_hex_digits_and_unique(busy):
    """An id is the first 12 hex digits of a SHA-256, one a finding."""
    ids = [row[0] for row in busy.execute("select id from report.discrepancy").fetchall()]
    assert all(re.fullmatch("[0-9a-f]{12}", one) for one in ids)
    assert len(ids) == len(set(ids)) > 5


def test_evidence_is_json_with_decimals_as_strings(busy):
    """Evidence is a JSON object without a float in it."""

    def floats(text):
        raise AssertionError(f"a float in evidence: {text}")

    found = [row[0] for row in busy.execute("select evidence from report.discrepancy").fetchall()]
    assert all(isinstance(json.loads(text, parse_float=floats), dict) for text in found if text is not None)


def test_unknown_is_not_a_workspace(busy):
    """A line without workspace, key and setting has NULL; the default workspace has the literal `default`."""
    found = busy.execute("select distinct workspace_id, workspace_name from report.cell order by all").fetchall()
    assert found == [
        ("default", "Default"), ("wrkspc_a", "Search"), ("wrkspc_gone", None), (None, None),
    ]  # fmt: skip


def test_an_unknown_kind_of_charge_is_a_named_residual(busy):
    """An unknown cost_type is a charge without a quantity, reason `residual`, named."""
    assert busy.execute(
        "select meter, amount_usd::varchar from report.discrepancy where reason = 'residual'"
    ).fetchall() == [("something_new", "0.070000000000")]


def test_usage_by_key_sums_to_the_cells(busy):
    """report.usage is the reported side of report.cell by key, without loss."""
    assert (
        busy.execute("""
        select * from (
            select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
                sum(reported_quantity)::bigint, sum(reported_usd)
            from report.usage group by all
            except all
            select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
                reported_quantity, reported_usd
            from report.cell where reported_quantity is not null
        )
    """).fetchall()
        == []
    )
    assert busy.execute("select count(*) from report.usage where api_key_id is null").fetchone() == (1,)


def test_only_the_periods_days_are_public(busy):
    """The day before and after lie in `matched` as evidence, never in `report`."""
    for view in ("cell", "usage"):
        assert busy.execute(f"select distinct day::varchar from report.{view}").fetchall() == [(DAY,)]
    assert busy.execute("select count(*) from matched.cell where not in_period").fetchone() == (1,)


def test_allocation_and_chargeback_tie_out(busy):
    """Parts sum to billed exactly, the chargeback to billed rounded to the cent, `unallocated` always stands there."""
    assert (
        busy.execute("select sum(amount_usd) from report.allocation").fetchone()
        == busy.execute("select billed_usd from report.summary").fetchone()
    )
    rows = ledger.rows(busy, "from report.chargeback")
    assert sum(row["total_usd"] for row in rows) == Decimal("5.16")  # $5.158 billed
    assert [row["cost_center"] for row in rows if row["cost_center"] == "unallocated"] == ["unallocated"]
    for row in rows:
        assert row["direct_usd"] + row["shared_usd"] == row["total_usd"]
        assert row["total_usd"] + row["other_usd"] == row["payable_usd"]


def small(amount="0.5", **fields):
    """1,000 input tokens logged and reported, billed at ``amount`` cents."""
    return [usage(HOUR, input=1000)], [cost(DAY, amount, "uncached_input_tokens", **fields)], [
        line(AT, usage=tokens(1000))
    ]  # fmt: skip


def of_keys(quantities):
    """One unlogged key a quantity, beside 1,000,000 logged tokens that tie out."""
    usages = [usage(HOUR, input=1_000_000, context_window="0-200k")]
    usages += [usage(HOUR, input=quantity, api_key_id=f"apikey_{n}") for n, quantity in enumerate(quantities)]
    total = 1_000_000 + sum(quantities)
    costs = [cost(DAY, str(Decimal(total) * Decimal("0.0005")), "uncached_input_tokens")]
    return usages, costs, [line(AT, f"req_{n}", usage=tokens(100_000)) for n in range(10)]


@pytest.mark.parametrize(
    ("usd", "percent", "beyond"),
    [
        # four findings of $1, $2, $3, $4 and $15.00 billed
        ("10", "100", []),                      # all four together are within
        ("9.99", "100", ["4"]),                 # one cent over: the largest goes
        ("5.99", "100", ["3", "4"]),            # 1 + 2 + 3 exceed it too
        ("2.99", "100", ["2", "3", "4"]),
        ("0.99", "100", ["1", "2", "3", "4"]),  # none within alone
        ("100", "66.67", []),                   # $10 of $15
        ("100", "66.66", ["4"]),
        ("0", "0", ["1", "2", "3", "4"]),
    ],
)  # fmt: skip
def test_tolerance_holds_for_a_finding_and_for_the_sum(tmp_path, usd, percent, beyond):
    """A finding is within tolerance while it exceeds neither limit; the largest go until the rest is within both."""
    config = write_config(tmp_path, tolerance={"usd": usd, "percent": percent})
    with closed(tmp_path, *of_keys([200_000, 400_000, 600_000, 800_000]), config=config) as connection:
        found = connection.execute(
            "select amount_usd::int::varchar from report.discrepancy where beyond_tolerance order by amount_usd"
        ).fetchall()
        assert [row[0] for row in found] == beyond
        assert connection.execute("select discrepancy_count, beyond_tolerance from report.summary").fetchone() == (
            len(beyond), bool(beyond),
        )  # fmt: skip
        # the cell's status is that of its largest finding
        status = "discrepancy" if "4" in beyond else "tolerated"
        assert connection.execute("select status from report.cell").fetchall() == [(status,)]


def accepted_entry(**fields):
    """An accepted difference of unlogged keys."""
    return {
        "reason": "unlogged_key", "workspace": "wrkspc_a", "up_to_usd": "4", "who": "CFO", "why": "known",
        "until": "2027-01-01",
    } | fields  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "status", "count"),
    [
        (accepted_entry(), "explained", 0),
        (accepted_entry(workspace="Sear*"), "explained", 0),
        (accepted_entry(up_to_usd="3.99"), "discrepancy", 1),
        (accepted_entry(until="2026-10-05"), "discrepancy", 1),  # expired before the finding's day
        (accepted_entry(reason="no_key"), "discrepancy", 1),
        (accepted_entry(workspace="Other"), "discrepancy", 1),
    ],
)
def test_an_accepted_difference_is_no_discrepancy(tmp_path, entry, status, count):
    """Accepted: beyond tolerance, but signed for, in its scope, up to its amount, until it expires."""
    config = write_config(tmp_path, accepted=[entry])
    with closed(tmp_path, *of_keys([800_000]), config=config) as connection:
        assert connection.execute("select status from report.cell").fetchall() == [(status,)]
        assert connection.execute("select accepted, beyond_tolerance from report.discrepancy").fetchall() == [
            (count == 0, True)
        ]
        assert connection.execute("select discrepancy_count from report.summary").fetchone() == (count,)


def ids_of(folder, day, quantity, key="apikey_b"):
    """The ids of the findings of an unlogged key on a day."""
    at = f"{day}T10:00:00Z"
    with closed(
        folder,
        [usage(at, input=1000), usage(at, input=quantity, api_key_id=key)],
        [cost(day, str(Decimal(1000 + quantity) * Decimal("0.0005")), "uncached_input_tokens")],
        [line(at, usage=tokens(1000))],
    ) as connection:
        return connection.execute("select id from report.discrepancy").fetchall()


def test_an_id_is_of_the_cause_and_the_place(tmp_path):
    """Another day and other dollars leave an id as it is; another key does not."""
    first = ids_of(tmp_path / "a", "2026-10-05", 3000)
    assert ids_of(tmp_path / "b", "2026-10-20", 7000) == first
    assert ids_of(tmp_path / "c", "2026-10-05", 3000, "apikey_c") != first


def test_a_cause_in_a_place_is_one_finding(tmp_path):
    """Two days of one unlogged key are one finding from the first to the last of them."""
    days = ("2026-10-05", "2026-10-09")
    usages = [usage(f"{day}T10:00:00Z", input=2000, api_key_id="apikey_b") for day in days]
    costs = [cost(day, "1", "uncached_input_tokens") for day in days]
    with closed(tmp_path, usages, costs, [line("2026-10-01T00:00:00Z", usage=tokens(0, 0))]) as connection:
        assert connection.execute(
            "select reason, day_from::varchar, day_to::varchar, quantity from report.discrepancy"
        ).fetchall() == [("unlogged_key", *days, 4000)]


def test_cleaning_is_valued_in_order(tmp_path):
    """Duplicates go at the dollars that were logged for them; app_price is left for the kept request."""
    with closed(
        tmp_path, [usage(HOUR, input=1000)], [cost(DAY, "0.5", "uncached_input_tokens")],
        [
            line(AT, usage=tokens(1000), cost_usd="0.009"),
            line("2026-10-05T10:31:00Z", usage=tokens(1000), cost_usd="0.02"),
        ],
    ) as connection:  # fmt: skip
        assert bridge(connection) == {
            "logged": "0.029", "duplicate": "-0.02", "app_price": "-0.004", "recorded": "0.005", "reported": "0.005",
            "billed": "0.005",
        }  # fmt: skip


def test_quantity_in_the_bridge_is_in_tokens(tmp_path):
    """Searches have dollars in a step, and no part of its quantity."""
    with closed(
        tmp_path,
        [usage(HOUR, input=1000, searches=2), usage(HOUR, input=10, searches=5, api_key_id="apikey_b")],
        [cost(DAY, "0.505", "uncached_input_tokens"), plain_charge(DAY, "7", "web_search")],
        [line(AT, usage=tokens(1000, server_tool_use={"web_search_requests": 2}))],
    ) as connection:
        assert connection.execute(
            "select quantity, amount_usd::varchar from report.bridge where reason = 'unlogged_key'"
        ).fetchall() == [(10, "0.050050000000")]


def test_an_invoice_ends_the_bridge(tmp_path):
    """Totals in order: logged, recorded, reported, billed, invoiced; what no line of the invoice says is residual."""
    invoice = {
        "period": "2026-10", "number": "1", "on": "2026-11-02", "amount_usd": "0.01",
        "lines": [{"reason": "tax", "amount_usd": "0.002"}],
    }  # fmt: skip
    config = write_config(tmp_path, invoices=[invoice])
    with closed(tmp_path, *small(), config=config) as connection:
        assert connection.execute("select reason, amount_usd, running_usd from report.bridge offset 3").fetchall() == [
            ("residual", Decimal(0), Decimal("0.005")), ("billed", None, Decimal("0.005")),
            ("tax", Decimal("0.002"), Decimal("0.007")), ("residual", Decimal("0.003"), Decimal("0.01")),
            ("invoiced", None, Decimal("0.01")),
        ]  # fmt: skip
