"""Every view of schema ``report`` as a file, for other people's tools."""

from pathlib import Path

import duckdb

from reconcile import ledger
from reconcile.export.files import whole


def view_columns(connection: duckdb.DuckDBPyConnection, view: str) -> frozenset[str]:
    """The columns of a view in schema ``report``; none where this ledger has no such view."""
    if view not in ledger.views(connection):
        return frozenset()
    return frozenset(name for name, *_ in connection.execute(f'describe report."{view}"').fetchall())


def write_views(connection: duckdb.DuckDBPyConnection, folder: Path, *, parquet: bool) -> tuple[Path, ...]:
    """Write each view, in its order, to ``folder``; the paths, by name."""
    copy = ledger.copy_parquet if parquet else ledger.copy_csv
    written = []
    for view in ledger.views(connection):
        target = folder / f"{view}.{'parquet' if parquet else 'csv'}"
        with whole(target) as aside:
            copy(connection, f'from report."{view}"', aside)
        written.append(target)
    return tuple(written)
