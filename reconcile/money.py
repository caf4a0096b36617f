"""Exact amounts: parsing, rounding to the cent, and splitting without losing any of it."""

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext

from reconcile.errors import SourceError

SCALE = Decimal("0.000000000001")
"""The ledger's smallest unit of an amount: DECIMAL(38, 12)."""

_EXACT = Context(prec=76)
_CENT = Decimal("0.01")
_LARGEST_USD = Decimal("1e12")
_AMOUNT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)


def usd_from_cents(cents: str) -> Decimal:
    """The cost report's amount in USD, exact.

    ``cents`` is a decimal string in cents of any length ("123.45" is $1.2345).
    Raises ``SourceError`` for anything that is not a finite decimal written in ASCII, or is too large for an amount
    of money.
    Source: Usage & Cost Admin API, cost_report, `amount`.
    """
    if isinstance(cents, str) and _AMOUNT.fullmatch(cents):
        sign, digits, exponent = Decimal(cents).as_tuple()
        amount_usd = Decimal((sign, digits, int(exponent) - 2))  # moves the point: arithmetic would round a long amount
        if amount_usd.copy_abs() <= _LARGEST_USD:
            return amount_usd or amount_usd.copy_abs()
    raise SourceError(
        "cost_report: amount",
        f"got {cents!r}, expected a decimal string in cents",
        "Keep the raw page and report it: the amount cannot be booked",
    )


def cents(amount_usd: Decimal) -> Decimal:
    """An amount rounded to the cent, half away from zero: the only place where the code rounds money."""
    return _rounded(amount_usd, _CENT)


def at_scale(amount_usd: Decimal) -> Decimal:
    """An amount at the ledger's twelve decimals, half away from zero, as DuckDB casts it."""
    return _rounded(amount_usd, SCALE)


def _rounded(amount_usd: Decimal, unit: Decimal) -> Decimal:
    with localcontext(_EXACT):
        return amount_usd.quantize(unit, rounding=ROUND_HALF_UP) + 0  # -0.00 is shown as 0.00


def apportion(total: Decimal, weights: Mapping[str, Decimal], unit: Decimal = _CENT) -> dict[str, Decimal]:
    """Split ``total`` in whole ``unit``s in proportion to ``weights``, by largest remainder.

    The parts sum to ``total`` exactly, which must be a multiple of ``unit``; no part has another sign than the
    total. Ties go to the name that sorts first. Raises ``ValueError`` for no weight, a negative one, or a sum of 0.
    """
    with localcontext(_EXACT):
        weight_sum = sum(weights.values(), Decimal(0))
        if weight_sum <= 0 or any(weight < 0 for weight in weights.values()):
            raise ValueError(f"weights must be positive and not all zero, got {dict(weights)}")
        units, rest = divmod(abs(total), unit)
        if rest:
            raise ValueError(f"{total} is not a multiple of {unit}")
        quotas = {name: divmod(units * weight, weight_sum) for name, weight in weights.items()}
        left = int(units - sum((whole for whole, _ in quotas.values()), Decimal(0)))
        first = sorted(quotas, key=lambda name: (-quotas[name][1], name))[:left]
        sign = -1 if total < 0 else 1
        return {name: sign * unit * (whole + (name in first)) + 0 for name, (whole, _) in quotas.items()}


def footing(amounts: Sequence[Decimal]) -> list[Decimal]:
    """A column of amounts as cents that add up to their rounded total, by largest remainder.

    Each stays within a cent of its own value. Equal remainders go to the one that comes first.
    """
    with localcontext(_EXACT):
        total = cents(sum(amounts, Decimal(0)))
        floors = [(amount / _CENT).to_integral_value(rounding="ROUND_FLOOR") * _CENT for amount in amounts]
        left = int((total - sum(floors, Decimal(0))) / _CENT)
        order = sorted(range(len(amounts)), key=lambda i: (floors[i] - amounts[i], i))[:left]
        chosen = set(order)
        return [floor + (_CENT if i in chosen else 0) for i, floor in enumerate(floors)]


def foot(amounts: Sequence[Decimal], total_usd: Decimal) -> list[Decimal]:
    """A column of amounts in cents that adds up to a total that is printed elsewhere.

    The total is in cents and within a few cents of the exact sum: where it is not the rounded sum itself, the
    amounts that were rounded furthest the other way give or take the missing cents, zeros last.
    """
    printed = footing(amounts)
    missing = total_usd - sum(printed, Decimal(0))
    step = _CENT if missing > 0 else -_CENT
    order = sorted(range(len(printed)), key=lambda i: (-(amounts[i] - printed[i]) * step, -abs(amounts[i]), i))
    for i in order[: abs(int(missing / _CENT))]:
        printed[i] += step
    return printed


def walk(steps: Sequence[tuple[Decimal | None, Decimal]]) -> list[tuple[Decimal | None, Decimal]]:
    """A bridge in cents: totals rounded, the steps between two of them adding up to what lies between.

    Each is an amount and the running total after it; a total has no amount.
    """
    printed: list[tuple[Decimal | None, Decimal]] = []
    waiting: list[Decimal] = []
    before_usd = Decimal("0.00")
    for place, (amount_usd, running_usd) in enumerate(steps, start=1):
        if amount_usd is not None:
            waiting.append(amount_usd)
        if amount_usd is None or place == len(steps):
            after_usd = cents(running_usd)
            for step_usd in foot(waiting, after_usd - before_usd):
                before_usd += step_usd
                printed.append((step_usd, before_usd))
            if amount_usd is None:
                printed.append((None, after_usd))
            waiting, before_usd = [], after_usd
    return printed
