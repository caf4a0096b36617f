"""The journal: what cost centers pay, booked so that debits equal credits, as accounting systems take it."""

import csv
from datetime import date, datetime
from decimal import Decimal

import pytest
from export_month import CENTERS, busy
from hypothesis import given
from hypothesis import strategies as st
from month import closed, cost, usage, write_config

from reconcile.config import load_config
from reconcile.errors import ConfigError, InvariantError
from reconcile.export import export
from reconcile.export.journal import Book, Posting, entry_lines
from reconcile.export.layouts import lay_out

ACCOUNTS = {"credit_account": "2150", "unallocated_account": "6159"}
DAY, HOUR = "2026-10-05", "2026-10-05T10:00:00Z"
REFRESHED_AT = datetime(2026, 11, 2, 6, 0)  # noqa: DTZ001 - the ledger's instants are UTC without saying so


def journal(connection, folder, **section):
    """The exported files as bytes, by name."""
    config = load_config(folder / "config.yaml")
    config = config.model_copy(update={"journal": type(config.journal).model_validate(section)})
    return {path.name: path.read_bytes() for path in export(connection, "journal", folder / "out", config).files}


def table(content, encoding="utf-8", delimiter=","):
    return list(csv.reader(content.decode(encoding).splitlines(), delimiter=delimiter))


def records(content):
    head, *rows = table(content)
    return [dict(zip(head, row, strict=True)) for row in rows]


def dollars(rows, column):
    return sum((Decimal(row[column] or 0) for row in rows), Decimal(0))


def three_dollars(folder, **fields):
    """A month of 1.50, 1.00 and 0.50 for three cost centers, and 0.25 that no rule catches."""
    usages, costs = [], []
    for workspace, cents in (("a", "150"), ("b", "100"), ("c", "50"), ("d", "25")):
        usages.append(usage(HOUR, input=10, workspace_id=f"wrkspc_{workspace}"))
        costs.append(cost(DAY, cents, "uncached_input_tokens", workspace_id=f"wrkspc_{workspace}"))
    rules = [{"workspace": f"wrkspc_{name}", "to": f"CC-{place}"} for place, name in enumerate("abc", start=1)]
    config = write_config(folder, request_logs=[], allocation={"cost_centers": CENTERS, "rules": rules})
    workspaces = [{"id": f"wrkspc_{name}", "name": name} for name in "abcd"]
    return closed(folder, usages, costs, [], config=config, workspaces=workspaces, **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("journal")


@pytest.fixture(scope="module")
def month(folder):
    """Three dollars, complete; for tests that change nothing in it."""
    with three_dollars(folder) as connection:
        yield connection


def test_a_complete_month_is_booked_on_its_last_day(month, folder):
    """A debit a cost center, one credit of what is owed: the chargeback, cent for cent."""
    ((name, content),) = journal(month, folder, **ACCOUNTS).items()
    assert name == "2026-10-journal-generic.csv"
    shown = ("entry", "date", "account", "cost_center", "debit_usd", "credit_usd")
    assert [tuple(row[column] for column in shown) for row in records(content)] == [
        ("2026-10-r1", "2026-10-31", "6150", "CC-1", "1.50", ""),
        ("2026-10-r1", "2026-10-31", "6160", "CC-2", "1.00", ""),
        ("2026-10-r1", "2026-10-31", "6170", "CC-3", "0.50", ""),
        ("2026-10-r1", "2026-10-31", "6159", "unallocated", "0.25", ""),
        ("2026-10-r1", "2026-10-31", "2150", "", "", "3.25"),
    ]


def test_a_name_is_no_formula(month, folder):
    """A cost center called =SUM(A1:A9) stays a text; a negative amount stays a number."""
    rows = records(journal(month, folder, **ACCOUNTS)["2026-10-journal-generic.csv"])
    assert rows[1]["name"] == "'=SUM(A1:A9) Ads"
    assert rows[-1]["signed_usd"] == "-3.25"


def test_a_month_that_is_not_over_is_accrued_and_reversed(tmp_path):
    """The accrual stands on the month's last day, its reversal on the first of the next; together they are nothing."""
    with three_dollars(tmp_path, through_on="2026-10-20") as connection:
        rows = records(journal(connection, tmp_path, **ACCOUNTS)["2026-10-journal-generic.csv"])
    days = {row["entry"]: row["date"] for row in rows}
    assert days == {"2026-10-r1-accrual": "2026-10-31", "2026-10-r1-reversal": "2026-11-01"}
    for entry in days:
        lines = [row for row in rows if row["entry"] == entry]
        assert dollars(lines, "debit_usd") == dollars(lines, "credit_usd") == Decimal("3.25")
    for account in {row["account"] for row in rows}:
        assert dollars([row for row in rows if row["account"] == account], "signed_usd") == 0
    assert rows[0]["memo"] == "Accrual, Claude API 2026-10 through 2026-10-20"


def test_the_days_that_remain_are_estimated_only_if_asked_for(tmp_path):
    """With `accrue: run_rate` they are entries of their own, by cost center, and reversed as the accrual is."""
    with three_dollars(tmp_path, through_on="2026-10-20") as connection:
        section = ACCOUNTS | {"accrue": "run_rate"}
        rows = records(journal(connection, tmp_path, **section)["2026-10-journal-generic.csv"])
    estimate = [row for row in rows if row["entry"] == "2026-10-r1-estimate"]
    assert [(row["cost_center"], row["debit_usd"]) for row in estimate if row["cost_center"]] == [
        ("CC-1", "0.83"), ("CC-2", "0.55"), ("CC-3", "0.28"), ("unallocated", "0.14"),
    ]  # fmt: skip
    assert estimate[0]["memo"] == "Estimate, Claude API 2026-10, 11 days at the mean of 20"
    assert dollars([row for row in rows if row["entry"] == "2026-10-r1-accrual"], "debit_usd") == Decimal("3.25")
    assert {row["date"] for row in rows if row["entry"] == "2026-10-r1-estimate-reversal"} == {"2026-11-01"}
    for account in {row["account"] for row in rows}:
        assert dollars([row for row in rows if row["account"] == account], "signed_usd") == 0


def test_what_the_cost_report_does_not_hold_is_an_entry_of_its_own(tmp_path):
    """Corrections of earlier months by month, the rest of `other_usd` apart; all of `payable_usd` is booked."""
    with three_dollars(tmp_path) as connection:
        connection.execute("update allocated.chargeback set other_usd = 12.30, payable_usd = total_usd + 12.30 "
                           "where cost_center = 'CC-1'")  # fmt: skip
        connection.execute(
            "insert into allocated.correction by name select '2026-09' as period_of_charge, 'CC-1' as cost_center, "
            "2.304::decimal(38, 12) as amount_usd"
        )
        rows = records(journal(connection, tmp_path, **ACCOUNTS)["2026-10-journal-generic.csv"])
    debits = [(row["kind"], row["cost_center"], row["debit_usd"], row["memo"]) for row in rows if row["cost_center"]]
    assert debits[4:] == [
        ("correction", "CC-1", "2.30", "Claude API, correction of 2026-09"),
        ("other", "CC-1", "10.00", "Claude API 2026-10, outside the cost report"),
    ]
    assert dollars(rows, "debit_usd") == dollars(rows, "credit_usd") == Decimal("15.55")


def test_a_correction_of_nobody_is_refused(tmp_path):
    """A correction for a cost center that the chargeback does not have would not tie out."""
    with three_dollars(tmp_path) as connection:
        connection.execute(
            "insert into allocated.correction by name select '2026-09' as period_of_charge, 'CC-9' as cost_center, "
            "2.30::decimal(38, 12) as amount_usd"
        )
        with pytest.raises(InvariantError, match=r"books 5\.55 USD, the chargeback has 3\.25"):
            journal(connection, tmp_path, **ACCOUNTS)
    assert not list((tmp_path / "out").glob("*"))


def test_columns_are_chosen_and_named(month, folder):
    """`columns` gives headings and order, `day_format` how days are written."""
    section = {
        "columns": {"Posting date": "date", "G/L": "account", "Amount": "signed_usd"},
        "day_format": "DD/MM/YYYY",
    }
    head, first, *_ = table(journal(month, folder, **ACCOUNTS, **section)["2026-10-journal-generic.csv"])
    assert (head, first) == (["Posting date", "G/L", "Amount"], ["31/10/2026", "6150", "1.50"])


def test_an_account_that_nobody_named(tmp_path):
    """A generic journal names it and says so; a system's layout is refused, with the key to fill."""
    with three_dollars(tmp_path) as connection:
        connection.execute("update allocated.cost_center set account = null")
        config = load_config(tmp_path / "config.yaml")
        centers = {
            code: center.model_copy(update={"account": None}) for code, center in config.allocation.cost_centers.items()
        }
        config = config.model_copy(
            update={"allocation": config.allocation.model_copy(update={"cost_centers": centers})}
        )
        written = export(connection, "journal", tmp_path / "out", config)
        assert {row["account"] for row in records(written.files[0].read_bytes())} == {
            "api-usage",
            "unallocated",
            "provider-payable",
        }
        assert written.notes[0] == (
            "allocation.cost_centers.CC-1.account names no account: the journal says 'api-usage'"
        )
        xero = config.model_copy(update={"journal": config.journal.model_copy(update={"template": "xero"})})
        with pytest.raises(ConfigError, match=r"CC-1\.account: names no account, the template xero needs one; 4 more"):
            export(connection, "journal", tmp_path / "out", xero)


def test_prepaid_credits_are_drawn_down(tmp_path):
    """Where the arrangement is prepaid, the unnamed contra account is the asset, not the debt."""
    with three_dollars(tmp_path) as connection:
        connection.execute("update source.run set arrangement = 'prepaid'")
        rows = records(journal(connection, tmp_path)["2026-10-journal-generic.csv"])
    assert rows[-1]["account"] == "provider-prepaid"


# Layouts ------------------------------------------------------------------------------------------------------------


def test_netsuite(month, folder):
    """Lines of an entry share the External ID; days as in the US unless the config says otherwise."""
    section = {"template": "netsuite", "netsuite": {"subsidiary": "Example Inc."}}
    rows = records(journal(month, folder, **ACCOUNTS, **section)["2026-10-journal-netsuite.csv"])
    assert rows[0] == {
        "External ID": "2026-10-r1",
        "Date": "10/31/2026",
        "Subsidiary": "Example Inc.",
        "Currency": "USD",
        "Memo": "Claude API 2026-10",
        "Account": "6150",
        "Debit": "1.50",
        "Credit": "",
        "Line Memo": "Search",
        "Department": "CC-1",
    }
    assert dollars(rows, "Debit") == dollars(rows, "Credit")


def test_quickbooks(month, folder):
    """JournalNo groups the lines; debits and credits are columns of their own."""
    rows = records(journal(month, folder, template="quickbooks", **ACCOUNTS)["2026-10-journal-quickbooks.csv"])
    assert (rows[0]["JournalNo"], rows[0]["JournalDate"], rows[0]["Debits"]) == ("2026-10-r1", "10/31/2026", "1.50")
    assert dollars(rows, "Debits") == dollars(rows, "Credits") == Decimal("3.25")


def test_xero(month, folder):
    """Debits are positive, credits negative, the sum nothing; the cost center is tracked."""
    rows = records(journal(month, folder, template="xero", **ACCOUNTS)["2026-10-journal-xero.csv"])
    assert dollars(rows, "*Amount") == 0
    assert [(row["*Date"], row["*Amount"], row["TrackingOption1"]) for row in (rows[0], rows[-1])] == [
        ("31/10/2026", "1.50", "CC-1"),
        ("31/10/2026", "-3.25", ""),
    ]


DATEV = {"template": "datev", "datev": {"usd_rate": "1.25", "consultant": 29098, "client": 55003}}


def test_datev(month, folder):
    """A batch in cp1252 with its header, 125 columns, positive amounts with S or H, and both accounts in a line."""
    ((name, content),) = journal(month, folder, **ACCOUNTS, **DATEV).items()
    assert name == "EXTF_Buchungsstapel_2026-10_2026-10.csv"
    assert content.startswith(
        b'"EXTF";700;21;"Buchungsstapel";13;20261102060000000;;"RE";"reconcile";"";29098;55003;20260101;4;20261001;'
        b'20261031;"Claude API 2026-10";"";1;0;0;"EUR";'
    )
    assert content.count(b"\r\n") == content.count(b"\n") == 6
    _, head, *rows = table(content, "cp1252", ";")
    assert {len(row) for row in (head, *rows)} == {125}
    assert len(set(head)) == 125
    place = {heading: number for number, heading in enumerate(head)}
    first, _, third, _ = ([row[place[heading]] for heading in (
        "Umsatz (ohne Soll/Haben-Kz)", "Soll/Haben-Kennzeichen", "WKZ Umsatz", "Kurs", "Basis-Umsatz",
        "WKZ Basis-Umsatz", "Konto", "Gegenkonto (ohne BU-Schlüssel)", "Belegdatum", "Belegfeld 1", "Buchungstext",
        "KOST1 - Kostenstelle",
    )] for row in rows)  # fmt: skip
    assert first == [
        *("1,50", "S", "USD", "1,25", "1,20", "EUR", "6150", "2150", "3110", "2026-10-r1"),
        *("Claude API 2026-10, Search", "CC-1"),
    ]
    assert third[-2] == "Claude API 2026-10, Büro € Ops"


def test_datev_keeps_months_apart(tmp_path):
    """A batch is of one month: an accrual's reversal is in the next one, with the sides turned."""
    with three_dollars(tmp_path, through_on="2026-10-20") as connection:
        files = journal(connection, tmp_path, **ACCOUNTS, **DATEV)
    assert sorted(files) == ["EXTF_Buchungsstapel_2026-10_2026-10.csv", "EXTF_Buchungsstapel_2026-11_2026-10.csv"]
    sides = [{row[1] for row in table(content, "cp1252", ";")[2:]} for _, content in sorted(files.items())]
    assert sides == [{"S"}, {"H"}]


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"template": "datev"}, "the books are in EUR and the bill is in USD"),
        ({"template": "datev", "datev": {"usd_rate": "0.9"}}, "takes a rate from 1"),
        ({**DATEV, "credit_account": "2150-1"}, "got '2150-1', DATEV takes numbers of up to 5 digits"),
    ],
)
def test_what_datev_cannot_say_is_refused(month, folder, section, what):
    """No rate for books in another currency, a rate that the field does not take, an account that is no number."""
    with pytest.raises(ConfigError, match=what):
        journal(month, folder, **{**ACCOUNTS, **section})


def test_books_in_usd_need_no_rate(month, folder):
    """No rate and no second amount where the books are in USD; a fiscal year may begin in any month."""
    section = {"template": "datev", "datev": {"currency": "USD", "fiscal_year_starts": 11}}
    ((_, content),) = journal(month, folder, **ACCOUNTS, **section).items()
    assert b";20251101;4;20261001;" in content
    assert table(content, "cp1252", ";")[2][:6] == ["1,50", "S", "USD", "", "", ""]


# For any amounts ----------------------------------------------------------------------------------------------------

CENTS = st.decimals(min_value=Decimal("-1e9"), max_value=Decimal("1e9"), places=2)


def postings(amounts):
    return tuple(
        Posting("e", "cost", date(2026, 10, 31), f"{6000 + place}", "2150", f"CC-{place}", "n", amount_usd, "m")
        for place, amount_usd in enumerate(amounts)
    )


@given(st.lists(CENTS, max_size=30))
def test_debits_equal_credits(amounts):
    """Of any amounts, credits among them: sides add up, none is negative, and each account moves by its amount."""
    lines = entry_lines(postings(amounts))
    assert sum(line.debit_usd for line in lines) == sum(line.credit_usd for line in lines)
    assert all(min(line.debit_usd, line.credit_usd) == 0 < max(line.debit_usd, line.credit_usd) for line in lines)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    moved = {line.account: line.signed_usd for line in lines}
    for posting in postings(amounts):
        assert moved.get(posting.account, 0) == posting.amount_usd
    assert moved.get("2150", 0) == -sum(amounts)


@given(st.lists(CENTS.filter(bool), min_size=1, max_size=5))
def test_datev_says_the_same(amounts):
    """Its lines, S positive and H negative, are the amounts."""
    settings = load_journal(template="datev", datev={"usd_rate": "1.0875"})
    (laid,) = lay_out(Book("2026-10", 1, postings(amounts), ()), settings, REFRESHED_AT)
    said = [(row[0], row[1]) for row in table(laid.content, "cp1252", ";")[2:]]
    assert [Decimal(written.replace(",", ".")) * (1 if side == "S" else -1) for written, side in said] == amounts


def load_journal(**section):
    from reconcile.config import Journal  # noqa: PLC0415

    return Journal.model_validate(section)


def test_the_whole_month_balances(tmp_path):
    """Labels, keys and pools too: every template's file has as much on one side as on the other."""
    with busy(tmp_path) as connection:
        (payable_usd,) = connection.execute("select sum(payable_usd) from report.chargeback").fetchone()
        rows = records(journal(connection, tmp_path, **ACCOUNTS)["2026-10-journal-generic.csv"])
    assert dollars(rows, "debit_usd") == dollars(rows, "credit_usd") == payable_usd
