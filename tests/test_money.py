"""Money: exact parsing, rounding, apportioning."""

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconcile import money
from reconcile.errors import SourceError

CENT = Decimal("0.01")
amounts = st.decimals(min_value=-(10**12), max_value=10**12, places=12, allow_nan=False, allow_infinity=False)
whole_cents = st.integers(-(10**14), 10**14).map(lambda count: Decimal(count) * CENT)
weights = st.dictionaries(
    st.text(max_size=3), st.decimals(min_value=0, max_value=10**12, places=12, allow_nan=False), min_size=1
).filter(lambda drawn: any(drawn.values()))


# usd_from_cents


@pytest.mark.parametrize(
    ("cents", "usd"),
    [
        ("123.45", "1.2345"),
        ("0", "0.00"),
        ("-0", "0.00"),
        ("-250", "-2.50"),
        ("+7.", "0.07"),
        (".5", "0.005"),
        ("1e2", "1"),
        ("0.000000000000000000000000000001", "0.00000000000000000000000000000001"),
        ("1." + "3" * 200, "0.01" + "3" * 200),
        ("100000000000000", "1000000000000.00"),
    ],
)
def test_an_amount_in_cents_becomes_usd_without_losing_a_digit(cents, usd):
    """Any length is exact, and zero has no sign."""
    assert str(money.usd_from_cents(cents).normalize(Context(prec=300))) == str(
        Decimal(usd).normalize(Context(prec=300))
    )


@pytest.mark.parametrize(
    "cents",
    [
        "",
        " 1",
        "1\n",
        "1_0",
        "1,5",
        "٣",
        "0x10",
        "NaN",
        "Infinity",
        "-inf",
        "1e999",
        "100000000000000.1",
        "1e-1000",
        "$5",
    ],
)
def test_what_is_no_finite_ascii_decimal_is_refused(cents):
    """Nothing is guessed: the message shows what was got."""
    with pytest.raises(SourceError) as raised:
        money.usd_from_cents(cents)
    assert raised.value.what == f"got {cents!r}, expected a decimal string in cents"


@pytest.mark.parametrize("cents", [None, 12, 0.1, True, Decimal(1)])
def test_a_json_number_is_not_an_amount(cents):
    """What came through a float has lost its text, so only text is read."""
    with pytest.raises(SourceError):
        money.usd_from_cents(cents)


@settings(deadline=None)
@given(amounts)
def test_cents_of_an_amount_read_back_are_the_amount(amount_usd):
    """Writing an amount in cents and reading it is the identity."""
    assert money.usd_from_cents(f"{amount_usd.scaleb(2, Context(prec=60)):f}") == amount_usd


# cents and at_scale


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [
        ("0.005", "0.01"),
        ("0.015", "0.02"),
        ("0.025", "0.03"),
        ("-0.005", "-0.01"),
        ("0.0049999999999999", "0.00"),
        ("-0.004", "0.00"),
        ("-0.00", "0.00"),
        ("99999999999999999999999999.995", "100000000000000000000000000.00"),
    ],
)
def test_cents_round_half_away_from_zero(amount, rounded):
    """As DuckDB's casts do, unlike Python's default; and -0.00 is never shown."""
    assert str(money.cents(Decimal(amount))) == rounded


@pytest.mark.parametrize(
    ("amount", "scaled"),
    [("0.0000000000005", "1E-12"), ("-0.0000000000005", "-1E-12"), ("-1e-20", "0E-12"), ("1", "1.000000000000")],
)
def test_the_ledgers_scale_rounds_half_away_from_zero(amount, scaled):
    """Twelve decimals, always."""
    assert str(money.at_scale(Decimal(amount))) == scaled


@settings(deadline=None)
@given(amounts)
def test_rounding_does_not_depend_on_the_callers_context(amount_usd):
    """A context of four digits and another rounding changes nothing."""
    expected = money.cents(amount_usd)
    with localcontext(Context(prec=4, rounding=ROUND_HALF_EVEN)):
        assert str(money.cents(amount_usd)) == str(expected)
    assert abs(Fraction(expected) - Fraction(amount_usd)) <= Fraction(1, 200)


# apportion


def test_apportion_gives_what_is_left_to_the_largest_remainder():
    """Ten cents over 1 : 1 : 4 are 1.67, 1.67, 6.67 cents: the two left over go to the largest remainders."""
    assert money.apportion(Decimal("0.10"), {"b": Decimal(1), "a": Decimal(1), "c": Decimal(4)}) == {
        "a": Decimal("0.02"),
        "b": Decimal("0.02"),
        "c": Decimal("0.06"),
    }


def test_apportion_breaks_ties_by_name():
    """One cent for three equals goes to the name that sorts first, a credit of one cent too."""
    equal = dict.fromkeys("cab", Decimal(1))
    for total in (CENT, -CENT):
        assert {name: str(part) for name, part in money.apportion(total, equal).items()} == {
            "a": str(total),
            "b": "0.00",
            "c": "0.00",
        }


@pytest.mark.parametrize(
    ("total", "shares", "message"),
    [
        ("1", {}, "weights must be positive"),
        ("1", {"a": Decimal(0)}, "weights must be positive"),
        ("1", {"a": Decimal(2), "b": Decimal(-1)}, "weights must be positive"),
        ("0.001", {"a": Decimal(1)}, r"0\.001 is not a multiple of 0\.01"),
    ],
)
def test_apportion_refuses_what_cannot_be_split(total, shares, message):
    """No weight, a negative one, or a total finer than the unit."""
    with pytest.raises(ValueError, match=message):
        money.apportion(Decimal(total), shares)


@settings(deadline=None)
@given(whole_cents, weights)
def test_apportioned_parts_sum_to_the_total_and_stay_within_a_unit(total, shares):
    """Exact in sum, within a cent of the exact share, nothing for weight zero, no part with another sign."""
    parts = money.apportion(total, shares)
    whole = sum(map(Fraction, shares.values()))
    assert parts.keys() == shares.keys()
    assert sum(map(Fraction, parts.values())) == Fraction(total)
    for name, part in parts.items():
        assert abs(Fraction(part) - Fraction(total) * Fraction(shares[name]) / whole) < Fraction(1, 100)
        assert part * total >= 0
        assert part == 0 or shares[name] > 0
        assert not str(part).startswith("-0.00")


@settings(deadline=None)
@given(whole_cents, weights)
def test_apportioning_does_not_depend_on_the_order_of_the_weights(total, shares):
    """The same weights in another order give the same parts."""
    assert money.apportion(total, shares) == money.apportion(total, dict(reversed(shares.items())))


@settings(deadline=None)
@given(whole_cents, weights)
def test_a_credit_is_apportioned_like_a_charge(total, shares):
    """The parts of -x are those of x with their sign turned."""
    charge, credit = money.apportion(total, shares), money.apportion(-total, shares)
    assert {name: -part for name, part in charge.items()} == credit


# footing


def test_a_column_foots():
    """Three thirds of a cent make one cent, which stands in the first row of equals."""
    third = Decimal("0.003333333334")
    assert [str(printed) for printed in money.footing([third, third, third])] == ["0.01", "0.00", "0.00"]


def test_an_empty_column_foots_to_nothing():
    """No rows, no cents."""
    assert money.footing([]) == []


@settings(deadline=None)
@given(st.lists(amounts, max_size=30))
def test_a_footed_column_sums_to_the_rounded_total(column):
    """Each figure is within a cent of its own, whole cents stay as they are, none changes its sign, none is -0.00."""
    printed = money.footing(column)
    with localcontext(Context(prec=60)):
        assert sum(printed, Decimal(0)) == money.cents(sum(column, Decimal(0)))
    for shown, amount_usd in zip(printed, column, strict=True):
        assert abs(Fraction(shown) - Fraction(amount_usd)) < Fraction(1, 100)
        assert Fraction(shown) * Fraction(amount_usd) >= 0
        assert amount_usd % CENT or shown == amount_usd
        assert str(shown) != "-0.00"
        assert shown.as_tuple().exponent == -2


@given(st.lists(st.decimals(-1000, 1000, places=4), min_size=1, max_size=30), st.integers(-2, 2))
def test_printed_column_adds_up_to_a_given_total(column, off):
    """A printed column adds up to its total, also where that is printed a few cents from its own rounding."""
    total = sum(column, Decimal(0)).quantize(Decimal("0.01")) + off * Decimal("0.01")
    if len(column) < 4:
        total -= off * Decimal("0.01")
    printed = money.foot(column, total)
    assert sum(printed, Decimal(0)) == total
    assert all(abs(a - b) <= Decimal("0.02") for a, b in zip(column, printed, strict=True))


def test_a_walk_adds_up_from_total_to_total():
    """Steps stand between rounded totals; the cent that is missing goes to the step that was rounded furthest from it.

    A step too small for a cent is a plain zero, and steps after the last total walk too.
    """
    walk = [
        (None, "100.004"),
        ("7.795249", "107.799249"),
        ("-111.485088", "-3.685839"),
        ("-0.000161", "-3.686"),
        (None, "-3.686"),
        ("1.004", "-2.682"),
    ]
    printed = money.walk([(None if amount is None else Decimal(amount), Decimal(total)) for amount, total in walk])
    assert [(amount if amount is None else str(amount), str(total)) for amount, total in printed] == [
        (None, "100.00"),
        ("7.80", "107.80"),
        ("-111.49", "-3.69"),
        ("0.00", "-3.69"),
        (None, "-3.69"),
        ("1.01", "-2.68"),
    ]
