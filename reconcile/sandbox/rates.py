"""The sandbox's own table of rates: what its provider bills.

It is written down a second time on purpose, apart from the price book, so that a wrong price in the book shows.
Rates are whole numbers of pico-dollars (1e-12 USD) for a token: $5 for a million tokens is 5,000,000. Every list
price, modifier and discount of up to four decimals is exact in them. Days are counted from 1970-01-01 (UTC).

Source: facts on the provider's prices of November 2026 (pricing page, announcements), history included.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache

METERS = (
    "uncached_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)
"""The token meters, in the order of every five-tuple of quantities or rates in the sandbox."""

SEARCH_PICO_USD = 10_000_000_000  # one web search is one cent
CODE_EXECUTION_CENTS_PER_HOUR = 5
SESSION_CENTS_PER_HOUR = 8
WINDOW_TOKENS = 200_000

Five = tuple[int, int, int, int, int]

_EPOCH = date(1970, 1, 1).toordinal()


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return day.toordinal() - _EPOCH


def day_date(number: int) -> date:
    """The date of a day counted from 1970-01-01."""
    return date.fromordinal(number + _EPOCH)


def _pico(usd_per_mtok: str) -> Five:
    rates = tuple(int(Decimal(rate) * 1_000_000) for rate in usd_per_mtok.split())
    uncached, write_5m, write_1h, read, output = rates
    return uncached, write_5m, write_1h, read, output


@dataclass(frozen=True)
class Span:
    """The rates of one model from a day (inclusive) until another (exclusive), in pico-dollars for a token.

    A request whose prompt (input, cache reads, cache writes) is longer than ``long_over`` tokens pays the ``long``
    rates for all of its tokens; ``long_over`` 0 means that there is no such step.
    """

    from_day: int
    until_day: int
    rates: Five
    long_over: int = 0
    long: Five = (0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Model:
    """A model: its name in the reports, its name in the bill's descriptions, whether it takes `inference_geo`.

    One that is not ``listed`` stands in no price list: it is invented, and billed all the same.
    """

    name: str
    title: str
    takes_geo: bool
    spans: tuple[Span, ...]
    fast: tuple[tuple[int, int, int], ...] = ()
    listed: bool = True


_OPEN = date(2100, 1, 1)


def _span(usd_per_mtok: str, start: date, end: date = _OPEN, long_over: int = 0, long: str = "0 0 0 0 0") -> Span:
    return Span(day_number(start), day_number(end), _pico(usd_per_mtok), long_over, _pico(long))


def _fast(factor: int, start: date, end: date = _OPEN) -> tuple[int, int, int]:
    return day_number(start), day_number(end), factor


_OPUS = "5 6.25 10 0.50 25"
_OPUS_LONG = "10 12.50 20 1 37.50"
_SONNET = "3 3.75 6 0.30 15"
_SONNET_LONG = "6 7.50 12 0.60 22.50"
_LATE_SONNET = "2 2.50 4 0.20 10"
_OLD_OPUS = "15 18.75 30 1.50 75"

_TABLE = (
    Model("claude-fable-5-2", "Claude Fable 5.2", True, (_span("8 10 16 0.20 40", date(2026, 11, 9)),)),
    Model("claude-fable-5-1", "Claude Fable 5.1", True, (_span("10 12.50 20 0.25 50", date(2026, 9, 1)),)),
    Model("claude-fable-5", "Claude Fable 5", True, (_span("10 12.50 20 1 50", date(2026, 6, 9)),)),
    Model(
        "claude-opus-5-5",
        "Claude Opus 5.5",
        True,
        (_span("4 5 8 0.20 20", date(2026, 9, 22)),),
        (_fast(2, date(2026, 10, 15)),),
    ),
    Model("claude-opus-5", "Claude Opus 5", True, (_span(_OPUS, date(2026, 7, 24)),), (_fast(2, date(2026, 7, 24)),)),
    Model(
        "claude-opus-4-8",
        "Claude Opus 4.8",
        True,
        (_span(_OPUS, date(2026, 5, 28)),),
        (_fast(2, date(2026, 5, 28), date(2026, 11, 30)),),
    ),
    Model(
        "claude-opus-4-7",
        "Claude Opus 4.7",
        True,
        (_span(_OPUS, date(2026, 4, 16)),),
        (_fast(6, date(2026, 5, 12), date(2026, 7, 24)),),
    ),
    Model(
        "claude-opus-4-6",
        "Claude Opus 4.6",
        True,
        (
            _span(_OPUS, date(2026, 2, 5), date(2026, 3, 13), WINDOW_TOKENS, _OPUS_LONG),
            _span(_OPUS, date(2026, 3, 13)),
        ),
        (_fast(6, date(2026, 2, 7), date(2026, 6, 29)),),
    ),
    Model("claude-opus-4-5-20251101", "Claude Opus 4.5", False, (_span(_OPUS, date(2025, 11, 24)),)),
    Model(
        "claude-opus-4-1-20250805",
        "Claude Opus 4.1",
        False,
        (_span(_OLD_OPUS, date(2025, 8, 5), date(2026, 8, 5)),),
    ),
    Model(
        "claude-sonnet-5-5",
        "Claude Sonnet 5.5",
        True,
        (
            _span(_LATE_SONNET, date(2026, 9, 28), date(2026, 10, 7)),
            _span("2 2.50 4 0.10 10", date(2026, 10, 7)),
        ),
    ),
    Model("claude-sonnet-5", "Claude Sonnet 5", True, (_span(_LATE_SONNET, date(2026, 6, 30)),)),
    Model(
        "claude-sonnet-4-6",
        "Claude Sonnet 4.6",
        True,
        (
            _span(_SONNET, date(2026, 2, 17), date(2026, 3, 13), WINDOW_TOKENS, _SONNET_LONG),
            _span(_SONNET, date(2026, 3, 13)),
        ),
    ),
    Model(
        "claude-sonnet-4-5-20250929",
        "Claude Sonnet 4.5",
        False,
        (
            _span(_SONNET, date(2025, 9, 29), date(2026, 4, 30), WINDOW_TOKENS, _SONNET_LONG),
            _span(_SONNET, date(2026, 4, 30), date(2026, 11, 30)),
        ),
    ),
    Model(
        "claude-sonnet-4-20250514",
        "Claude Sonnet 4",
        False,
        (
            _span(_SONNET, date(2025, 5, 22), date(2026, 4, 30), WINDOW_TOKENS, _SONNET_LONG),
            _span(_SONNET, date(2026, 4, 30), date(2026, 6, 15)),
        ),
    ),
    Model(
        "claude-haiku-5-5",
        "Claude Haiku 5.5",
        True,
        (_span("0.10 0.125 0.20 0.01 0.50", date(2026, 10, 7), _OPEN, 100_000, "0.50 0.625 1 0.05 2.50"),),
    ),
    Model("claude-haiku-4-5-20251001", "Claude Haiku 4.5", False, (_span("1 1.25 2 0.10 5", date(2025, 10, 15)),)),
    Model(
        "claude-3-haiku-20240307",
        "Claude Haiku 3",
        False,
        (_span("0.25 0.30 0.50 0.03 1.25", date(2024, 3, 13), date(2026, 4, 20)),),
    ),
    Model("claude-harbor-1", "Claude Harbor 1", True, (_span("7 8.75 14 0.70 35", date(2025, 10, 1)),), listed=False),
)

MODELS = {model.name: model for model in _TABLE}


def span_on(model: str, day: int) -> Span | None:
    """The rates of a model on a day, or None where it is not served."""
    for span in MODELS[model].spans:
        if span.from_day <= day < span.until_day:
            return span
    return None


@cache
def is_served(model: str, day: int) -> bool:
    """Whether a model answers on a day and on the one after it (no request of ours straddles its end)."""
    return span_on(model, day) is not None and span_on(model, day + 1) is not None


@cache
def fast_factor(model: str, day: int) -> int:
    """What fast mode multiplies on a day; 0 where the model has none."""
    for from_day, until_day, factor in MODELS[model].fast:
        if from_day <= day < until_day:
            return factor
    return 0


@cache
def long_over(model: str, day: int) -> int:
    """Prompts longer than this many tokens pay the long rates; 0 where there is no such step."""
    span = span_on(model, day)
    return span.long_over if span else 0


@cache
def rates(model: str, day: int, tier: str, geo: str, speed: str, is_long: bool) -> Five:  # noqa: PLR0917 - a cell's dimensions, in their order
    """What a token of each meter costs, in pico-dollars. Priority is rated as standard (it has no cost line).

    Raises ``KeyError`` for a model that is not served on the day.
    """
    span = span_on(model, day)
    if span is None:
        raise KeyError(f"{model} is not served on {day_date(day)}")
    base = span.long if is_long else span.rates
    factor = fast_factor(model, day) if speed == "fast" else 1
    tenths = 11 if geo == "us" else 10
    halves = 1 if tier == "batch" else 2
    uncached, write_5m, write_1h, read, output = (rate * factor * tenths * halves // 20 for rate in base)
    return uncached, write_5m, write_1h, read, output


def cell_rates(model: str, day: int, tier: str, window: str, geo: str, speed: str) -> Five:  # noqa: PLR0917 - a cell's dimensions, in their order
    """The list's rates of a cell: the lower ones where a step lies inside its window, 0 where no list has the model."""
    if not MODELS[model].listed:
        return 0, 0, 0, 0, 0
    step = long_over(model, day)
    return rates(model, day, tier, geo, speed, bool(step) and window == "200k-1M")
