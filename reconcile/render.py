"""Render what a period's ledger says: pages for people, and every report view as CSV."""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, make_dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import jinja2
from markupsafe import Markup, escape

from reconcile import ledger, money

PACKAGE = Path(__file__).parent
TEMPLATES = next(folder for folder in (PACKAGE / "reports", PACKAGE.parent / "reports") if folder.is_dir())

UNALLOCATED = "unallocated"
_CENT = Decimal("0.01")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMERAL = re.compile(r"-?\d{1,30}(\.\d+)?")
_CAPITALS = frozenset({"api", "id", "url", "usd", "utc"})
_MINUS = "\N{MINUS SIGN}"
_ABSENT = "\N{EN DASH}"
_HEADED = 6
_CHART_ROWS = 14
"""How many cost centers a chart shows; the table below it shows all."""
_PICTURES = 12
"""How many findings have a picture: the largest of those beyond tolerance that one says something about."""


def publish_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the views of schema ``report`` and their controls in ``checks``; what they are stands in the SQL."""
    ledger.run_sql(connection, "render")


def render(connection: duckdb.DuckDBPyConnection, out_dir: Path) -> tuple[Path, ...]:
    """Write the pages and one CSV for each report view into ``out_dir``, replacing what was there as a whole.

    Reads only schema ``report``; the same rows give the same bytes. Returns the paths: ``index.html``,
    ``discrepancy.html``, ``allocation.html``, the statements by cost center, the CSV files by name.
    """
    pages = _pages(connection)
    views = _views(connection)
    with _swapped_in(out_dir) as folder:
        for name, text in pages.items():
            target = folder / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
            target.chmod(0o600)
        for view in views:
            _write_csv(connection, view, folder / f"{view}.csv")
    return tuple(out_dir / name for name in (*pages, *(f"{view}.csv" for view in views)))


# Files ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _swapped_in(out_dir: Path) -> Iterator[Path]:
    """A new folder beside ``out_dir`` that takes its place when everything in it is written."""
    aside = out_dir.with_name(out_dir.name + ".partial")
    former = out_dir.with_name(out_dir.name + ".former")
    out_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if former.exists() and not out_dir.exists():  # an earlier run stopped between the two renames below
        former.rename(out_dir)
    for left_over in (aside, former):
        shutil.rmtree(left_over, ignore_errors=True)
    aside.mkdir(mode=0o700)
    yield aside
    if out_dir.exists():
        out_dir.rename(former)
    aside.rename(out_dir)
    shutil.rmtree(former, ignore_errors=True)


def _write_csv(connection: duckdb.DuckDBPyConnection, view: str, target: Path) -> None:
    r"""One report view, exact: decimals in full, NULL empty (an empty text is ``""``), UTF-8, ``\n``, a header.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; numbers never do.
    DuckDB writes it, so that no amount passes through Python.
    """
    columns = []
    for name, kind, *_ in connection.execute(f'describe report."{view}"').fetchall():
        if kind == "VARCHAR":
            guarded = f"""if(regexp_matches("{name}", '^[=+@\\t\\r-]'), '''' || "{name}", "{name}")"""
            columns.append(f'{guarded} as "{name}"')
        elif kind == "TIMESTAMP":
            columns.append(f"""strftime("{name}", '%Y-%m-%dT%H:%M:%SZ') as "{name}\"""")
        else:
            columns.append(f'"{name}"')
    path = str(target).replace("'", "''")
    connection.execute(f"""copy (select {", ".join(columns)} from report."{view}") to '{path}' (format csv, header)""")
    target.chmod(0o600)


def _views(connection: duckdb.DuckDBPyConnection) -> list[str]:
    found = connection.execute(
        "select view_name from duckdb_views() where schema_name = 'report' and not internal order by view_name"
    )
    return [view for (view,) in found.fetchall()]


def statement_names(cost_centers: Iterable[str]) -> dict[str, str]:
    """The file name of each cost center's statement, safe on every file system and each its own.

    An id of plain characters is the name; any other, and one that another differs from only in case, is
    shortened to them and told apart by a hash.
    """
    ids = list(cost_centers)
    folded = Counter(cost_center.casefold() for cost_center in ids)
    names = {}
    for cost_center in ids:
        if _PLAIN.fullmatch(cost_center) and folded[cost_center.casefold()] == 1:
            names[cost_center] = f"{cost_center}.html"
        else:
            slug = re.sub(r"[^A-Za-z0-9]+", "-", cost_center).strip("-")[:40] or "cost-center"
            names[cost_center] = f"{slug}-{hashlib.sha256(cost_center.encode()).hexdigest()[:10]}.html"
    return names


# Rows and figures: what a page shows ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Rows of a view as they are printed, and the line that they tie out to (their columns' sums)."""

    rows: tuple[Any, ...]
    total: Any


@dataclass(frozen=True)
class Figures:
    """The printed totals, in cents, such that every step between two of them is their difference."""

    logged_usd: Decimal
    recorded_usd: Decimal
    reported_usd: Decimal
    billed_usd: Decimal
    invoiced_usd: Decimal | None
    residual_usd: Decimal

    @property
    def cleaning_usd(self) -> Decimal:
        """Recorded minus logged."""
        return self.recorded_usd - self.logged_usd

    @property
    def quantity_variance_usd(self) -> Decimal:
        """Reported minus recorded."""
        return self.reported_usd - self.recorded_usd

    @property
    def price_variance_usd(self) -> Decimal:
        """Billed minus reported."""
        return self.billed_usd - self.reported_usd

    @property
    def difference_usd(self) -> Decimal:
        """Billed minus recorded."""
        return self.billed_usd - self.recorded_usd

    @property
    def explained_usd(self) -> Decimal:
        """The difference without the residual."""
        return self.difference_usd - self.residual_usd

    @property
    def found_usd(self) -> Decimal:
        """What all findings add up to: billed minus logged."""
        return self.billed_usd - self.logged_usd


@dataclass(frozen=True)
class State:
    """The findings in one state, in cents: ``discrepancy``, ``accepted``, ``expected`` or ``tolerated``."""

    state: str
    findings: tuple[Any, ...]
    moved_usd: Decimal

    @property
    def headed(self) -> tuple[Any, ...]:
        """The ones that the first page shows by themselves: the largest discrepancies."""
        return self.findings[:_HEADED] if self.state == "discrepancy" else ()

    @property
    def rest(self) -> tuple[Any, ...]:
        """The others, which it shows in one line."""
        return self.findings[len(self.headed) :]

    @property
    def amount_usd(self) -> Decimal:
        """What all of them add up to, as printed."""
        return sum((row.amount_usd for row in self.findings), Decimal("0.00"))

    @property
    def rest_usd(self) -> Decimal:
        """What the others add up to."""
        return sum((row.amount_usd for row in self.rest), Decimal("0.00"))

    @property
    def further_usd(self) -> Decimal:
        """What those add up to that the page on the difference shows without their evidence."""
        return sum((row.amount_usd for row in self.findings[100:]), Decimal("0.00"))


def _fetch(connection: duckdb.DuckDBPyConnection, query: str, *parameters: object) -> list[Any]:
    """A query's rows, each a frozen value whose fields are the columns."""
    cursor = connection.execute(query, list(parameters))
    row = make_dataclass("Row", [column[0] for column in cursor.description or ()], frozen=True)
    return [row(*values) for values in cursor.fetchall()]


def foot(amounts: Sequence[Decimal], total_usd: Decimal) -> list[Decimal]:
    """A column of amounts in cents that adds up to a total that is printed elsewhere.

    The total is in cents and within a few cents of the exact sum: where it is not the rounded sum itself, the
    amounts that were rounded furthest the other way give or take the missing cents, zeros last.
    """
    printed = money.footing(amounts)
    missing = total_usd - sum(printed, Decimal(0))
    step = _CENT if missing > 0 else -_CENT
    order = sorted(range(len(printed)), key=lambda i: (-(amounts[i] - printed[i]) * step, -abs(amounts[i]), i))
    for i in order[: abs(int(missing / _CENT))]:
        printed[i] += step
    return printed


def _footed(rows: Sequence[Any], **totals_usd: Decimal) -> Table:
    """Rows whose named columns are printed in cents and add up to the totals given."""
    for column, total_usd in totals_usd.items():
        printed = foot([getattr(row, column) for row in rows], total_usd)
        rows = [replace(row, **{column: usd}) for row, usd in zip(rows, printed, strict=True)]
    line = make_dataclass("Total", list(totals_usd), frozen=True)
    return Table(tuple(rows), line(**totals_usd))


def _crossed(rows: Sequence[Any], figures: Figures) -> Table:
    """Rows with all three sides, in cents that add up down every column and across every row.

    Billed and the two variances are apportioned, reported and recorded follow from them: so a row without any
    difference shows none.
    """
    table = _footed(
        rows,
        billed_usd=figures.billed_usd,
        price_variance_usd=figures.price_variance_usd,
        quantity_variance_usd=figures.quantity_variance_usd,
    )
    crossed = []
    for row in table.rows:
        reported_usd = row.billed_usd - row.price_variance_usd
        crossed.append(
            replace(
                row,
                reported_usd=reported_usd,
                recorded_usd=reported_usd - row.quantity_variance_usd,
                difference_usd=row.price_variance_usd + row.quantity_variance_usd,
            )
        )
    return Table(tuple(crossed), figures)


def _printed_bridge(rows: Sequence[Any]) -> list[Any]:
    """The bridge in cents: totals rounded, the steps between two of them apportioned to what lies between."""
    printed: list[Any] = []
    steps: list[Any] = []
    running_usd = Decimal(0)
    for row in rows:
        if row.kind == "step":
            steps.append(row)
            continue
        total_usd = money.cents(row.running_usd)
        for step in _footed(steps, amount_usd=total_usd - running_usd).rows if steps else ():
            running_usd += step.amount_usd
            printed.append(replace(step, running_usd=running_usd))
        printed.append(replace(row, running_usd=total_usd))
        steps, running_usd = [], total_usd
    return printed


def _figures(bridge: Sequence[Any]) -> Figures:
    totals = {row.reason: row.running_usd for row in bridge if row.kind == "total"}
    residual_usd = next((row.amount_usd for row in bridge if row.reason == "residual"), Decimal(0))
    names = ("logged", "recorded", "reported", "billed")
    return Figures(
        **{f"{name}_usd": totals.get(name, Decimal("0.00")) for name in names},
        invoiced_usd=totals.get("invoiced"),
        residual_usd=residual_usd,
    )


# Pages ---------------------------------------------------------------------------------------------------------------


def _pages(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The text of every page by its path in the folder, in the order in which they are returned."""
    bridge = _printed_bridge(_fetch(connection, "select * from report.bridge"))
    figures = _figures(bridge)
    (run,) = _fetch(connection, "select * from report.run")
    (summary,) = _fetch(connection, "select * from report.summary")
    (verdict,) = _fetch(connection, "select * from report.verdict")
    chargeback = _fetch(connection, "select * from report.chargeback")
    charts = Charts()
    states = _states(connection, bridge)
    environment = _environment(
        run=run,
        summary=summary,
        verdict=verdict,
        figures=figures,
        bridge=bridge,
        chargeback=_chargeback(chargeback),
        statement_names=statement_names(row.cost_center for row in chargeback),
        waterfall=charts.waterfall(bridge),
        states=states,
        reasons={row.reason: row for row in _fetch(connection, "select * from report.reason")},
        workspace_names={
            row.workspace_id: row.workspace_name or row.workspace_id
            for row in _fetch(connection, "select workspace_id, workspace_name from report.by_workspace")
        },
        sources=_fetch(connection, "select * from report.source"),
        defaults=_fetch(connection, "select * from report.default_used"),
        rejected=_fetch(connection, "select * from report.rejected limit 20"),
        warnings=_fetch(connection, "select * from report.warning"),
    )
    pages = {
        "index.html": environment.get_template("index.html.j2").render(causes=_causes(bridge)),
        "discrepancy.html": environment.get_template("discrepancy.html.j2").render(
            **_discrepancy(connection, figures, charts),
            accepted=_grouped(_fetch(connection, "select * from report.accepted"), "finding_id"),
            pictures=_pictures(connection, states, charts, _meters(environment)),
        ),
        "allocation.html": environment.get_template("allocation.html.j2").render(
            **_allocation(connection, figures, chargeback, charts)
        ),
    }
    statement = environment.get_template("statement.html.j2")
    names = statement_names(row.cost_center for row in chargeback)
    seen = _grouped(_fetch(connection, "select * from report.statement"), "cost_center")
    rules = _grouped(_fetch(connection, "select * from report.allocation_rule"), "cost_center")
    for center in sorted(chargeback, key=lambda row: row.cost_center):
        name = center.cost_center
        if name != UNALLOCATED:
            pages[f"statements/{names[name]}"] = statement.render(
                **_statement(center, seen.get(name, []), rules.get(name, []), charts)
            )
    return pages


def _grouped(rows: Sequence[Any], column: str) -> dict[str, list[Any]]:
    held: dict[str, list[Any]] = {}
    for row in rows:
        held.setdefault(getattr(row, column), []).append(row)
    return held


def _chargeback(rows: Sequence[Any]) -> Table:
    """The chargeback, which is in cents already, with its total."""
    columns = ("direct_usd", "shared_usd", "total_usd", "other_usd", "payable_usd")
    return _footed(rows, **{column: sum((getattr(row, column) for row in rows), Decimal("0.00")) for column in columns})


def _causes(bridge: Sequence[Any]) -> list[Any]:
    """The three largest steps between recorded and billed."""
    recorded_at = next((row.position for row in bridge if row.reason == "recorded"), 0)
    billed_at = next((row.position for row in bridge if row.reason == "billed"), 0)
    steps = [row for row in bridge if row.kind == "step" and recorded_at < row.position < billed_at and row.amount_usd]
    return sorted(steps, key=lambda row: (-abs(row.amount_usd), row.position))[:3]


def _states(connection: duckdb.DuckDBPyConnection, bridge: Sequence[Any]) -> list["State"]:
    """The findings by state. Those of one reason add up, as printed, to what the bridge prints for it."""
    steps = {row.reason: row.amount_usd for row in bridge if row.kind == "step"}
    findings = _fetch(connection, "select * from report.finding")
    printed: dict[str, Any] = {}
    for reason in {row.reason: None for row in findings}:
        held = [row for row in findings if row.reason == reason]
        for row in _footed(held, amount_usd=steps.get(reason, Decimal("0.00"))).rows:
            printed[row.id] = replace(row, evidence=_evidence(row.evidence))
    return [
        State(
            state=row.state,
            findings=tuple(printed[found.id] for found in findings if found.state == row.state),
            moved_usd=row.moved_usd,
        )
        for row in _fetch(connection, "select * from report.finding_state")
    ]


def _discrepancy(connection: duckdb.DuckDBPyConnection, figures: Figures, charts: "Charts") -> dict[str, Any]:
    daily = _crossed(_fetch(connection, "select * from report.daily"), figures)
    return {
        "daily": daily,
        "daily_chart": charts.daily(daily.rows),
        "price_variance": _footed(
            _fetch(connection, "select * from report.price_variance"), price_variance_usd=figures.price_variance_usd
        ),
        "by_workspace": _crossed(_fetch(connection, "select * from report.by_workspace"), figures),
        "by_model": _crossed(_fetch(connection, "select * from report.by_model"), figures),
        "by_tier": _crossed(_fetch(connection, "select * from report.by_tier"), figures),
        "by_meter": _crossed(_fetch(connection, "select * from report.by_meter"), figures),
        "prices": _fetch(connection, "select * from report.price_used"),
    }


def _pictures(
    connection: duckdb.DuckDBPyConnection, states: Sequence[State], charts: "Charts", meters: Mapping[str, str]
) -> dict[str, tuple[str, Markup]]:
    """What is drawn of a finding and the drawing, by the finding's id: the largest beyond tolerance that have one."""
    curves = _grouped(_fetch(connection, "select * from report.curve"), "finding_id")
    exchanges = _grouped(_fetch(connection, "select * from report.exchange"), "finding_id")
    beyond = [row for state in states if state.state in {"discrepancy", "accepted"} for row in state.findings]
    drawn: dict[str, tuple[str, Markup]] = {}
    for finding in sorted(beyond, key=lambda row: (-row.moved_usd, row.id)):
        if len(drawn) < _PICTURES:
            if hours := curves.get(finding.id):
                drawn[finding.id] = "curve", charts.curve(hours)
            elif sides := exchanges.get(finding.id):
                days = finding.reason == "cutoff"
                drawn[finding.id] = ("days", charts.moved(sides)) if days else ("sides", charts.sides(sides, meters))
    return drawn


def _evidence(text: str | None) -> object:
    """A finding's evidence as it is shown; a number keeps the digits that it was written with."""
    return json.loads(text, parse_float=Decimal) if text else {}


def _allocation(
    connection: duckdb.DuckDBPyConnection, figures: Figures, chargeback: Sequence[Any], charts: "Charts"
) -> dict[str, Any]:
    (unallocated,) = [row for row in chargeback if row.cost_center == UNALLOCATED]
    nowhere = "select * from report.statement where cost_center = ? and dimension = 'workspace'"
    return {
        "unallocated": _footed(_fetch(connection, nowhere, UNALLOCATED), amount_usd=unallocated.total_usd),
        "rules": _rules(_fetch(connection, "select * from report.allocation_rule"), chargeback),
        "pools": _footed_to_itself(_fetch(connection, "select * from report.pool"), "amount_usd"),
        "months": _fetch(connection, "select * from report.month_over_month"),
        "chart": charts.cost_centers(chargeback),
        "billed_usd": figures.billed_usd,
    }


def _rules(rows: Sequence[Any], chargeback: Sequence[Any]) -> list[tuple[Any, Table]]:
    """Each cost center with the rules that sent it something, which add up to its direct and its shared dollars."""
    centers = {row.cost_center: row for row in chargeback}
    return [(centers[name], _split(held, centers[name])) for name, held in _grouped(rows, "cost_center").items()]


def _split(rows: Sequence[Any], center: Any) -> Table:
    """A cost center's rows in cents, direct and shared ones each adding up to what the chargeback says."""
    direct = _footed([row for row in rows if row.basis != "shared"], amount_usd=center.direct_usd)
    shared = _footed([row for row in rows if row.basis == "shared"], amount_usd=center.shared_usd)
    return Table(direct.rows + shared.rows, center)


def _statement(center: Any, seen: Sequence[Any], rules: Sequence[Any], charts: "Charts") -> dict[str, Any]:
    tables = {}
    for dimension in ("workspace", "model", "service_tier", "meter", "day"):
        table = _footed(
            [row for row in seen if row.dimension == dimension],
            direct_usd=center.direct_usd,
            shared_usd=center.shared_usd,
        )
        rows = [replace(row, amount_usd=row.direct_usd + row.shared_usd) for row in table.rows]
        tables[f"by_{dimension}"] = Table(tuple(rows), center)
    days = [(date.fromisoformat(row.item), row.direct_usd) for row in tables["by_day"].rows if row.item]
    return {"center": center, "rules": _split(rules, center), "chart": charts.days(days), **tables}


def _footed_to_itself(rows: Sequence[Any], column: str) -> Table:
    return _footed(rows, **{column: money.cents(sum((getattr(row, column) for row in rows), Decimal(0)))})


# Words and numbers ---------------------------------------------------------------------------------------------------


def usd(value: Decimal | None, *, signed: bool = False) -> str:
    """Cents with thousands separators and a true minus; a plus where asked for; a dash where there is nothing."""
    if value is None:
        return _ABSENT
    rounded = money.cents(value)
    sign = _MINUS if rounded < 0 else "+" if signed and rounded > 0 else ""
    return f"{sign}{abs(rounded):,.2f}"


def dollars(value: Decimal | None, *, signed: bool = False) -> str:
    """As `usd`, with the currency's sign, for running text."""
    text = usd(value, signed=signed)
    return text if value is None else f"{text[0]}${text[1:]}" if text[0] in f"{_MINUS}+" else f"${text}"


def exact(value: Decimal | None) -> str:
    """An amount with all its digits and at least two of them after the point."""
    if value is None:
        return _ABSENT
    whole, _, rest = f"{value:,f}".partition(".")
    return f"{whole}.{rest.rstrip('0'):0<2}".replace("-", _MINUS)


def quantity(value: int | None, *, signed: bool = False) -> str:
    """A count with thousands separators."""
    if value is None:
        return _ABSENT
    return f"{_MINUS if value < 0 else '+' if signed and value > 0 else ''}{abs(value):,}"


def percent(ratio: float | Decimal | None) -> str:
    """A ratio in percent; never 100.0 % unless it is 1, never 0.0 % unless it is 0."""
    if ratio is None:
        return _ABSENT
    text = f"{ratio * 100:.1f}"
    if (text in {"100.0", "-100.0"} and abs(ratio) != 1) or (text in {"0.0", "-0.0"} and ratio != 0):
        text = f"{ratio * 100:.4f}"
    return f"{text.replace('-', _MINUS)} %"


def day(value: date | None) -> str:
    """A date as people write it: 3 Oct 2026."""
    return _ABSENT if value is None else f"{value.day} {value:%b %Y}"


def month(period: str) -> str:
    """A period as people write it: October 2026."""
    return f"{date.fromisoformat(period + '-01'):%B %Y}"


def label(key: str) -> str:
    """A key of the evidence as a heading: ``api_key_id`` reads API key id, ``amount_usd`` Amount (USD)."""
    if key == "workspace_id":  # shown by its name
        return "Workspace"
    words = key.removesuffix("_usd").removesuffix("_percent").split("_")
    unit = " (USD)" if key.endswith("_usd") else " (%)" if key.endswith("_percent") else ""
    text = " ".join(word.upper() if word in _CAPITALS else word for word in words)
    return text[:1].upper() + text[1:] + unit


def numeral(value: object, key: str) -> str | None:
    """A number of the evidence, which may come as text, with separators; None where it is not a number."""
    text = str(value)
    if isinstance(value, bool) or _NUMERAL.fullmatch(text) is None or key.endswith(("_id", "id", "status", "version")):
        return None
    if key.endswith("_usd") or "." in text:
        return exact(Decimal(text)) if key.endswith("_usd") else text
    return quantity(int(text))


def iso_day(text: str) -> str:
    """A date that comes as text, as people write it."""
    return day(date.fromisoformat(text))


def moment(value: datetime | None) -> str:
    """An instant to the minute: 4 Nov 2026, 06:00."""
    return _ABSENT if value is None else f"{value.day} {value:%b %Y, %H:%M}"


def instant(value: datetime | None) -> str:
    """As `moment`, for running text, which has to say the zone."""
    return f"{moment(value)} UTC"


def _environment(**shared: object) -> jinja2.Environment:
    """Jinja with what every page shows."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shown: tuple[Callable[..., str | None], ...] = (
        *(usd, dollars, exact, quantity, percent, day, iso_day, month, moment, instant),
        *(label, numeral),
    )
    environment.filters.update({function.__name__: function for function in shown})
    environment.tests.update(table=_is_table)
    environment.globals.update(shared)
    for name, template in (("words", "words.html.j2"), ("show", "macros.html.j2")):
        environment.globals[name] = environment.get_template(template).module
    return environment


def _meters(environment: jinja2.Environment) -> dict[str, str]:
    """What the meters are called on a page, for the text in a picture."""
    words: Any = environment.globals["words"]
    return dict(words.meters)


def _is_table(value: object) -> bool:
    """Whether a piece of evidence is a list of objects, which reads best as a table."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


# Charts --------------------------------------------------------------------------------------------------------------

# Placeholders that no chart library changes; in the page they are the style sheet's colors, light or dark.
_INK, _MUTED, _RULE, _ACCENT, _SOFT, _ALERT = (f"#11110{digit}" for digit in range(1, 7))
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _RULE: "--rule",
    _ACCENT: "--accent",
    _SOFT: "--soft",
    _ALERT: "--alert",
}
_FONT = "Liberation Sans"  # comes with vl-convert: text is measured the same on every machine


class Charts:
    """Draws the pages' charts as inline SVG. A chart needs numbers to place its marks; every label comes as text."""

    def __init__(self) -> None:
        import altair as alt  # noqa: PLC0415 - heavy, and only pages need it
        import vl_convert  # noqa: PLC0415

        self._alt: Any = alt
        self._convert = vl_convert.vegalite_to_svg
        days = self._alt.Chart(self._alt.Data(values=[])).mark_bar(color=_ACCENT, width={"band": 0.7})
        self._days = self._spec(  # made once: there may be hundreds of statements
            days.encode(x=self._day_axis(), y=self._dollar_axis("usd:Q")).properties(width=860, height=150)
        )

    def waterfall(self, bridge: Sequence[Any]) -> Markup:
        """The bridge: one line a total or step, from where it starts to where it ends."""
        alt = self._alt
        steps = []
        for number, row in enumerate(bridge):
            end = row.running_usd
            start = end - (row.amount_usd or 0)
            steps.append(
                {
                    "row": number,
                    "next": min(number + 1, len(bridge) - 1),
                    "title": row.title,
                    "start": float(start),
                    "end": float(end),
                    "right": float(max(start, end)),
                    "label": usd(end) if row.kind == "total" else usd(row.amount_usd, signed=True),
                    "kind": _kind_of_step(row),
                }
            )
        if not steps:
            return Markup()
        low = min(min(step["start"], step["end"]) for step in steps)
        high = max(step["right"] for step in steps)
        span = (high - low) or 1.0
        scale = alt.Scale(domain=[low - span * 0.02, high + span * 0.16], nice=False)
        x = alt.X("start:Q", scale=scale, axis=None)
        y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.34, paddingOuter=0.17))
        color = alt.Color(
            "kind:N",
            scale=alt.Scale(domain=["total", "up", "down", "residual"], range=[_INK, _ACCENT, _SOFT, _ALERT]),
            legend=None,
        )
        base = alt.Chart(alt.Data(values=steps))
        is_total = alt.datum.kind == "total"
        names = base.encode(y=y, x=alt.value(-12), text="title:N")
        numbers = base.encode(y=y, x=alt.X("right:Q"), text="label:N")
        chart = alt.layer(
            base.mark_rule(color=_RULE).encode(x=alt.X("end:Q", scale=scale, axis=None), y=y, y2="next:O"),
            base.transform_filter(alt.datum.kind != "total").mark_bar().encode(x=x, x2="end:Q", y=y, color=color),
            base.transform_filter(is_total).mark_tick(thickness=3, color=_INK).encode(x=x, y=y),
            names.transform_filter(is_total).mark_text(align="right", fontWeight="bold", color=_INK),
            names.transform_filter(alt.datum.kind != "total").mark_text(align="right", color=_INK),
            numbers.transform_filter(is_total).mark_text(align="left", dx=8, fontWeight="bold", color=_INK),
            numbers.transform_filter(alt.datum.kind != "total").mark_text(align="left", dx=8, color=_INK),
        ).properties(width=600, height=alt.Step(24))
        return self._svg(
            chart, "Bridge from logged to billed: " + ", ".join(f"{s['title']} {s['label']}" for s in steps)
        )

    def daily(self, days: Sequence[Any]) -> Markup:
        """What was reported each day, and how much of it the logs hold."""
        alt = self._alt
        rows = [
            {
                "day": row.day.day,
                "recorded": float(row.recorded_usd),
                "reported": float(row.reported_usd),
                "billed": float(row.billed_usd) or None,  # no tick on a day without a bill
            }
            for row in days
        ]
        if not any(row["recorded"] or row["reported"] or row["billed"] for row in rows):
            return Markup()
        x = self._day_axis()
        base = alt.Chart(alt.Data(values=rows))
        chart = alt.layer(
            base.mark_bar(color=_SOFT, width={"band": 0.78}).encode(x=x, y=self._dollar_axis("reported:Q")),
            base.mark_bar(color=_ACCENT, width={"band": 0.42}).encode(x=x, y=self._dollar_axis("recorded:Q")),
            base.mark_tick(color=_INK, thickness=2, width={"band": 0.78}).encode(x=x, y=self._dollar_axis("billed:Q")),
        ).properties(width=860, height=200)
        return self._svg(chart, "Recorded, reported and billed dollars by day; the figures are in the table below")

    def days(self, amounts: Sequence[tuple[date, Decimal]]) -> Markup:
        """One cost center's direct dollars by day."""
        if not any(amount_usd for _, amount_usd in amounts):
            return Markup()
        spec = {**self._days, "data": {"values": [{"day": on.day, "usd": float(usd_on)} for on, usd_on in amounts]}}
        return self._svg(spec, "Dollars by day; the figures are in the table below")

    def cost_centers(self, chargeback: Sequence[Any]) -> Markup:
        """The largest cost centers: direct and shared dollars."""
        alt = self._alt
        largest = sorted(chargeback, key=lambda row: (-abs(row.total_usd), row.cost_center))[:_CHART_ROWS]
        rows = [
            {
                "row": number,
                "name": row.name or row.cost_center,
                "part": "none" if row.cost_center == UNALLOCATED else part,
                "named": part == "direct",  # a label once a row
                "from": float(start),
                "to": float(end),
                "end": float(max(row.total_usd, 0)),
                "label": usd(row.total_usd),
            }
            for number, row in enumerate(largest)
            if row.total_usd
            for part, start, end in (
                ("direct", Decimal(0), row.direct_usd),
                ("shared", row.direct_usd, row.direct_usd + row.shared_usd),
            )
        ]
        if not rows:
            return Markup()
        high, low = max(row["end"] for row in rows), min(0.0, *(row["to"] for row in rows))
        scale = alt.Scale(domain=[low, (high or 1.0) * 1.16], nice=False)
        y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.34, paddingOuter=0.17))
        color = alt.Color(
            "part:N",
            scale=alt.Scale(domain=["direct", "shared", "none"], range=[_ACCENT, _SOFT, _ALERT]),
            legend=None,
        )
        base = alt.Chart(alt.Data(values=rows))
        chart = alt.layer(
            base.mark_bar().encode(x=alt.X("from:Q", scale=scale, axis=None), x2="to:Q", y=y, color=color),
            base.transform_filter(alt.datum.named)
            .mark_text(align="right", color=_INK, limit=230)
            .encode(y=y, x=alt.value(-12), text="name:N"),
            base.transform_filter(alt.datum.named)
            .mark_text(align="left", dx=8, color=_INK)
            .encode(y=y, x=alt.X("end:Q", scale=scale, axis=None), text="label:N"),
        ).properties(width=600, height=alt.Step(24))
        return self._svg(chart, "Dollars by cost center; the figures are in the table below")

    def curve(self, hours: Sequence[Any]) -> Markup:
        """A shifted log over the hours of the day: as logged, with its clock set right, and as reported."""
        rows = [
            {"hour": row.hour_of_day, "side": side, "tokens": getattr(row, f"{side}_tokens")}
            for row in hours
            for side in ("logged", "reported", "set_right")
        ]
        label = "Tokens by hour of the day: as logged, with the clock set right, and as reported"
        return self._svg(self._curve | {"data": {"values": rows}}, label)

    def sides(self, sides: Sequence[Any], meters: Mapping[str, str]) -> Markup:
        """Where a confusion took quantities from, to the left, and where they are reported, to the right."""
        reach = max(abs(side.quantity) for side in sides)
        rows = [
            {
                "row": number,
                "name": _name_of_side(side, meters),
                "zero": 0,
                "part": side.quantity / reach,
                "kind": _direction(side.quantity),
                "label": f"{quantity(side.quantity, signed=True)} tokens, {dollars(side.amount_usd, signed=True)}",
            }
            for number, side in enumerate(sides)
        ]
        label = ", ".join(f"{row['name']} {row['label']}" for row in rows)
        return self._svg(self._sides | {"data": {"values": rows}}, f"Recorded elsewhere than reported: {label}")

    def moved(self, days: Sequence[Any]) -> Markup:
        """What was counted on another day than it was logged on, day by day."""
        rows = [
            {
                "day": date.fromisoformat(row.at_value).day,
                "tokens": row.quantity,
                "kind": _direction(row.quantity),
            }
            for row in days
        ]
        return self._svg(
            self._moved | {"data": {"values": rows}},
            "Tokens by day: logged there and counted on the day beside it, or the reverse",
        )

    # The pictures of findings are drawn from specs that are made once: a spec costs more than a drawing.

    @cached_property
    def _curve(self) -> dict[str, Any]:
        alt = self._alt
        axis = alt.Axis(title=None, values=list(range(0, 24, 3)), grid=False, ticks=False, domainColor=_RULE)
        base = alt.Chart(alt.Data(values=[])).encode(
            x=alt.X("hour:Q", scale=alt.Scale(domain=[0, 23], nice=False), axis=axis), y=self._token_axis()
        )
        lines = (
            ("reported", {"color": _SOFT, "strokeWidth": 6}),
            ("logged", {"color": _ALERT, "strokeWidth": 1.5, "strokeDash": [5, 3]}),
            ("set_right", {"color": _ACCENT, "strokeWidth": 1.5}),
        )
        layers = [base.transform_filter(alt.datum.side == side).mark_line(**style) for side, style in lines]
        return self._spec(alt.layer(*layers).properties(width=560, height=130))

    @cached_property
    def _sides(self) -> dict[str, Any]:
        alt = self._alt
        base = alt.Chart(alt.Data(values=[])).encode(
            y=alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.34, paddingOuter=0.17))
        )
        scale = alt.Scale(domain=[-1, 1], nice=False)
        x = alt.X("part:Q", scale=scale, axis=None)
        chart = alt.layer(
            base.mark_bar().encode(x=x, x2="zero:Q", color=self._direction_color()),
            base.mark_tick(color=_INK, thickness=1, height=24).encode(x=alt.X("zero:Q", scale=scale, axis=None)),
            base.mark_text(align="right", color=_INK, limit=200).encode(x=alt.value(-12), text="name:N"),
            base.mark_text(align="left", color=_INK).encode(x=alt.value(292), text="label:N"),
        )
        return self._spec(chart.properties(width=280, height=alt.Step(24)))

    @cached_property
    def _moved(self) -> dict[str, Any]:
        chart = self._alt.Chart(self._alt.Data(values=[])).mark_bar(width={"band": 0.7})
        encoded = chart.encode(x=self._day_axis(), y=self._token_axis(), color=self._direction_color())
        return self._spec(encoded.properties(width=560, height=130))

    def _direction_color(self) -> Any:
        alt = self._alt
        return alt.Color("kind:N", scale=alt.Scale(domain=["from", "to"], range=[_SOFT, _ACCENT]), legend=None)

    def _token_axis(self) -> Any:
        alt = self._alt
        axis = alt.Axis(
            title=None, format="~s", tickCount=3, domain=False, ticks=False, gridColor=_RULE, labelPadding=8
        )
        return alt.Y("tokens:Q", axis=axis, stack=None)

    def _day_axis(self) -> Any:
        alt = self._alt
        return alt.X("day:O", axis=alt.Axis(title=None, labelAngle=0, ticks=False, domainColor=_RULE, labelPadding=6))

    def _dollar_axis(self, field: str) -> Any:
        alt = self._alt
        axis = alt.Axis(
            title=None, format="$,.2~f", tickCount=4, domain=False, ticks=False, gridColor=_RULE, labelPadding=8
        )
        return alt.Y(field, axis=axis, stack=None)

    def _spec(self, chart: Any) -> dict[str, Any]:
        alt = self._alt
        spec: dict[str, Any] = chart.configure(
            aria=False,
            background="transparent",
            font=_FONT,
            padding=2,
            view=alt.ViewConfig(stroke=None),
            axis=alt.AxisConfig(labelColor=_MUTED, labelFontSize=11),
            text=alt.MarkConfig(fontSize=12),
        ).to_dict()
        return spec

    def _svg(self, chart: Any, label: str) -> Markup:
        """The chart, or the spec of one, with the style sheet's colors."""
        text: str = self._convert(chart if isinstance(chart, dict) else self._spec(chart))
        for placeholder, variable in _VARIABLES.items():
            text = text.replace(f'="{placeholder}"', f'="var({variable})"')
        labeled = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
        return Markup(labeled)  # noqa: S704 - vega escapes its text


def _direction(moved_quantity: int) -> str:
    """Whether a quantity was taken from there, or stands there."""
    return "from" if moved_quantity < 0 else "to"


def _name_of_side(side: Any, meters: Mapping[str, str]) -> str:
    if side.is_rest:
        return "others"
    return side.workspace_name or meters.get(side.at_value, side.at_value) or "not known"


def _kind_of_step(row: Any) -> str:
    if row.kind == "total":
        return "total"
    if row.reason == "residual":
        return "residual"
    return "up" if row.amount_usd >= 0 else "down"
