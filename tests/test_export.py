"""`reconcile export`: files of a published month, for their owner, the same each time, or a line that says why not."""

import json
import shutil
from decimal import Decimal
from typing import get_args

import duckdb
import pytest
from export_month import busy
from month import closed, write_config

from reconcile import cli, ledger, render, run
from reconcile.config import load_config
from reconcile.errors import ConfigError
from reconcile.export import KINDS, Kind, export
from reconcile.export.files import whole
from reconcile.register import Register

PUBLIC = ("summary", "cell", "usage", "bridge", "discrepancy", "allocation", "chargeback")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a config and one published month."""
    folder = tmp_path_factory.mktemp("home")
    with busy(folder):
        pass
    shelf = folder / "var" / "ledger"
    shelf.mkdir(parents=True)
    shutil.move(folder / "built.duckdb", shelf / "2026-10.r1.duckdb")
    return folder


def ran(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = cli.invoke([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_kinds_are_those_of_the_command():
    """What the command offers is what can be written."""
    assert get_args(Kind) == KINDS == cli.EXPORTS


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ledger_gives_the_same_bytes(home, tmp_path, kind, capsys):
    """Twice the same files, mode 0600, their paths printed, the ledger as it was."""
    published = home / "var" / "ledger" / "2026-10.r1.duckdb"
    before = published.read_bytes()
    for out in ("one", "two"):
        code, said, _ = ran(
            capsys, "export", kind, "-c", home / "config.yaml", "--month", "2026-10", "--out", tmp_path / out
        )
        assert code == 0
        written = [line.removeprefix("File  ") for line in said.splitlines()]
        assert sorted(written) == sorted(str(path) for path in (tmp_path / out).iterdir())
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "one").iterdir()} == {0o600}
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    assert published.read_bytes() == before


def test_files_go_beside_the_ledger(home, capsys):
    """Without --out to exports/<month>/ of data_dir; --json says which, and what to know about them."""
    code, said, _ = ran(capsys, "export", "journal", "-c", home / "config.yaml", "--month", "2026-10", "--json")
    answer = json.loads(said)
    assert code == answer["exit"] == 0
    assert (answer["period"], answer["revision"]) == ("2026-10", 1)
    assert answer["files"] == [str(home / "var" / "exports" / "2026-10" / "2026-10-journal-generic.csv")]
    assert answer["notes"][-1] == "r1 was not closed with --final: it may change"
    assert (home / "var" / "exports").stat().st_mode & 0o777 == 0o700


def test_one_file_may_be_named(home, tmp_path, capsys):
    """What is one file goes to the path itself where that ends alike."""
    target = tmp_path / "deep" / "mine.xlsx"
    code, said, _ = ran(capsys, "export", "xlsx", "-c", home / "config.yaml", "--month", "2026-10", "--out", target)
    assert (code, said) == (0, f"File  {target}\n")
    assert target.is_file()


def test_csv_is_that_of_the_reports(home, tmp_path):
    """Byte for byte what a close writes beside the pages, for every view."""
    with ledger.reading(home / "var" / "ledger" / "2026-10.r1.duckdb") as connection:
        render.render(connection, tmp_path / "reports")
        files = export(connection, "csv", tmp_path / "csv", load_config(home / "config.yaml")).files
    assert {path.stem for path in files} >= set(PUBLIC)
    assert bytes_of(tmp_path / "csv") == {
        name: content for name, content in bytes_of_files(tmp_path / "reports").items() if name.endswith(".csv")
    }


def bytes_of_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_parquet_keeps_types_and_rows(home, tmp_path):
    """Amounts are decimals, quantities BIGINT, nothing became a double but the ratios, and no row is lost."""
    ratios = {"capture_rate", "difference_share", "billed_rate", "share", "cache_hit_rate"}
    with ledger.reading(home / "var" / "ledger" / "2026-10.r1.duckdb") as connection:
        files = export(connection, "parquet", tmp_path, load_config(home / "config.yaml")).files
        for path in files:
            view = f'report."{path.stem}"'
            kinds = connection.execute(f"describe from '{path}'").fetchall()
            assert {name for name, kind, *_ in kinds if kind == "DOUBLE"} <= ratios
            assert [kind[:2] for kind in kinds] == [
                kind[:2] for kind in connection.execute(f"describe {view}").fetchall()
            ]
            assert connection.execute(f"from '{path}'").fetchall() == connection.execute(f"from {view}").fetchall()
    assert {path.stem for path in files} >= set(PUBLIC)


def test_amounts_are_exact_in_csv(home, tmp_path):
    """A sum over the file is the ledger's, to the last decimal."""
    with ledger.reading(home / "var" / "ledger" / "2026-10.r1.duckdb") as connection:
        export(connection, "csv", tmp_path, load_config(home / "config.yaml"))
        (billed_usd,) = connection.execute("select billed_usd from report.summary").fetchone()
    query = f"select sum(amount_usd::decimal(38, 12)) from read_csv('{tmp_path}/allocation.csv', all_varchar = true)"
    assert duckdb.execute(query).fetchone() == (billed_usd,)
    assert billed_usd == Decimal("0.389354289010")


def test_a_month_without_any_charge(tmp_path):
    """Nothing used, nothing billed: every file is there, with its headings and nothing below them."""
    config = write_config(tmp_path, request_logs=[])
    with closed(tmp_path, [], [], [], config=config) as connection:
        for kind in KINDS:
            assert all(path.stat().st_size for path in export(connection, kind, tmp_path / "out", config).files)
    for name in ("2026-10-focus-1.4.csv", "2026-10-journal-generic.csv"):
        assert len((tmp_path / "out" / name).read_text().splitlines()) == 1


def test_a_month_that_was_not_closed(home, capsys):
    """One line with the command to run; 3, since the source of the files is not there."""
    code, said, err = ran(capsys, "export", "csv", "-c", home / "config.yaml", "--month", "2026-09")
    assert (code, said) == (3, "")
    assert err == (
        f"{home / 'var' / 'ledger'}: holds no revision of 2026-09, expected one. "
        "Run `reconcile close --month 2026-09` first.\n"
    )


def test_a_kind_or_release_that_does_not_exist(home, capsys):
    """2, with what there is."""
    for arguments in (["pdf"], ["focus", "--focus-version", "1.9"]):
        code, _, err = ran(capsys, "export", *arguments, "-c", home / "config.yaml", "--month", "2026-10")
        assert code == 2
        assert "is not one of" in err


def test_a_place_that_cannot_be_written(home, tmp_path, capsys):
    """2, with the path; what was there stays."""
    (tmp_path / "file").write_text("mine")
    code, _, err = ran(
        capsys, "export", "csv", "-c", home / "config.yaml", "--month", "2026-10", "--out", tmp_path / "file" / "folder"
    )
    assert code == 2
    assert "cannot be written (Not a directory)" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_is_whole_or_not_there(tmp_path):
    """A failure while it is written leaves the former one, and no rest of the new one."""
    target = tmp_path / "a.csv"
    target.write_text("former")

    def cut_off():
        with whole(target) as aside:
            aside.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match="No space left"):
        cut_off()
    assert bytes_of(tmp_path) == {"a.csv": b"former"}


def test_exports_are_offered_for_a_final_month_without_a_note(home, tmp_path):
    """Closed for good, a revision no longer changes, and nothing is said."""
    register = Register(home / "var" / "register.jsonl")
    register.append("close", period="2026-10", revision=1, final=True, at="2026-11-04T06:00:00Z")
    try:
        written = run.export(
            load_config(home / "config.yaml"), "csv", period=run.Period.parse("2026-10"), out=tmp_path / "out"
        )
    finally:
        register.path.unlink()
    assert written.notes == ()
