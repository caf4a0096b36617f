"""FOCUS rows: valid by a public linter, every dollar in one row, and in the row of who pays it."""

import csv
import json
from contextlib import closing, contextmanager
from decimal import Decimal

import duckdb
import pytest
from export_month import ALLOCATION, busy
from focus_data_toolkit.model.capabilities import KNOWN_CONDITIONS
from focus_data_toolkit.model.validator import lint_focus_1_4_structure
from focus_data_toolkit.schema.registry import mandatory_columns, version_columns
from focus_data_toolkit.validate.allocation import validate_split_allocation
from hypothesis import given, settings
from hypothesis import strategies as st
from month import closed, cost, usage, write_config
from test_allocate import ANY_RULES, months, split

from reconcile import cli, ledger
from reconcile.config import load_config
from reconcile.errors import InvariantError
from reconcile.export import VERSIONS, FocusOptions, export
from reconcile.export.focus import build, columns

DAY, HOUR = "2026-10-05", "2026-10-05T10:00:00Z"


def exported(connection, folder, **options):
    """The rows of the CSV, by column, as text."""
    config = load_config(folder / "config.yaml")
    (path,) = export(connection, "focus", folder / "out", config, FocusOptions(**options)).files
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def total(rows, column="EffectiveCost"):
    return sum((Decimal(row[column]) for row in rows), Decimal(0))


def one(rows, **wanted):
    """The one row with these values."""
    (row,) = [row for row in rows if all(row[column] == value for column, value in wanted.items())]
    return row


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("focus")


@pytest.fixture(scope="module")
def month(folder):
    with busy(folder) as connection:
        yield connection


@pytest.fixture(scope="module")
def rows(month, folder):
    return exported(month, folder)


def test_a_public_linter_finds_nothing(rows):
    """Release 1.4: structure, single-row rules with unit pricing declared, and the groups of shared charges."""
    report = lint_focus_1_4_structure("Cost and Usage", rows, supported_conditions=KNOWN_CONDITIONS)
    assert report.messages() == []
    assert validate_split_allocation(rows) == []
    assert any(row["x_SplitOriginId"] for row in rows)


@pytest.mark.parametrize("version", VERSIONS)
def test_columns_are_those_of_the_release(month, folder, version):
    """Every mandatory column, and none of another release but ours, which begin with x_."""
    (row, *_) = exported(month, folder, version=version)
    theirs = {column for column in row if not column.startswith("x_")}
    assert mandatory_columns("Cost and Usage", version) <= theirs <= version_columns("Cost and Usage", version)
    assert list(row) == list(columns(version))
    assert tuple(cli.FOCUS_VERSIONS) == VERSIONS


def test_the_rows_add_up_to_the_bill(month, rows):
    """To the last decimal: in total, and by cost center to what the allocation says."""
    (billed_usd,) = month.execute("select billed_usd from report.summary").fetchone()
    assert total(rows) == total(rows, "BilledCost") == billed_usd
    allocated = month.execute("select cost_center, sum(amount_usd) from report.allocation group by all").fetchall()
    assert {center: total([row for row in rows if row["x_CostCenterId"] == center]) for center, _ in allocated} == dict(
        allocated
    )


def test_every_charge_adds_up(month, rows):
    """The rows of a charge have its dollars and, whole, its tokens."""
    key = ("day", "workspace_id", "model", "service_tier", "inference_geo", "meter")
    charges = month.execute(
        f"select {', '.join(f'coalesce({name}::varchar, chr(0))' for name in key)}, billed_usd, reported_quantity "
        "from report.cell where billed_usd is not null"
    ).fetchall()
    found = {}
    for row in rows:
        place = (
            row["ChargePeriodStart"][:10],
            *(row[name] or "\0" for name in ("SubAccountId", "x_Model", "x_ServiceTier", "x_InferenceGeo")),
            row["x_TokenType"],
        )
        usd, quantity = found.get(place, (Decimal(0), 0))
        found[place] = (usd + Decimal(row["EffectiveCost"]), quantity + int(row["ConsumedQuantity"] or 0))
    for *place, billed_usd, quantity in charges:
        usd, consumed = found[tuple(place)]
        assert usd == billed_usd
        assert consumed in {quantity, 0}  # a model without a name of its unit counts nothing
    assert len(charges) == len(found)


def test_a_charge_reads_as_it_was_used(rows):
    """2,000 input tokens at $5 a million, for a workspace with tags."""
    row = one(rows, SkuId="claude-opus-4-7:uncached_input_tokens", SubAccountId="wrkspc_a")
    expected = {
        "BilledCost": "0.010000000000",
        "ListCost": "0.010000000000",
        "ContractedCost": "0.010000000000",
        "ListUnitPrice": "5.000000000000",
        "PricingQuantity": "0.002000000000",
        "PricingUnit": "1000000 Tokens",
        "ConsumedQuantity": "2000",
        "ConsumedUnit": "Tokens",
        "SkuMeter": "Input Tokens",
        "BillingPeriodStart": "2026-10-01T00:00:00Z",
        "BillingPeriodEnd": "2026-11-01T00:00:00Z",
        "ChargePeriodStart": "2026-10-05T00:00:00Z",
        "ChargePeriodEnd": "2026-10-06T00:00:00Z",
        "ChargeClass": "",
        "SubAccountName": "Search",
        "SubAccountType": "Workspace",
        "BillingAccountId": "org-1",
        "x_CostCenterId": "CC-1",
        "x_AllocationBasis": "direct",
        "AllocatedMethodId": "",
    }
    assert {column: row[column] for column in expected} == expected
    assert json.loads(row["Tags"]) == {"env": "prod", "cost_center": "CC-1"}


def test_a_search_is_priced_by_the_search(rows):
    """Three searches at one cent: the quantity is a count of requests, not of millions."""
    row = one(rows, SkuMeter="Web Search Requests")
    assert (row["PricingQuantity"], row["PricingUnit"], row["ListUnitPrice"]) == (
        "3.000000000000",
        "Requests",
        "0.010000000000",
    )
    assert row["ConsumedQuantity"] == "3"


@pytest.mark.parametrize(
    ("wanted", "tokens"),
    [
        ({"SkuMeter": "Session Usage"}, ""),
        ({"x_Model": "claude-nova-9"}, "10"),
    ],
)
def test_what_has_no_quantity_or_price_is_priced_by_value(rows, wanted, tokens):
    """So many dollars at one dollar each; tokens that are known stay known."""
    row = one(rows, **wanted)
    assert row["PricingUnit"] == "USD"
    assert row["PricingQuantity"] == row["ListCost"] == row["ContractedCost"] == row["EffectiveCost"]
    assert (row["ListUnitPrice"], row["ConsumedQuantity"]) == ("1.000000000000", tokens)


def test_a_price_that_steps_is_the_mean_of_what_was_reported(rows):
    """40,000 tokens at $0.10 and a prompt of 150,000 at $0.50 a million are 190,000 at their mean."""
    row = one(rows, x_Model="claude-haiku-5-5")
    assert row["ListCost"] == "0.079000000000"
    assert row["ListUnitPrice"] == "0.415789473684"


def test_another_rate_than_the_books_shows(tmp_path):
    """Contracted is what the price book says, effective what was billed."""
    config = write_config(tmp_path, request_logs=[])
    with closed(
        tmp_path, [usage(HOUR, input=1000)], [cost(DAY, "0.4", "uncached_input_tokens")], [], config=config
    ) as c:
        (row,) = exported(c, tmp_path)
    assert (row["ContractedCost"], row["EffectiveCost"]) == ("0.005000000000", "0.004000000000")


def test_a_pool_is_split_over_its_charges_and_its_receivers(tmp_path):
    """Two days of a pool at 60 and 40 percent: each charge and each cost center exact, ratio and receiver named."""
    sections = {
        "request_logs": [],
        "allocation": ALLOCATION
        | {"rules": [], "shared": [{"name": "Pool", "workspace": "wrkspc_a", "split": {"CC-1": 60, "CC-3": 40}}]},
    }
    config = write_config(tmp_path, **sections)
    usages = [usage(f"2026-10-{day}T10:00:00Z", input=2000) for day in ("05", "06")]
    costs = [cost(f"2026-10-{day}", "1", "uncached_input_tokens") for day in ("05", "06")]
    with closed(tmp_path, usages, costs, [], config=config) as connection:
        rows = exported(connection, tmp_path)
    assert [(row["ChargePeriodStart"][:10], row["x_CostCenterId"], row["EffectiveCost"]) for row in rows] == [
        ("2026-10-05", "CC-1", "0.006000000000"),
        ("2026-10-05", "CC-3", "0.004000000000"),
        ("2026-10-06", "CC-1", "0.006000000000"),
        ("2026-10-06", "CC-3", "0.004000000000"),
    ]
    first = rows[0]
    assert json.loads(first["AllocatedMethodDetails"]) == {"Elements": [{"AllocatedRatio": 0.6}]}
    assert (first["AllocatedMethodId"], first["AllocatedResourceId"]) == ("Pool", "CC-1")
    assert (first["ConsumedQuantity"], first["x_SplitOriginCost"]) == ("1200", "0.010000000000")


def test_prepaid_charges_were_billed_when_the_credits_were(month, folder):
    """Drawn from credits: BilledCost is 0, EffectiveCost is the drawdown, and the linter agrees."""
    month.execute("update source.run set arrangement = 'prepaid'")
    try:
        rows = exported(month, folder)
    finally:
        month.execute("update source.run set arrangement = 'invoiced'")
    (billed_usd,) = month.execute("select billed_usd from report.summary").fetchone()
    assert total(rows, "BilledCost") == 0
    assert total(rows) == billed_usd
    assert lint_focus_1_4_structure("Cost and Usage", rows, supported_conditions=KNOWN_CONDITIONS).messages() == []
    assert validate_split_allocation(rows) == []


def test_the_draft_changes_names_alone(month, folder, rows):
    """Token properties lose their x_ with the draft's names; everything else stays."""
    drafted = exported(month, folder, draft=True)
    for row, draft in zip(rows, drafted, strict=True):
        assert {**row, "SkuPriceDetails": ""} == {**draft, "SkuPriceDetails": ""}
        details, draft_details = (json.loads(one["SkuPriceDetails"] or "{}") for one in (row, draft))
        assert {name.removeprefix("x_") for name in details} == {name.removeprefix("x_") for name in draft_details}
    details = json.loads(one(drafted, SkuMeter="Cache Read Input Tokens", x_CostCenterId="CC-1")["SkuPriceDetails"])
    assert details["ModelId"] == "claude-opus-4-7"
    assert details["ModelFamily"] == "Claude Opus"
    assert details["ModelVersion"] == "4.7"
    assert (details["TokenDirection"], details["TokenCacheAction"]) == ("Input", "Read")


def test_corrections_are_rows_of_their_own(month, folder, rows):
    """What an earlier month is corrected by stands beside the bill, in this billing period, at the charge's own day."""
    month.execute(
        """
        insert into allocated.correction by name
        select '2026-09' as period_of_charge, date '2026-09-30' as day, 'wrkspc_a' as workspace_id,
            'claude-opus-4-7' as model, 'standard' as service_tier, '0-200k' as context_window,
            'global' as inference_geo, 'standard' as speed, 'output_tokens' as meter, cost_center,
            amount_usd::decimal(38, 12) as amount_usd,
        from (values ('CC-1', 0.30), ('CC-3', 0.20)) as moved(cost_center, amount_usd)
        """
    )
    try:
        corrected = exported(month, folder)
    finally:
        month.execute("delete from allocated.correction")
    added = [row for row in corrected if row["ChargeClass"] == "Correction"]
    assert [(row["x_CostCenterId"], row["EffectiveCost"]) for row in added] == [
        ("CC-1", "0.300000000000"),
        ("CC-3", "0.200000000000"),
    ]
    assert {(row["BillingPeriodStart"], row["ChargePeriodStart"]) for row in added} == {
        ("2026-10-01T00:00:00Z", "2026-09-30T00:00:00Z")
    }
    assert len(corrected) == len(rows) + 2
    assert lint_focus_1_4_structure("Cost and Usage", corrected, supported_conditions=KNOWN_CONDITIONS).messages() == []


def test_a_file_that_does_not_tie_out_is_not_written(tmp_path):
    """A dollar that is missing in the allocation stops the export; nothing is left behind."""
    with busy(tmp_path) as connection:
        connection.execute("delete from allocated.part where basis = 'label'")
        with pytest.raises(InvariantError, match="do not add up"):
            exported(connection, tmp_path)
    assert not list((tmp_path / "out").glob("*"))


def test_parquet_keeps_decimals(month, folder, rows):
    """The same rows with amounts as decimals, and texts as they are: no apostrophe before a formula."""
    config = load_config(folder / "config.yaml")
    (path,) = export(month, "focus", folder / "out", config, FocusOptions(parquet=True)).files
    with closing(duckdb.connect()) as reader:
        kinds = {name: kind for name, kind, *_ in reader.execute(f"describe from '{path}'").fetchall()}
        summed = reader.execute(f"select sum(EffectiveCost), count(*) from '{path}'").fetchone()
        names = {name for (name,) in reader.execute(f"select distinct SubAccountName from '{path}'").fetchall()}
    assert kinds["EffectiveCost"] == kinds["PricingQuantity"] == "DECIMAL(38,12)"
    assert kinds["ConsumedQuantity"] == "BIGINT"
    assert summed == (total(rows), len(rows))
    assert "=1+1 Platform" in names
    assert "'=1+1 Platform" in {row["SubAccountName"] for row in rows}


def test_the_rows_add_up_to_the_invoice(tmp_path):
    """Tax, credits, a commitment and what nothing explains are rows of their own, with their pool's cost centers."""
    lines = {"tax": "2.10", "credit": "-1", "commitment": "5", "contract_discount": "-0.3"}
    invoice = {"period": "2026-10", "number": "INV-7", "on": "2026-11-02", "amount_usd": "5.83"}
    invoices = [invoice | {"lines": [{"reason": reason, "amount_usd": usd} for reason, usd in lines.items()]}]
    centers = {"CC-1": {"name": "Search"}, "CC-2": {"name": "Ads"}}
    pool = {"name": "Levies", "split": {"CC-1": 70, "CC-2": 30}, "invoice": ["tax"]}
    allocation = {"cost_centers": centers, "rules": [{"workspace": "Search", "to": "CC-1"}], "shared": [pool]}
    config = write_config(tmp_path, request_logs=[], invoices=invoices, allocation=allocation)
    with closed(tmp_path, [usage(HOUR, input=2000)], [cost(DAY, "1", "uncached_input_tokens")], [], config=config) as c:
        rows = exported(c, tmp_path)
    assert {row["InvoiceId"] for row in rows} == {"INV-7"}
    assert total(rows, "BilledCost") == Decimal("5.83")
    assert one(rows, x_InvoiceReason="contract_discount")["ListCost"] == "0.000000000000"
    added = [
        (row["ChargeCategory"], row["x_InvoiceReason"], row["x_CostCenterId"], Decimal(row["BilledCost"]))
        for row in rows
        if row["x_InvoiceReason"]
    ]
    assert sorted(added) == [
        ("Adjustment", "contract_discount", "", Decimal("-0.3")),
        ("Adjustment", "residual", "", Decimal("0.02")),
        ("Credit", "credit", "", Decimal(-1)),
        ("Purchase", "commitment", "", Decimal(5)),
        ("Tax", "tax", "CC-1", Decimal("1.47")),
        ("Tax", "tax", "CC-2", Decimal("0.63")),
    ]
    assert lint_focus_1_4_structure("Cost and Usage", rows, supported_conditions=KNOWN_CONDITIONS).messages() == []
    assert validate_split_allocation(rows) == []


# How a sum is divided -----------------------------------------------------------------------------------------------


@contextmanager
def macros():
    """A connection that knows the macros of export_focus.sql."""
    script = (ledger.files("reconcile") / "sql" / "export_focus.sql").read_text(encoding="utf-8")
    macro, _, _ = script.partition("-- Charges --")
    with closing(duckdb.connect()) as connection:
        connection.execute(macro)
        yield connection


UNITS = st.integers(min_value=0, max_value=10**19)


@settings(max_examples=50, deadline=None)
@given(st.lists(UNITS, min_size=1, max_size=6), st.lists(UNITS, min_size=1, max_size=5), st.sampled_from([1, -1]))
def test_divided_sums_hold_both_ways(weights, shares, sign):
    """Items keep their units and receivers theirs, whole, with no share further than two units from its quota."""
    whole = max(sum(weights), 1)
    receivers = [share * whole // max(sum(shares), 1) for share in shares]
    receivers[0] += whole - sum(receivers)
    items = list(weights) if sum(weights) else [*weights[:-1], 1]
    with macros() as connection:
        for name, column, units in (("i", "item", items), ("r", "receiver", receivers)):
            connection.execute(f"create temp table {name} (grp int, {column} int, units hugeint)")
            connection.executemany(
                f"insert into {name} values (1, ?, ?)", [(place, sign * unit) for place, unit in enumerate(units)]
            )
        shared = connection.execute("select item, receiver, units from divided(i, r)").fetchall()
    for place, unit in enumerate(items):
        assert sum(units for item, _, units in shared if item == place) == sign * unit
    for place, unit in enumerate(receivers):
        assert sum(units for _, receiver, units in shared if receiver == place) == sign * unit
    for item, receiver, units in shared:
        assert abs(sign * units * whole - items[item] * receivers[receiver]) <= 2 * whole


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=5), st.data())
def test_divided_sums_hold_where_charges_and_credits_mix(items, drawn):
    """Also where they cancel out: what nothing is proportional to is still in one row."""
    receivers = drawn.draw(st.lists(st.integers(-(10**15), 10**15), min_size=0, max_size=4))
    receivers.append(sum(items) - sum(receivers))
    with macros() as connection:
        for name, column, units in (("i", "item", items), ("r", "receiver", receivers)):
            connection.execute(f"create temp table {name} (grp int, {column} int, units hugeint)")
            connection.executemany(f"insert into {name} values (1, ?, ?)", list(enumerate(units)))
        shared = connection.execute("select item, receiver, units from divided(i, r)").fetchall()
    for place, unit in enumerate(items):
        assert sum(units for item, _, units in shared if item == place) == unit
    for place, unit in enumerate(receivers):
        assert sum(units for _, receiver, units in shared if receiver == place) == unit


STEP_DOWN = {
    "rules": [
        {"meter": "output_tokens", "pool": "Middle", "until": "2026-10-02"},
        {"workspace": "Search", "api_key": "search-prod", "to": "CC-100"},
        {"workspace": "Search", "charge": "no_key", "pool": "Last"},
    ],
    "shared": [
        {"name": "First", "workspace": "default", "split": {"Middle": 50, "Last": 25, "CC-100": 25}},
        {"name": "Middle", "workspace": "Search", "split": "even", "among": ["Last", "CC-200"], "from": "2026-10-02"},
        {"name": "Last", "workspace": "wrkspc_*", "split": "quantity"},
    ],
}
PUBLISHED = """
    create view report.run as
    select *, end_on - 1 as last_on, 'o' as organization, 'org-1' as organization_id, 1 as revision,
        'invoiced' as arrangement,
    from source.run;
    create view report.cell as
    select * exclude (in_period), null as status, null::decimal(38, 12) as list_price_usd,
        null::decimal(38, 12) as price_usd, null::decimal(38, 12) as price_high_usd,
    from matched.cell where in_period;
    create view report.allocation as from allocated.part;
    create view report.chargeback as from allocated.chargeback;
    create view report.other as from allocated.other;
    create view report.bridge as
    select 9 as position, 'total' as kind, 'billed' as reason, 'Billed' as title, 0::decimal(38, 12) as amount_usd,
        0::decimal(38, 12) as running_usd;
"""


@settings(max_examples=20, deadline=None)
@given(month=months(), rules=st.sampled_from([ANY_RULES, STEP_DOWN]))
def test_any_month_adds_up_where_pools_feed_pools(month, rules):
    """Charges, credits, keys and pools in any mix: the file's own controls hold, and every dollar has a cost center."""
    with closing(duckdb.connect()) as connection:
        ledger.prepare(connection)
        split(connection, **rules, **month, explained_finding=[("f", "residual")])
        connection.execute(PUBLISHED)
        build(connection, FocusOptions(), None)
        nobody = "select * from focus_row where EffectiveCost <> 0 and x_CostCenterId is null"
        assert connection.execute(nobody).fetchall() == []
