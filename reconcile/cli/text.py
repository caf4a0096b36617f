"""A close in a few lines of text: what is true, the bridge, who pays."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from reconcile.money import cents, walk

if TYPE_CHECKING:
    from reconcile.register import Standing
    from reconcile.run import Outcome, PeriodStatus, Proof, Rechecked
    from reconcile.sandbox import Sandbox

_NAME = 40
"""How many letters of a name are shown."""

_LARGEST = 20
"""How many moved charges are shown."""


def summary(outcome: "Outcome") -> Iterator[str]:
    """The close at a glance: the finding, the three sides, the bridge, the chargeback, what to be warned of."""
    figures: Mapping[str, Any] = outcome.summary
    state = "" if outcome.state == "provisional" else f", {outcome.state}"
    revision = f"r{outcome.revision}{state}" + ("" if outcome.published else ", unchanged")
    # of the rounded figures, as the pages say it
    difference_usd = cents(figures["billed_usd"]) - cents(figures["recorded_usd"])
    truth = _truth(difference_usd, len(outcome.discrepancies))
    yield f"{figures['organization']}, {outcome.period} ({revision}): {truth}"
    yield ""
    sides = [(name, usd(figures[f"{name}_usd"])) for name in ("recorded", "reported", "billed")]
    yield from table([(f"Through {figures['through_on']}", "USD"), *sides], "<>")
    yield ""
    yield from table([("Bridge", "USD", "running"), *_bridge(outcome.bridge)], "<>>")
    yield ""
    columns = ("direct", "shared", "total", "other", "payable")
    shown = columns if any(row["other_usd"] for row in outcome.chargeback) else columns[:3]
    head = ("Cost center", "name", *shown)
    yield from table([head, *_chargeback(outcome.chargeback, shown)], "<<" + ">" * len(shown))
    yield from (f"Warning: {warning}" for warning in outcome.warnings)
    yield from (f"Not final: {gate}" for gate in outcome.unmet)


def pages(outcome: "Outcome") -> Iterator[str]:
    """Where the ledger and the pages lie; each cost center's statement lies beside them."""
    yield f"Ledger  {outcome.ledger}"
    yield from (
        f"Report  {path}" for path in outcome.files if path.suffix == ".html" and path.parent.name != "statements"
    )


def planted_beside_found(sandbox: "Sandbox", outcome: "Outcome", moved_usd: Mapping[str, Decimal]) -> Iterator[str]:
    """What a sandbox planted and what the close found, by reason, in USD.

    ``moved_usd`` is what the findings of a reason moved: it stands here for what nets to nothing.
    """
    planted_usd: dict[str, Decimal] = {}
    for one in sandbox.truth:
        planted_usd[one.reason] = planted_usd.get(one.reason, Decimal(0)) + Decimal(one.amount_usd)
    found_usd: dict[str, Decimal] = {
        row["reason"]: row["amount_usd"] for row in outcome.bridge if row["kind"] == "step"
    }
    rows = []
    for reason in dict.fromkeys([*planted_usd, *found_usd]):
        nets = reason in sandbox.moved_usd and planted_usd.get(reason) == 0 and not found_usd.get(reason)
        rows.append(
            _beside(f"{reason}, moved", Decimal(sandbox.moved_usd[reason]), moved_usd.get(reason))
            if nets
            else _beside(reason, planted_usd.get(reason), found_usd.get(reason))
        )
    yield from table([("Planted beside found, USD", "planted", "found", ""), *rows], "<>><")


def status(periods: Sequence["PeriodStatus"]) -> Iterator[str]:
    """A line a period, then who signed it, then a line an open discrepancy."""
    if not periods:
        yield "No period was closed yet. `reconcile close` closes the last complete month."
        return
    head = ("Period", "state", "revision", "closed at", "billed", "difference", "residual", "open")
    yield from table([head, *map(_period, periods)], "<<<<>>>>")
    notes = [note for one in periods for note in _notes(one)]
    if notes:
        yield from ("", *notes)
    opened = [
        (found.id, one.period, found.reason, usd(found.amount_usd), str(found.age_months))
        for one in periods
        for found in one.discrepancies
    ]
    if opened:
        yield ""
        yield from table([("Discrepancy", "period", "reason", "USD", "months"), *opened], "<<<>>")


def standing(stands: "Standing") -> Iterator[str]:
    """Where a month stands, and who signed it."""
    yield f"{stands.period} r{stands.revision} is {stands.state}" + (f": {stands.why}." if stands.why else ".")
    for signature in stands.holding:
        yield f"Signed by {signature.who} as {signature.role} on {signature.at}."


def rechecked(found: "Rechecked") -> Iterator[str]:
    """What moved of a closed month, the largest first, and where it is booked."""
    if not found.rows:
        since = "" if found.state == "closed" else ", but for what is booked already"
        yield f"{found.period} r{found.revision}: nothing moved{since}."
        return
    moved = f"{len(found.rows):,} charge{'' if len(found.rows) == 1 else 's'} moved by {usd(found.amount_usd)} USD"
    yield f"{found.period} r{found.revision}: {moved}."
    head = ("Day", "workspace", "model", "meter", "before", "after", "moved")
    largest = sorted(found.rows, key=lambda row: -abs(row["amount_usd"]))[:_LARGEST]
    yield from table([head, *map(_moved, largest)], "<<<<>>>")
    if len(found.rows) > len(largest):
        yield f"And {len(found.rows) - len(largest):,} more."
    booked = f"Booked in {found.booked_in} r{found.booked_revision}." if found.booked_in else None
    yield booked or "The first close of a later month books it."


def _moved(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = (str(row["day"]), *(row[name] or "-" for name in ("workspace_id", "model", "meter")))
    return (*names, *(usd(row[name]) for name in ("before_usd", "after_usd", "amount_usd")))


def proof(found: "Proof") -> Iterator[str]:
    """What was looked at and is as it was written."""
    yield f"Register   {found.lines:,} lines, the last one has sha256 {found.head or '-'}"
    yield f"Raw        {found.pages:,} pages of {found.pulls:,} pulls"
    yield f"Ledger     {found.revisions:,} revisions"
    yield f"Reports    {found.reports:,} files"
    yield "Nothing was changed."


def _truth(difference_usd: Decimal, discrepancies: int) -> str:
    """The finding, as a sentence."""
    if difference_usd:
        verb = "exceeds" if difference_usd > 0 else "falls short of"
        sides = f"billed {verb} recorded by ${usd(abs(difference_usd))}"
    else:
        sides = "billed equals recorded"
    counted = {0: "no discrepancy", 1: "1 discrepancy"}.get(discrepancies, f"{discrepancies} discrepancies")
    return f"{sides}; {counted} beyond tolerance."


def _bridge(bridge: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Totals and steps in the cents that the pages print."""
    printed = walk([(row["amount_usd"], row["running_usd"]) for row in bridge])
    for row, (amount_usd, running_usd) in zip(bridge, printed, strict=True):
        if amount_usd is None:
            yield row["reason"], "", usd(running_usd)
        else:
            yield f"  {row['reason']}", f"{'+' if amount_usd > 0 else ''}{usd(amount_usd)}", ""


def _chargeback(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Who pays, by the columns asked for, and the sum of each; a long name is cut."""
    for row in rows:
        name = row["name"] or ""
        yield (
            row["cost_center"],
            name if len(name) <= _NAME else f"{name[: _NAME - 1]}…",
            *(usd(row[f"{column}_usd"]) for column in columns),
        )
    totals_usd = (sum((row[f"{column}_usd"] for row in rows), Decimal(0)) for column in columns)
    yield "payable" if "payable" in columns else "billed", "", *map(usd, totals_usd)


def _beside(reason: str, planted_usd: Decimal | None, found_usd: Decimal | None) -> tuple[str, str, str, str]:
    if planted_usd is None:
        return reason, "-", usd(found_usd), "not planted" if cents(found_usd or Decimal(0)) else "as planted"
    off_usd = (found_usd or Decimal(0)) - planted_usd
    return reason, usd(planted_usd), usd(found_usd), f"off by {usd(off_usd)}" if cents(off_usd) else "as planted"


def _period(one: "PeriodStatus") -> tuple[str, ...]:
    return (
        one.period,
        one.state,
        f"r{one.revision}" if one.revision else "-",
        one.closed_at or "-",
        usd(one.billed_usd),
        usd(one.difference_usd),
        usd(one.residual_usd),
        str(len(one.discrepancies)),
    )


def _notes(one: "PeriodStatus") -> Iterator[str]:
    """Who signed a period, whose signature no longer holds and why, and why it was opened again."""
    if one.why:
        yield f"{one.period} was reopened: {one.why}"
    for signature in one.signatures:
        yield f"{one.period} signed by {signature.who} ({signature.role}) on {signature.at}"
    for signature in one.withdrawn:
        who = f"{signature.who} ({signature.role}, r{signature.revision})"
        yield f"{one.period} no longer signed by {who}: {signature.withdrawn}"


def usd(amount_usd: Decimal | None) -> str:
    """Dollars and cents, a dash where there is no amount."""
    return "-" if amount_usd is None else f"{cents(amount_usd):,.2f}"


def table(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Columns side by side under the first row as their head; ``alignment`` has < or > for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(alignment))]
    lines = [
        "   ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, alignment, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "─" * max(map(len, lines)), *lines[1:]]
