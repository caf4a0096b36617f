"""Request logs for tests: stage load alone, over files that a test writes."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from month import PERIOD, write_pull

from reconcile import ledger, load
from reconcile.config import RequestLog
from reconcile.prices import PriceBook


def log_of(folder: Path, path: str = "log*", **settings: Any) -> RequestLog:
    """A configured log over files in ``folder``; it keeps the label team unless told otherwise."""
    return RequestLog(**({"name": "app", "path": str(folder / path), "labels": ["team"]} | settings))


def jsonl(lines: Iterable[Mapping[str, Any] | str]) -> str:
    """Lines of a JSONL file; a text stands as it is."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)


def describe_run(connection: duckdb.DuckDBPyConnection) -> None:
    """What stage load takes of the run: the whole period."""
    connection.execute(f"""
        create table source.run as
        select '{PERIOD}' as period, date '{PERIOD.start_on}' as start_on, date '{PERIOD.end_on}' as end_on,
            date '2026-10-31' as through_on, 'auto' as amounts
    """)


@contextmanager
def loaded(folder: Path, logs: Sequence[RequestLog] = (), **directory: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """The ledger after stage load; ``directory`` may give workspaces and api_keys."""
    if not (folder / "raw").exists():
        write_pull(folder / "raw", [], [], **directory)
    with ledger.building(folder / "built.duckdb", folder / "scratch") as connection:
        describe_run(connection)
        load.load_pages(connection, load.Pull.read(folder / "raw"))
        load.load_logs(
            connection, load.find_logs(logs or [log_of(folder)], PERIOD), PriceBook.read([]), PERIOD, "auto",
            lambda what, done, total: None,
        )  # fmt: skip
        ledger.check(connection)
        yield connection


def rejected(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int, str]]:
    """What could not be read: file, line, why."""
    return connection.execute("select file, line, why from source.rejected order by file, line, why").fetchall()


def requests(connection: duckdb.DuckDBPyConnection, columns: str = "request_id") -> list[tuple[Any, ...]]:
    """These columns of the kept requests, in order."""
    return connection.execute(f"select {columns} from source.request order by all").fetchall()
