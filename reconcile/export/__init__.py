"""Files for other systems, out of a published ledger: FOCUS, journal, workbook, CSV, Parquet.

```
focus      FOCUS Cost and Usage rows
journal    double entry, laid out by `layouts` as an accounting system takes it
workbook   one XLSX for people
views      every report view as CSV or Parquet
files      how a file is written
```

Only schema ``report`` is read, with the names, tags and accounts of what it names; the same ledger and the same
``journal:`` of the config give the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from reconcile import ledger
from reconcile.config import Config
from reconcile.export.files import whole
from reconcile.export.focus import VERSIONS, FocusOptions, write_focus
from reconcile.export.journal import read_book
from reconcile.export.layouts import lay_out
from reconcile.export.views import write_views

__all__ = ["KINDS", "VERSIONS", "Exported", "FocusOptions", "Kind", "export"]

Kind = Literal["focus", "journal", "xlsx", "csv", "parquet"]
KINDS: tuple[Kind, ...] = ("focus", "journal", "xlsx", "csv", "parquet")


@dataclass(frozen=True)
class Exported:
    """What was written, and what the reader should know about it."""

    period: str
    revision: int
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def export(
    connection: duckdb.DuckDBPyConnection,
    kind: Kind,
    out: Path,
    config: Config,
    focus: FocusOptions | None = None,
) -> Exported:
    """Write the files of one kind from a published ledger.

    ``out`` is the folder; for what is one file it may be the file's own path, told by its ending.
    Raises ``ConfigError`` for what cannot be written there or said in the layout, ``InvariantError`` where a file
    would not tie out.
    """
    run = ledger.rows(connection, "select period, revision, data_refreshed_at from report.run")[0]
    period, revision = run["period"], run["revision"]
    notes: tuple[str, ...] = ()
    if kind == "focus":
        options = focus or FocusOptions()
        name = f"{period}-focus-{options.version}.{'parquet' if options.parquet else 'csv'}"
        files: tuple[Path, ...] = (_target(out, name),)
        write_focus(connection, files[0], options, _invoice_number(config, period))
    elif kind == "journal":
        book = read_book(connection, config)
        laid = lay_out(book, config.journal, run["data_refreshed_at"])
        files = tuple(_target(out, one.name) if len(laid) == 1 else out / one.name for one in laid)
        for one, path in zip(laid, files, strict=True):
            with whole(path) as aside:
                aside.write_bytes(one.content)
        notes = book.notes
    elif kind == "xlsx":
        from reconcile.export.workbook import write_workbook  # noqa: PLC0415 - pandas is heavy

        files = (_target(out, f"{period}.xlsx"),)
        write_workbook(connection, files[0])
    else:
        files = write_views(connection, out, parquet=kind == "parquet")
    return Exported(period=period, revision=revision, files=files, notes=notes)


def _target(out: Path, name: str) -> Path:
    """``out`` itself where it ends as the file does, else the file in that folder."""
    return out if out.suffix == Path(name).suffix and not out.is_dir() else out / name


def _invoice_number(config: Config, period: str) -> str | None:
    return next((invoice.number for invoice in config.invoices if invoice.period == period), None)
