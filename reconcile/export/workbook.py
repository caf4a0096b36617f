"""The period as one workbook for people: a cover, the tables behind the pages, totals as formulas, the method.

A sheet is a title, a line with its totals, the headings and the rows; the totals stand above, so that sorting and
filtering leave them alone. Excel keeps 15 digits of a number: the CSV has all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
from xlsxwriter.utility import xl_col_to_name, xl_rowcol_to_cell

from reconcile import ledger, money
from reconcile.errors import ConfigError
from reconcile.export.files import whole

MOST_ROWS = 1_048_576
"""What a sheet of Excel holds."""

MOST_CELLS = 50_000
"""With more cells than these, the sheet has their sums by workspace, model, tier and meter."""

LONGEST_TEXT = 32_767
"""What a cell of Excel holds of a text."""

_TITLE, _SUBTITLE, _TOTALS, _HEADINGS, _FIRST = range(5)
"""The rows of a sheet."""

_CENT = Decimal("0.01")
_NUMBER_FORMATS = {
    "usd": "#,##0.00;[Red]-#,##0.00;0.00",
    "small": "#,##0.000000;[Red]-#,##0.000000;0.000000",
    "quantity": "#,##0;[Red]-#,##0;0",
    "percent": "0.00%",
    "day": "yyyy-mm-dd",
    "text": "@",
    "json": "@",
}


@dataclass(frozen=True)
class Column:
    """A column: heading, field of the query, how it is shown, its width, whether it has a total.

    ``formula`` makes each cell one, with the query's figure as what it came to; {row} is its row in Excel's counting.
    """

    heading: str
    name: str
    kind: str = "text"
    width: int = 14
    total: bool = False
    formula: str | None = None


@dataclass(frozen=True)
class Sheet:
    """A table of the workbook."""

    name: str
    title: str
    unit: str
    query: str
    columns: tuple[Column, ...]


@dataclass
class Placed:
    """Where a sheet's totals stand, by field, for formulas elsewhere, and what they come to."""

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    usd: dict[tuple[str, str], Decimal] = field(default_factory=dict)

    def reference(self, sheet: str, name: str) -> str:
        """A total as other sheets name it."""
        return f"'{sheet}'!{self.cells[sheet, name]}"


_CHARGEBACK = Sheet(
    name="Chargeback",
    title="Who pays",
    unit="USD, to the cent; total is direct + shared, payable is total + other",
    query="select * from report.chargeback",
    columns=(
        Column("Cost center", "cost_center", width=16),
        Column("Name", "name", width=30),
        Column("Direct", "direct_usd", "usd", total=True),
        Column("Shared", "shared_usd", "usd", total=True),
        Column("Total", "total_usd", "usd", total=True, formula="=C{row}+D{row}"),
        Column("Other", "other_usd", "usd", total=True),
        Column("Payable", "payable_usd", "usd", total=True, formula="=E{row}+F{row}"),
    ),
)
_DISCREPANCIES = Sheet(
    name="Discrepancies",
    title="Every finding, the largest first",
    unit="USD, to the cent; moved is what stands in a wrong place, and what the tolerance is held against",
    query="select * from report.finding",
    columns=(
        Column("Id", "id", width=15),
        Column("State", "state", width=12),
        Column("Reason", "reason", width=16),
        Column("Title", "title", width=38),
        Column("Confidence", "confidence", width=11),
        Column("From", "day_from", "day", 11),
        Column("To", "day_to", "day", 11),
        Column("Log", "log", width=14),
        Column("Workspace", "workspace_name", width=22),
        Column("Model", "model", width=26),
        Column("Tier", "service_tier", width=10),
        Column("Meter", "meter", width=28),
        Column("API key", "api_key_name", width=18),
        Column("Quantity", "quantity", "quantity", 15),
        Column("Amount", "amount_usd", "usd", total=True),
        Column("Moved", "moved_usd", "usd"),
        Column("Evidence", "evidence", "json", 60),
    ),
)
_ALLOCATION = Sheet(
    name="Allocation",
    title="Who pays, from where, by which rule",
    unit="USD, summed over days, tiers, keys and labels; each part is in allocation.csv",
    query="select * from sheet_allocation",
    columns=(
        Column("Cost center", "cost_center", width=16),
        Column("Name", "name", width=24),
        Column("Workspace", "workspace", width=24),
        Column("Model", "model", width=26),
        Column("Meter", "meter", width=38),
        Column("Basis", "basis", width=12),
        Column("Rule or pool", "rule", width=62),
        Column("Driver", "driver", width=26),
        Column("Parts", "parts", "quantity", 9, total=True),
        Column("Amount", "amount_usd", "small", 16, total=True),
    ),
)
_SIDES = (
    Column("Recorded quantity", "recorded_quantity", "quantity", 17),
    Column("Reported quantity", "reported_quantity", "quantity", 17),
)
_AMOUNTS = (
    Column("Recorded", "recorded_usd", "small", 16, total=True),
    Column("Reported", "reported_usd", "small", 16, total=True),
    Column("Billed", "billed_usd", "small", 16, total=True),
    Column("Quantity variance", "quantity_variance_usd", "small", 17, total=True),
    Column("Price variance", "price_variance_usd", "small", 16, total=True),
    Column("Difference", "difference_usd", "small", 16, total=True),
)
_CELLS = Sheet(
    name="Cells",
    title="Recorded, reported and billed",
    unit="USD, a row a day, workspace, model, tier, window, geography, speed and meter",
    query="select *, coalesce(workspace_name, workspace_id) as workspace from report.cell",
    columns=(
        Column("Day", "day", "day", 11),
        Column("Workspace", "workspace", width=24),
        Column("Model", "model", width=26),
        Column("Tier", "service_tier", width=10),
        Column("Window", "context_window", width=10),
        Column("Geography", "inference_geo", width=13),
        Column("Speed", "speed", width=10),
        Column("Meter", "meter", width=38),
        *_SIDES,
        Column("Unit", "price_unit", width=8),
        Column("Price", "price_usd", "small"),
        *_AMOUNTS,
        Column("Status", "status", width=12),
    ),
)
_CELL_SUMS = Sheet(
    name="Cells",
    title="Recorded, reported and billed",
    unit="USD, summed over days, windows, geographies and speeds; each cell is in cell.csv",
    query="select * from sheet_cell_sum",
    columns=(
        Column("Workspace", "workspace", width=24),
        Column("Model", "model", width=26),
        Column("Tier", "service_tier", width=10),
        Column("Meter", "meter", width=38),
        Column("Cells", "cells", "quantity", 9, total=True),
        *_SIDES,
        *_AMOUNTS,
    ),
)
_PRICES = Sheet(
    name="Prices",
    title="The prices that were used",
    unit="USD for a million tokens, or for one search",
    query="select * from report.price_used",
    columns=(
        Column("Model", "model", width=28),
        Column("Tier", "service_tier", width=10),
        Column("Window", "context_window", width=10),
        Column("Geography", "inference_geo", width=13),
        Column("Speed", "speed", width=10),
        Column("Meter", "meter", width=38),
        Column("From", "from_on", "day", 11),
        Column("Until", "until_on", "day", 11),
        Column("Prompts over", "prompt_over", "quantity", 13),
        Column("Unit", "price_unit", width=8),
        Column("List", "list_price_usd", "small"),
        Column("Price", "price_usd", "small"),
        Column("Source", "source", width=50),
    ),
)


@dataclass(frozen=True)
class Step:
    """A row of the bridge as it is printed, in cents; a total has no amount."""

    kind: str
    reason: str
    title: str
    quantity: int | None
    amount_usd: Decimal | None
    running_usd: Decimal


def printed_bridge(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The bridge in cents."""
    printed = money.walk([(step.amount_usd, step.running_usd) for step in steps])
    return tuple(
        replace(step, amount_usd=amount_usd, running_usd=running_usd)
        for step, (amount_usd, running_usd) in zip(steps, printed, strict=True)
    )


def write_workbook(connection: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Write the workbook; the same ledger gives the same bytes.

    Raises ``ConfigError`` where a table does not fit a sheet.
    """
    ledger.run_sql(connection, "export_workbook")
    with whole(target) as aside:
        options = {
            "in_memory": True,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        }
        with (
            aside.open("wb") as stream,
            pd.ExcelWriter(
                stream, engine="xlsxwriter", date_format="yyyy-mm-dd", engine_kwargs={"options": options}
            ) as writer,
        ):
            _Workbook(connection, writer).write()


class _Workbook:
    """One workbook while it is written."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, writer: Any) -> None:
        self._connection = connection
        self._writer = writer
        self._book = writer.book
        self._run = ledger.rows(connection, "select * from report.run")[0]
        self._summary = ledger.rows(connection, "select * from report.summary")[0]
        bridge = "select kind, reason, coalesce(title, reason), quantity, amount_usd, running_usd from report.bridge"
        found = connection.execute(f"{bridge} order by position").fetchall()
        self._steps = printed_bridge([Step(*row) for row in found])
        self._placed = Placed()
        self._formats: dict[tuple[str, bool], Any] = {}
        self._plain = {
            "title": self._book.add_format({"bold": True, "font_size": 14}),
            "subtitle": self._book.add_format({"font_color": "#555555"}),
            "note": self._book.add_format({"font_color": "#555555", "indent": 1}),
            "heading": self._book.add_format(
                {"bold": True, "bottom": 1, "text_wrap": True, "valign": "top", "bg_color": "#EEF1F4"}
            ),
            "number_heading": self._book.add_format(
                {"bold": True, "bottom": 1, "text_wrap": True, "valign": "top", "align": "right", "bg_color": "#EEF1F4"}
            ),
            "label": self._book.add_format({"valign": "top"}),
            "strong": self._book.add_format({"bold": True}),
            "wrapped": self._book.add_format({"text_wrap": True, "valign": "top"}),
            "link": self._book.add_format({"font_color": "#1F5FA8", "underline": 1}),
        }

    def write(self) -> None:
        """Every sheet, the cover first; what the cover says comes from the others."""
        self._book.set_properties(
            {
                "title": f"{self._run['organization']}, {self._run['period']} r{self._run['revision']}",
                "author": "",
                "created": self._run["data_refreshed_at"],
            }
        )
        self._book.set_calc_mode("auto")
        cover = self._book.add_worksheet("Cover")
        self._bridge()
        for sheet in (_DISCREPANCIES, _ALLOCATION, _CHARGEBACK, self._cells(), _PRICES):
            self._table(sheet)
        self._method()
        self._cover(cover)
        cover.activate()

    # Tables

    def _cells(self) -> Sheet:
        return _CELLS if self._run["cells"] <= MOST_CELLS else _CELL_SUMS

    def _table(self, sheet: Sheet) -> None:
        frame = self._frame(sheet)
        if _FIRST + len(frame) > MOST_ROWS:
            raise ConfigError(
                f"export xlsx: {sheet.name}",
                f"has {len(frame):,} rows, a sheet holds {MOST_ROWS - _FIRST:,}",
                "Use `reconcile export csv` or `reconcile export parquet` for this month",
            )
        frame.to_excel(self._writer, sheet_name=sheet.name, startrow=_FIRST, header=False, index=False)
        page = self._writer.sheets[sheet.name]
        self._dress(page, sheet, len(frame))
        last = _FIRST + max(len(frame), 1) - 1
        for place, column in enumerate(sheet.columns):
            if column.formula:
                for offset, came_to in enumerate(frame[column.name]):
                    row = _FIRST + offset
                    formula = column.formula.format(row=row + 1)
                    page.write_formula(row, place, formula, self._format(column.kind), float(came_to))
            if column.total:
                letter = xl_col_to_name(place)
                formula = f"=SUM({letter}{_FIRST + 1}:{letter}{last + 1})"
                total = sum((value for value in frame[column.name] if not pd.isna(value)), Decimal(0))
                page.write_formula(_TOTALS, place, formula, self._format(column.kind, strong=True), float(total))
                self._placed.cells[sheet.name, column.name] = f"${letter}${_TOTALS + 1}"
                self._placed.usd[sheet.name, column.name] = Decimal(total)

    def _frame(self, sheet: Sheet) -> pd.DataFrame:
        """The sheet's rows, Arrow-backed: a decimal stays a decimal until Excel takes it."""
        names = ", ".join(f'"{column.name}"' for column in sheet.columns)
        table = self._connection.sql(f"select {names} from ({sheet.query})").to_arrow_table()
        frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
        for column in sheet.columns:
            if column.kind in {"text", "json"}:
                frame[column.name] = frame[column.name].str.slice(0, LONGEST_TEXT)
        if sheet is _DISCREPANCIES:
            self._foot_findings(frame)
        return frame

    def _foot_findings(self, frame: pd.DataFrame) -> None:
        """Findings of one reason add up, in cents, to what the bridge prints for it."""
        steps = {step.reason: step.amount_usd for step in self._steps if step.kind == "step"}
        for reason, found in frame.groupby("reason", sort=False):
            printed = money.foot(list(found["amount_usd"]), steps.get(str(reason)) or Decimal("0.00"))
            frame.loc[found.index, "amount_usd"] = pd.array(printed, dtype=frame["amount_usd"].dtype)

    def _dress(self, page: Any, sheet: Sheet, rows: int) -> None:
        """Title, headings, widths, filter, what is frozen, and how it prints."""
        page.write_string(_TITLE, 0, sheet.title, self._plain["title"])
        page.write_string(_SUBTITLE, 0, self._subtitle(sheet.unit), self._plain["subtitle"])
        for place, column in enumerate(sheet.columns):
            page.set_column(place, place, column.width, self._format(column.kind))
            heading = "heading" if column.kind in {"text", "day"} else "number_heading"
            page.write_string(_HEADINGS, place, column.heading, self._plain[heading])
        if any(column.total for column in sheet.columns):
            page.write_string(_TOTALS, 0, "Total", self._plain["strong"])
        page.freeze_panes(_FIRST, 1)
        page.autofilter(_HEADINGS, 0, _FIRST + max(rows, 1) - 1, len(sheet.columns) - 1)
        printed = [place for place, column in enumerate(sheet.columns) if column.kind != "json"]
        page.print_area(_TITLE, 0, _FIRST + max(rows, 1) - 1, printed[-1])
        self._printable(page, repeated=_HEADINGS)

    def _printable(self, page: Any, repeated: int | None = None) -> None:
        page.set_landscape()
        page.set_paper(9)
        page.fit_to_pages(1, 0)
        page.set_margins(left=0.4, right=0.4, top=0.6, bottom=0.6)
        page.set_footer(f"&L{self._run['period']} r{self._run['revision']}&C&A&R&P / &N")
        if repeated is not None:
            page.repeat_rows(repeated)

    def _subtitle(self, unit: str) -> str:
        run = self._run
        return f"{run['organization']} · {run['period']} through {run['through_on']} · r{run['revision']} · {unit}"

    def _format(self, kind: str, *, strong: bool = False) -> Any:
        made = self._formats.get((kind, strong))
        if made is None:
            look: dict[str, Any] = {"num_format": _NUMBER_FORMATS[kind], "valign": "top"}
            look |= {"bold": True, "bottom": 1} if strong else {}
            look |= {"align": "fill"} if kind == "json" else {}  # a long text stays in its column
            made = self._formats[kind, strong] = self._book.add_format(look)
        return made

    # The bridge

    def _bridge(self) -> None:
        """In cents, as the pages print it: each running figure is the one above and the step."""
        page = self._book.add_worksheet("Bridge")
        columns = (
            Column("Step", "title", width=52),
            Column("Reason", "reason", width=18),
            Column("Quantity", "quantity", "quantity", 18),
            Column("Amount", "amount_usd", "usd", 18),
            Column("Running", "running_usd", "usd", 18),
        )
        sheet = Sheet("Bridge", "From logged to billed", "USD, to the cent; quantities in tokens", "", columns)
        self._dress(page, sheet, len(self._steps))
        for at, step in enumerate(self._steps, start=_FIRST):
            is_total = step.kind == "total"
            running = self._format("usd", strong=is_total)
            page.write_string(at, 0, step.title, self._plain["strong" if is_total else "label"])
            page.write_string(at, 1, step.reason, self._format("text"))
            if step.quantity is not None:
                page.write_number(at, 2, step.quantity, self._format("quantity"))
            if step.amount_usd is not None:
                page.write_number(at, 3, step.amount_usd, self._format("usd"))
            if at == _FIRST:
                page.write_number(at, 4, step.running_usd, running)
            else:
                page.write_formula(at, 4, f"=E{at}+D{at + 1}", running, float(step.running_usd))
            if is_total:
                self._placed.cells["Bridge", step.reason] = f"$E${at + 1}"
                self._placed.usd["Bridge", step.reason] = step.running_usd

    # Cover and method

    def _cover(self, page: Any) -> None:
        run, summary = self._run, self._summary
        page.set_column(0, 0, 34)
        page.set_column(1, 1, 22)
        page.set_column(2, 2, 70)
        page.write_string(0, 0, f"{run['organization']}: {run['period']}", self._plain["title"])
        state = "provisional: the month is not over" if run["provisional"] else "complete month"
        said = f"Revision r{run['revision']}, through {run['through_on']}, {state}. USD."
        page.write_string(1, 0, said, self._plain["subtitle"])
        for row, (label, cell) in enumerate(self._cover_figures(), start=3):
            page.write_string(row, 0, label, self._plain["label"])
            if isinstance(cell, tuple):
                formula, came_to, note = cell
                page.write_formula(row, 1, formula, self._format("usd", strong=label == "Billed"), float(came_to))
                page.write_string(row, 2, note, self._plain["note"])
            else:
                page.write_number(row, 1, cell, self._format("quantity"))
        row += 2
        if summary["capture_rate"] is not None:
            page.write_string(row, 0, "Capture rate", self._plain["label"])
            page.write_number(row, 1, summary["capture_rate"], self._format("percent"))
            page.write_string(row, 2, "recorded as a share of reported", self._plain["note"])
            row += 2
        page.write_string(row, 0, "Sheets", self._plain["strong"])
        for sheet, about in _CONTENTS.items():
            row += 1
            page.write_url(row, 0, f"internal:'{sheet}'!A1", self._plain["link"], sheet)
            page.write_string(row, 2, about, self._plain["note"])
        page.hide_gridlines(2)
        self._printable(page)

    def _cover_figures(self) -> Iterator[tuple[str, tuple[str, Decimal, str] | int]]:
        """Label and figure: a formula with what it comes to and a note, or a count."""
        placed = self._placed
        totals = {name: placed.reference("Bridge", name) for sheet, name in placed.cells if sheet == "Bridge"}
        for name, reference in totals.items():
            yield name.capitalize(), (f"={reference}", placed.usd["Bridge", name], _TOTAL_NOTES.get(name, ""))
        difference_usd = placed.usd["Bridge", "billed"] - placed.usd["Bridge", "recorded"]
        difference = f"={totals['billed']}-{totals['recorded']}"
        yield "Difference", (difference, difference_usd, "billed minus recorded")
        payable = placed.reference("Chargeback", "payable_usd")
        yield "Payable by cost centers", (f"={payable}", placed.usd["Chargeback", "payable_usd"], "to the cent")
        yield "Discrepancies", int(self._summary["discrepancy_count"])

    def _method(self) -> None:
        """How the figures were made, and the sums that are there twice, side by side."""
        page = self._book.add_worksheet("Method")
        page.set_column(0, 0, 34)
        page.set_column(1, 2, 24)
        page.set_column(3, 3, 18)
        page.set_column(4, 6, 24)
        page.write_string(0, 0, "How these figures were made", self._plain["title"])
        row = 2
        for label, text in self._method_lines():
            page.write_string(row, 0, label, self._plain["label"])
            page.merge_range(row, 1, row, 6, "", self._plain["wrapped"])
            page.write_string(row, 1, text, self._plain["wrapped"])
            page.set_row(row, 15 * (1 + len(text) // 125))
            row += 1
        row += 1
        for place, heading in enumerate(("Control", "One place", "The other", "Apart by", "Ties out to the cent")):
            page.write_string(row, place, heading, self._plain["heading"])
        for label, one, other in self._controls():
            row += 1
            page.write_string(row, 0, label, self._plain["label"])
            for place, (sheet, name) in enumerate((one, other), start=1):
                came_to = float(self._placed.usd[sheet, name])
                page.write_formula(
                    row, place, f"={self._placed.reference(sheet, name)}", self._format("small"), came_to
                )
            apart_usd = self._placed.usd[one] - self._placed.usd[other]
            one_cell, other_cell, apart = (xl_rowcol_to_cell(row, place) for place in (1, 2, 3))
            page.write_formula(row, 3, f"={one_cell}-{other_cell}", self._format("small"), float(apart_usd))
            page.write_formula(row, 4, f'=IF(ABS({apart})<0.0051,"yes","NO")', self._plain["note"], "yes")
        row += 2
        self._sources(page, row)
        page.hide_gridlines(2)
        self._printable(page)

    def _method_lines(self) -> Iterator[tuple[str, str]]:
        run = self._run
        prepaid = run["arrangement"] == "prepaid"
        tolerance = f"{run['tolerance_usd']:.2f} USD and {run['tolerance_percent'].normalize():f} % of billed"
        days = f"{run['start_on']} to {run['last_on']}, days in UTC"
        yield from {
            "Digits": "Excel keeps 15 digits of a number. Amounts are shown to the cent, small ones to six decimals; "
            "the CSV and Parquet files have all twelve.",
            "Totals": "Every total is a formula over its sheet. It counts every row, also one that a filter hides.",
            "Cents": "The bridge and the findings are in cents that add up; the exact amounts are in the CSV.",
            "Signs": "A step of the bridge has the sign with which it leads from logged to billed.",
            "Tolerance": f"{tolerance}, of a finding and of the sum of those within it.",
            "Arrangement": "Prepaid: what is billed is drawn from credits." if prepaid else "Invoiced.",
            "Period": f"{days}, pulled {run['data_refreshed_at']:%Y-%m-%d %H:%M} UTC.",
            "Result": f"reconcile {run['package_version']}, revision r{run['revision']}, inputs {run['input_digest']}",
        }.items()
        for row in ledger.rows(self._connection, "select warning from report.warning order by position"):
            yield "Warning", row["warning"]

    def _controls(self) -> Iterator[tuple[str, tuple[str, str], tuple[str, str]]]:
        for name in ("recorded", "reported", "billed"):
            yield f"{name.capitalize()}: bridge and cells", ("Bridge", name), ("Cells", f"{name}_usd")
        yield "Billed: bridge and allocation", ("Bridge", "billed"), ("Allocation", "amount_usd")
        yield "Billed: bridge and chargeback", ("Bridge", "billed"), ("Chargeback", "total_usd")

    def _sources(self, page: Any, row: int) -> None:
        sources = ledger.rows(self._connection, "select * from report.source")
        for place, heading in enumerate(("Source", "Name", "Rows", "Files", "First", "Last", "SHA-256")):
            look = "number_heading" if heading in {"Rows", "Files"} else "heading"
            page.write_string(row, place, heading, self._plain[look])
        for offset, source in enumerate(sources, start=1):
            for place, name in enumerate(("side", "name", "rows", "files", "first_at", "last_at", "digest")):
                value = source[name]
                if isinstance(value, int):
                    page.write_number(row + offset, place, value, self._format("quantity"))
                elif value is not None:
                    text = f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, date) else str(value)
                    page.write_string(row + offset, place, text)


_TOTAL_NOTES = {
    "logged": "as the applications wrote it",
    "recorded": "the logs after cleaning, at the price book",
    "reported": "the provider's usage report, at the price book",
    "billed": "the provider's cost report",
    "invoiced": "the provider's invoice",
}
_CONTENTS = {
    "Bridge": "from logged to billed, every dollar under one reason",
    "Discrepancies": "every finding with its evidence",
    "Allocation": "who pays, from where, by which rule",
    "Chargeback": "what each cost center pays",
    "Cells": "recorded, reported and billed side by side",
    "Prices": "the prices that were used",
    "Method": "how the figures were made, controls, sources",
}
