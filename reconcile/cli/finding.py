"""One finding as text: what, how much, how we know, what to do about it, and the requests behind it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from reconcile.cli.output import instant_text
from reconcile.cli.text import table, usd

if TYPE_CHECKING:
    from reconcile.run import Explanation

_WIDTH = 100
_CONFIDENCES = {
    "measured": "measured: both figures were read, nothing was assumed",
    "inferred": "inferred: a pattern in the data fits this cause",
    "suspected": "suspected: the place is known, the cause is not",
}
_STATES = {
    "discrepancy": "a discrepancy",
    "accepted": "an accepted difference",
    "expected": "expected: no log can hold it",
    "tolerated": "within tolerance",
}
_STANDINGS = {
    "holds": "Accepted by {who} until {until_on}, up to {up_to_usd} USD: {why}",
    "exceeded": "Counts again: {who} accepted it until {until_on} up to {up_to_usd} USD for all that it covers ({why})",
    "expired": "Counts again: the acceptance by {who} ({why}) expired on {until_on}",
}
_SHARED = ("log", "workspace_id", "model", "service_tier", "api_key_id", "status")
_OWN = ("quantity", "amount_usd", "recorded_usd", "note")
_COUNT = re.compile(r"-?\d{1,30}")
_AMOUNT = re.compile(r"-?\d{1,30}(\.\d+)?")


def evidence_of(finding: Mapping[str, Any]) -> dict[str, Any]:
    """A finding's evidence; a number keeps the digits that it was written with."""
    return json.loads(finding["evidence"], parse_float=Decimal) if finding["evidence"] else {}


def explained(one: "Explanation", asked: int) -> Iterator[str]:
    """The finding for a person; ``asked`` is how many of its requests were asked for."""
    finding, reason = one.finding, one.reason
    evidence = evidence_of(finding)
    largest = evidence.pop("largest", [])
    yield f"{reason['title']}: {_place(finding)}"
    days = " to ".join(dict.fromkeys((str(finding["day_from"]), str(finding["day_to"]))))
    yield f"{finding['id']}, {one.period} r{one.revision}, {days}: {_STATES[finding['state']]}"
    yield from _paragraph("What", reason["meaning"])
    yield from _pairs("How much", _amounts(finding, reason["leads_to"]))
    yield from _pairs("How we know", [("confidence", _CONFIDENCES[finding["confidence"]]), *_facts(evidence)])
    yield from _lists(evidence)
    yield from _paragraph("What to do", reason["to_do"])
    yield from _paragraph("How to confirm", reason["confirm"])
    for entry in one.accepted:
        spelled = {**entry, "up_to_usd": usd(entry["up_to_usd"])}
        yield from _paragraph("Accepted", _STANDINGS[entry["standing"]].format_map(spelled))
    if largest:
        yield from _rows("Its largest cells", largest)
    if asked:
        yield from _requests(one)
    yield from ("", f"More: docs/reasons.md#{finding['reason']}")


def _place(finding: Mapping[str, Any]) -> str:
    """Every part of the place that is known."""
    named = (
        ("log", finding["log"]),
        ("workspace", finding["workspace_name"] or finding["workspace_id"]),
        ("model", finding["model"]),
        ("tier", finding["service_tier"]),
        ("meter", finding["meter"]),
        ("key", finding["api_key_name"] or finding["api_key_id"]),
    )
    return ", ".join(f"{what} {name}" for what, name in named if name) or "the whole organization"


def _amounts(finding: Mapping[str, Any], leads_to: str) -> list[tuple[str, str]]:
    found = [("amount", f"{_shown('amount_usd', finding['amount_usd'])} USD")]
    if finding["misplaced_usd"] is not None:
        gross = "in a wrong place" if leads_to == "reported" else "too much and too little together"
        found.append((gross, f"{_shown('moved_usd', finding['misplaced_usd'])} USD"))
    if finding["quantity"] is not None:
        unit = "searches" if finding["meter"] == "web_search_requests" else "tokens"
        found.append(("quantity", f"{finding['quantity']:,} {unit}"))
    return found


def _facts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The evidence that is a value, or a list of them."""
    return [(_named(key), _shown(key, value)) for key, value in evidence.items() if not _is_table(value)]


def _lists(evidence: Mapping[str, Any]) -> Iterator[str]:
    for key, value in evidence.items():
        if _is_table(value):
            yield from _rows(_named(key).capitalize(), value)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _requests(one: "Explanation") -> Iterator[str]:
    """The requests; what all of them share stands above their table."""
    if not one.requests:
        said = (
            "Request rows of this month were purged (retention.requests_days)."
            if one.requests_purged
            else "The logs hold no request that stands behind it."
        )
        yield from _paragraph("Requests", said)
        return
    all_known = one.requests_known == one.requests_behind
    shared = {name: one.requests[0][name] for name in _SHARED if len({row[name] for row in one.requests}) == 1}
    rows = [
        {
            "request_id": row["request_id"],
            "logged_at": instant_text(row["logged_at"]),
            **({} if all_known or not one.requests_known else {"known": row["known"]}),
            **{name: row[name] for name in (*_SHARED, *_OWN) if name not in shared},
        }
        for row in one.requests
    ]
    title = f"{len(rows):,} of {one.requests_behind:,} requests "
    if all_known:
        title += "behind it, largest first"
    elif one.requests_known:
        title += (
            f"in its hours and places: first the {one.requests_known:,} known to be behind it; of the others the data"
            " does not tell which"
        )
    else:
        title += "in its hours and places, largest first; the data does not tell which of them are behind it"
    alike = [f"{_named(name)} {_shown(name, value)}" for name, value in shared.items() if value is not None]
    yield from _rows(title + (f" ({', '.join(alike)})" if alike else ""), rows)


def _rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of rows, without the columns that are empty in all of them."""
    named = dict.fromkeys(key for row in rows for key in row)
    names = [name for name in named if any(row.get(name) is not None for row in rows)]
    cells = [[_shown(name, row.get(name)) for name in names] for row in rows]
    right = ["<" if any(not _numeric(name, row.get(name)) for row in rows) else ">" for name in names]
    yield from ("", *_lines(title))
    yield from (f"  {line}" for line in table([[_named(name) for name in names], *cells], "".join(right)))


def _pairs(title: str, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in pairs)
    yield from ("", title)
    for name, value in pairs:
        first, *rest = _lines(value) or [""]
        yield f"  {name:<{width}}   {first}".rstrip()
        yield from (f"  {'':<{width}}   {line}" for line in rest)


def _paragraph(title: str, text: str) -> Iterator[str]:
    yield from ("", title)
    yield from (f"  {line}" for line in _lines(text))


def _lines(text: str) -> list[str]:
    return wrap(text, _WIDTH, break_on_hyphens=False)


def _named(key: str) -> str:
    words = (word.upper() if word in {"usd", "utc"} else word for word in key.removesuffix("_usd").split("_"))
    return " ".join(words) + (", USD" if key.endswith("_usd") else "")


def _numeric(key: str, value: object) -> bool:
    return value is None or isinstance(value, Decimal) or _is_count(key, value) or key.endswith("_usd")


def _is_count(key: str, value: object) -> bool:
    """Whether it is a count, which comes as text in the evidence; an id or a status is none."""
    return (
        not isinstance(value, bool)
        and not key.endswith(("id", "status", "version"))
        and _COUNT.fullmatch(str(value)) is not None
    )


def _shown(key: str, value: object) -> str:
    """A value as a person reads it; counts and amounts come as text."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_shown(key, inner) for inner in value)
        case dict():
            return ", ".join(f"{_named(name)} {_shown(name, inner)}" for name, inner in value.items())
        case _:
            return _figure(key, str(value))


def _figure(key: str, text: str) -> str:
    if " of " in text:
        return " of ".join(_figure(key, part) for part in text.split(" of "))
    if "usd" in key.split("_") and _AMOUNT.fullmatch(text):
        whole, _, digits = f"{Decimal(text):,f}".partition(".")
        return f"{whole}.{digits.rstrip('0'):0<2}"
    if _is_count(key, text):
        return f"{int(text):,}"
    return text
