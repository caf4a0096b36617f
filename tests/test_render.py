"""What the pages and the public views say about a small made-up month."""

import csv
import html
import re
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser

import duckdb
import ledger_rows
import pytest
from ledger_rows import FORMULA, HOSTILE, MONTH, Case, Cell

from reconcile import ledger, reasons, render
from reconcile.errors import InvariantError
from reconcile.render import words

# The contract: design.md section 4.
DIMENSIONS = [
    ("day", "DATE"),
    ("workspace_id", "VARCHAR"),
    ("model", "VARCHAR"),
    ("service_tier", "VARCHAR"),
    ("context_window", "VARCHAR"),
    ("inference_geo", "VARCHAR"),
    ("speed", "VARCHAR"),
    ("meter", "VARCHAR"),
]
USD = "DECIMAL(38,12)"
CENTS = "DECIMAL(38,2)"
PUBLIC = {
    "summary": [
        ("period", "VARCHAR"),
        ("organization", "VARCHAR"),
        ("revision", "INTEGER"),
        ("logged_usd", USD),
        ("cleaning_usd", USD),
        ("recorded_usd", USD),
        ("reported_usd", USD),
        ("billed_usd", USD),
        ("difference_usd", USD),
        ("explained_usd", USD),
        ("residual_usd", USD),
        ("capture_rate", "DOUBLE"),
        ("discrepancy_count", "BIGINT"),
        ("beyond_tolerance", "BOOLEAN"),
        ("through_on", "DATE"),
        ("data_refreshed_at", "TIMESTAMP"),
        ("input_digest", "VARCHAR"),
    ],
    "cell": [
        *DIMENSIONS[:2],
        ("workspace_name", "VARCHAR"),
        *DIMENSIONS[2:],
        ("recorded_quantity", "BIGINT"),
        ("reported_quantity", "BIGINT"),
        ("price_unit", "VARCHAR"),
        ("list_price_usd", USD),
        ("price_usd", USD),
        ("price_high_usd", USD),
        ("recorded_usd", USD),
        ("reported_usd", USD),
        ("billed_usd", USD),
        ("quantity_variance_usd", USD),
        ("price_variance_usd", USD),
        ("difference_usd", USD),
        ("status", "VARCHAR"),
    ],
    "usage": [*DIMENSIONS, ("api_key_id", "VARCHAR"), ("reported_quantity", "BIGINT"), ("reported_usd", USD)],
    "bridge": [
        ("position", "INTEGER"),
        ("kind", "VARCHAR"),
        ("reason", "VARCHAR"),
        ("title", "VARCHAR"),
        ("quantity", "BIGINT"),
        ("amount_usd", USD),
        ("running_usd", USD),
    ],
    "discrepancy": [
        ("id", "VARCHAR"),
        ("reason", "VARCHAR"),
        ("confidence", "VARCHAR"),
        ("day_from", "DATE"),
        ("day_to", "DATE"),
        ("log", "VARCHAR"),
        ("workspace_id", "VARCHAR"),
        ("model", "VARCHAR"),
        ("service_tier", "VARCHAR"),
        ("meter", "VARCHAR"),
        ("api_key_id", "VARCHAR"),
        ("quantity", "BIGINT"),
        ("amount_usd", USD),
        ("moved_usd", USD),
        ("beyond_tolerance", "BOOLEAN"),
        ("accepted", "BOOLEAN"),
        ("evidence", "VARCHAR"),
    ],
    "allocation": [
        ("day", "DATE"),
        ("workspace_id", "VARCHAR"),
        ("model", "VARCHAR"),
        ("service_tier", "VARCHAR"),
        ("meter", "VARCHAR"),
        ("api_key_id", "VARCHAR"),
        ("label", "VARCHAR"),
        ("cost_center", "VARCHAR"),
        ("basis", "VARCHAR"),
        ("rule", "VARCHAR"),
        ("pool", "VARCHAR"),
        ("driver", "VARCHAR"),
        ("share", "DECIMAL(18,12)"),
        ("amount_usd", USD),
    ],
    "chargeback": [
        ("cost_center", "VARCHAR"),
        ("name", "VARCHAR"),
        ("direct_usd", CENTS),
        ("shared_usd", CENTS),
        ("total_usd", CENTS),
        ("other_usd", CENTS),
        ("payable_usd", CENTS),
    ],
}

ONE = Cell(3, "wrkspc_one", "claude-opus-4-7", "output_tokens", 1_000_000, 1_000_000, "25", "25")
CASES = {
    "month": MONTH,
    "empty": Case(),
    "no logs": Case(cells=(replace(ONE, recorded=None),), logs=()),
    "nothing billed": Case(cells=(replace(ONE, billed=None, why_price="uncharged"),), direct={"wrkspc_one": "CC-1"}),
    "one day": Case(cells=(replace(ONE, day=1),), through=1, centers={"CC-1": "One"}, direct={"wrkspc_one": "CC-1"}),
    "ties out": Case(cells=(ONE,), centers={"CC-1": "One"}, direct={"wrkspc_one": "CC-1"}),
    "logs hold more": Case(cells=(replace(ONE, recorded=3_000_000, why="unreported"),)),
    "large and nothing": Case(
        cells=(replace(ONE, reported=49_382_715_600, recorded=49_382_715_600, billed="1234567.89"),),
        centers={"CC-1": "Large", "CC-0": "Nothing"},
        direct={"wrkspc_one": "CC-1"},
    ),
    "a credit": Case(cells=(ONE, replace(ONE, day=4, reported=None, recorded=None, billed="-30.005"))),
    "compared": replace(
        MONTH,
        other={"CC-100": "12.50", "CC-200": "-2.50"},
        earlier={"CC-100": "200.00", "CC-200": "120.10", "CC-900": "0.00", "CC-800": "7.77"},
        budgets={"CC-100": "200.00", "CC-200": "100.00"},
    ),
    "other costs": replace(MONTH, other={"CC-100": "12.50", "CC-200": "-12.50"}),
    "halves of a cent": Case(
        cells=tuple(
            Cell(day, f"wrkspc_{day}", "claude-opus-4-7", "output_tokens", 100 * day + 1, 333 * day, "25", f"0.{day}05")
            for day in range(1, 10)
        ),
        cleaning=(("duplicate", "gateway", "-0.005"), ("app_price", "gateway", "0.015")),
        centers={"CC-1": "One", "CC-2": "Two", "CC-3": "Three"},
        direct={"wrkspc_1": "CC-1", "wrkspc_2": "CC-2", "wrkspc_3": "CC-3"},
        pooled=frozenset({"wrkspc_4", "wrkspc_5", "wrkspc_6"}),
    ),
    "half matched": Case(
        cells=tuple(
            Cell(day, "wrkspc_one", "claude-opus-4-7", "output_tokens", 333 * day * (day % 2), 333 * day, "25", billed)
            for day, billed in enumerate(
                ("0.008325", "0.01", "0.024975", "0.02", "0.041625", "0.04", "0.058275"), start=1
            )
        ),
    ),
    "two hundred cost centers": Case(
        cells=tuple(replace(ONE, day=1 + n % 31, workspace_id=f"wrkspc_{n}") for n in range(200)),
        centers={f"CC-{n}": f"Team {n}" for n in range(200)},
        direct={f"wrkspc_{n}": f"CC-{n}" for n in range(200)},
    ),
}


def connect(case: Case) -> duckdb.DuckDBPyConnection:
    """A ledger as a run leaves it, in memory."""
    connection = duckdb.connect(config={"preserve_insertion_order": "false", "threads": "4"})
    ledger_rows.fill(connection, case)
    render.publish_views(connection)
    return connection


@pytest.fixture
def month():
    with connect(MONTH) as connection:
        yield connection


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The rendered pages of every case, by name of the case."""
    rendered = {}
    for name, case in CASES.items():
        out_dir = tmp_path_factory.mktemp("reports") / "2026-10"
        with connect(case) as connection:
            paths = render.render(connection, out_dir)
        rendered[name] = {str(path.relative_to(out_dir)): path.read_text() for path in paths if path.suffix == ".html"}
    return rendered


# The public views ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", list(PUBLIC))
def test_public_view_is_the_contract(month, view):
    """Names, order and types of a public view's columns are those of the contract."""
    described = month.execute(f"describe report.{view}").fetchall()
    assert [(name, kind) for name, kind, *_ in described] == PUBLIC[view]


def test_summary(month):
    """The summary's figures are the sums of the literal rows."""
    row = ledger.rows(month, "select * from report.summary")[0]
    assert (row["recorded_usd"], row["billed_usd"]) == (Decimal("265.7833325"), Decimal("358.170966789012"))
    assert (row["cleaning_usd"], row["residual_usd"]) == (Decimal("-9.135678901234"), 0)
    assert row["logged_usd"] + row["cleaning_usd"] + row["difference_usd"] == row["billed_usd"]
    assert row["explained_usd"] + row["residual_usd"] == row["difference_usd"]


def test_charge_that_no_log_can_hold_is_no_discrepancy(month):
    """Code execution beyond tolerance and an accepted difference count as no discrepancy."""
    states = dict(month.execute("select reason, state from report.finding").fetchall())
    assert states["code_execution"] == states["session_usage"] == "expected"
    assert states["uncharged"] == "accepted"
    assert month.execute("select discrepancy_count, beyond_tolerance from report.summary").fetchall() == [(7, True)]


def test_neighboring_days_are_not_shown(month):
    """The day before the period lies in matched and in no view of the report."""
    assert month.execute("select count(*) from matched.cell where not in_period").fetchall() == [(1,)]
    for view in ("cell", "usage", "daily"):
        assert month.execute(f"select count(*) from report.{view} where day < '2026-10-01'").fetchall() == [(0,)]


def test_without_a_price_there_are_no_dollars(tmp_path):
    """A model without a known price has a dash at the price book, never $0.00, and the tables still add up."""
    cells = (ONE, replace(ONE, day=4, model="claude-new", price=None, billed="1.005", why_price="unpriced"))
    with connect(Case(cells=cells)) as connection:
        ledger.check(connection)
        seen = connection.execute(
            "select model, recorded_usd, reported_usd, billed_usd from report.by_model"
        ).fetchall()
        varied = connection.execute("select reported_quantity, reported_usd, billed_rate from report.price_variance")
        assert varied.fetchall() == [(1_000_000, None, None)]
        render.render(connection, tmp_path / "out")
    assert seen == [("claude-new", None, None, Decimal("1.005")), ("claude-opus-4-7", 25, 25, 25)]
    tables = Tables((tmp_path / "out" / "discrepancy.html").read_text()).tables
    by_model = next(table for table in tables if table[0][1][0] == "Model" and table[0][1][1] == "Recorded")
    dash = "\N{EN DASH}"
    assert by_model[1][1] == ["claude-new", dash, "0.00", dash, "+1.01", "1.01", "+1.01", dash]
    assert all(assert_foots(table) for table in tables if "total" in dict(table))


def test_price_variance_is_of_the_whole_month(tmp_path):
    """Quantity and rate of a row are the month's there, also of the days that were billed at the book's price."""
    cells = (replace(ONE, day=2), replace(ONE, day=3), replace(ONE, day=4, billed="15"))
    with connect(Case(cells=cells)) as connection:
        (row,) = connection.execute("select * from report.price_variance").fetchall()
    assert row[3:] == (3_000_000, 75, 65, -10, pytest.approx(65 / 75))


def test_daily_has_every_day_of_the_close(month):
    """A day without any use is a row of zeros, not a gap; its capture rate is not known."""
    rows = month.execute("select day, billed_usd, capture_rate from report.daily").fetchall()
    assert len(rows) == 31
    assert rows[3][1:] == (0, None)


@pytest.mark.parametrize("case", list(CASES))
def test_controls_hold(case):
    """Every control is empty on a ledger that ties out."""
    with connect(CASES[case]) as connection:
        ledger.check(connection)


@pytest.mark.parametrize(
    ("broken", "control"),
    [
        ("update matched.cell set billed_usd = billed_usd + 1 where day = '2026-10-01'", "allocation_differs"),
        ("update explained.bridge set running_usd = running_usd + 1 where reason = 'reported'", "bridge_does_not_add"),
        ("delete from explained.bridge where reason = 'logged'", "bridge_lacks_a_total"),
        ("update explained.finding set amount_usd = amount_usd + 1 where reason = 'no_key'", "findings_differ"),
        ("delete from explained.cell_status where day = '2026-10-05'", "cell_without_status"),
        ("insert into explained.cell_status from explained.cell_status limit 1", "cells_differ_from_matched"),
        ("update allocated.chargeback set direct_usd = direct_usd + 1", "chargeback_does_not_add_up"),
        ("delete from allocated.chargeback where cost_center = 'CC-100'", "chargeback_differs_from_billed"),
    ],
)
def test_control_names_the_violation(month, broken, control):
    """A figure that no longer ties to another stops the run and says which."""
    month.execute(broken)
    offended = [
        view
        for (view,) in month.execute("select view_name from duckdb_views() where schema_name = 'checks'").fetchall()
        if month.execute(f"select * from checks.{view}").fetchall()
    ]
    assert any(control in view for view in offended)
    with pytest.raises(InvariantError, match=r"checks\.published_"):
        ledger.check(month)


# CSV -----------------------------------------------------------------------------------------------------------------


def test_csv_has_a_file_for_every_view(month, tmp_path):
    """Each report view is a file of its name, each statement one beside its page; files are the owner's alone."""
    out_dir = tmp_path / "out"
    paths = render.render(month, out_dir)
    views = {
        view
        for (view,) in month.execute("select view_name from duckdb_views() where schema_name = 'report'").fetchall()
    }
    assert {path.stem for path in paths if path.suffix == ".csv" and path.parent == out_dir} == views
    statements = [path for path in paths if path.parent.name == "statements"]
    assert {path.stem for path in statements if path.suffix == ".csv"} == {
        path.stem for path in statements if path.suffix == ".html"
    }
    assert {oct(path.stat().st_mode & 0o777) for path in paths} == {"0o600"}
    assert {oct(path.parent.stat().st_mode & 0o777) for path in paths} == {"0o700"}


def test_the_lines_of_a_statement_add_up_to_it(month, tmp_path):
    """A statement's CSV holds every line of that cost center alone, exact."""
    render.render(month, tmp_path / "out")
    with (tmp_path / "out" / "statements" / "CC-100.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert sum(Decimal(line["amount_usd"]) for line in lines) == Decimal("213.930864197253")
    assert {line["cost_center"] for line in lines} == {"CC-100"}
    assert {line["why"] for line in lines} == {"All use in the workspace Search", "Shared: even", "Not charged by use"}


def test_csv_is_exact(month, tmp_path):
    """Amounts stand in a CSV with every digit, absent ones empty, in the view's order, lines end in a line feed."""
    render.render(month, tmp_path / "out")
    for view, columns in PUBLIC.items():
        text = (tmp_path / "out" / f"{view}.csv").read_bytes().decode()
        assert "\r" not in text
        head, *lines = csv.reader(text.splitlines())
        rows = month.execute(f"select * from report.{view}").fetchall()
        assert head == [name for name, _ in columns]
        for line, row in zip(lines, rows, strict=True):
            for shown, value in zip(line, row, strict=True):
                if isinstance(value, Decimal | None):
                    assert shown == ("" if value is None else f"{value:f}")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_disarms_formulas(month, tmp_path, start):
    """A text that a spreadsheet would run gets an apostrophe; a negative number does not; the rest is as it was."""
    month.execute("update source.workspace set name = ? where workspace_id = 'wrkspc_formula'", [f'{start}1+1, "x"'])
    render.render(month, tmp_path / "out")
    with (tmp_path / "out" / "by_workspace.csv").open(newline="") as file:
        rows = {row["workspace_id"]: row for row in csv.DictReader(file)}
    assert rows["wrkspc_formula"]["workspace_name"] == f'\'{start}1+1, "x"'
    assert rows["wrkspc_ads"]["workspace_name"] == HOSTILE
    assert rows["wrkspc_search"]["difference_usd"] == "-7.500000000000"


def test_same_rows_give_the_same_bytes(tmp_path):
    """Rendering again, even from rows that were written in another order, gives the same bytes everywhere."""
    written = []
    for n, case in enumerate((MONTH, MONTH, replace(MONTH, cells=MONTH.cells[::-1]))):
        with connect(case) as connection:
            paths = render.render(connection, tmp_path / str(n))
        written.append({path.relative_to(tmp_path / str(n)): path.read_bytes() for path in paths})
    assert written[0] == written[1]
    assert written[0] == written[2]


def test_large_view_keeps_its_order(month, tmp_path):
    """The order of a view is that of its file, also when it is written by several threads."""
    month.execute(
        "create or replace view report.many as select hash(i) as h, i from range(300000) as t(i) order by h, i"
    )
    render.render(month, tmp_path / "out")
    with (tmp_path / "out" / "many.csv").open() as file:
        hashes = [int(row["h"]) for row in csv.DictReader(file)]
    assert len(hashes) == 300_000
    assert hashes == sorted(hashes)


def test_what_was_there_is_replaced_as_a_whole(month, tmp_path):
    """A statement of an earlier rendering does not stay behind, nor anything aside."""
    stale = tmp_path / "out" / "statements" / "gone.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    render.render(month, tmp_path / "out")
    assert not stale.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failure_leaves_the_former_pages(month, tmp_path, monkeypatch):
    """When writing fails, what was published before stands as it was."""
    render.render(month, tmp_path / "out")
    before = (tmp_path / "out" / "index.html").read_text()
    month.execute("update source.run set revision = 2")
    monkeypatch.setattr(ledger, "copy_csv", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        render.render(month, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").read_text() == before


# Pages ---------------------------------------------------------------------------------------------------------------


class Tables(HTMLParser):
    """The tables of a page: rows of (classes of the row, cells as text, colspans counted)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[tuple[str, list[str]]]] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):  # noqa: D102 - the parser's own
        found = dict(attributes)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append((found.get("class") or "", []))
        elif tag in {"td", "th"}:
            cells = self.tables[-1][-1][1]
            cells.extend([""] * int(found.get("colspan") or 1))
            self._inside = True
        elif tag == "span" and found.get("class") == "note":
            self._inside = False

    def handle_endtag(self, tag):  # noqa: D102
        if tag in {"td", "th"}:
            self._inside = False

    def handle_data(self, text):  # noqa: D102
        if self._inside:
            self.tables[-1][-1][1][-1] += text


def number(text: str) -> Decimal | None:
    """A printed number, None for anything else."""
    plain = text.strip().replace(",", "").replace("\N{MINUS SIGN}", "-").replace("+", "")
    return Decimal(plain) if re.fullmatch(r"-?\d+(\.\d+)?", plain) else None


def assert_foots(table: list[tuple[str, list[str]]]) -> bool:
    """Every number of a table's last, total row is the sum of what is printed above it."""
    if not any(classes == "total" for classes, _ in table):
        return False
    body = [cells for classes, cells in table if not classes]
    (total,) = [cells for classes, cells in table if classes == "total"]
    assert table[-1][0] == "total"
    for column, text in enumerate(total):
        if (printed := number(text)) is not None:
            above = [number(cells[column]) or Decimal(0) for cells in body if len(cells) == len(total)]
            assert sum(above, Decimal(0)) == printed, (total, column)
    return True


@pytest.mark.parametrize("case", list(CASES))
def test_every_printed_table_foots(pages, case):
    """On every page of every case the printed cents of each column add up to the printed total."""
    footed = [assert_foots(table) for text in pages[case].values() for table in Tables(text).tables]
    assert sum(footed) >= 7


@pytest.mark.parametrize("case", list(CASES))
def test_printed_bridge_walks(pages, case):
    """Each printed running total is the one before it plus the printed step; the totals are the rounded figures."""
    bridge = next(table for table in Tables(pages[case]["index.html"]).tables if table[0][1][0] == "Step")
    running = None
    for _, (_, _, amount, total) in bridge[1:]:
        step = number(amount)
        assert step is None or running + step == number(total)
        running = number(total)


def test_row_adds_up_across(pages):
    """Recorded and the two variances add up to billed in every printed row of the drill-down."""
    tables = [
        table
        for table in Tables(pages["halves of a cent"]["discrepancy.html"]).tables
        if table[0][1][1:2] == ["Recorded"]
    ]
    assert len(tables) == 5
    for table in tables:
        for _, (_, recorded, quantity, reported, price, billed, difference, _) in table[1:]:
            assert number(recorded) + number(quantity) == number(reported)
            assert number(reported) + number(price) == number(billed)
            assert number(quantity) + number(price) == number(difference)


@pytest.mark.parametrize(
    ("case", "title"),
    [
        ("month", "Billed exceeds recorded by $92.39"),
        ("empty", "Billed equals recorded to the cent"),
        ("ties out", "Billed equals recorded to the cent"),
        ("logs hold more", "Recorded exceeds billed by $50.00"),
        ("no logs", "Billed exceeds recorded by $25.00"),
    ],
)
def test_title_states_the_finding(pages, case, title):
    """The first page's heading says what is true."""
    assert f"<h1>{title}</h1>" in pages[case]["index.html"]


def test_statement_says_what_is_paid(pages):
    """A statement's heading is what the cost center pays, whatever its size."""
    statements = pages["large and nothing"]
    assert "<h1>Large pays $1,234,567.89 for October 2026</h1>" in statements["statements/CC-1.html"]
    assert "<h1>Nothing pays $0.00 for October 2026</h1>" in statements["statements/CC-0.html"]


GOLDEN = ("index.html", "discrepancy.html", "allocation.html", "rollforward.html", "statements/CC-200.html")


@pytest.mark.parametrize("name", GOLDEN)
def test_page_is_the_golden(pages, golden, name):
    """The pages of the small month are as they were reviewed; of a chart, its label."""
    golden(name, re.sub(r"(<svg [^>]*>).*?</svg>", r"\1</svg>", pages["month"][name], flags=re.DOTALL))


@pytest.mark.parametrize("name", ["allocation.html", "statements/CC-100.html"])
def test_page_with_a_month_before_is_the_golden(pages, golden, name):
    """The pages of those who pay, with what moved, budgets and costs from outside, are as they were reviewed."""
    shown = re.sub(r"(<svg [^>]*>).*?</svg>", r"\1</svg>", pages["compared"][name], flags=re.DOTALL)
    golden(f"compared/{name}", shown)


def test_chart_is_the_golden(pages, golden):
    """The bridge's chart is as it was reviewed, byte by byte."""
    found = re.search(r"<svg .*?</svg>", pages["month"]["index.html"], flags=re.DOTALL)
    golden("bridge.svg", found[0].replace("><", ">\n<") + "\n")


@pytest.mark.parametrize("case", list(CASES))
def test_page_needs_nothing_from_elsewhere(pages, case):
    """A page holds no script, no reference to another host and no text of ours as markup."""
    for text in pages[case].values():
        assert "<script" not in text.lower()
        assert "default-src 'none'" in text
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
        assert "NaN" not in text
        assert "None" not in re.sub(r"<[^>]*>", "", text)


def test_hostile_names_are_text(pages):
    """Names from outside appear as they are written, also in charts and in evidence."""
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert all(escaped in text for text in pages["month"].values())
    assert FORMULA in pages["month"]["allocation.html"]


def test_evidence_is_shown(pages):
    """A finding's evidence is a list of terms, and a list inside it a small table with readable numbers."""
    page = pages["month"]["discrepancy.html"]
    assert re.search(r"<dt>API key status</dt><dd>\s*inactive\s*</dd>", page)
    evidence = next(table for table in Tables(page).tables if table[0][1][0] == "Day" and len(table[0][1]) == 5)
    assert [cell.strip() for cell in evidence[1][1]] == ["2026-10-05", HOSTILE, "Output", "60,000,000", "60.00"]


def test_finding_says_what_to_do(pages):
    """Every finding carries its reason's words and links to how it is confirmed and where more is written."""
    page = html.unescape(pages["month"]["discrepancy.html"])
    linked = re.findall(r'href="#reason-(\w+)"', page)
    assert len(linked) == page.count('<details class="finding"') + 2 == 12
    told = {one.code: one for one in reasons.BEFORE_BILLED if one.code in linked}
    assert set(re.findall(r'id="reason-(\w+)"', page)) == set(linked) == set(told)
    for one in told.values():
        assert f"<p>{one.meaning}</p>" in page
        assert f"<b>What to do.</b> {one.to_do}" in page
        assert f"<b>How to confirm it.</b> {one.confirm}" in page
        assert f"docs/reasons.md#{one.code}" in page


def test_findings_are_in_the_order_of_what_is_in_question(pages):
    """Discrepancies come largest in question first, and what is printed beside them adds up to the headline."""
    page = pages["month"]["discrepancy.html"]
    (headline,) = re.findall(r"7 discrepancies of \$([\d.]+)</p>", page)
    shown = re.findall(r'<span class="usd">([\d.]+)</span><b class="usd">', page)
    in_question = list(map(Decimal, shown))
    assert len(in_question) == 7
    assert in_question == sorted(in_question, reverse=True)
    assert sum(in_question) == Decimal(headline)
    index = next(table for table in Tables(pages["month"]["index.html"]).tables if table[0][1][0] == "Finding")
    assert [cells[2] for _, cells in index[1:7]] == shown[:6]
    assert index[-1][1][2] == headline


def test_quantity_has_its_unit(month, tmp_path):
    """A quantity is never a bare number, also where the finding is not of one model: tokens, or searches."""
    month.execute("update explained.finding set model = null where reason = 'no_key'")
    month.execute("update explained.finding set meter = 'web_search_requests' where reason = 'unlogged'")
    render.render(month, tmp_path / "out")
    page = (tmp_path / "out" / "discrepancy.html").read_text()
    quantities = re.findall(r"<dt>Quantity</dt><dd>(.*?)</dd>", page)
    assert "+1,234,567 tokens" in quantities
    assert all(re.fullmatch(r"\S+ (tokens|searches)", text) for text in quantities)
    assert any(text.endswith("searches") for text in quantities)


def test_opposite_errors_are_in_no_wrong_place(month, tmp_path):
    """What an application's prices make too much and too little is said as that, not as quantities in a wrong place."""
    month.execute("update explained.finding set moved_usd = 9 where reason = 'app_price'")
    render.render(month, tmp_path / "out")
    cards = (tmp_path / "out" / "discrepancy.html").read_text().split('<details class="finding"')
    (app_price,) = [card for card in cards if "own prices</b>" in card]
    assert "<dt>Too much and too little</dt><dd>$9.00 together</dd>" in app_price


def test_picture_says_what_its_bars_are(month, tmp_path):
    """Bars of equal length can cost different dollars: they are tokens, and the net stands below them."""
    ((found, amount_usd),) = month.execute(
        "select id, amount_usd from report.finding where reason = 'no_key'"
    ).fetchall()
    month.execute(
        "insert into explained.exchange (finding_id, reason, at_value, is_rest, quantity, amount_usd)"
        " values ($1, 'speed', 'standard', false, -9, -1), ($1, 'speed', 'fast', false, 9, $2::decimal(38, 12) + 1)",
        [found, str(amount_usd)],
    )
    render.render(month, tmp_path / "out")
    page = (tmp_path / "out" / "discrepancy.html").read_text()
    assert "The bars are tokens; their dollars come to +$30.87 net." in page


def test_acceptance_is_signed(pages):
    """An accepted difference shows who accepted it, why, until when and up to how much."""
    page = re.sub(r"</?span[^>]*>", "", pages["month"]["discrepancy.html"])
    assert "Accepted by Kim until 1 Jan 2027, up to $10.00: A commitment pays for it &lt;script&gt;" in page


def test_warnings_stand_where_they_belong(month, tmp_path):
    """Warnings of logs and accepted differences stand by the findings, of rules by the rules; all on the first page."""
    month.execute("insert into explained.warning values (1, 'accepted tax matches nothing')")
    month.execute("insert into source.warning values (1, 'logs', 'request log gateway covers little')")
    render.render(month, tmp_path / "out")
    warned = {name: (tmp_path / "out" / f"{name}.html").read_text() for name in ("index", "discrepancy", "allocation")}
    assert ["accepted tax matches nothing" in warned[name] for name in warned] == [True, True, False]
    assert ["request log gateway covers little" in warned[name] for name in warned] == [True, True, False]
    assert "<h3>2 warnings</h3>" in warned["discrepancy"]
    assert ["names the workspace wrkspc_gone" in warned[name] for name in warned] == [True, False, True]


def test_an_earlier_month_of_an_older_version_is_compared_without_reasons(month, tmp_path):
    """Where only the totals of the month before are known, the change stands there and no reason is made up."""
    render.render(month, tmp_path / "out")
    assert "than the month before" not in (tmp_path / "out" / "allocation.html").read_text()
    month.execute(
        "insert into source.earlier_chargeback (period, revision, cost_center, name, total_usd)"
        " values ('2026-09', 2, 'CC-100', 'Search', 200.00)"
    )
    render.render(month, tmp_path / "out")
    rows = month.execute(
        "select period, change_usd from report.month_over_month where cost_center = 'CC-100'"
    ).fetchall()
    assert rows == [("2026-09", None), ("2026-10", Decimal("13.93"))]
    page = (tmp_path / "out" / "allocation.html").read_text()
    assert "+13.93" in page
    assert "Why is not known" in page


def test_what_moved_adds_up_across_and_down(pages):
    """Before and the reasons are now, in every row; a cost center that is no more stands there too."""
    table = next(t for t in Tables(pages["compared"]["allocation.html"]).tables if t[0][1][1:3] == ["Before", "Price"])
    assert len(table) == 8
    for _, (_, before, *effects, change, now) in table[1:]:
        assert sum(number(effect) for effect in effects) == number(change)
        assert number(before) + number(change) == number(now)


def test_a_statement_compares_with_the_month_before_and_the_budget(pages):
    """A team lead reads what changed, why in plain words, and what the year comes to."""
    page = pages["compared"]["statements/CC-100.html"]
    assert "<h2>$13.93 more than in September 2026</h2>" in page
    assert "More use" in page
    assert "Higher prices" in page
    assert "<h2>2026 comes to $317.16 over budget</h2>" in page
    assert "<h2>Caching saved $405.00</h2>" in page
    assert "rules[" not in page


def test_a_correction_of_an_earlier_month_is_said_as_one(month, tmp_path):
    """It came through no pool: the pages say of which month it is, and that it is split as that one was."""
    month.execute(
        "insert into allocated.other (on_day, what, cost_center, basis, amount_usd)"
        " values ('2026-10-31', 'Correction of 2026-09', 'CC-100', 'direct', 1.25)"
    )
    month.execute(
        "update allocated.chargeback set other_usd = 1.25, payable_usd = total_usd + 1.25 where cost_center = 'CC-100'"
    )
    render.render(month, tmp_path / "out")
    for name in ("allocation.html", "statements/CC-100.html"):
        (row,) = [
            cells
            for table in Tables((tmp_path / "out" / name).read_text()).tables
            for _, cells in table
            if "Correction of 2026-09" in cells
        ]
        assert row[-1] == "1.25"
        assert "as that month was split" in [cell.lower() for cell in row]
        assert "None" not in row


def test_sessions_are_no_requests(month):
    """What is charged without a quantity is of no request: a session's $1,000 leaves the cost of a request as it is."""
    unit = "select usd_per_1000_requests, usd_per_mtok from report.unit_cost where cost_center = 'CC-100'"
    before = month.execute(unit).fetchall()
    month.execute(
        "insert into allocated.use (day, meter, cost_center, requests, amount_usd)"
        " values ('2026-10-05', 'session_usage', 'CC-100', 0, 1000)"
    )
    assert month.execute(unit).fetchall() == before
    assert before[0][0] > 0


# Figures and names ---------------------------------------------------------------------------------------------------


def test_row_without_a_difference_prints_none(pages):
    """Where the sides are equal, what is printed for them is equal, however the cents of the column fall."""
    daily = next(table for table in Tables(pages["half matched"]["discrepancy.html"]).tables if table[0][1][0] == "Day")
    matched = [cells for _, cells in daily[1:10:2]]
    assert [cells[0] for cells in matched] == ["1 Oct 2026", "3 Oct 2026", "5 Oct 2026", "7 Oct 2026", "9 Oct 2026"]
    assert all(cells[1] == cells[3] == cells[5] and cells[6] == "0.00" for cells in matched)


@pytest.mark.parametrize(
    ("cost_center", "name"),
    [
        ("CC-100", "CC-100.html"),
        ("../../etc/passwd", "etc-passwd-3754d6cb3a.html"),
        ("..", "cost-center-5ec1f7e700.html"),
        ("", "cost-center-e3b0c44298.html"),
        ("a/b", "a-b-c14cddc033.html"),
        (".hidden", "hidden-1692419006.html"),
    ],
)
def test_statement_stays_in_its_folder(cost_center, name):
    """A cost center's name never leads out of the folder of statements."""
    assert render.statement_names([cost_center]) == {cost_center: name}


def test_statements_do_not_collide():
    """Cost centers that differ in case or in odd characters alone have files of their own, on every file system."""
    names = render.statement_names(["cc-1", "CC-1", "CC 1", "CC/1", "x" * 300])
    assert len({name.casefold() for name in names.values()}) == 5
    assert all(len(name) < 80 for name in names.values())


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "100.0 %"),
        (0.99999, "99.9990 %"),
        (0.5, "50.0 %"),
        (0.0, "0.0 %"),
        (0.00001, "0.0010 %"),
        (None, "\N{EN DASH}"),
    ],
)
def test_percent_never_rounds_to_all_or_nothing(ratio, text):
    """A capture rate of almost everything is not printed as everything."""
    assert words.percent(ratio) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [("-0.7247000", "\N{MINUS SIGN}0.7247"), ("0.5", "0.50"), ("-1234567.25", "\N{MINUS SIGN}1,234,567.25")],
)
def test_exact_keeps_sign_and_digits(amount, text):
    """An exact amount keeps its sign, also below one dollar, and every digit that says something."""
    assert words.exact(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("usd_at_this_fraction", "189.192296850000 of 1189.192000000000", "189.19229685 of 1,189.192"),
        ("meters_at_this_fraction", "4 of 5", "4 of 5"),
        ("billed_usd", "25", "25.00"),
        ("says", "one of many", None),
    ],
)
def test_evidence_of_two_figures(key, value, text):
    """An amount of an amount reads like two amounts: no zeros that say nothing."""
    assert words.numeral(value, key) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [("1234567.891", "$1,234,567.89"), ("-0.004", "$0.00"), ("-1234.5", "\N{MINUS SIGN}$1,234.50"), ("0", "$0.00")],
)
def test_dollars(usd, text):
    """Dollars are cents with separators and a true minus, never a minus zero."""
    assert words.dollars(Decimal(usd)) == text
