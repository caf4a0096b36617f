"""The period as double entry: each cost center's account against what is owed to the provider.

A posting has both its accounts, so it is balanced by itself; `entry_lines` shows the postings of an entry as the lines
that most systems take. What is booked is the chargeback, cent for cent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import groupby

import duckdb

from reconcile import ledger, money
from reconcile.config import UNALLOCATED, Config, Journal
from reconcile.errors import ConfigError, InvariantError
from reconcile.export.views import view_columns

_NAMED = {"credit_account": "provider-payable", "cost_account": "api-usage", "unallocated_account": "unallocated"}
"""What a generic journal calls an account that the config does not."""

_PREPAID = "provider-prepaid"


@dataclass(frozen=True)
class Posting:
    """One amount from account to account: positive is a debit of ``account`` and a credit of ``contra_account``."""

    entry: str
    kind: str
    posted_on: date
    account: str
    contra_account: str
    cost_center: str
    name: str
    amount_usd: Decimal
    memo: str


@dataclass(frozen=True)
class Line:
    """One side of an entry; of debit and credit one is 0.00. The contra line has no cost center."""

    entry: str
    kind: str
    posted_on: date
    number: int
    account: str
    cost_center: str
    name: str
    debit_usd: Decimal
    credit_usd: Decimal
    memo: str

    @property
    def signed_usd(self) -> Decimal:
        """Debits positive, credits negative."""
        return self.debit_usd - self.credit_usd


@dataclass(frozen=True)
class Book:
    """A period's postings, in order, with what the reader should know."""

    period: str
    revision: int
    postings: tuple[Posting, ...]
    notes: tuple[str, ...]


def read_book(connection: duckdb.DuckDBPyConnection, config: Config) -> Book:
    """The postings of a period.

    A complete month is booked on its last day: what was used (``cost``), what earlier months were corrected by
    (``correction``), what else the cost report does not hold (``other``). A month that is not over is one ``accrual``
    and its ``reversal`` on the first of the next month; where ``journal.accrue`` asks for it, an ``estimate`` of the
    days that remain stands beside it in entries of its own.
    Raises ``ConfigError`` where the template needs an account that nobody named.
    """
    run = ledger.rows(connection, "select * from report.run")[0]
    accounts = _Accounts(config, run["arrangement"])
    month = _Month(run["period"], run["revision"], run["last_on"], run["through_on"], accounts)
    payers = _payers(connection)
    if run["provisional"]:
        postings = tuple(_accrued(month, payers))
        if config.journal.accrue == "run_rate":
            postings += tuple(_estimated(month, payers))
    else:
        postings = tuple(_booked(month, payers, _corrections(connection)))
    accounts.refuse_unnamed()
    expected_usd = sum((payer.payable_usd for payer in payers), Decimal("0.00"))
    known = (posting for posting in postings if posting.kind not in {"reversal", "estimate"})
    booked_usd = sum((posting.amount_usd for posting in known), Decimal("0.00"))
    if booked_usd != expected_usd:
        raise InvariantError(
            "export journal",
            f"books {booked_usd} USD, the chargeback has {expected_usd}",
            "Nothing was written; report it",
        )
    return Book(month.period, month.revision, postings, tuple(accounts.notes()))


def entry_lines(postings: Sequence[Posting]) -> tuple[Line, ...]:
    """Every posting as the line of its account, and one line an entry and contra account for the other side.

    Within an entry, debits equal credits.
    """
    lines: list[Line] = []
    for _, entry in groupby(postings, key=lambda posting: posting.entry):
        held = list(entry)
        owed_usd: dict[str, Decimal] = {}
        for posting in held:
            owed_usd[posting.contra_account] = owed_usd.get(posting.contra_account, Decimal(0)) + posting.amount_usd
        contra = [
            replace(held[0], account=account, cost_center="", name="", amount_usd=-amount_usd)
            for account, amount_usd in owed_usd.items()
        ]
        sides = [posting for posting in (*held, *contra) if posting.amount_usd]
        lines += [_line(number, posting) for number, posting in enumerate(sides, start=1)]
    return tuple(lines)


def _line(number: int, posting: Posting) -> Line:
    zero = Decimal("0.00")
    return Line(
        entry=posting.entry,
        kind=posting.kind,
        posted_on=posting.posted_on,
        number=number,
        account=posting.account,
        cost_center=posting.cost_center,
        name=posting.name,
        debit_usd=max(posting.amount_usd, zero),
        credit_usd=max(-posting.amount_usd, zero),
        memo=posting.memo,
    )


# What is booked ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Payer:
    """A row of the chargeback, with the account that the month was closed with."""

    cost_center: str
    name: str
    account: str | None
    total_usd: Decimal
    other_usd: Decimal

    @property
    def payable_usd(self) -> Decimal:
        return self.total_usd + self.other_usd


@dataclass(frozen=True)
class _Correction:
    """What a cost center gets or gives for an earlier month."""

    period_of_charge: str
    cost_center: str
    amount_usd: Decimal


@dataclass(frozen=True)
class _Month:
    """The period that is booked."""

    period: str
    revision: int
    last_on: date
    through_on: date
    accounts: "_Accounts"

    def posting(self, kind: str, payer: _Payer, amount_usd: Decimal, memo: str) -> Posting:
        """A posting on the month's last day."""
        return Posting(
            entry=f"{self.period}-r{self.revision}" + ("" if kind == "cost" else f"-{kind}"),
            kind=kind,
            posted_on=self.last_on,
            account=self.accounts.of(payer.cost_center, payer.account),
            contra_account=self.accounts.contra(),
            cost_center=payer.cost_center,
            name=payer.name,
            amount_usd=amount_usd,
            memo=memo,
        )


def _payers(connection: duckdb.DuckDBPyConnection) -> tuple[_Payer, ...]:
    found = connection.execute(
        """
        select
            chargeback.cost_center, coalesce(chargeback.name, chargeback.cost_center), cost_center.account,
            chargeback.total_usd, chargeback.other_usd,
        from report.chargeback as chargeback
        left join allocated.cost_center as cost_center on cost_center.cost_center = chargeback.cost_center
        order by chargeback.cost_center = 'unallocated', chargeback.cost_center
        """
    )
    return tuple(_Payer(*row) for row in found.fetchall())


def _corrections(connection: duckdb.DuckDBPyConnection) -> tuple[_Correction, ...]:
    """By month and cost center, in cents; none in a ledger without the view."""
    if not view_columns(connection, "restatement_part"):
        return ()
    found = connection.execute(
        """
        select period_of_charge, cost_center, sum(amount_usd)::decimal(38, 12)
        from report.restatement_part
        group by all
        order by all
        """
    )
    return tuple(_Correction(month, center, money.cents(amount_usd)) for month, center, amount_usd in found.fetchall())


def _footed(payer: _Payer, corrections: Sequence[_Correction]) -> list[_Correction]:
    """A payer's corrections, so that the cents that they were rounded by are no entry of their own."""
    own = [correction for correction in corrections if correction.cost_center == payer.cost_center]
    rest_usd = payer.other_usd - sum((correction.amount_usd for correction in own), Decimal(0))
    if own and abs(rest_usd) <= len(own) * Decimal("0.01"):
        own[-1] = replace(own[-1], amount_usd=own[-1].amount_usd + rest_usd)
    return own


def _booked(month: _Month, payers: Sequence[_Payer], corrections: Sequence[_Correction]) -> Iterator[Posting]:
    known = {payer.cost_center: payer for payer in payers}
    for payer in payers:
        if payer.total_usd:
            yield month.posting("cost", payer, payer.total_usd, f"Claude API {month.period}")
    other_usd = {payer.cost_center: payer.other_usd for payer in payers}
    footed = [correction for payer in payers for correction in _footed(payer, corrections)]
    strangers = [correction for correction in corrections if correction.cost_center not in known]
    for correction in (*footed, *strangers):
        center = correction.cost_center
        other_usd[center] = other_usd.get(center, Decimal(0)) - correction.amount_usd
        payer = known.get(center) or _Payer(center, center, None, Decimal(0), Decimal(0))
        if correction.amount_usd:
            memo = f"Claude API, correction of {correction.period_of_charge}"
            yield month.posting("correction", payer, correction.amount_usd, memo)
    for payer in payers:
        if other_usd[payer.cost_center]:
            memo = f"Claude API {month.period}, outside the cost report"
            yield month.posting("other", payer, other_usd[payer.cost_center], memo)


def _accrued(month: _Month, payers: Sequence[_Payer]) -> Iterator[Posting]:
    """What is known of a month that is not over, booked at its end and taken back on the day after."""
    what = f"Claude API {month.period} through {month.through_on}"
    accrual = [
        month.posting("accrual", payer, payer.payable_usd, f"Accrual, {what}") for payer in payers if payer.payable_usd
    ]
    yield from _with_reversal(month, accrual, "reversal", f"Reversal of accrual, {what}")


def _estimated(month: _Month, payers: Sequence[_Payer]) -> Iterator[Posting]:
    """What the days that remain may cost, at the mean of the complete ones; what is not of use is not estimated."""
    complete, remaining = month.through_on.day, (month.last_on - month.through_on).days
    what = f"Claude API {month.period}, {remaining} days at the mean of {complete}"
    estimate = [
        month.posting("estimate", payer, amount_usd, f"Estimate, {what}")
        for payer in payers
        if (amount_usd := money.cents(payer.total_usd * remaining / complete))
    ]
    yield from _with_reversal(month, estimate, "estimate-reversal", f"Reversal of estimate, {what}")


def _with_reversal(month: _Month, postings: Sequence[Posting], entry: str, memo: str) -> Iterator[Posting]:
    """Postings, and what takes them back on the day after the month."""
    yield from postings
    for posting in postings:
        yield replace(
            posting,
            entry=f"{month.period}-r{month.revision}-{entry}",
            kind="reversal",
            posted_on=month.last_on + timedelta(days=1),
            amount_usd=-posting.amount_usd,
            memo=memo,
        )


class _Accounts:
    """The accounts of the config; those that it lacks have a name in a generic journal, and are refused elsewhere."""

    def __init__(self, config: Config, arrangement: str) -> None:
        self._journal: Journal = config.journal
        self._centers = config.allocation.cost_centers
        self._named = _NAMED | ({"credit_account": _PREPAID} if arrangement == "prepaid" else {})
        self._unnamed: dict[str, str] = {}

    def of(self, cost_center: str, closed_account: str | None) -> str:
        """The account of a cost center: the config's, else the one that the month was closed with."""
        if cost_center == UNALLOCATED:
            return self._journal.unallocated_account or self._name("unallocated_account", "journal.unallocated_account")
        center = self._centers.get(cost_center)
        account = (center.account if center else None) or closed_account or self._journal.cost_account
        return account or self._name("cost_account", f"allocation.cost_centers.{cost_center}.account")

    def contra(self) -> str:
        """The provider's account."""
        return self._journal.credit_account or self._name("credit_account", "journal.credit_account")

    def _name(self, key: str, where: str) -> str:
        self._unnamed[where] = self._named[key]
        return self._named[key]

    def refuse_unnamed(self) -> None:
        """Raise ``ConfigError`` for an account that is not there, unless the template is generic."""
        if self._unnamed and self._journal.template != "generic":
            where, *more = self._unnamed
            also = f"; {len(more)} more are missing: {', '.join(more)}" if more else ""
            raise ConfigError(
                where, f"names no account, the template {self._journal.template} needs one{also}", "Name the account"
            )

    def notes(self) -> Iterator[str]:
        """What stands in the file in place of an account."""
        yield from (f"{where} names no account: the journal says {name!r}" for where, name in self._unnamed.items())
