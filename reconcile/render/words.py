"""Figures, days and names as people write them."""

import re
from datetime import date, datetime, timedelta
from decimal import Decimal

from reconcile import money

_NUMERAL = re.compile(r"-?\d{1,30}(\.\d+)?")
_CAPITALS = frozenset({"api", "id", "url", "usd", "utc"})
_MINUS = "\N{MINUS SIGN}"
_ABSENT = "\N{EN DASH}"


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


def month_before(start_on: date) -> str:
    """The month before the one that begins on a day."""
    return f"{start_on - timedelta(days=1):%B %Y}"


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
    parts = [numeral(part, key) for part in text.split(" of ")] if " of " in text else []
    if parts and None not in parts:
        return " of ".join(map(str, parts))
    if isinstance(value, bool) or _NUMERAL.fullmatch(text) is None or key.endswith(("_id", "id", "status", "version")):
        return None
    if "usd" in key.split("_"):
        return exact(Decimal(text))
    if "." in text:
        return text
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
