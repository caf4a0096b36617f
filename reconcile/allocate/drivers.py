"""Weights of a driver's file, day by day: where each holds, where none does, where two would."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise

from reconcile.config import Driver, DriverRow


@dataclass(frozen=True)
class Span:
    """A receiver's weight from a day, inclusive, until a day, exclusive (None: without an end)."""

    receiver: str
    weight: Decimal
    from_on: date
    until_on: date | None


def weights(driver: Driver) -> Iterator[Span]:
    """Every weight with the days on which it holds: where two rows of a receiver would, the later one counts."""
    for receiver, rows in _by_receiver(driver).items():
        for row, next_on in zip(rows, [*(after.from_on for after in rows[1:]), None], strict=True):
            until_on = min((day for day in (row.until_on, next_on) if day is not None), default=None)
            if until_on is None or row.from_on < until_on:
                yield Span(receiver, row.weight, row.from_on, until_on)


def overlaps(driver: Driver) -> Iterator[str]:
    """A sentence for each row that a later one of the same receiver cuts short."""
    for receiver, rows in _by_receiver(driver).items():
        for row, after in pairwise(rows):
            if row.from_on == after.from_on:
                yield (
                    f"{driver.name}:{after.line}: {receiver} has a weight from {after.from_on} in line {row.line} too,"
                    f" {after.weight} counts"
                )
            elif row.until_on is not None and row.until_on > after.from_on:
                yield (
                    f"{driver.name}:{after.line}: {receiver} from {after.from_on} overlaps line {row.line}, which holds"
                    f" until {row.until_on}; from {after.from_on} the weight is {after.weight}"
                )


def gaps(driver: Driver, start_on: date, end_on: date) -> Iterator[str]:
    """A sentence for each time in the period in which a receiver of the file has no weight before it has one again."""
    for receiver, rows in _by_receiver(driver).items():
        held_until: date | None = start_on if rows[0].from_on < end_on else None  # one that is yet to come
        for row in rows:
            begin, end = max(held_until or start_on, start_on), min(row.from_on, end_on)
            if held_until is not None and begin < end:
                yield (
                    f"{driver.name}:{row.line}: {receiver} has no weight from {begin} until {end},"
                    " and takes no part on those days"
                )
            held_until = row.until_on


def _by_receiver(driver: Driver) -> dict[str, list[DriverRow]]:
    """Each receiver's rows by day, then in the file's order."""
    held: dict[str, list[DriverRow]] = {}
    for row in sorted(driver.rows, key=lambda row: (row.cost_center, row.from_on, row.line)):
        held.setdefault(row.cost_center, []).append(row)
    return held
