"""The layouts in which accounting systems take a journal: headings, how days and amounts are written, encoding.

generic      our own columns, or those of `journal.columns`
netsuite     CSV import of journal entries: one file, lines of an entry share the External ID
quickbooks   QuickBooks Online's import of journal entries: lines of an entry share the JournalNo
xero         Xero's template for manual journals: debits positive, credits negative
datev        DATEV-Format, posting batch (EXTF 700, category 21, version 13): a line is a posting with both its accounts
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby

from reconcile import money
from reconcile.config import Datev, Journal
from reconcile.errors import ConfigError
from reconcile.export.files import harmless
from reconcile.export.journal import Book, Line, Posting, entry_lines

_DAYS = {"YYYY-MM-DD": "%Y-%m-%d", "MM/DD/YYYY": "%m/%d/%Y", "DD/MM/YYYY": "%d/%m/%Y"}


@dataclass(frozen=True)
class Laid:
    """One file of a journal."""

    name: str
    content: bytes


def lay_out(book: Book, journal: Journal, data_refreshed_at: datetime) -> tuple[Laid, ...]:
    """The journal as the files of its template. Raises ``ConfigError`` for what the template cannot say."""
    if journal.template == "datev":
        return tuple(_datev(book, journal.datev, data_refreshed_at))
    rows = _TEMPLATES[journal.template](book, entry_lines(book.postings), journal)
    return (Laid(f"{book.period}-journal-{journal.template}.csv", _csv(rows)),)


def _csv(rows: Iterable[Sequence[str | Decimal | int]]) -> bytes:
    """Rows as CSV; texts are made harmless, an amount of 0.00 is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    for row in rows:
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell or "" for cell in row])
    return stream.getvalue().encode()


def _day(posted_on: date, journal: Journal, default: str) -> str:
    return posted_on.strftime(_DAYS[journal.day_format or default])


# Lines ---------------------------------------------------------------------------------------------------------------

_Row = Sequence[str | Decimal | int]


def _generic(book: Book, lines: Sequence[Line], journal: Journal) -> Iterable[_Row]:
    fields: dict[str, Callable[[Line], str | Decimal | int]] = {
        "entry": lambda line: line.entry,
        "kind": lambda line: line.kind,
        "date": lambda line: _day(line.posted_on, journal, "YYYY-MM-DD"),
        "line": lambda line: line.number,
        "account": lambda line: line.account,
        "cost_center": lambda line: line.cost_center,
        "name": lambda line: line.name,
        "debit_usd": lambda line: line.debit_usd,
        "credit_usd": lambda line: line.credit_usd,
        "signed_usd": lambda line: line.signed_usd,
        "currency": lambda _: "USD",
        "memo": lambda line: line.memo,
        "period": lambda _: book.period,
        "revision": lambda _: book.revision,
    }
    chosen: dict[str, str] = dict(journal.columns) or {name: name for name in fields}
    yield list(chosen)
    yield from ([fields[field](line) for field in chosen.values()] for line in lines)


def _netsuite(_book: Book, lines: Sequence[Line], journal: Journal) -> Iterable[_Row]:
    subsidiary = journal.netsuite.subsidiary
    of_entry = ["External ID", "Date", *(["Subsidiary"] if subsidiary else []), "Currency", "Memo"]
    yield [*of_entry, "Account", "Debit", "Credit", "Line Memo", "Department"]
    for line in lines:
        day = _day(line.posted_on, journal, "MM/DD/YYYY")
        head = [line.entry, day, *([subsidiary] if subsidiary else []), "USD", line.memo]
        yield [*head, line.account, line.debit_usd, line.credit_usd, line.name, line.cost_center]


def _quickbooks(_book: Book, lines: Sequence[Line], journal: Journal) -> Iterable[_Row]:
    yield ["JournalNo", "JournalDate", "AccountName", "Debits", "Credits", "Description", "Class", "Currency"]
    for line in lines:
        day = _day(line.posted_on, journal, "MM/DD/YYYY")
        yield [line.entry, day, line.account, line.debit_usd, line.credit_usd, line.memo, line.cost_center, "USD"]


def _xero(_book: Book, lines: Sequence[Line], journal: Journal) -> Iterable[_Row]:
    of_line = ["*Narration", "*Date", "Description", "*AccountCode", "*TaxRate", "*Amount"]
    yield [*of_line, "TrackingName1", "TrackingOption1", "TrackingName2", "TrackingOption2"]
    for line in lines:
        day = _day(line.posted_on, journal, "DD/MM/YYYY")
        tracked = [journal.xero.tracking, line.cost_center] if line.cost_center else ["", ""]
        said = [f"{line.entry} {line.memo}", day, line.name, line.account, journal.xero.tax_rate]
        yield [*said, line.signed_usd, *tracked, "", ""]


_TEMPLATES = {"generic": _generic, "netsuite": _netsuite, "quickbooks": _quickbooks, "xero": _xero}


# DATEV ---------------------------------------------------------------------------------------------------------------

_AMOUNT, _SIDE, _CURRENCY, _RATE, _BASE_AMOUNT, _BASE_CURRENCY, _ACCOUNT, _CONTRA = range(8)
_DAY, _DOCUMENT, _MEMO, _COST_CENTER, _FINAL = 9, 10, 13, 36, 113

_COLUMNS = (
    *(
        "Umsatz (ohne Soll/Haben-Kz)",
        "Soll/Haben-Kennzeichen",
        "WKZ Umsatz",
        "Kurs",
        "Basis-Umsatz",
        "WKZ Basis-Umsatz",
    ),
    *("Konto", "Gegenkonto (ohne BU-Schlüssel)", "BU-Schlüssel", "Belegdatum", "Belegfeld 1", "Belegfeld 2", "Skonto"),
    *("Buchungstext", "Postensperre", "Diverse Adressnummer", "Geschäftspartnerbank", "Sachverhalt", "Zinssperre"),
    "Beleglink",
    *(f"Beleginfo - {part} {number}" for number in range(1, 9) for part in ("Art", "Inhalt")),
    *("KOST1 - Kostenstelle", "KOST2 - Kostenstelle", "Kost-Menge", "EU-Land u. UStID (Bestimmung)"),
    *("EU-Steuersatz (Bestimmung)", "Abw. Versteuerungsart", "Sachverhalt L+L", "Funktionsergänzung L+L"),
    *("BU 49 Hauptfunktionstyp", "BU 49 Hauptfunktionsnummer", "BU 49 Funktionsergänzung"),
    *(f"Zusatzinformation{part} {number}" for number in range(1, 21) for part in (" - Art", "- Inhalt")),
    *("Stück", "Gewicht", "Zahlweise", "Forderungsart", "Veranlagungsjahr", "Zugeordnete Fälligkeit", "Skontotyp"),
    *("Auftragsnummer", "Buchungstyp", "USt-Schlüssel (Anzahlungen)", "EU-Land (Anzahlungen)"),
    *("Sachverhalt L+L (Anzahlungen)", "EU-Steuersatz (Anzahlungen)", "Erlöskonto (Anzahlungen)", "Herkunft-Kz"),
    *("Buchungs GUID", "KOST-Datum", "SEPA-Mandatsreferenz", "Skontosperre", "Gesellschaftername", "Beteiligtennummer"),
    *("Identifikationsnummer", "Zeichnernummer", "Postensperre bis", "Bezeichnung SoBil-Sachverhalt"),
    *("Kennzeichen SoBil-Buchung", "Festschreibung", "Leistungsdatum", "Datum Zuord. Steuerperiode", "Fälligkeit"),
    *("Generalumkehr (GU)", "Steuersatz", "Land", "Abrechnungsreferenz", "BVV-Position"),
    *("EU-Land u. UStID (Ursprung)", "EU-Steuersatz (Ursprung)", "Abw. Skontokonto"),
)
"""The headings of a posting batch of version 13, which are read by their place."""

_QUOTED = frozenset(
    {
        2,
        3,
        6,
        9,
        11,
        12,
        14,
        16,
        20,
        *range(21, 39),
        40,
        42,
        *range(48, 88),
        91,
        95,
        96,
        98,
        102,
        103,
        105,
        107,
        109,
        110,
    }
    | {112, 118, 120, 121, 123}
)
_QUOTED_HEADER = frozenset({1, 4, 8, 9, 10, 17, 18, 22, 24, 27, 30, 31})
"""Places, counted from 1, of texts: they are always quoted, numbers never."""

_LARGEST = Decimal("9999999999.99")
_KURS = re.compile(r"[1-9]\d{0,3},\d{2,6}")


def _datev(book: Book, datev: Datev, data_refreshed_at: datetime) -> Iterable[Laid]:
    """One batch a booking month: an accrual's reversal is in the next one."""
    rate = _rate(datev)
    for month_on, found in groupby(book.postings, key=lambda posting: posting.posted_on.replace(day=1)):
        postings = list(found)
        last_on = max(posting.posted_on for posting in postings)
        lines = [
            _quoted(_header(datev, month_on, last_on, data_refreshed_at), _QUOTED_HEADER),
            ";".join(_COLUMNS),
            *(_quoted(_batch_line(posting, datev, rate), _QUOTED) for posting in postings),
        ]
        content = "".join(f"{line}\r\n" for line in lines).encode("cp1252", errors="replace")
        yield Laid(f"EXTF_Buchungsstapel_{month_on:%Y-%m}_{book.period}.csv", content)


def _rate(datev: Datev) -> str:
    """USD for one unit of the books' currency as DATEV writes it; empty where the books are in USD."""
    if datev.currency == "USD":
        return ""
    if datev.usd_rate is None:
        raise ConfigError(
            "journal.datev.usd_rate",
            f"is missing, the books are in {datev.currency} and the bill is in USD",
            "Write the month's rate: USD for one unit of the books' currency",
        )
    whole, _, decimals = f"{datev.usd_rate:f}".partition(".")
    written = f"{whole},{decimals.rstrip('0'):0<2}"
    if not _KURS.fullmatch(written):
        raise ConfigError(
            "journal.datev.usd_rate",
            f"got {datev.usd_rate}, DATEV takes a rate from 1 to 9999 with up to six decimals",
            "Correct the rate",
        )
    return written


def _header(datev: Datev, month_on: date, last_on: date, data_refreshed_at: datetime) -> list[str]:
    year = month_on.year - (month_on.month < datev.fiscal_year_starts)
    written_at = data_refreshed_at.strftime("%Y%m%d%H%M%S000")
    return [
        *("EXTF", "700", "21", "Buchungsstapel", "13", written_at, "", "RE", "reconcile", ""),
        *(str(datev.consultant), str(datev.client), f"{date(year, datev.fiscal_year_starts, 1):%Y%m%d}"),
        *(str(datev.account_length), f"{month_on:%Y%m%d}", f"{last_on:%Y%m%d}", f"Claude API {month_on:%Y-%m}", ""),
        *("1", "0", "0", datev.currency, "", "", "", "", "", "", "", "", ""),
    ]


def _batch_line(posting: Posting, datev: Datev, rate: str) -> list[str]:
    amount_usd = abs(posting.amount_usd)
    if amount_usd > _LARGEST:
        raise ConfigError(
            f"journal: {posting.cost_center}",
            f"{amount_usd} USD, DATEV takes up to {_LARGEST}",
            "Split the cost center",
        )
    line = [""] * len(_COLUMNS)
    line[_AMOUNT] = _comma(amount_usd)
    line[_SIDE] = "S" if posting.amount_usd > 0 else "H"
    line[_CURRENCY] = "USD"
    if datev.usd_rate is not None and rate:
        line[_RATE] = rate
        line[_BASE_AMOUNT] = _comma(money.cents(amount_usd / datev.usd_rate))
        line[_BASE_CURRENCY] = datev.currency
    line[_ACCOUNT] = _account(posting.account, posting.cost_center, datev)
    line[_CONTRA] = _account(posting.contra_account, "journal.credit_account", datev)
    line[_DAY] = f"{posting.posted_on:%d%m}"
    line[_DOCUMENT] = posting.entry[:36]
    line[_MEMO] = _plain(f"{posting.memo}, {posting.name}")[:60]
    line[_COST_CENTER] = _plain(posting.cost_center)[:36]
    line[_FINAL] = "0"
    return line


def _account(account: str, whose: str, datev: Datev) -> str:
    """A number of a general ledger account, or of a person's, which may be one digit longer."""
    if not re.fullmatch(r"\d{1,9}", account) or len(account) > datev.account_length + 1:
        raise ConfigError(
            f"account of {whose}",
            f"got {account!r}, DATEV takes numbers of up to {datev.account_length + 1} digits",
            "Correct the account, or journal.datev.account_length",
        )
    return account


def _comma(amount: Decimal) -> str:
    return f"{amount:.2f}".replace(".", ",")


def _plain(text: str) -> str:
    """Without control characters, which a text of DATEV may not hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _quoted(fields: Sequence[str], texts: frozenset[int]) -> str:
    return ";".join(
        '"' + field.replace('"', '""') + '"' if place in texts else field for place, field in enumerate(fields, start=1)
    )
