"""The workbook: numbers are numbers, texts are texts, totals are formulas that come to ours, the same bytes again."""

import csv
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from export_month import busy
from hypothesis import given
from hypothesis import strategies as st

from reconcile import money
from reconcile.config import load_config
from reconcile.errors import ConfigError
from reconcile.export import export, workbook
from reconcile.export.workbook import Step, printed_bridge

SHEETS = ["Cover", "Bridge", "Discrepancies", "Allocation", "Chargeback", "Cells", "Prices", "Method"]
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
FIRST = 5
"""The first row of a table, in Excel's counting; its headings stand one above, its totals two."""


@dataclass(frozen=True)
class Cell:
    """A cell as the file has it."""

    kind: str
    value: str
    formula: str | None


class Book:
    """A workbook read back with nothing but the standard library."""

    def __init__(self, path):
        with zipfile.ZipFile(path) as parts:
            self.parts = {name: parts.read(name).decode() for name in parts.namelist()}
        strings = [
            "".join(text.text or "" for text in entry.iter(f"{MAIN}t"))
            for entry in ET.fromstring(self.parts["xl/sharedStrings.xml"])  # noqa: S314 - our own file
        ]
        self.names = re.findall(r'<sheet name="([^"]+)"', self.parts["xl/workbook.xml"])
        self.sheets = {}
        for number, name in enumerate(self.names, start=1):
            found = {}
            for cell in ET.fromstring(self.parts[f"xl/worksheets/sheet{number}.xml"]).iter(f"{MAIN}c"):  # noqa: S314 - as above
                value, formula = cell.find(f"{MAIN}v"), cell.find(f"{MAIN}f")
                kind = cell.get("t", "n")
                text = "" if value is None else value.text or ""
                found[cell.get("r")] = Cell(
                    kind, strings[int(text)] if kind == "s" else text, None if formula is None else formula.text
                )
            self.sheets[name] = found

    def column(self, sheet, heading):
        """The cells of a table's column, by heading."""
        cells = self.sheets[sheet]
        (letter,) = [
            place[:-1] for place, cell in cells.items() if place[-1] == str(FIRST - 1) and cell.value == heading
        ]
        pattern = re.compile(rf"{letter}(\d+)$")
        rows = {int(found[1]): cell for place, cell in cells.items() if (found := pattern.match(place))}
        return letter, {row: cell for row, cell in rows.items() if row >= FIRST}

    def total(self, sheet, heading):
        """The cell above a column's heading."""
        letter, _ = self.column(sheet, heading)
        return self.sheets[sheet][f"{letter}{FIRST - 2}"]


def written(connection, folder, name="month.xlsx"):
    return export(connection, "xlsx", folder / name, load_config(folder / "config.yaml")).files[0]


def figure(connection, query):
    (value,) = connection.execute(query).fetchone()
    return Decimal(value)


def cents(value):
    return round(Decimal(value), 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workbook")


@pytest.fixture(scope="module")
def month(folder):
    with busy(folder) as connection:
        yield connection


@pytest.fixture(scope="module")
def path(month, folder):
    return written(month, folder)


@pytest.fixture(scope="module")
def book(path):
    return Book(path)


def test_the_sheets_are_there(book):
    """Eight sheets, the cover first."""
    assert book.names == SHEETS


def test_the_same_ledger_gives_the_same_bytes(month, folder, path):
    """No clock in the file: written again it is the same, byte for byte, for its owner only."""
    again = written(month, folder, "again.xlsx")
    assert again.read_bytes() == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "2026-11-02T06:00:00Z" in Book(path).parts["docProps/core.xml"]


@pytest.mark.parametrize(
    ("sheet", "heading", "query"),
    [
        ("Chargeback", "Direct", "select sum(direct_usd) from report.chargeback"),
        ("Chargeback", "Payable", "select sum(payable_usd) from report.chargeback"),
        ("Allocation", "Amount", "select billed_usd from report.summary"),
        ("Cells", "Recorded", "select recorded_usd from report.summary"),
        ("Cells", "Billed", "select billed_usd from report.summary"),
        ("Cells", "Difference", "select difference_usd from report.summary"),
        ("Discrepancies", "Amount", "select round(billed_usd, 2) - round(logged_usd, 2) from report.summary"),
    ],
)
def test_a_total_is_a_formula_and_comes_to_ours(month, book, sheet, heading, query):
    """It sums its column, and shows the figure also to readers that do not calculate."""
    letter, rows = book.column(sheet, heading)
    total = book.total(sheet, heading)
    assert total.formula == f"SUM({letter}{FIRST}:{letter}{max(rows)})"
    assert cents(total.value) == cents(figure(month, query))
    assert cents(sum(Decimal(cell.value) for cell in rows.values())) == cents(total.value)


def test_the_bridge_walks_by_formulas(month, book):
    """Each running figure is the one above and its step, in cents; the totals are those of the bridge."""
    _, amounts = book.column("Bridge", "Amount")
    _, running = book.column("Bridge", "Running")
    for row, cell in running.items():
        if row > FIRST:
            assert cell.formula == f"E{row - 1}+D{row}"
            step = Decimal(amounts[row].value) if row in amounts and amounts[row].value else Decimal(0)
            assert cents(cell.value) == cents(Decimal(running[row - 1].value) + step)
    assert cents(running[max(running)].value) == cents(figure(month, "select billed_usd from report.summary"))


def test_a_row_of_the_chargeback_adds_up_by_formulas(book):
    """Total is direct + shared, payable is total + other."""
    _, totals = book.column("Chargeback", "Total")
    assert {row: cell.formula for row, cell in totals.items()} == {row: f"C{row}+D{row}" for row in totals}


def test_amounts_are_numbers_and_names_are_texts(book):
    """A name that begins like a formula is a text; no cell has a formula but ours."""
    _, names = book.column("Chargeback", "Name")
    assert "=SUM(A1:A9) Ads" in {cell.value for cell in names.values()}
    assert {cell.kind for cell in names.values()} == {"s"}
    _, workspaces = book.column("Cells", "Workspace")
    assert {"=1+1 Platform", '<b>Keys & "Co"</b>'} <= {cell.value for cell in workspaces.values()}
    _, billed = book.column("Cells", "Billed")
    assert {cell.kind for cell in billed.values()} == {"n"}
    ours = re.compile(
        r"SUM\(.*\)|[A-G]\d+[+-][A-G]\d+|'?\w+'?!\$[A-Z]+\$\d+(-'?\w+'?!\$[A-Z]+\$\d+)?|IF\(ABS\(D\d+\).*\)"
    )
    formulas = {cell.formula for cells in book.sheets.values() for cell in cells.values() if cell.formula}
    assert not {formula for formula in formulas if not ours.fullmatch(formula)}


def test_a_sheet_is_for_screen_and_paper(book):
    """Frozen headings, a filter, landscape, fit to the width, headings on every page."""
    for number, name in enumerate(book.names, start=1):
        part = book.parts[f"xl/worksheets/sheet{number}.xml"]
        assert 'orientation="landscape"' in part
        assert 'fitToHeight="0"' in part
        if name not in {"Cover", "Method"}:
            assert 'state="frozen"' in part
            assert "<autoFilter" in part
            assert (
                f"'{name}'!$4:$4" in book.parts["xl/workbook.xml"] or f"{name}!$4:$4" in book.parts["xl/workbook.xml"]
            )


def test_the_controls_tie_out(book):
    """What is there twice is the same, to the cent."""
    method = book.sheets["Method"]
    said = [cell.value for place, cell in method.items() if place.startswith("E") and cell.formula]
    assert said == ["yes"] * 5


def test_findings_add_up_as_on_the_pages(month, book):
    """In cents, the findings of a reason are the bridge's step of that reason."""
    _, steps = book.column("Bridge", "Amount")
    _, reasons = book.column("Bridge", "Reason")
    _, found = book.column("Discrepancies", "Reason")
    _, amounts = book.column("Discrepancies", "Amount")
    assert found
    for row, step in steps.items():
        held = [Decimal(amounts[at].value) for at, cell in found.items() if cell.value == reasons[row].value]
        assert cents(sum(held, Decimal(0))) == cents(step.value or 0)


def test_many_cells_are_summed(month, folder, monkeypatch):
    """Above the limit the sheet has sums, and the same totals."""
    monkeypatch.setattr(workbook, "MOST_CELLS", 3)
    summed = Book(written(month, folder, "summed.xlsx"))
    _, cells = summed.column("Cells", "Cells")
    assert sum(Decimal(cell.value) for cell in cells.values()) == figure(month, "select count(*) from report.cell")
    assert cents(summed.total("Cells", "Billed").value) == cents(figure(month, "select billed_usd from report.summary"))


def test_what_does_not_fit_a_sheet_is_refused(month, folder, monkeypatch):
    """With the figures and the way out; nothing is left behind."""
    monkeypatch.setattr(workbook, "MOST_ROWS", 8)
    with pytest.raises(ConfigError, match=r"has \d+ rows, a sheet holds 4\. Use `reconcile export csv`"):
        written(month, folder, "large.xlsx")
    assert not list(folder.glob("large*"))


# LibreOffice --------------------------------------------------------------------------------------------------------

SOFFICE = shutil.which("soffice")


def uncalculated(path, target):
    """A copy without the results of its formulas: what reads it has to calculate them."""
    with zipfile.ZipFile(path) as parts, zipfile.ZipFile(target, "w") as copy:
        for name in parts.namelist():
            content = parts.read(name)
            if name.startswith("xl/worksheets/sheet"):
                content = re.sub(rb"(<f>[^<]*</f>)<v>[^<]*</v>", rb"\1", content)
            copy.writestr(name, content)
    return target


@pytest.mark.skipif(SOFFICE is None, reason="LibreOffice (soffice) is not installed")
def test_libreoffice_calculates_the_same(path, book, tmp_path):
    """Opened headless, without our results in it, every formula comes to what we say."""
    bare = uncalculated(path, tmp_path / "bare.xlsx")
    every_sheet = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false,false,false,false,-1"
    ran = subprocess.run(  # noqa: S603 - a program of this machine
        [SOFFICE, f"-env:UserInstallation=file://{tmp_path}/profile", "--headless", "--convert-to", every_sheet,
         "--outdir", str(tmp_path), str(bare)],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "Error" not in ran.stderr
    for name in SHEETS:
        with (tmp_path / f"bare-{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
        assert not any("#" in cell and cell.strip("#").isupper() for row in rows for cell in row)
        for place, cell in book.sheets[name].items():
            if cell.formula is None:
                continue
            letters, row = re.match(r"([A-Z]+)(\d+)", place).groups()
            column = 0
            for letter in letters:
                column = column * 26 + ord(letter) - 64
            shown = rows[int(row) - 1][column - 1]
            if cell.kind == "str":
                assert shown == cell.value
            else:
                assert abs(Decimal(shown) - Decimal(cell.value)) < Decimal("1e-9"), (name, place, cell.formula)


# Cents --------------------------------------------------------------------------------------------------------------

AMOUNTS = st.lists(st.decimals(min_value=-(10**6), max_value=10**6, places=12), min_size=1, max_size=12)


@given(AMOUNTS, AMOUNTS)
def test_the_bridge_in_cents_adds_up(first, second):
    """From total to total, whatever the steps."""
    steps, running_usd = [Step("total", "logged", "Logged", None, None, Decimal(0))], Decimal(0)
    for name, amounts in (("recorded", first), ("billed", second)):
        for amount_usd in amounts:
            running_usd += amount_usd
            steps.append(Step("step", "unlogged", "", None, amount_usd, running_usd))
        steps.append(Step("total", name, name, None, None, running_usd))
    printed = printed_bridge(steps)
    for before, after in pairwise(printed):
        assert after.running_usd - before.running_usd == (after.amount_usd or 0)
        assert after.running_usd == cents(after.running_usd)
    assert printed[-1].running_usd == money.cents(running_usd)
