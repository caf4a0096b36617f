"""Every view of schema ``report`` as a file, for other people's tools."""

from collections.abc import Callable
from pathlib import Path

import duckdb

from reconcile.export.files import copy_csv, copy_parquet

Copy = Callable[[duckdb.DuckDBPyConnection, str, Path], None]


def views(connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """The names of the views in schema ``report``."""
    found = connection.execute(
        "select view_name from duckdb_views() where schema_name = 'report' and not internal order by view_name"
    )
    return tuple(view for (view,) in found.fetchall())


def view_columns(connection: duckdb.DuckDBPyConnection, view: str) -> frozenset[str]:
    """The columns of a view in schema ``report``; none where this ledger has no such view."""
    if view not in views(connection):
        return frozenset()
    return frozenset(name for name, *_ in connection.execute(f'describe report."{view}"').fetchall())


def write_views(connection: duckdb.DuckDBPyConnection, folder: Path, *, parquet: bool) -> tuple[Path, ...]:
    """Write each view, in its order, to ``folder``; the paths, by name."""
    copy: Copy = copy_parquet if parquet else copy_csv
    written = []
    for view in views(connection):
        target = folder / f"{view}.{'parquet' if parquet else 'csv'}"
        copy(connection, f'report."{view}"', target)
        written.append(target)
    return tuple(written)
