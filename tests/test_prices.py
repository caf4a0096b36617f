"""The price book: every rule by example, and the whole book against an independent table."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from importlib.metadata import version
from itertools import groupby
from typing import get_args

import pytest
import yaml
from anthropic.types.model import Model
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from reconcile.config import ContractRate
from reconcile.errors import ConfigError
from reconcile.prices import SEARCHES, TOKEN_METERS, PriceBook, Rate

BOOK = PriceBook.read()
CONTENT = resources.files("reconcile").joinpath("prices.yaml").read_bytes()
DOCUMENT = yaml.safe_load(CONTENT)
MODELS = sorted(DOCUMENT["models"])
GENAI = f"genai-prices {version('genai-prices')}"
INPUT, WRITE_5M, WRITE_1H, READ, OUTPUT = TOKEN_METERS
DAY = timedelta(days=1)


def rates(model, meter=INPUT, start="2026-10-01", end=None, *, book=BOOK, tier="standard", window="0-200k", **dims):
    """The rates of a month that begins on ``start``, standard in every dimension that is not named."""
    start_on = date.fromisoformat(start)
    return book.rates(
        model=model,
        service_tier=tier,
        context_window=window,
        inference_geo=dims.get("geo", "global"),
        speed=dims.get("speed", "standard"),
        meter=meter,
        start_on=start_on,
        end_on=date.fromisoformat(end) if end else start_on + DAY,
    )


def usd(model, meter=INPUT, on="2026-10-01", **dims) -> Decimal | None:
    """The one list price of a day, None where there is none."""
    found = rates(model, meter, on, **dims)
    assert len(found) <= 1
    return found[0].list_price_usd if found else None


def all_usd(model, on, **dims) -> list[str | None]:
    """The five prices of a day, in the order of the provider's table: input, writes, read, output."""
    found = [usd(model, meter, on, **dims) for meter in TOKEN_METERS]
    return [None if price is None else f"{price.normalize():f}" for price in found]


def spans(found: list[Rate]) -> list[tuple[str, str, int, str]]:
    """Rates as (from, until, prompt_over, list price)."""
    return [(str(r.from_on), str(r.until_on), r.prompt_over, f"{r.list_price_usd.normalize():f}") for r in found]


def contract(model, percent, from_on=None, until_on=None) -> ContractRate:
    """A contract rate as the config reads it."""
    return ContractRate.model_validate(
        {"model": model, "discount_percent": percent, "from": from_on, "until": until_on}
    )


# --- History --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "on", "expected"),
    [
        ("claude-fable-5-2", "2026-11-09", ["8", "10", "16", "0.2", "40"]),
        ("claude-mythos-5-2", "2026-11-09", ["8", "10", "16", "0.2", "40"]),
        ("claude-fable-5-1", "2026-09-01", ["10", "12.5", "20", "0.25", "50"]),
        ("claude-mythos-5-1", "2026-09-01", ["10", "12.5", "20", "0.25", "50"]),
        ("claude-fable-5", "2026-06-09", ["10", "12.5", "20", "1", "50"]),
        ("claude-mythos-5", "2026-06-09", ["10", "12.5", "20", "1", "50"]),
        ("claude-opus-5-5", "2026-09-22", ["4", "5", "8", "0.2", "20"]),
        ("claude-opus-5", "2026-07-24", ["5", "6.25", "10", "0.5", "25"]),
        ("claude-opus-4-8", "2026-05-28", ["5", "6.25", "10", "0.5", "25"]),
        ("claude-opus-4-7", "2026-04-16", ["5", "6.25", "10", "0.5", "25"]),
        ("claude-opus-4-6", "2026-02-05", ["5", "6.25", "10", "0.5", "25"]),
        ("claude-opus-4-5-20251101", "2025-11-24", ["5", "6.25", "10", "0.5", "25"]),
        ("claude-opus-4-1-20250805", "2026-08-04", ["15", "18.75", "30", "1.5", "75"]),
        ("claude-opus-4-20250514", "2026-06-14", ["15", "18.75", "30", "1.5", "75"]),
        ("claude-sonnet-5-5", "2026-09-28", ["2", "2.5", "4", "0.2", "10"]),
        ("claude-sonnet-5", "2026-06-30", ["2", "2.5", "4", "0.2", "10"]),
        ("claude-sonnet-5", "2026-09-01", ["2", "2.5", "4", "0.2", "10"]),
        ("claude-sonnet-4-6", "2026-02-17", ["3", "3.75", "6", "0.3", "15"]),
        ("claude-sonnet-4-5-20250929", "2026-10-01", ["3", "3.75", "6", "0.3", "15"]),
        ("claude-sonnet-4-20250514", "2026-06-14", ["3", "3.75", "6", "0.3", "15"]),
        ("claude-3-7-sonnet-20250219", "2026-02-18", ["3", "3.75", "6", "0.3", "15"]),
        ("claude-haiku-4-5-20251001", "2025-10-15", ["1", "1.25", "2", "0.1", "5"]),
        ("claude-3-5-haiku-20241022", "2026-02-18", ["0.8", "1", "1.6", "0.08", "4"]),
        ("claude-3-opus-20240229", "2026-01-04", ["15", "18.75", "30", "1.5", "75"]),
        ("claude-3-haiku-20240307", "2026-04-19", ["0.25", "0.3", "0.5", "0.03", "1.25"]),
    ],
)
def test_list_prices(model, on, expected):
    """Each model has the five prices of the provider's table, from its first day."""
    assert all_usd(model, on) == expected


@pytest.mark.parametrize(
    ("model", "first"),
    [("claude-haiku-5-5", "2026-10-07"), ("claude-opus-4-7", "2026-04-16"), ("claude-fable-5-2", "2026-11-09")],
)
def test_no_price_before_the_launch(model, first):
    """The day before a model's first has no price, and a month that holds both has a rate from the first day on."""
    before = date.fromisoformat(first) - DAY
    assert rates(model, INPUT, str(before)) == []
    found = rates(model, INPUT, str(before), str(before + 3 * DAY))
    assert {str(rate.from_on) for rate in found} == {first}


@pytest.mark.parametrize(
    ("model", "last", "long", "flat"),
    [
        ("claude-opus-4-6", "2026-03-12", ["10", "12.5", "20", "1", "37.5"], ["5", "6.25", "10", "0.5", "25"]),
        ("claude-sonnet-4-6", "2026-03-12", ["6", "7.5", "12", "0.6", "22.5"], ["3", "3.75", "6", "0.3", "15"]),
        ("claude-sonnet-4-5", "2026-04-29", ["6", "7.5", "12", "0.6", "22.5"], ["3", "3.75", "6", "0.3", "15"]),
        ("claude-sonnet-4-0", "2026-04-29", ["6", "7.5", "12", "0.6", "22.5"], ["3", "3.75", "6", "0.3", "15"]),
    ],
)
def test_long_context_ended(model, last, long, flat):
    """Prompts above 200k cost a premium through its last day and none from the next; shorter ones never did."""
    after = str(date.fromisoformat(last) + DAY)
    assert all_usd(model, last, window="200k-1M") == long
    assert all_usd(model, after, window="200k-1M") == flat
    assert all_usd(model, last) == all_usd(model, after) == flat


def test_cache_read_of_sonnet_5_5_fell():
    """Sonnet 5.5's cache read halves on 2026-10-07; a month over that day is split there, its input price is not."""
    assert spans(rates("claude-sonnet-5-5", READ, "2026-10-01", "2026-11-01")) == [
        ("2026-10-01", "2026-10-07", 0, "0.2"),
        ("2026-10-07", "2026-11-01", 0, "0.1"),
    ]
    assert {r.list_price_usd for r in rates("claude-sonnet-5-5", INPUT, "2026-10-01", "2026-11-01")} == {Decimal(2)}


def test_step_inside_a_window_gives_two_rates():
    """Haiku 5.5 reprices the whole request above 100k: both prices for `0-200k`, only the upper one above it."""
    assert spans(rates("claude-haiku-5-5", OUTPUT, "2026-10-10", "2026-10-12")) == [
        ("2026-10-10", "2026-10-12", 0, "0.5"),
        ("2026-10-10", "2026-10-12", 100_000, "2.5"),
    ]
    assert spans(rates("claude-haiku-5-5", OUTPUT, "2026-10-10", window="200k-1M")) == [
        ("2026-10-10", "2026-10-11", 0, "2.5")
    ]


def test_step_at_the_edge_of_a_window_gives_one_rate():
    """A step at 200k coincides with the window's edge: one rate in each window."""
    for window, price in (("0-200k", "5"), ("200k-1M", "10")):
        found = rates("claude-opus-4-6", INPUT, "2026-03-01", window=window)
        assert spans(found) == [("2026-03-01", "2026-03-02", 0, price)]


def test_retired_model_keeps_its_last_price():
    """What still arrives for a retired model is priced as before."""
    assert all_usd("claude-opus-4-1-20250805", "2026-10-01") == ["15", "18.75", "30", "1.5", "75"]


# --- Modifiers ------------------------------------------------------------------------------------------------------


def test_batch_halves_every_token_meter():
    """A batch costs half on all five token meters."""
    assert all_usd("claude-opus-4-7", "2026-10-01", tier="batch") == ["2.5", "3.125", "5", "0.25", "12.5"]
    assert spans(rates("claude-haiku-5-5", READ, "2026-10-10", tier="batch")) == [
        ("2026-10-10", "2026-10-11", 0, "0.005"),
        ("2026-10-10", "2026-10-11", 100_000, "0.025"),
    ]


def test_us_geography_costs_a_tenth_more():
    """US inference is x1.1 on all token meters; a model that cannot choose has no such price."""
    assert all_usd("claude-opus-4-6", "2026-10-01", geo="us") == ["5.5", "6.875", "11", "0.55", "27.5"]
    assert all_usd("claude-haiku-4-5-20251001", "2026-10-01", geo="us") == [None] * 5
    assert usd("claude-haiku-4-5-20251001", geo="not_available") == 1
    assert usd("claude-opus-4-6", geo="not_available") == 5


@pytest.mark.parametrize(
    ("model", "on", "published"),
    [
        ("claude-opus-4-6", "2026-02-06", None),
        ("claude-opus-4-6", "2026-02-07", ("30", "150")),
        ("claude-opus-4-6", "2026-06-28", ("30", "150")),
        ("claude-opus-4-6", "2026-06-29", ("5", "25")),
        ("claude-opus-4-7", "2026-05-11", None),
        ("claude-opus-4-7", "2026-05-12", ("30", "150")),
        ("claude-opus-4-7", "2026-07-23", ("30", "150")),
        ("claude-opus-4-7", "2026-07-24", None),
        ("claude-opus-4-8", "2026-11-29", ("10", "50")),
        ("claude-opus-4-8", "2026-11-30", None),
        ("claude-opus-5", "2026-07-24", ("10", "50")),
        ("claude-opus-5-5", "2026-10-15", ("8", "40")),
        ("claude-fable-5-2", "2026-11-09", ("16", "80")),
        ("claude-mythos-5-2", "2026-11-09", ("16", "80")),
        ("claude-sonnet-5-5", "2026-10-15", None),
    ],
)
def test_fast_mode_by_model_and_day(model, on, published):
    """One multiplier gives both published prices of fast mode; a day without fast mode has no price for it."""
    found = (usd(model, INPUT, on, speed="fast"), usd(model, OUTPUT, on, speed="fast"))
    assert found == ((None, None) if published is None else tuple(map(Decimal, published)))


def test_fast_mode_of_long_prompts():
    """Fast mode stood on the long-context price of Opus 4.6 until 2026-02-21, then on the short one at every length."""
    assert spans(rates("claude-opus-4-6", OUTPUT, "2026-02-20", "2026-02-22", speed="fast", window="200k-1M")) == [
        ("2026-02-20", "2026-02-21", 0, "225"),
        ("2026-02-21", "2026-02-22", 0, "150"),
    ]


def test_cache_multipliers_stack_with_fast_mode():
    """Fast mode multiplies writes and reads as well: Opus 5.5's read is 0.05 of the fast input."""
    assert all_usd("claude-opus-5-5", "2026-10-15", speed="fast") == ["8", "10", "16", "0.4", "40"]


def test_modifiers_stack():
    """Modifiers multiply: batch with US, and fast with US; fast mode is not offered in batches."""
    assert usd("claude-opus-5-5", tier="batch", geo="us") == Decimal("2.2")
    assert usd("claude-opus-5-5", speed="fast", geo="us", on="2026-10-15") == Decimal("8.8")
    assert usd("claude-opus-4-7", READ, speed="fast", geo="us", on="2026-06-01") == Decimal("3.3")
    assert usd("claude-opus-5-5", tier="batch", speed="fast", on="2026-10-15") is None
    found = rates("claude-opus-5-5", tier="batch", geo="us")
    assert found[0].source == "price book: models/opus-5-5/overview; genai-prices 0.2.3, batch x0.5, us x1.1"


def test_priority_is_priced_as_standard():
    """Priority Tier is valued at the standard price."""
    assert all_usd("claude-opus-4-7", "2026-10-01", tier="priority") == all_usd("claude-opus-4-7", "2026-10-01")


@pytest.mark.parametrize(
    "dims",
    [
        {"tier": "flex"},
        {"tier": "flex_discount"},
        {"tier": "priority_on_demand"},
        {"tier": None},
        {"geo": "eu"},
        {"geo": None},
        {"speed": "turbo"},
        {"speed": None},
        {"window": "1M-2M"},
        {"window": None},
    ],
)
def test_value_without_a_known_price(dims):
    """A value of a dimension whose price nobody publishes has no price: never the standard one, never 0."""
    assert rates("claude-opus-4-7", **dims) == []


def test_search_has_one_price():
    """A web search is one cent, whatever the model, tier, geography or contract."""
    book = PriceBook.read([contract("*", 50)])
    for dims in ({}, {"tier": "batch", "geo": "us", "speed": "fast", "window": None}):
        (rate,) = rates("claude-opus-4-7", SEARCHES, "2026-10-01", "2026-11-01", book=book, **dims)
        assert (rate.price_unit, rate.list_price_usd, rate.price_usd) == ("search", Decimal("0.01"), Decimal("0.01"))
        assert (rate.model, rate.service_tier, rate.context_window, rate.inference_geo, rate.speed) == (None,) * 5


@pytest.mark.parametrize("meter", ["code_execution", "session_usage"])
def test_charges_without_a_quantity_have_no_price(meter):
    """Code execution and sessions have no price here: only the bill knows them."""
    assert rates("claude-opus-4-7", meter) == []


def test_no_days_no_rates():
    """An empty range of days has no rates."""
    assert rates("claude-opus-4-7", INPUT, "2026-10-01", "2026-10-01") == []


# --- Contract -------------------------------------------------------------------------------------------------------


def test_contract_lies_over_list():
    """A contract takes its percentage off list from its first day until its last, and leaves list as it is."""
    book = PriceBook.read([contract("claude-opus-4-7", 10, "2026-10-10", "2026-10-20")])
    found = rates("claude-opus-4-7", OUTPUT, "2026-10-01", "2026-11-01", book=book)
    assert [(str(r.from_on), str(r.until_on), r.list_price_usd, r.price_usd) for r in found] == [
        ("2026-10-01", "2026-10-10", Decimal(25), Decimal(25)),
        ("2026-10-10", "2026-10-20", Decimal(25), Decimal("22.5")),
        ("2026-10-20", "2026-11-01", Decimal(25), Decimal(25)),
    ]
    assert found[1].source == "price book: pricing page (about-claude/pricing), contract 10 % from 2026-10-10"


def test_contract_of_another_model_splits_nothing():
    """A contract changes nothing for a model that it does not name."""
    book = PriceBook.read([contract("claude-sonnet-*", 10, "2026-10-10")])
    assert rates("claude-opus-4-7", OUTPUT, "2026-10-01", "2026-11-01", book=book) == rates(
        "claude-opus-4-7", OUTPUT, "2026-10-01", "2026-11-01"
    )


def test_first_contract_rate_wins():
    """Of contract rates that fit a model on a day the first in order holds; where it does not hold, the next."""
    book = PriceBook.read([contract("claude-opus-4-7", 20, "2026-10-15"), contract("claude-*", 5)])
    found = rates("claude-opus-4-7", INPUT, "2026-10-01", "2026-11-01", book=book)
    assert [r.price_usd for r in found] == [Decimal("4.75"), Decimal(4)]
    assert [r.price_usd for r in rates("claude-sonnet-5", book=book)] == [Decimal("1.9")]


def test_contract_names_a_model_in_any_spelling():
    """A contract for an alias holds for the dated id that the reports use."""
    book = PriceBook.read([contract("claude-haiku-4-5", 10)])
    assert rates("claude-haiku-4-5-20251001", book=book)[0].price_usd == Decimal("0.9")


def test_contract_lies_over_a_price_of_genai_prices():
    """A contract lies over whatever the list price came from."""
    book = PriceBook.read([contract("*", "12.5")])
    (rate,) = rates("claude-3-5-sonnet-20241022", INPUT, book=book)
    assert (rate.list_price_usd, rate.price_usd) == (Decimal(3), Decimal("2.625"))
    assert rate.source == f"{GENAI}, contract 12.5 %"


@given(
    percent=st.decimals(0, 100, places=4),
    model=st.sampled_from(["claude-opus-5-5", "claude-sonnet-5", "claude-3-haiku-20240307"]),
    meter=st.sampled_from(TOKEN_METERS),
    tier=st.sampled_from(["standard", "batch"]),
)
def test_prices_are_exact(percent, model, meter, tier):
    """List times modifiers times what the contract leaves is exact, for discounts of up to four decimals."""
    (rate,) = rates(model, meter, tier=tier, book=PriceBook.read([contract("*", str(percent))]))
    (standard,) = rates(model, meter)
    expected = Fraction(standard.list_price_usd) * (Fraction(1, 2) if tier == "batch" else 1)
    assert Fraction(rate.list_price_usd) == expected
    assert Fraction(rate.price_usd) == expected * (100 - Fraction(percent)) / 100


def test_beyond_twelve_decimals_is_rounded_once():
    """A price that needs more than twelve decimals is rounded half away from zero at the twelfth."""
    third = contract("*", 33).model_copy(update={"discount_percent": Decimal("33.33333333")})
    book = PriceBook.read([third])
    (rate,) = rates("claude-haiku-5-5", READ, "2026-10-10", tier="batch", window="200k-1M", book=book)
    assert rate.price_usd == Decimal("0.016666666668")  # 0.025 x 0.6666666667 = 0.0166666666675


# --- The shape of an answer -----------------------------------------------------------------------------------------


CONTRACTED = PriceBook.read([contract("claude-opus-*", 7, "2026-02-10", "2026-06-20"), contract("*", 3, "2026-05-05")])


@given(
    model=st.sampled_from([*MODELS, "claude-3-5-sonnet-20241022", "claude-nobody-9"]),
    meter=st.sampled_from([*TOKEN_METERS, SEARCHES]),
    tier=st.sampled_from(["standard", "batch", "priority"]),
    geo=st.sampled_from(["global", "us", "not_available"]),
    speed=st.sampled_from(["standard", "fast"]),
    window=st.sampled_from(["0-200k", "200k-1M"]),
    start=st.dates(date(2025, 10, 1), date(2026, 12, 1)),
    days=st.integers(1, 120),
)
def test_a_range_says_what_its_days_say(  # noqa: PLR0917 - drawn by name
    model, meter, tier, geo, speed, window, start, days
):
    """The rates of a range hold on each of its days exactly what the day alone has, once for each prompt length."""
    dims = {"book": CONTRACTED, "tier": tier, "geo": geo, "speed": speed, "window": window}
    found = rates(model, meter, str(start), str(start + days * DAY), **dims)
    for offset in range(days):
        day = start + offset * DAY
        held = [r for r in found if r.from_on <= day and r.until_on is not None and day < r.until_on]
        alone = rates(model, meter, str(day), **dims)
        assert [(r.prompt_over, r.list_price_usd, r.price_usd, r.source) for r in held] == [
            (r.prompt_over, r.list_price_usd, r.price_usd, r.source) for r in alone
        ]
        assert len({r.prompt_over for r in held}) == len(held)


# --- Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        ("claude-opus-4-7", "claude-opus-4-7"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-opus-4-0", "claude-opus-4-20250514"),
        ("claude-opus-4", "claude-opus-4-20250514"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("claude-haiku-3.5", "claude-3-5-haiku-20241022"),
        ("claude-opus-4-7-20260416", "claude-opus-4-7"),
        ("claude-opus-4.7", "claude-opus-4-7"),
        ("anthropic/claude-opus-4.7", "claude-opus-4-7"),
        ("openrouter/anthropic/claude-haiku-4.5", "claude-haiku-4-5-20251001"),
        ("anthropic:claude-opus-5", "claude-opus-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929"),
        ("anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("bedrock/us-east-1/anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku-20240307"),
        ("vertex_ai/claude-opus-4-1@20250805", "claude-opus-4-1-20250805"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4-20250514"),
        ("  Claude Opus 4.7\n", "claude-opus-4-7"),
        ("CLAUDE_HAIKU_5_5", "claude-haiku-5-5"),
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5-20250929"),
    ],
)
def test_report_name(logged, expected):
    """Aliases, vendors' prefixes and suffixes, dates, dots, case and blanks all lead to the reports' name."""
    assert BOOK.report_name(logged) == expected


@pytest.mark.parametrize(
    "logged", ["Claude-Zeta-9", "gpt-5", " claude-opus-9 ", "", "claude-opus-4-5-20991231", "claude-opus-4-70"]
)
def test_unknown_name_comes_back_as_it_was_logged(logged):
    """A name that the book does not know is cleaned of nothing, another snapshot of a dated model included."""
    assert BOOK.report_name(logged) == logged


@pytest.mark.parametrize(
    ("logged", "reported", "expected"),
    [
        ("claude-nova-6", {"claude-nova-6-20270101", "claude-opus-5"}, "claude-nova-6-20270101"),
        ("claude-nova-6", {"claude-nova-6-20270101", "claude-nova-6-20270202"}, "claude-nova-6"),
        ("claude-nova-6-20270101", {"claude-nova-6"}, "claude-nova-6"),
        ("claude-nova-6-20270101", {"claude-nova-6-20270202"}, "claude-nova-6-20270101"),
        ("anthropic/Claude-Nova-6", {"claude-nova-6"}, "claude-nova-6"),
        ("claude-sonnet-4-5", {"claude-sonnet-4-5"}, "claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929", {"claude-sonnet-4-5"}, "claude-sonnet-4-5"),
        (
            "claude-sonnet-4-5",
            {"claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20270101"},
            "claude-sonnet-4-5-20250929",
        ),
        ("claude-opus-4-7", {"claude-opus-4-7-20260416"}, "claude-opus-4-7-20260416"),
    ],
)
def test_reported_names_win(logged, reported, expected):
    """An id of this month's reports wins; one that shares the name but for the date does where it is the only one."""
    assert BOOK.report_name(logged, reported) == expected


@given(
    model=st.sampled_from(MODELS),
    before=st.sampled_from(["", "anthropic/", "us.anthropic.", "eu.anthropic.", "vertex_ai/", "anthropic:", " "]),
    after=st.sampled_from(["", "-v1:0", " ", "[1m]"]),
    upper=st.booleans(),
)
def test_every_model_is_found_behind_any_decoration(model, before, after, upper):
    """A known id is found behind each vendor's prefix and suffix, and finding it again changes nothing."""
    logged = before + (model.upper() if upper else model) + after
    assert BOOK.report_name(logged) == model
    assert BOOK.report_name(BOOK.report_name(logged)) == model


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock"),
        ("anthropic.claude-opus-4-6-v1", "bedrock"),
        ("bedrock/claude-opus-4-6", "bedrock"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/x", "bedrock"),
        ("claude-opus-4-1@20250805", "vertex"),
        ("vertex_ai/claude-opus-4-6", "vertex"),
        ("anthropic/claude-opus-4-7", None),
        ("claude-opus-4-7", None),
        ("claude-sonnet-4-5-20250929", None),
        ("ops@example.com/claude-opus-4-7", None),
    ],
)
def test_other_biller(logged, expected):
    """The form of an id tells that Bedrock or Vertex bills it; the maker's own name before it does not."""
    assert BOOK.other_biller(logged) == expected


def test_supports_geo():
    """Models from 4.6 on can choose the geography, older ones cannot, one that nobody knows is a new one."""
    assert {model for model in MODELS if not BOOK.supports_geo(model)} == {
        "claude-opus-4-5-20251101", "claude-opus-4-1-20250805", "claude-opus-4-20250514", "claude-sonnet-4-5-20250929",
        "claude-sonnet-4-20250514", "claude-3-7-sonnet-20250219", "claude-haiku-4-5-20251001",
        "claude-3-5-haiku-20241022", "claude-3-opus-20240229", "claude-3-haiku-20240307",
    }  # fmt: skip
    assert BOOK.supports_geo("claude-nova-6")
    assert not BOOK.supports_geo("claude-sonnet-4-5")
    assert not BOOK.supports_geo("claude-3-5-sonnet-20241022")


def test_the_official_sdk_names_no_model_that_we_lack():
    """Every model of the official SDK's list is in the book, but the preview whose price was never published."""
    literal, _ = get_args(Model)
    unknown = {name for name in get_args(literal) if BOOK.report_name(name) not in DOCUMENT["models"]}
    assert unknown == {"claude-mythos-preview"}
    assert rates("claude-mythos-preview") == []


# --- A model that the book lacks ------------------------------------------------------------------------------------


def test_genai_prices_has_what_the_book_lacks():
    """A model that only genai-prices knows is priced from it, halved in batches, and the source says so."""
    assert all_usd("claude-3-5-sonnet-20241022", "2025-10-01") == ["3", "3.75", "6", "0.3", "15"]
    (rate,) = rates("claude-3-5-sonnet-20241022", OUTPUT, tier="batch")
    assert (rate.list_price_usd, rate.source) == (Decimal("7.5"), f"{GENAI}, batch x0.5")
    assert rates("claude-3-5-sonnet-20241022", OUTPUT, geo="us") == []
    assert rates("claude-3-5-sonnet-20241022", OUTPUT, speed="fast") == []


def test_genai_prices_of_a_new_model_take_the_general_modifiers():
    """A model that is newer than the book takes steps and history from genai-prices, batch and US from the book."""
    document = yaml.safe_load(CONTENT)
    for model in ("claude-haiku-5-5", "claude-opus-4-6"):
        del document["models"][model]
    older = PriceBook.parse(yaml.safe_dump(document).encode())
    assert spans(rates("claude-haiku-5-5", OUTPUT, "2026-10-10", geo="us", tier="batch", book=older)) == [
        ("2026-10-10", "2026-10-11", 0, "0.275"),
        ("2026-10-10", "2026-10-11", 100_000, "1.375"),
    ]
    assert spans(rates("claude-opus-4-6", INPUT, "2026-03-10", "2026-03-20", window="200k-1M", book=older)) == [
        ("2026-03-10", "2026-03-13", 0, "10"),
        ("2026-03-13", "2026-03-20", 0, "5"),
    ]


@pytest.mark.parametrize("model", ["claude-opus-9", "claude-haiku-4-5-turbo", "claude-opus-4-70", "gpt-5", None])
def test_what_nobody_knows_has_no_price(model):
    """An unknown model has no price, also where its name begins like a known one's, or another company makes it."""
    assert rates(model) == []


def test_genai_prices_is_loaded_only_when_needed():
    """A known model is priced without genai-prices, and an unknown one without a way to the network."""
    script = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from datetime import date
from reconcile.prices import PriceBook
book = PriceBook.read()
ask = lambda model: book.rates(model=model, service_tier="standard", context_window="0-200k", inference_geo="global",
    speed="standard", meter="output_tokens", start_on=date(2026, 10, 1), end_on=date(2026, 10, 2))
assert ask("claude-opus-4-7") and "genai_prices" not in sys.modules
assert ask("claude-3-5-sonnet-20241022") and "genai_prices" in sys.modules
assert not ask("claude-opus-9")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)  # noqa: S603 - our own script


# --- The file -------------------------------------------------------------------------------------------------------


def test_digest_and_age():
    """The digest changes with the book and with the contract; the newest check of an entry is exposed."""
    assert PriceBook.read().digest == BOOK.digest
    assert PriceBook.read([contract("*", 10)]).digest != BOOK.digest
    assert PriceBook.read([contract("*", "10.0")]).digest == PriceBook.read([contract("*", 10)]).digest
    assert PriceBook.parse(CONTENT + b"\n").digest != BOOK.digest
    newest = max(entry["checked_on"] for model in DOCUMENT["models"].values() for entry in model["prices"])
    assert BOOK.checked_on == newest


def sabotage(model="claude-opus-4-6", entry=0, **changes) -> bytes:
    """The book with one price entry changed: None takes a key away."""
    document = yaml.safe_load(CONTENT)
    target = document["models"][model]["prices"][entry]
    for key, value in changes.items():
        target.pop(key, None)
        if value is not None:
            target["from" if key == "from_" else key] = value
    return yaml.safe_dump(document).encode()


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (sabotage(source=None), "models.claude-opus-4-6.prices[from 2026-02-05].source", "Field required"),
        (sabotage(checked_on=None), "models.claude-opus-4-6.prices[from 2026-02-05].checked_on", "Field required"),
        (sabotage(note="x"), "models.claude-opus-4-6.prices[from 2026-02-05].note", "Extra inputs"),
        (sabotage(until=date(2026, 3, 20)), "models.claude-opus-4-6.prices", "overlaps the one from 2026-03-13"),
        (sabotage(until=None), "models.claude-opus-4-6.prices", "overlaps the one from 2026-03-13"),
        (sabotage(until=date(2026, 3, 9)), "models.claude-opus-4-6.prices", "from 2026-03-09 until 2026-03-13"),
        (sabotage(until=date(2026, 2, 5)), "models.claude-opus-4-6.prices", "the entry from 2026-02-05 ends on"),
        (sabotage(usd_per_mtok={INPUT: 5.0}), f"usd_per_mtok.{INPUT}", "got 5.0, expected a decimal in quotes"),
        (sabotage(usd_per_mtok={INPUT: "five"}), f"usd_per_mtok.{INPUT}", "got 'five', expected a decimal"),
        (sabotage(usd_per_mtok={INPUT: "-5"}), f"usd_per_mtok.{INPUT}", "greater than or equal to 0"),
        (sabotage(usd_per_mtok={INPUT: "5"}), "[from 2026-02-05].usd_per_mtok", "expected the five token meters"),
        (CONTENT.replace(b"claude-opus-4-0]", b"claude-opus-4-1]"), "prices.yaml", "belongs to claude-opus-4-1"),
        (CONTENT.replace(b"  claude-opus-4-7:", b"  claude-opus-4-8:"), "prices.yaml", "stands twice"),
        (b"book: [", "prices.yaml", "is not YAML"),
        (b"", "prices.yaml", "valid dictionary"),
    ],
)
def test_broken_book_is_refused(content, where, what):
    """A book that is incomplete, overlaps, has a gap, repeats itself or is inexact is refused with model and day."""
    with pytest.raises(ConfigError) as refused:
        PriceBook.parse(content)
    assert where in refused.value.where
    assert what in refused.value.what


def test_report_ids_are_dated_before_4_6():
    """The book's ids are those of the usage report: dated exactly where a model cannot choose its geography."""
    for model in MODELS:
        assert model[-8:].isdigit() == (not BOOK.supports_geo(model))


# --- The book against genai-prices ----------------------------------------------------------------------------------

ANTHROPIC = next(provider for provider in providers if provider.id == "anthropic")
FIRST, LAST = date(2025, 10, 1), date(2026, 11, 30)
PROMPTS = (50_000, 150_000, 250_000)
GENAI_KEYS = dict(
    zip(
        TOKEN_METERS,
        ("input_mtok", "cache_write_mtok", "cache_write_1h_mtok", "cache_read_mtok", "output_mtok"),
        strict=True,
    )
)
OURS, THEIRS = "only the book has a price", "only genai-prices has a price"
INPUTS = (INPUT, WRITE_5M, WRITE_1H, READ)
HAS_BATCH = {
    "claude-fable-5", "claude-fable-5-1", "claude-haiku-4-5-20251001", "claude-haiku-5-5", "claude-opus-4-5-20251101",
    "claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5",
    "claude-sonnet-4-5-20250929", "claude-sonnet-4-6", "claude-sonnet-5", "claude-sonnet-5-5",
}  # fmt: skip
NO_BATCH = {
    "claude-opus-4-1-20250805", "claude-opus-4-20250514", "claude-sonnet-4-20250514", "claude-3-7-sonnet-20250219",
    "claude-3-5-haiku-20241022", "claude-3-opus-20240229", "claude-3-haiku-20240307",
}  # fmt: skip
NOT_LISTED = {"claude-mythos-5", "claude-mythos-5-1"}


@dataclass(frozen=True)
class Disagreement:
    """genai-prices over the book, as a ratio or which side has no price, on days both inclusive."""

    model: str
    variant: str
    prompt: int
    meter: str
    first: date
    last: date
    genai_over_book: Fraction | str


@dataclass(frozen=True)
class Known:
    """Disagreements with one reason. Days are both inclusive, None the ends of the comparison."""

    why: str
    models: set[str]
    variants: tuple[str, ...]
    ratio: Fraction | str
    first: str | None = None
    last: str | None = None
    meters: tuple[str, ...] = TOKEN_METERS
    prompts: tuple[int, ...] = PROMPTS

    def each(self) -> Iterator[Disagreement]:
        """One for each model, variant, prompt and meter, on the days on which the book has the model."""
        for model in self.models:
            first = max(filter(None, (FIRST, launch(model), self.first and date.fromisoformat(self.first))))
            last = date.fromisoformat(self.last) if self.last else LAST
            for variant in self.variants:
                for prompt in self.prompts:
                    for meter in self.meters:
                        yield Disagreement(model, variant, prompt, meter, first, last, self.ratio)


KNOWN = [
    Known("It starts batch prices on 2026-10-14; half before.", HAS_BATCH, ("batch",), OURS, last="2026-10-13"),
    Known("It skips the batch prices of retired models.", NO_BATCH, ("batch",), OURS),
    Known("It has no entry for Mythos 5 and 5.1.", NOT_LISTED, ("standard", "batch"), OURS),
    Known(
        "It has Sonnet 5.5's cache read of 0.10 without the 0.20 at launch.",
        {"claude-sonnet-5-5"}, ("standard",), Fraction(1, 2), last="2026-10-06", meters=(READ,),
    ),
    Known("It has no fast price for Opus 4.6.", {"claude-opus-4-6"}, ("fast",), OURS, first="2026-02-07"),
    Known(
        "It has no fast price for Opus 4.7.",
        {"claude-opus-4-7"}, ("fast",), OURS, first="2026-05-12", last="2026-07-23",
    ),
    Known(
        "It does not end Opus 4.8's fast mode, which is removed on 2026-11-30.",
        {"claude-opus-4-8"}, ("fast",), THEIRS, first="2026-11-30",
    ),
    *(
        Known(
            "It keeps Sonnet 4.5's long-context premium after the beta ended on 2026-04-30.",
            {"claude-sonnet-4-5-20250929"}, (variant,), ratio, first=first, meters=meters, prompts=(250_000,),
        )
        for variant, first in (("standard", "2026-04-30"), ("batch", "2026-10-14"))
        for meters, ratio in ((INPUTS, Fraction(2)), ((OUTPUT,), Fraction(3, 2)))
    ),
    *(
        Known(
            "It has no long-context premium for Sonnet 4.",
            {"claude-sonnet-4-20250514"}, ("standard",), ratio, last="2026-04-29", meters=meters, prompts=(250_000,),
        )
        for meters, ratio in ((INPUTS, Fraction(1, 2)), ((OUTPUT,), Fraction(2, 3)))
    ),
]  # fmt: skip


def launch(model) -> date | None:
    """The book's first day of a model, None where it is open."""
    return DOCUMENT["models"][model]["prices"][0].get("from")


def days() -> list[date]:
    """Every day of the comparison."""
    return [FIRST + offset * DAY for offset in range((LAST - FIRST).days + 1)]


def genai_usd(prices, meter, prompt) -> Decimal | None:
    """What genai-prices takes for a meter in a request with a prompt of that length."""
    value = getattr(prices, GENAI_KEYS[meter])
    over = [tier.price for tier in getattr(value, "tiers", ()) if prompt > tier.start]
    return over[-1] if over else getattr(value, "base", value)


def genai_prices_by_day(model, variant):
    """The price table of each day, None where genai-prices has no such model or variant."""
    found = ANTHROPIC.find_model(model)
    context = {"batch": {"processing": "batch"}, "fast": {"speed": "fast"}}.get(variant)
    for day in days():
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        offered = context is None or any(
            candidate.when == context and (candidate.constraint is None or candidate.constraint.active(noon))
            for candidate in (found.price_variants or () if found else ())
        )
        yield found.get_prices(noon, context) if found and offered else None


def disagreements() -> Iterator[Disagreement]:
    """Where book and genai-prices differ, by model, variant, prompt length and meter, in runs of days."""
    for model in MODELS:
        for variant in ("standard", "batch", "fast"):
            tables = list(genai_prices_by_day(model, variant))
            for prompt in PROMPTS:
                for meter in TOKEN_METERS:
                    yield from runs(model, variant, prompt, meter, tables)


def runs(model, variant, prompt, meter, tables) -> Iterator[Disagreement]:
    """The disagreements of one rate."""
    found = rates(
        model, meter, str(FIRST), str(LAST + DAY),
        window="0-200k" if prompt <= 200_000 else "200k-1M",
        tier="batch" if variant == "batch" else "standard",
        speed="fast" if variant == "fast" else "standard",
    )  # fmt: skip
    by_day = {}
    for rate in found:
        if prompt > rate.prompt_over:
            for offset in range((rate.until_on - rate.from_on).days):
                by_day[rate.from_on + offset * DAY] = rate.list_price_usd
    compared = [
        (day, ratio(by_day.get(day), genai_usd(table, meter, prompt) if table else None))
        for day, table in zip(days(), tables, strict=True)
        if launch(model) is None or day >= launch(model)
    ]
    for outcome, run in groupby(compared, key=lambda pair: pair[1]):
        run_days = [day for day, _ in run]
        if outcome != 1:
            yield Disagreement(model, variant, prompt, meter, run_days[0], run_days[-1], outcome)


def ratio(ours: Decimal | None, theirs: Decimal | None) -> Fraction | str:
    """genai-prices over the book, 1 where neither has a price."""
    if ours is None:
        return Fraction(1) if theirs is None else THEIRS
    return OURS if theirs is None else Fraction(theirs) / Fraction(ours)


def test_book_agrees_with_genai_prices():
    """Book and genai-prices agree on every rate of every day, but for the disagreements that are known, all of them."""
    found, known = set(disagreements()), {each for line in KNOWN for each in line.each()}
    assert sorted(map(str, found - known)) == [], "a disagreement that is not listed"
    assert sorted(map(str, known - found)) == [], "a listed disagreement that no longer exists"


def test_search_price_agrees_with_genai_prices():
    """Every model for which genai-prices has a price of web searches has ours."""
    (rate,) = rates(None, SEARCHES)
    theirs = {
        price
        for model in ANTHROPIC.models
        if (price := getattr(model.get_prices(datetime(2026, 10, 1, tzinfo=UTC)), "web_searches_kcount", None))
    }
    assert theirs == {rate.list_price_usd * 1000}
