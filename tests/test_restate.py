"""What the provider corrects after a month was closed: booked in the open month, by the rules of the charge's month."""

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from month import bridge, cost
from month import closed as closed_month
from sites import Site, digests

from reconcile import cli, explain, ledger, run
from reconcile.config import Invoice, load_config
from reconcile.errors import NotReadyError
from reconcile.period import Period
from reconcile.run.restate import RESTATEMENT
from reconcile.sandbox import Sandbox, Scenario
from reconcile.sandbox.sandbox import KEY_VARIABLE

OCTOBER, NOVEMBER, DECEMBER = (Period.parse(month) for month in ("2026-10", "2026-11", "2026-12"))
SMALL = {"requests": 60, "plants": frozenset()}
LATER = datetime(2026, 12, 1, 6, tzinfo=UTC)
ANY = [("tolerance: {usd: 1.00, percent: 0.5}", "tolerance: {usd: 1000000, percent: 100}")]


@pytest.fixture(scope="module")
def october() -> Sandbox:
    return Sandbox.build(Scenario(**SMALL))


@pytest.fixture(scope="module")
def november() -> Sandbox:
    return Sandbox.build(Scenario(period=NOVEMBER, **SMALL))


@pytest.fixture(scope="module", autouse=True)
def key(october):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, october.key)
        yield


@pytest.fixture(scope="module")
def closed(tmp_path_factory, october, november) -> Site:
    """October is closed, November provisional; no test changes it."""
    site = Site(tmp_path_factory.mktemp("closed"), october)
    for simulated in (october, november):
        simulated.write(site.folder)
    assert site.close(final=True, edits=ANY).state == "closed"
    assert replace(site, simulated=november).close(month=NOVEMBER, edits=ANY).state == "provisional"
    return site


@pytest.fixture
def site(closed, tmp_path) -> Site:
    """The same, to be changed."""
    shutil.copytree(closed.folder, tmp_path / "site")
    return replace(closed, folder=tmp_path / "site")


def corrected(simulated: Sandbox, *changes: tuple[int, str]) -> Sandbox:
    """The sandbox with the n-th cost lines of the month changed by that many USD."""
    costs = {day: list(lines) for day, lines in simulated.costs.items()}
    places = [(day, n) for day in sorted(costs) for n in range(len(costs[day]))]
    for number, usd in changes:
        day, n = places[number]
        line = costs[day][n]
        costs[day][n] = replace(line, pico_usd=line.pico_usd + int(Decimal(usd) * 10**12))
    return replace(simulated, costs=costs)


def recheck(site: Site, simulated: Sandbox, month=OCTOBER, now=LATER, like=None) -> run.Rechecked:
    """Recheck against a sandbox; the config is that of November's, or of another one."""
    configured = replace(site, simulated=like or Sandbox.build(Scenario(period=NOVEMBER, **SMALL)))
    with simulated.serve() as server:
        return run.recheck(load_config(configured.configure(server.url, *ANY)), period=month, now=now)


def rows(site: Site, query: str, month: str = "2026-11") -> list[tuple]:
    with ledger.reading(site.var / "ledger" / f"{month}.duckdb") as connection:
        return connection.execute(query).fetchall()


def states(site: Site) -> dict[str, str]:
    return {one.period: one.state for one in run.status(load_config(site.folder / "config.yaml"))}


def test_what_moved_is_booked_in_the_open_month(site, october):
    """Each moved cell is a row beside billed: in the bridge, the chargeback, the journal and FOCUS; October stays."""
    before = digests(site.var / "reports" / "2026-10")
    first = digests(site.var / "ledger")["2026-10.r1.duckdb"]
    found = recheck(site, corrected(october, (0, "1.25"), (3, "0.5")))
    assert (found.amount_usd, len(found.rows), found.state) == (Decimal("1.75"), 2, "restated")
    assert (found.booked_in, found.booked_revision) == ("2026-11", 2)
    assert states(site) == {"2026-10": "restated", "2026-11": "provisional"}
    assert digests(site.var / "reports" / "2026-10") == before
    assert digests(site.var / "ledger")["2026-10.r1.duckdb"] == first
    moved = rows(
        site,
        "select period_of_charge, after_usd - before_usd = amount_usd, amount_usd::double from report.restatement"
        " order by amount_usd",
    )
    assert moved == [("2026-10", True, 0.5), ("2026-10", True, 1.25)]
    place = "row(day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter)::varchar"
    was = dict(rows(site, f"select {place}, billed_usd from report.cell where billed_usd is not null", "2026-10"))
    assert dict(rows(site, f"select {place}, before_usd from report.restatement")).items() <= was.items()
    bridge = rows(site, "select kind, reason, amount_usd from report.bridge order by position")
    assert bridge[-2:] == [("total", "billed", None), ("step", "earlier_period", Decimal("1.75"))]
    totals = rows(site, "select sum(total_usd), sum(other_usd), sum(payable_usd - total_usd) from report.chargeback")
    billed = rows(site, "select round(sum(billed_usd), 2) from report.cell")[0][0]
    assert totals == [(billed, Decimal("1.75"), Decimal("1.75"))]
    assert rows(site, "select sum(amount_usd) from report.restatement_part") == [(Decimal("1.75"),)]
    exported_is_whole(site)
    page = (site.var / "reports" / "2026-11" / "index.html").read_text()
    assert "Corrections of earlier periods" in page


def exported_is_whole(site: Site) -> None:
    """The journal and FOCUS hold the corrections, and add up with them."""
    config = load_config(site.folder / "config.yaml")
    (journal,) = run.export(config, "journal", period=NOVEMBER).files
    lines = [row for row in csv.DictReader(journal.open(newline="")) if row["kind"] == "correction"]
    signed = sum(Decimal(row["signed_usd"]) for row in lines if row["cost_center"])
    assert signed == Decimal("1.75")
    assert {row["memo"] for row in lines if row["cost_center"]} == {"Claude API, correction of 2026-10"}
    (focus,) = run.export(config, "focus", period=NOVEMBER).files
    charges = [row for row in csv.DictReader(focus.open(newline="")) if row["ChargeClass"] == "Correction"]
    assert sum(Decimal(row["EffectiveCost"]) for row in charges) == Decimal("1.75")
    assert {row["x_PeriodOfCharge"] for row in charges} == {"2026-10"}


def test_the_payers_are_those_of_the_month_of_the_charge(site, october):
    """A moved charge is split as October split that charge, whatever November's rules say."""
    found = recheck(site, corrected(october, (0, "1")))
    (row,) = found.rows
    whole = f"workspace_id = '{row['workspace_id']}' and model = '{row['model']}' and meter = '{row['meter']}'"
    charge = f"{whole} and day = '{row['day']}' and service_tier = '{row['service_tier']}'"
    paid: list = []
    for place in (charge, f"{whole} and day is null"):
        query = f"select distinct cost_center from report.allocation where {place} order by 1"
        paid = paid or rows(site, query, "2026-10")
    assert rows(site, "select distinct cost_center from report.restatement_part order by 1") == paid


def test_nothing_moved(site, october, capsys):
    """A recheck that finds the same books nothing, and leaves the months as they are."""
    before = digests(site.var / "ledger") | digests(site.var / "reports")
    with october.serve() as server:
        config = site.configure(server.url, *ANY)
        arguments = ["recheck", "-c", str(config), "--month", "2026-10", "--now", LATER.isoformat()]
        assert cli.invoke([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["amount_usd"], said["booked_in"], said["state"]) == ([], "0", None, "closed")
    assert digests(site.var / "ledger") | digests(site.var / "reports") == before
    assert states(site) == {"2026-10": "closed", "2026-11": "provisional"}


def test_what_was_booked_is_not_booked_twice(site, october, november):
    """November is closed with it; a second recheck books only what moved since, in December. What moves back, too."""
    moved = corrected(october, (0, "1"))
    assert recheck(site, moved).booked_revision == 2
    late = replace(site, simulated=november)
    assert late.close(month=NOVEMBER, edits=ANY, final=True, now=datetime(2026, 12, 4, 6, tzinfo=UTC)).revision == 2
    again = recheck(site, moved, now=LATER + timedelta(days=4))
    assert (again.rows, again.booked_in, again.state) == ((), None, "restated")
    assert late.close(month=NOVEMBER, edits=ANY, offline=True).published is False
    december = Sandbox.build(Scenario(period=DECEMBER, **SMALL))
    december.write(site.folder)
    last = replace(site, simulated=december)
    assert last.close(month=DECEMBER, edits=ANY).summary["billed_usd"] > 0
    assert rows(site, "from report.restatement", "2026-12") == []
    more = recheck(site, corrected(october, (0, "1"), (5, "2")), now=LATER + timedelta(days=5), like=december)
    assert (more.amount_usd, more.booked_in) == (2, "2026-12")
    back = recheck(site, october, now=LATER + timedelta(days=6), like=december)
    assert (back.amount_usd, back.booked_in, back.state) == (-1, "2026-12", "closed")
    assert rows(site, "select sum(amount_usd) from report.restatement", "2026-12") == [(Decimal(-1),)]
    run.verify(load_config(site.folder / "config.yaml"))


def test_a_month_that_is_closed_anew_takes_its_correction_back(site, october, november):
    """What November booked is reversed in December when October itself is closed with the corrected charges."""
    moved = corrected(october, (0, "1"))
    recheck(site, moved)
    late = replace(site, simulated=november)
    late.close(month=NOVEMBER, edits=ANY, final=True, now=datetime(2026, 12, 4, 6, tzinfo=UTC))
    run.reopen(load_config(site.folder / "config.yaml"), period=OCTOBER, reason="whole month wrong", now=LATER)
    assert replace(site, simulated=moved).close(edits=ANY, final=True, now=LATER).revision == 2
    december = Sandbox.build(Scenario(period=DECEMBER, **SMALL))
    december.write(site.folder)
    replace(site, simulated=december).close(month=DECEMBER, edits=ANY)
    assert rows(site, "select sum(amount_usd) from report.restatement", "2026-12") == [(Decimal(-1),)]


def test_only_a_closed_month_is_rechecked(site, november):
    """A provisional one is closed again instead."""
    with pytest.raises(NotReadyError, match="recheck 2026-11: it is provisional, expected closed"):
        recheck(site, november, month=NOVEMBER)


def test_an_invoice_ties_out_with_what_was_restated(tmp_path):
    """The step is what was restated, or the invoice's own line for earlier months, never both; the rest is residual."""
    day = date(2026, 10, 5)
    moved = ("2026-09", day, "wrkspc_a", None, None, None, None, None, "code_execution", 1, 4, 3)
    with closed_month(tmp_path, [], [cost("2026-10-05", "1000", cost_type="session_usage", model=None)], []) as month:
        ledger.insert(month, "source.restatement", RESTATEMENT, [moved])
        for amount_usd, lines, expected in (
            (None, [], {"billed": "10", "earlier_period": "3"}),
            (13, [], {"billed": "10", "earlier_period": "3", "invoiced": "13"}),
            (
                15,
                [("earlier_period", 3), ("tax", 2)],
                {"billed": "10", "tax": "2", "earlier_period": "3", "invoiced": "15"},
            ),
            (14, [], {"billed": "10", "earlier_period": "3", "residual": "1", "invoiced": "14"}),
        ):
            made = [{"reason": reason, "amount_usd": usd} for reason, usd in lines]
            invoice = {"period": "2026-10", "number": "1", "on": "2026-11-01", "amount_usd": amount_usd, "lines": made}
            explain._book_invoice(month, Invoice.model_validate(invoice) if amount_usd else None)
            ledger.run_sql(month, "explain/bridge")
            found = bridge(month)
            names = ("billed", "tax", "earlier_period", "residual", "invoiced")
            assert {name: found[name] for name in names if name in found} == expected
