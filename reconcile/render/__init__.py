"""Render what a period's ledger says: pages for people, and every report view as CSV."""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any

import duckdb
import jinja2
from markupsafe import Markup

from reconcile import ledger, money
from reconcile.register import Standing
from reconcile.render.chargeback import UNALLOCATED, Statements, allocation, chargeback_table, statement_names
from reconcile.render.charts import Charts
from reconcile.render.tables import Table, fetch, footed, grouped, summed
from reconcile.render.words import (
    day,
    dollars,
    exact,
    instant,
    iso_day,
    label,
    moment,
    month,
    month_before,
    numeral,
    percent,
    quantity,
    usd,
)

PACKAGE = Path(__file__).parent.parent
TEMPLATES = next(folder for folder in (PACKAGE / "reports", PACKAGE.parent / "reports") if folder.is_dir())

_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?Z?)?")
_HEADED = 6
_SHOWN = 100
_PICTURES = 12
"""How many findings have a picture: the largest of those beyond tolerance that one says something about."""


def publish_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the views of schema ``report`` and their controls in ``checks``; what they are stands in the SQL."""
    ledger.run_sql(connection, "render")


def render(connection: duckdb.DuckDBPyConnection, out_dir: Path, stands: Standing | None = None) -> tuple[Path, ...]:
    """Write the pages and one CSV for each report view into ``out_dir``, replacing what was there as a whole.

    Reads only schema ``report``; the same rows give the same bytes. ``stands`` is where the period stands, by default
    provisional and unsigned. Returns the paths: ``index.html``,
    ``discrepancy.html``, ``allocation.html``, the statements by cost center, as pages and as CSV, then the views' CSV.
    """
    pages = _pages(connection, stands or Standing("", state="provisional"))
    views = ledger.views(connection)
    with _swapped_in(out_dir) as folder:
        for name, text in pages.items():
            target = folder / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
            target.chmod(0o600)
        for view in views:
            ledger.copy_csv(connection, f'from report."{view}"', folder / f"{view}.csv")
        statements = _write_statements(connection, folder)
    return tuple(out_dir / name for name in (*pages, *statements, *(f"{view}.csv" for view in views)))


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


def _write_statements(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[str]:
    """A CSV of every line of each cost center's statement, beside its page."""
    connection.execute(
        "create or replace temp table statement_line as"
        " select row_number() over () as position, line.* from report.statement_line as line"
    )
    written = []
    names = statement_names(row.cost_center for row in fetch(connection, "select cost_center from report.chargeback"))
    for cost_center, page in sorted(names.items()):
        if cost_center != UNALLOCATED:
            name = f"statements/{page.removesuffix('.html')}.csv"
            own = cost_center.replace("'", "''")
            lines = "select * exclude (position) from statement_line"
            ledger.copy_csv(connection, f"{lines} where cost_center = '{own}' order by position", folder / name)
            written.append(name)
    connection.execute("drop table temp.statement_line")
    return written


# Rows and figures: what a page shows ---------------------------------------------------------------------------------


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

    @property
    def in_question(self) -> bool:
        """Whether somebody has to answer for them."""
        return self.state == "discrepancy"

    @property
    def headed(self) -> tuple[Any, ...]:
        """The ones that the first page shows by themselves: the largest discrepancies."""
        return self.findings[:_HEADED] if self.in_question else ()

    @property
    def rest(self) -> tuple[Any, ...]:
        """The others, which it shows in one line."""
        return self.findings[len(self.headed) :]

    @property
    def shown(self) -> tuple[Any, ...]:
        """The ones that the page on the difference shows with their evidence."""
        return self.findings[:_SHOWN]

    @property
    def further(self) -> tuple[Any, ...]:
        """The others, which it lists."""
        return self.findings[_SHOWN:]

    @property
    def amount_usd(self) -> Decimal:
        """What all of them add up to, as printed."""
        return _sum(row.amount_usd for row in self.findings)

    @property
    def moved_usd(self) -> Decimal:
        """What all of them moved."""
        return _sum(row.moved_usd for row in self.findings)

    @property
    def rest_usd(self) -> Decimal:
        """What the others of the first page add up to."""
        return _sum(row.amount_usd for row in self.rest)

    @property
    def rest_moved_usd(self) -> Decimal:
        """What those moved."""
        return _sum(row.moved_usd for row in self.rest)

    @property
    def further_usd(self) -> Decimal:
        """What those add up to that are only listed."""
        return _sum(row.amount_usd for row in self.further)

    @property
    def further_moved_usd(self) -> Decimal:
        """What those moved."""
        return _sum(row.moved_usd for row in self.further)


def _sum(amounts_usd: Iterable[Decimal]) -> Decimal:
    return sum(amounts_usd, Decimal("0.00"))


def _crossed(rows: Sequence[Any], figures: Figures) -> Table:
    """Rows with all three sides, in cents that add up down every column and across every row.

    Billed and the two variances are apportioned, reported and recorded follow from them: so a row without any
    difference shows none. A side without a known price stays unknown: all that lies after it is its variance.
    """
    rows = footed(rows, billed_usd=figures.billed_usd).rows
    rows = _taken_off(rows, "billed_usd", "price_variance_usd", "reported_usd", figures.price_variance_usd)
    rows = _taken_off(rows, "reported_usd", "quantity_variance_usd", "recorded_usd", figures.quantity_variance_usd)
    crossed = [replace(row, difference_usd=row.price_variance_usd + row.quantity_variance_usd) for row in rows]
    return Table(tuple(crossed), figures)


def _taken_off(rows: Sequence[Any], after: str, variance: str, before: str, total_usd: Decimal) -> list[Any]:
    """Rows in cents with the side before a variance: the side after it less the variance, or still not known."""
    unknown = [row for row in rows if getattr(row, before) is None]
    known = [row for row in rows if getattr(row, before) is not None]
    rest_usd = total_usd - sum((getattr(row, after) or Decimal(0) for row in unknown), Decimal(0))
    printed = iter(footed(known, **{variance: rest_usd}).rows)
    taken_off = []
    for row in rows:
        after_usd = getattr(row, after) or Decimal("0.00")
        if getattr(row, before) is None:
            taken_off.append(replace(row, **{variance: after_usd}))
        else:
            variance_usd = getattr(next(printed), variance)
            taken_off.append(replace(row, **{variance: variance_usd, before: after_usd - variance_usd}))
    return taken_off


def _printed_bridge(rows: Sequence[Any]) -> list[Any]:
    """The bridge in cents."""
    printed = money.walk([(row.amount_usd, row.running_usd) for row in rows])
    return [
        replace(row, amount_usd=amount_usd, running_usd=running_usd)
        for row, (amount_usd, running_usd) in zip(rows, printed, strict=True)
    ]


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


def _pages(connection: duckdb.DuckDBPyConnection, stands: Standing) -> dict[str, str]:
    """The text of every page by its path in the folder, in the order in which they are returned."""
    bridge = _printed_bridge(fetch(connection, "select * from report.bridge"))
    figures = _figures(bridge)
    (run,) = fetch(connection, "select * from report.run")
    (summary,) = fetch(connection, "select * from report.summary")
    (verdict,) = fetch(connection, "select * from report.verdict")
    chargeback = fetch(connection, "select * from report.chargeback")
    charts = Charts()
    states = _states(connection, bridge)
    reasons = fetch(connection, "select * from report.reason")
    found = {row.reason for state in states for row in state.findings}
    environment = _environment(
        run=run,
        stands=stands,
        summary=summary,
        verdict=verdict,
        figures=figures,
        bridge=bridge,
        chargeback=chargeback_table(chargeback),
        statement_names=statement_names(row.cost_center for row in chargeback),
        waterfall=charts.waterfall(bridge),
        states=states,
        reasons={row.reason: row for row in reasons},
        workspace_names={
            row.workspace_id: row.workspace_name or row.workspace_id
            for row in fetch(connection, "select workspace_id, workspace_name from report.by_workspace")
        },
        sources=fetch(connection, "select * from report.source"),
        defaults=fetch(connection, "select * from report.default_used"),
        rejected=fetch(connection, "select * from report.rejected limit 20"),
        warnings=fetch(connection, "select * from report.warning"),
    )
    pages = {
        "index.html": environment.get_template("index.html.j2").render(causes=_causes(bridge)),
        "discrepancy.html": environment.get_template("discrepancy.html.j2").render(
            **_discrepancy(connection, figures, charts),
            accepted=grouped(fetch(connection, "select * from report.accepted"), "finding_id"),
            told=[row for row in reasons if row.reason in found],
            pictures=_pictures(connection, states, charts, _meters(environment)),
        ),
        "allocation.html": environment.get_template("allocation.html.j2").render(
            **allocation(connection, chargeback, figures.billed_usd)
        ),
    }
    pages["rollforward.html"] = environment.get_template("rollforward.html.j2").render(
        carried=_carried(fetch(connection, "select * from report.rollforward"), verdict.discrepancy_usd),
        restated=_restated(connection),
    )
    statement = environment.get_template("statement.html.j2")
    names = statement_names(row.cost_center for row in chargeback)
    statements = Statements.read(connection)
    for center in sorted(chargeback, key=lambda row: row.cost_center):
        name = center.cost_center
        if name != UNALLOCATED:
            pages[f"statements/{names[name]}"] = statement.render(**statements.of(center, names[name], charts))
    return pages


def _carried(rows: Sequence[Any], open_usd: Decimal) -> Table:
    """Open discrepancies in cents that add up across and down, to what the first page has in question."""
    opening_usd = money.cents(sum((row.opening_usd for row in rows), Decimal(0)))
    table = footed(rows, opening_usd=opening_usd, closing_usd=money.cents(open_usd))
    printed = []
    for exact_row, row in zip(rows, table.rows, strict=True):
        steps = [exact_row.new_usd, -exact_row.cleared_usd, -exact_row.accepted_usd]
        new_usd, cleared_usd, accepted_usd = money.foot(steps, row.closing_usd - row.opening_usd)
        printed.append(replace(row, new_usd=new_usd, cleared_usd=-cleared_usd, accepted_usd=-accepted_usd))
    return summed(printed, "opening_usd", "new_usd", "cleared_usd", "accepted_usd", "closing_usd")


def _restated(connection: duckdb.DuckDBPyConnection) -> Table:
    """What was corrected of earlier months, by charge, in cents that add up to the bridge's step."""
    rows = fetch(connection, "select * from report.restated")
    return footed(rows, amount_usd=money.cents(sum((row.amount_usd for row in rows), Decimal(0))))


def _causes(bridge: Sequence[Any]) -> list[Any]:
    """The three largest steps between recorded and billed."""
    recorded_at = next((row.position for row in bridge if row.reason == "recorded"), 0)
    billed_at = next((row.position for row in bridge if row.reason == "billed"), 0)
    steps = [row for row in bridge if row.kind == "step" and recorded_at < row.position < billed_at and row.amount_usd]
    return sorted(steps, key=lambda row: (-abs(row.amount_usd), row.position))[:3]


def _states(connection: duckdb.DuckDBPyConnection, bridge: Sequence[Any]) -> list["State"]:
    """The findings by state. Those of one reason add up, as printed, to what the bridge prints for it."""
    steps = {row.reason: row.amount_usd for row in bridge if row.kind == "step"}
    findings = fetch(connection, "select * from report.finding")
    printed: dict[str, Any] = {}
    for reason in {row.reason: None for row in findings}:
        held = [row for row in findings if row.reason == reason]
        for row in footed(held, amount_usd=steps.get(reason, Decimal("0.00"))).rows:
            printed[row.id] = replace(row, evidence=_evidence(row.evidence))
    states = []
    for row in fetch(connection, "select * from report.finding_state"):
        held = [printed[found.id] for found in findings if found.state == row.state]
        states.append(State(row.state, footed(held, moved_usd=money.cents(row.moved_usd)).rows))
    return states


def _discrepancy(connection: duckdb.DuckDBPyConnection, figures: Figures, charts: "Charts") -> dict[str, Any]:
    daily = _crossed(fetch(connection, "select * from report.daily"), figures)
    return {
        "daily": daily,
        "daily_chart": charts.daily(daily.rows),
        "price_variance": footed(
            fetch(connection, "select * from report.price_variance"), price_variance_usd=figures.price_variance_usd
        ),
        "by_workspace": _crossed(fetch(connection, "select * from report.by_workspace"), figures),
        "by_model": _crossed(fetch(connection, "select * from report.by_model"), figures),
        "by_tier": _crossed(fetch(connection, "select * from report.by_tier"), figures),
        "by_meter": _crossed(fetch(connection, "select * from report.by_meter"), figures),
        "prices": fetch(connection, "select * from report.price_used"),
    }


def _pictures(
    connection: duckdb.DuckDBPyConnection, states: Sequence[State], charts: "Charts", meters: Mapping[str, str]
) -> dict[str, tuple[str, Markup]]:
    """What is drawn of a finding and the drawing, by the finding's id: the largest beyond tolerance that have one."""
    curves = grouped(fetch(connection, "select * from report.curve"), "finding_id")
    exchanges = grouped(fetch(connection, "select * from report.exchange"), "finding_id")
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
        *(usd, dollars, exact, quantity, percent, month, month_before, label, numeral),
        *(_unbroken(day), _unbroken(iso_day), _unbroken(moment), _unbroken(instant)),
    )
    environment.filters.update({function.__name__: function for function in shown})
    environment.tests.update(table=_is_table, date=_is_date)
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


def _is_date(value: object) -> bool:
    """Whether a piece of evidence is a day, or an hour of one."""
    return isinstance(value, str) and _DATE.fullmatch(value) is not None


def _unbroken(written: Callable[[Any], str]) -> Callable[[Any], Markup]:
    """A date as it is written, which no line breaks."""

    @wraps(written)
    def on_one_line(value: Any) -> Markup:
        return Markup('<span class="day">{}</span>').format(written(value))

    return on_one_line
