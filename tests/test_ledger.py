"""The ledger: one immutable file a revision, published atomically; what a broken check says."""

import errno
import os
import stat
import subprocess
import sys
from datetime import date
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import duckdb
import pytest

from reconcile import ledger
from reconcile.errors import ConfigError, InvariantError
from reconcile.ledger import Revision, Shelf
from reconcile.period import Period

OCTOBER = Period.parse("2026-10")


def build(shelf: Shelf, said: str, period: Period = OCTOBER) -> None:
    """A ledger beside the shelf that says one thing."""
    with ledger.building(shelf.aside(period), shelf.folder / "tmp") as connection:
        connection.execute("create table source.said as select ? as said", [said])


def says(path: Path) -> str:
    with ledger.reading(path) as connection:
        return connection.execute("select said from source.said").fetchall()[0][0]


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path / "ledger")


# Opening


def test_a_built_ledger_is_one_file(shelf):
    """When it is built there is no write-ahead log and no scratch folder, and it can be read without being written."""
    build(shelf, "first")
    assert [path.name for path in shelf.folder.iterdir()] == ["2026-10.building"]
    shelf.aside(OCTOBER).chmod(0o400)
    assert says(shelf.aside(OCTOBER)) == "first"


def test_every_schema_and_utc_are_there(shelf):
    """The stages find their schemas, and an instant with an offset becomes UTC."""
    with ledger.building(shelf.aside(OCTOBER), shelf.folder / "tmp") as connection:
        schemas = connection.execute("select schema_name from duckdb_schemas() where not internal").fetchall()
        assert {name for (name,) in schemas} >= set(ledger.SCHEMAS)
        instant = connection.execute("select '2026-10-01T01:00:00+02:00'::timestamptz::timestamp::varchar").fetchone()
        assert instant == ("2026-09-30 23:00:00",)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, InvariantError("a", "b", "c")])
def test_a_ledger_whose_building_fails_leaves_nothing(shelf, error):
    """Whatever ends the building, the half-built file goes and the error stays what it was."""
    with (
        pytest.raises(error if isinstance(error, type) else type(error)),
        ledger.building(shelf.aside(OCTOBER), shelf.folder / "tmp"),
    ):
        raise error
    assert list(shelf.folder.iterdir()) == []


def test_ctrl_c_in_the_middle_of_a_query_is_ctrl_c(shelf):
    """DuckDB tells an interruption as a RuntimeError; every other RuntimeError stays one."""
    with (
        pytest.raises(KeyboardInterrupt),
        ledger.building(shelf.aside(OCTOBER), shelf.folder / "tmp"),
    ):
        raise RuntimeError("Query interrupted")
    with (
        pytest.raises(RuntimeError, match="something else"),
        ledger.building(shelf.aside(OCTOBER), shelf.folder / "tmp"),
    ):
        raise RuntimeError("something else")


@pytest.mark.parametrize("kind", [duckdb.IOException, duckdb.TransactionException, duckdb.FatalException])
def test_a_full_disk_is_an_expected_failure(shelf, kind):
    """A ledger that cannot be written is exit 2, with DuckDB's reason, whichever error tells it."""
    with (
        pytest.raises(ConfigError, match="No space left"),
        ledger.building(shelf.aside(OCTOBER), shelf.folder / "tmp"),
    ):
        raise kind("Could not write file: No space left on device\nmore")
    assert list(shelf.folder.iterdir()) == []


def test_an_error_of_ours_in_sql_stays_one(shelf):
    """What is wrong in a stage's SQL is a bug, not a full disk."""
    with (
        pytest.raises(duckdb.CatalogException),
        ledger.building(shelf.aside(OCTOBER), shelf.folder / "tmp") as connection,
    ):
        connection.execute("select * from nowhere")


def test_what_is_no_ledger_is_told(tmp_path, shelf):
    """A damaged, empty or missing file is exit 4."""
    for content in (b"no ledger" * 1000, b""):
        (tmp_path / "x.duckdb").write_bytes(content)
        with (
            pytest.raises(InvariantError, match=r"x\.duckdb: cannot be opened as a ledger"),
            ledger.reading(tmp_path / "x.duckdb"),
        ):
            pass
    with pytest.raises(InvariantError), ledger.reading(tmp_path / "nowhere.duckdb"):
        pass


# Reading and writing


def test_rows_keep_decimals(shelf):
    """Amounts leave as Decimal with all their digits, days as dates."""
    connection = duckdb.connect()
    columns = {"day": "DATE", "billed_usd": "DECIMAL(38, 12)", "quantity": "BIGINT", "name": "VARCHAR"}
    row = (date(2026, 10, 1), Decimal("12345678901234567890.123456789012"), 2**62, None)
    ledger.insert(connection, "t", columns, [row])
    assert ledger.rows(connection, "select * from t where quantity > ?", [1]) == [dict(zip(columns, row, strict=True))]


def test_insert_replaces_and_takes_many_rows(shelf):
    """Any number of rows goes in, also none; what the table held before is gone."""
    connection = duckdb.connect()
    ledger.insert(connection, "t", {"a": "INTEGER", "b": "VARCHAR"}, ((number, "x") for number in range(25_000)))
    assert connection.execute("select count(*), sum(a) from t").fetchall() == [(25_000, 312_487_500)]
    ledger.insert(connection, "t", {"a": "INTEGER"}, [])
    assert connection.execute("select count(*) from t").fetchall() == [(0,)]


def test_a_broken_check_is_told_with_its_evidence():
    """Empty views pass; the first view with rows is named, with at most three of them."""
    connection = duckdb.connect()
    ledger.prepare(connection)
    connection.execute("create view checks.fine as select 1 as a where false")
    ledger.check(connection)
    connection.execute("create view checks.lost as select range as day, 1.50 as billed_usd from range(5)")
    with pytest.raises(InvariantError) as raised:
        ledger.check(connection)
    assert raised.value.where == "checks.lost"
    assert raised.value.what == (
        "expected no rows, got day=0, billed_usd=1.50; day=1, billed_usd=1.50; day=2, billed_usd=1.50"
    )


# Revisions


def test_the_newest_revision_counts(shelf):
    """r10 comes after r9; other months and other files do not count."""
    assert (shelf.newest(OCTOBER), shelf.periods()) == (None, [])
    for number in (1, 9, 10):
        build(shelf, f"r{number}")
        shelf.publish(OCTOBER, number)
    build(shelf, "september", OCTOBER.previous)
    shelf.publish(OCTOBER.previous, 1)
    for name in ("2026-10.r11.duckdb.bak", "2026-10.rX.duckdb", "2026-13.duckdb", "notes.duckdb", "2026-11.building"):
        (shelf.folder / name).write_bytes(b"")
    assert shelf.newest(OCTOBER) == Revision(10, shelf.folder / "2026-10.r10.duckdb")
    assert shelf.periods() == [OCTOBER.previous, OCTOBER]
    assert says(shelf.link(OCTOBER)) == "r10"
    assert says(shelf.folder / "2026-10.r1.duckdb") == "r1"


def test_the_link_is_the_newest_revision(shelf):
    """It is the same file, for the owner only; a reader of the former one goes on reading that."""
    build(shelf, "first")
    shelf.publish(OCTOBER, 1)
    with shelf.link(OCTOBER).open("rb") as reader:
        build(shelf, "second")
        second = shelf.publish(OCTOBER, 2)
        assert sha256(reader.read()).digest() == sha256((shelf.folder / "2026-10.r1.duckdb").read_bytes()).digest()
    assert shelf.link(OCTOBER).samefile(second.path)
    assert stat.S_IMODE(second.path.stat().st_mode) == 0o600


def test_a_disk_without_hard_links_gets_a_copy(shelf, monkeypatch):
    """Where links cannot be made the newest revision is copied, and copied anew only when it is another one."""

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    build(shelf, "first")
    shelf.publish(OCTOBER, 1)
    copied = shelf.link(OCTOBER).stat()
    assert (stat.S_IMODE(copied.st_mode), copied.st_nlink) == (0o600, 1)
    shelf.tidy()
    assert shelf.link(OCTOBER).stat().st_ino == copied.st_ino
    build(shelf, "second")
    shelf.publish(OCTOBER, 2)
    assert says(shelf.link(OCTOBER)) == "second"


def test_tidying_brings_a_lost_link_back(shelf):
    """A link that is missing, or shows an earlier revision, follows; what was half built goes."""
    build(shelf, "first")
    first = shelf.publish(OCTOBER, 1)
    build(shelf, "second")
    shelf.publish(OCTOBER, 2)
    shelf.link(OCTOBER).unlink()
    os.link(first.path, shelf.link(OCTOBER))
    for name in ("2026-11.building", "2026-11.building.wal", "2026-10.link"):
        (shelf.folder / name).write_bytes(b"half")
    shelf.tidy()
    assert says(shelf.link(OCTOBER)) == "second"
    assert sorted(path.name for path in shelf.folder.iterdir()) == [
        "2026-10.duckdb",
        "2026-10.r1.duckdb",
        "2026-10.r2.duckdb",
    ]


def test_no_progress_bar_beside_the_output():
    """A long query draws no bar on stdout, also where DuckDB takes a worker process for a session."""
    asked = """
import duckdb
from reconcile.ledger import prepare
with duckdb.connect() as connection:
    prepare(connection)
    print(connection.execute("select current_setting('enable_progress_bar')").fetchall())
"""
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)  # noqa: S603 - our own
    assert told.stdout == "[(False,)]\n"
