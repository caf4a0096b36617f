"""The DuckDB ledger: how it is opened, how a stage's SQL runs in it, how a revision is published."""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from filecmp import cmp
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from reconcile.errors import ConfigError, InvariantError, SourceError
from reconcile.period import Period

SCHEMAS = ("source", "matched", "explained", "allocated", "report", "checks")
MEMORY_LIMIT = "2GB"
"""What a run may hold in memory; what is larger spills to ``temp_directory``, exactly."""

_FULL = os.strerror(errno.ENOSPC)
"""What DuckDB's errors of every kind (a failed commit, a failed checkpoint) hold when the disk is full."""

_REVISION = re.compile(r"(\d{4}-\d{2})\.r([1-9]\d*)\.duckdb")


# Opening ------------------------------------------------------------------------------------------------------------


@contextmanager
def building(path: Path, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A new, empty ledger with its schemas, to be filled by the stages; ``scratch`` takes what spills.

    Leaves one whole file that needs no write-ahead log, or nothing where the body fails.
    Raises ``ConfigError`` when disk or memory do not suffice.
    """
    _discard(path)
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        connection = duckdb.connect(
            str(path),
            config={
                "memory_limit": MEMORY_LIMIT,
                "temp_directory": str(scratch),
                "preserve_insertion_order": "false",
                "autoinstall_known_extensions": "false",
            },
        )
        try:
            with _interruptible():
                prepare(connection)
                yield connection
                connection.execute("checkpoint")
        finally:
            connection.close()
    except duckdb.Error as error:
        _discard(path)
        if not isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException) and _FULL not in str(error):
            raise
        raise ConfigError(
            str(path),
            f"cannot be built ({_first_line(error)})",
            f"Make room on the disk of data_dir; a run takes up to {MEMORY_LIMIT} of memory",
        ) from None
    except BaseException:
        _discard(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A published ledger, read-only: any number of readers at a time, and a close beside them.

    Raises ``SourceError`` while another program has it open for writing, ``InvariantError`` when it is no ledger.
    """
    try:
        connection = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        said = _first_line(error)
        if "lock" in said:
            raise SourceError(
                str(path), "another program has it open for writing, expected read-only", "Close it there"
            ) from None
        raise InvariantError(
            str(path), f"cannot be opened as a ledger ({said})", "Something changed it: restore it from a backup"
        ) from None
    try:
        with _interruptible():
            connection.execute("set TimeZone = 'UTC'")
            connection.execute("set enable_progress_bar = false")
            yield connection
    finally:
        connection.close()


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Set what every connection of a run relies on, and create the schemas."""
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_progress_bar = false")  # DuckDB prints it where it takes the program for a session
    for schema in SCHEMAS:
        connection.execute(f"create schema if not exists {schema}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is one, also where it comes in the middle of a query: DuckDB tells it as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise


def _discard(path: Path) -> None:
    """Remove a ledger that was never published, with its write-ahead log."""
    for left_over in (path, path.with_name(f"{path.name}.wal")):
        left_over.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# Reading and writing ------------------------------------------------------------------------------------------------


def run_sql(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Run ``reconcile/sql/<name>.sql`` as one script; its parameters stand in ``source.run``."""
    connection.execute(files("reconcile").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8"))


def rows(connection: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
    """A query's rows by column name; decimals stay ``Decimal``."""
    cursor = connection.execute(query, list(parameters))
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], values: Iterable[Sequence[object]]
) -> None:
    """Create ``table`` with typed ``columns`` and fill it. For small tables: each row passes through Python."""
    spelled = ", ".join(f'"{name}" {column}' for name, column in columns.items())
    kind = "temp table" if table.startswith("temp.") else "table"
    connection.execute(f"create or replace {kind} {table} ({spelled})")
    held = [tuple(row) for row in values]
    width = max(1, 20_000 // len(columns))
    for start in range(0, len(held), width):
        batch = held[start : start + width]
        slots = ", ".join(["(" + ", ".join("?" * len(columns)) + ")"] * len(batch))
        connection.execute(f"insert into {table} values {slots}", [value for row in batch for value in row])


def views(connection: duckdb.DuckDBPyConnection, schema: str = "report") -> tuple[str, ...]:
    """The names of the views in a schema, in their order."""
    found = connection.execute(
        "select view_name from duckdb_views() where schema_name = ? and not internal order by view_name", [schema]
    )
    return tuple(view for (view,) in found.fetchall())


def copy_csv(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    r"""Write a query's rows as CSV, exact: decimals in full, NULL empty (a text ``""``), UTF-8, ``\n``, a header.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; numbers never do.
    DuckDB writes it, so that no amount passes through Python. The file is its owner's alone.
    """
    selected = []
    for name, kind, *_ in connection.execute(f"describe {query}").fetchall():
        if kind == "VARCHAR":
            guarded = f"""if(regexp_matches("{name}", '^[=+@\\t\\r-]'), '''' || "{name}", "{name}")"""
            selected.append(f'{guarded} as "{name}"')
        elif kind == "TIMESTAMP":
            selected.append(f"""strftime("{name}", '%Y-%m-%dT%H:%M:%SZ') as "{name}\"""")
        else:
            selected.append(f'"{name}"')
    _copy(connection, f"select {', '.join(selected)} from ({query})", target, "format csv, header")


def copy_parquet(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    """Write a query's rows as Parquet: amounts stay decimals, quantities BIGINT, texts as they are."""
    _copy(connection, query, target, "format parquet, compression zstd")


def _copy(connection: duckdb.DuckDBPyConnection, query: str, target: Path, how: str) -> None:
    """Let DuckDB write a query's rows to a file."""
    path = str(target).replace("'", "''")
    connection.execute(f"copy ({query}) to '{path}' ({how})")
    target.chmod(0o600)


def check(connection: duckdb.DuckDBPyConnection) -> None:
    """Look at every view in schema ``checks``: empty means fine, its rows are the evidence.

    Raises ``InvariantError`` with the first rows of the first violation.
    """
    for view in views(connection, "checks"):
        offenders = rows(connection, f'select * from checks."{view}" limit 3')
        if offenders:
            shown = "; ".join(", ".join(f"{key}={value}" for key, value in row.items()) for row in offenders)
            raise InvariantError(
                f"checks.{view}",
                f"expected no rows, got {shown}",
                "Nothing was published. Keep the raw folder and the logs, and report this as a bug",
            )


# Revisions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revision:
    """One immutable result of closing a period."""

    number: int
    path: Path


@dataclass(frozen=True)
class Shelf:
    """The folder of published revisions.

    ``<period>.r<N>.duckdb`` is a revision as soon as it has that name, the newest is the one that counts.
    ``<period>.duckdb`` is a hard link to it, for people; it follows, also after a crash in between.
    """

    folder: Path

    def link(self, period: Period) -> Path:
        """Where people find the newest revision of a period."""
        return self.folder / f"{period}.duckdb"

    def newest(self, period: Period) -> Revision | None:
        """The newest revision of a period, None when there is none."""
        return next(reversed(self.revisions(period)), None)

    def revisions(self, period: Period) -> list[Revision]:
        """Every revision of a period, oldest first."""
        found = (_REVISION.fullmatch(path.name) for path in self.folder.glob(f"{period}.r*.duckdb"))
        return [self._revision(period, number) for number in sorted(int(match[2]) for match in found if match)]

    def periods(self) -> list[Period]:
        """Every period with a revision, in order."""
        found = (_REVISION.fullmatch(path.name) for path in self.folder.glob("*.duckdb"))
        return sorted({Period.parse(match[1]) for match in found if match})

    def aside(self, period: Period) -> Path:
        """Where a revision is built before it is published."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{period}.building"

    def publish(self, period: Period, number: int) -> Revision:
        """Give the file that was built aside its name, then let the link follow; on the disk at every step."""
        revision = self._revision(period, number)
        built = self.aside(period)
        built.chmod(0o600)
        sync(built)
        built.rename(revision.path)
        sync(self.folder)
        self.follow(period)
        return revision

    def follow(self, period: Period) -> None:
        """Swap the link to the newest revision, atomically; a copy where the disk knows no hard links."""
        newest, link = self.newest(period), self.link(period)
        if newest is None or (link.exists() and (link.samefile(newest.path) or cmp(link, newest.path, shallow=False))):
            return
        aside = self.folder / f"{period}.link"
        aside.unlink(missing_ok=True)
        _link(newest.path, aside)
        aside.replace(link)
        sync(self.folder)

    def tidy(self) -> None:
        """Remove what a run that was cut off left behind, and let every link follow. Not while another run builds."""
        for pattern in ("*.building", "*.building.wal", "*.link"):
            for left_over in self.folder.glob(pattern):
                left_over.unlink()
        for period in self.periods():
            self.follow(period)

    def _revision(self, period: Period, number: int) -> Revision:
        return Revision(number, self.folder / f"{period}.r{number}.duckdb")


def _link(source: Path, link: Path) -> None:
    """Give a file a second name; a copy of it where the disk knows no hard links."""
    try:
        os.link(source, link)
    except OSError:
        shutil.copyfile(source, link)
        link.chmod(0o600)
        sync(link)


def sync(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
