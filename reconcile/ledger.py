"""The DuckDB ledger: how it is opened, how a stage's SQL runs in it, how a revision is published."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from reconcile.errors import InvariantError
from reconcile.period import Period

SCHEMAS = ("source", "matched", "explained", "allocated", "report", "checks")
MEMORY_LIMIT = "2GB"
"""What a run may hold in memory; what is larger spills to ``temp_directory``, exactly."""

_REVISION = re.compile(r"\.r(\d+)\.duckdb$")


@contextmanager
def building(path: Path, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A new, empty ledger with its schemas, to be filled by the stages; ``scratch`` takes what spills."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        prepare(connection)
        yield connection
    finally:
        connection.close()


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A published ledger, read-only."""
    connection = duckdb.connect(str(path), read_only=True)
    try:
        connection.execute("set TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Set what every connection of a run relies on, and create the schemas."""
    connection.execute("set TimeZone = 'UTC'")
    for schema in SCHEMAS:
        connection.execute(f"create schema if not exists {schema}")


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


def check(connection: duckdb.DuckDBPyConnection) -> None:
    """Look at every view in schema ``checks``: empty means fine, its rows are the evidence.

    Raises ``InvariantError`` with the first rows of the first violation.
    """
    views = connection.execute(
        "select view_name from duckdb_views() where schema_name = 'checks' and not internal order by view_name"
    ).fetchall()
    for (view,) in views:
        offenders = rows(connection, f'select * from checks."{view}" limit 3')
        if offenders:
            shown = "; ".join(", ".join(f"{key}={value}" for key, value in row.items()) for row in offenders)
            raise InvariantError(
                f"checks.{view}",
                f"expected no rows, got {shown}",
                "Nothing was published. Keep the raw folder and the logs, and report this as a bug",
            )


@dataclass(frozen=True)
class Shelf:
    """The folder of published revisions: ``<period>.r<N>.duckdb``, and ``<period>.duckdb`` linked to the newest."""

    folder: Path

    def current(self, period: Period) -> Path:
        """Where the newest revision of a period is found."""
        return self.folder / f"{period}.duckdb"

    def newest_revision(self, period: Period) -> int:
        """The number of the newest revision, 0 when there is none."""
        found = (_REVISION.search(path.name) for path in self.folder.glob(f"{period}.r*.duckdb"))
        return max((int(match[1]) for match in found if match), default=0)

    def periods(self) -> list[Period]:
        """Every period with a published revision, in order."""
        return sorted(Period.parse(path.name[:7]) for path in self.folder.glob("????-??.duckdb"))

    def aside(self, period: Period) -> Path:
        """Where a revision is built before it is published."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.folder / f"{period}.building"

    def publish(self, period: Period, revision: int) -> Path:
        """Give the built file its name and swap the period's link to it, atomically."""
        built = self.aside(period)
        target = self.folder / f"{period}.r{revision}.duckdb"
        built.chmod(0o600)
        _sync(built)
        built.rename(target)
        link = self.folder / f"{period}.link"
        link.unlink(missing_ok=True)
        os.link(target, link)
        link.replace(self.current(period))
        _sync(self.folder)
        return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Register:
    """What happened to the periods, one JSON line each, append-only: every line names the SHA-256 of the one before."""

    path: Path

    def entries(self) -> list[dict[str, Any]]:
        """Every line, oldest first. Raises ``InvariantError`` where the chain is broken."""
        if not self.path.exists():
            return []
        found: list[dict[str, Any]] = []
        before = ""
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"before": "no JSON"}
            if entry.get("before") != before:
                raise InvariantError(
                    f"{self.path}:{number}",
                    f"follows a line with sha256 {before or 'none'}, says {entry.get('before') or 'none'}",
                    "Somebody changed the register: restore it from a backup",
                )
            before = sha256(line).hexdigest()
            found.append(entry)
        return found

    def append(self, event: str, **facts: object) -> None:
        """Add one line and wait until it is on the disk."""
        self.entries()
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        before = sha256(lines[-1]).hexdigest() if lines else ""
        line = json.dumps({"event": event, **facts, "before": before}, ensure_ascii=False, default=str)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
